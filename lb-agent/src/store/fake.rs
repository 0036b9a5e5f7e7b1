//! The maps in memory, for tests without a kernel.

use std::any::Any;
use std::collections::BTreeMap;

use lb_common::ServiceStats;

use super::{Kind, MapStore, Rows, StoreError, Table};

/// Rows that a map can hold unless [`FakeStore::with_capacity`] says otherwise.
const CAPACITY: usize = 1 << 20;

/// Maps in memory, with the kernel's rules: arrays have every row, a full map takes no more.
#[derive(Debug, Default)]
pub struct FakeStore {
    rows: Rows,
    capacities: BTreeMap<&'static str, usize>,
    stats: BTreeMap<u32, ServiceStats>,
}

impl FakeStore {
    /// With one map of this size.
    #[must_use]
    pub fn with_capacity<T: Table>(mut self, rows: usize) -> Self {
        self.resize::<T>(rows);
        self
    }

    /// Makes one map hold this many rows from now on.
    pub fn resize<T: Table>(&mut self, rows: usize) {
        self.capacities.insert(T::NAME, rows);
    }

    /// The traffic counters of a service id.
    pub fn stats(&mut self, service: u32) -> &mut ServiceStats {
        self.stats.entry(service).or_default()
    }

    /// What it holds.
    pub fn contents(&self) -> &Rows {
        &self.rows
    }

    fn size<T: Table>(&self) -> usize {
        self.capacities.get(T::NAME).copied().unwrap_or(CAPACITY)
    }

    fn has_room<T: Table>(&self, key: &T::Key) -> bool {
        match T::KIND {
            Kind::Hash => self.rows.count::<T>() < self.size::<T>() || self.rows.get::<T>(key).is_some(),
            Kind::Array => {
                let index = (key as &dyn Any).downcast_ref::<u32>();
                index.is_some_and(|index| (*index as usize) < self.size::<T>())
            }
        }
    }
}

impl MapStore for FakeStore {
    fn for_each_row<T: Table>(&self, take: &mut dyn FnMut(T::Key, T::Value)) -> Result<(), StoreError> {
        self.rows.iter::<T>().for_each(|(key, value)| take(key, *value));
        Ok(())
    }

    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError> {
        if !self.has_room::<T>(key) {
            return Err(StoreError::Full {
                map: T::NAME,
                capacity: self.size::<T>(),
            });
        }
        self.rows.put::<T>(key, Some(value));
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError> {
        self.rows.put::<T>(key, None);
        Ok(())
    }

    fn capacity<T: Table>(&self) -> Result<usize, StoreError> {
        Ok(self.size::<T>())
    }

    fn reset_stats(&mut self, service: u32) -> Result<(), StoreError> {
        *self.stats(service) = ServiceStats::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Device, Slot, V4};

    use super::*;
    use crate::store::{DevicesTable, Slots};

    #[test]
    fn a_full_hash_map_still_takes_rows_that_it_has() {
        let mut store = FakeStore::default().with_capacity::<DevicesTable>(1);
        store.set::<DevicesTable>(&7, &Device::default()).unwrap();
        store
            .set::<DevicesTable>(
                &7,
                &Device {
                    role: 1,
                    ..Device::default()
                },
            )
            .unwrap();
        assert!(matches!(
            store.set::<DevicesTable>(&8, &Device::default()),
            Err(StoreError::Full { capacity: 1, .. })
        ));
        store.delete::<DevicesTable>(&7).unwrap();
        store.set::<DevicesTable>(&8, &Device::default()).unwrap();
    }

    #[test]
    fn an_array_ends_at_its_size() {
        let mut store = FakeStore::default().with_capacity::<Slots<V4>>(2);
        let slot = Slot {
            generation: 1,
            backend: 0,
        };
        store.set::<Slots<V4>>(&1, &slot).unwrap();
        assert!(store.set::<Slots<V4>>(&2, &slot).is_err());
    }
}
