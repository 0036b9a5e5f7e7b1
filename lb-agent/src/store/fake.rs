//! The maps in memory, for tests without a kernel.

use std::collections::BTreeMap;

use super::{Kind, MapStore, StoreError, Table};

/// Maps in memory, with the kernel's rules: arrays have every row, a full map takes no more.
#[derive(Debug, Default)]
pub struct FakeStore {
    maps: BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>,
    capacities: BTreeMap<&'static str, usize>,
}
