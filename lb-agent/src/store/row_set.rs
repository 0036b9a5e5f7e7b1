//! The rows of one table in memory, in the shape that suits the kernel's kind of map.

use std::collections::BTreeMap;
use std::fmt::Debug;

/// The rows of one table.
pub trait RowSet<K, V>: Default + Send + 'static {
    /// The row under `key`.
    fn row(&self, key: &K) -> Option<&V>;

    /// Puts a row in its place, or takes it out.
    fn put(&mut self, key: &K, value: Option<&V>);

    /// Every row, in order of the keys.
    fn all<'a>(&'a self) -> impl Iterator<Item = (K, &'a V)>
    where
        V: 'a;
}

/// The rows of an array, up to the last one that is not all zero. There may be millions, so they stand side by side.
#[derive(Clone, Debug)]
pub struct ArrayRows<V> {
    rows: Vec<V>,
    zero: V,
}

impl<K, V> RowSet<K, V> for BTreeMap<K, V>
where
    K: Copy + Ord + Send + 'static,
    V: Copy + Send + 'static,
{
    fn row(&self, key: &K) -> Option<&V> {
        self.get(key)
    }

    fn put(&mut self, key: &K, value: Option<&V>) {
        match value {
            Some(value) => self.insert(*key, *value),
            None => self.remove(key),
        };
    }

    fn all<'a>(&'a self) -> impl Iterator<Item = (K, &'a V)>
    where
        V: 'a,
    {
        self.iter().map(|(key, value)| (*key, value))
    }
}

impl<V> RowSet<u32, V> for ArrayRows<V>
where
    V: Copy + Default + PartialEq + Debug + Send + 'static,
{
    fn row(&self, key: &u32) -> Option<&V> {
        self.rows.get(*key as usize).filter(|row| **row != self.zero)
    }

    fn put(&mut self, key: &u32, value: Option<&V>) {
        let (place, value) = (*key as usize, value.copied().unwrap_or(self.zero));
        if place >= self.rows.len() && value != self.zero {
            self.rows.resize(place + 1, self.zero);
        }
        if let Some(row) = self.rows.get_mut(place) {
            *row = value;
        }
    }

    fn all<'a>(&'a self) -> impl Iterator<Item = (u32, &'a V)>
    where
        V: 'a,
    {
        (0..).zip(&self.rows).filter(|(_, row)| **row != self.zero)
    }
}

impl<V: Default> Default for ArrayRows<V> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            zero: V::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_array_only_rows_that_are_not_zero_are_there() {
        let mut rows = ArrayRows::default();
        for (key, value) in [(3, 7_u64), (1, 5), (2, 0), (9, 0), (4, 8)] {
            rows.put(&key, Some(&value));
        }
        rows.put(&4, None);
        rows.put(&1_000_000, None);
        assert_eq!(rows.all().collect::<Vec<_>>(), [(1, &5), (3, &7)]);
        assert_eq!(
            (rows.row(&3), rows.row(&2), rows.row(&4), rows.row(&99)),
            (Some(&7), None, None, None)
        );
        assert_eq!(rows.rows.len(), 5);
    }
}
