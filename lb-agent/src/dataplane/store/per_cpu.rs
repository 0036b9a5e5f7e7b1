//! Per-CPU counters, read by the CLI.

use std::os::fd::OwnedFd;

use aya::Pod;
use aya::maps::{Map, MapData, MapError, PerCpuArray};

use super::super::{DataplaneError, Pins};
use super::{Access, PinnedMap};

/// A pinned per-CPU array, open for reading.
pub struct PerCpu<T: Pod> {
    name: &'static str,
    array: PerCpuArray<MapData, T>,
}

impl<T: Pod> PerCpu<T> {
    /// Opens the array pinned under this name.
    pub fn open(pins: &Pins, name: &'static str) -> Result<Self, DataplaneError> {
        Self::of(name, PinnedMap::open(pins, name, Access::Read)?.fd)
    }

    /// The array behind a descriptor.
    pub(super) fn of(name: &'static str, fd: OwnedFd) -> Result<Self, DataplaneError> {
        let array = MapData::from_fd(fd)
            .and_then(Map::from_map_data)
            .and_then(PerCpuArray::try_from)
            .map_err(|source| unusable(name, source))?;
        Ok(Self { name, array })
    }

    /// One row: a value for each CPU. None are there beyond the end of the array.
    pub fn get(&self, index: u32) -> Result<Vec<T>, DataplaneError> {
        match self.array.get(&index, 0) {
            Ok(values) => Ok(values.iter().copied().collect()),
            Err(MapError::OutOfBounds { .. }) => Ok(Vec::new()),
            Err(source) => Err(unusable(self.name, source)),
        }
    }
}

fn unusable(name: &str, source: MapError) -> DataplaneError {
    DataplaneError::Map {
        map: name.to_owned(),
        source,
    }
}
