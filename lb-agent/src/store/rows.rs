//! Tables of typed rows in memory.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use lb_common::{V4, V6};

use super::{
    DevicesTable, FamilyTables, MapStore, Names, Policies, RowSet, SettingsTable, StoreError, Table,
};

/// The rows of any number of tables. Of an array only the rows that are not all zero are there.
#[derive(Default)]
pub struct Rows {
    /// By name, each the [`Table::Rows`] of its table.
    tables: BTreeMap<&'static str, Box<dyn Any + Send>>,
}

impl Rows {
    /// The row under `key`.
    pub fn get<T: Table>(&self, key: &T::Key) -> Option<&T::Value> {
        self.table::<T>()?.row(key)
    }

    /// The rows of a table, in order of their keys.
    pub fn iter<T: Table>(&self) -> impl Iterator<Item = (T::Key, &T::Value)> {
        self.table::<T>().into_iter().flat_map(RowSet::all)
    }

    /// How many rows a table has.
    pub fn count<T: Table>(&self) -> usize {
        self.table::<T>().map_or(0, |rows| rows.all().count())
    }

    /// Puts a row in its place, or takes it out.
    pub fn put<T: Table>(&mut self, key: &T::Key, value: Option<&T::Value>) {
        let table = self
            .tables
            .entry(T::NAME)
            .or_insert_with(|| Box::new(T::Rows::default()));
        if let Some(table) = table.downcast_mut::<T::Rows>() {
            table.put(key, value);
        }
    }

    /// Everything that the agent has written into `store`.
    pub fn of(store: &impl MapStore) -> Result<Self, StoreError> {
        let mut rows = Self::default();
        rows.read::<SettingsTable>(store)?;
        rows.read::<DevicesTable>(store)?;
        rows.read::<Names>(store)?;
        rows.read::<Policies>(store)?;
        rows.read_family::<V4>(store)?;
        rows.read_family::<V6>(store)?;
        Ok(rows)
    }

    fn read_family<F: FamilyTables>(&mut self, store: &impl MapStore) -> Result<(), StoreError> {
        self.read::<F::Services>(store)?;
        self.read::<F::Filter>(store)?;
        self.read::<F::Slots>(store)?;
        self.read::<F::Backends>(store)?;
        self.read::<F::NodeAddresses>(store)?;
        self.read::<F::Locals>(store)?;
        self.read::<F::Ranges>(store)?;
        self.read::<F::SnatAddresses>(store)?;
        self.read::<F::FamilySettings>(store)
    }

    fn read<T: Table>(&mut self, store: &impl MapStore) -> Result<(), StoreError> {
        let mut rows = T::Rows::default();
        store.for_each_row::<T>(&mut |key, value| rows.put(&key, Some(&value)))?;
        self.tables.insert(T::NAME, Box::new(rows));
        Ok(())
    }

    fn table<T: Table>(&self) -> Option<&T::Rows> {
        self.tables.get(T::NAME)?.downcast_ref()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows")
            .field("tables", &self.tables.keys())
            .finish()
    }
}
