//! The pinned maps as a [`MapStore`].

mod flows;
mod memory;
mod per_cpu;
mod sys;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, MapInfo, MapType};
use aya::util::nr_cpus;
use aya_obj::generated::BPF_F_MMAPABLE;
use lb_common::ServiceStats;
use lb_common::layout::map;

use super::{DataplaneError, Pins};
use crate::store::{Kind, MapStore, StoreError, Table};

use memory::Memory;
pub use per_cpu::PerCpu;
pub(super) use sys::detach_link;

/// So many rows are written by a system call each: mapping them takes no less time.
const FEW: usize = 16;

/// What a map is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Looking only.
    Read,
    /// Looking and changing.
    ReadWrite,
}

/// The pinned maps.
#[derive(Debug)]
pub struct KernelStore {
    maps: BTreeMap<&'static str, PinnedMap>,
}

/// One pinned map, open.
#[derive(Debug)]
pub struct PinnedMap {
    fd: OwnedFd,
    id: u32,
    rows: u32,
    key: usize,
    value: usize,
    array: bool,
    /// The memory of an array that may be mapped.
    memory: Option<Memory>,
}

impl KernelStore {
    /// Opens every map that is pinned.
    pub fn open(pins: &Pins, access: Access) -> Result<Self, DataplaneError> {
        let open = |name| Ok((name, PinnedMap::open(pins, name, access)?));
        Ok(Self {
            maps: map::ALL
                .into_iter()
                .map(open)
                .collect::<Result<_, DataplaneError>>()?,
        })
    }

    /// The maps of an object that was loaded, pinned or not.
    pub fn of_object(ebpf: &Ebpf, access: Access) -> Result<Self, DataplaneError> {
        let open = |name| {
            let map = ebpf.map(name).ok_or_else(|| DataplaneError::Incomplete {
                what: format!("map {name}"),
            })?;
            Ok((name, PinnedMap::of(name, map, access)?))
        };
        Ok(Self {
            maps: map::ALL
                .into_iter()
                .map(open)
                .collect::<Result<_, DataplaneError>>()?,
        })
    }

    /// A per-CPU array, for reading.
    pub fn per_cpu<T: aya::Pod>(&self, name: &'static str) -> Result<PerCpu<T>, DataplaneError> {
        let map = self.maps.get(name).ok_or_else(|| DataplaneError::Incomplete {
            what: format!("map {name}"),
        })?;
        let fd = map
            .fd
            .try_clone()
            .map_err(|source| map_error(name, source.into()))?;
        PerCpu::of(name, fd)
    }

    /// Fails when its maps are not those that are pinned, or links can be pinned no more: what is written into these maps
    /// then reaches no program that stays.
    pub fn check_pins(&self, pins: &Pins) -> Result<(), DataplaneError> {
        for (name, map) in &self.maps {
            let path = pins.map(name);
            if !MapInfo::from_pin(&path).is_ok_and(|pinned| pinned.id() == map.id) {
                return Err(DataplaneError::Unpinned { path });
            }
        }
        pins.check_links()
    }

    /// Neighbouring rows of an array, without a look at the others.
    pub fn some_rows<T: Table<Key = u32>>(
        &self,
        first: u32,
        count: u32,
    ) -> Result<Vec<T::Value>, StoreError> {
        let map = self.map::<T>()?;
        let mut rows = Vec::with_capacity(count as usize);
        sys::for_each_of(map.fd.as_fd(), first, count, map.value, |row| {
            rows.extend(sys::from_bytes::<T::Value>(row));
        })
        .map_err(|source| StoreError::Kernel {
            call: "BPF_MAP_LOOKUP_BATCH",
            map: T::NAME,
            source,
        })?;
        Ok(rows)
    }

    /// The map of a table, if its rows are what the table says.
    fn map<T: Table>(&self) -> Result<&PinnedMap, StoreError> {
        self.map_of(T::NAME, size_of::<T::Key>(), size_of::<T::Value>())
    }

    /// The map of that name, if its rows are of these sizes.
    fn map_of(&self, name: &'static str, key: usize, value: usize) -> Result<&PinnedMap, StoreError> {
        let unusable = |why: String| StoreError::Unusable { map: name, why };
        let map = self
            .maps
            .get(name)
            .ok_or_else(|| unusable("it is not pinned".to_owned()))?;
        if (map.key, map.value) == (key, value) {
            Ok(map)
        } else {
            Err(unusable(format!(
                "its rows are of {} and {} bytes, not {key} and {value}",
                map.key, map.value
            )))
        }
    }
}

impl PinnedMap {
    /// Opens the map pinned under this name.
    pub fn open(pins: &Pins, name: &str, access: Access) -> Result<Self, DataplaneError> {
        let path = pins.map(name);
        let fd = sys::open_pin(&path, access == Access::Read).map_err(|source| DataplaneError::Pin {
            action: "open the map",
            path: path.clone(),
            source,
        })?;
        Self::from_fd(&path.display().to_string(), fd, access)
    }

    /// The map of a loaded object.
    fn of(name: &str, map: &Map, access: Access) -> Result<Self, DataplaneError> {
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)) = map
        else {
            return Err(DataplaneError::Incomplete {
                what: format!("map {name} of a kind that is known"),
            });
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| map_error(name, source.into()))?;
        Self::from_fd(name, fd, access)
    }

    fn from_fd(name: &str, fd: OwnedFd, access: Access) -> Result<Self, DataplaneError> {
        let error = |source| map_error(name, source);
        let copy = fd.try_clone().map_err(|source| error(source.into()))?;
        let info = MapData::from_fd(copy).and_then(|map| map.info()).map_err(error)?;
        let array = info.map_type().map_err(error)? == MapType::Array;
        let (rows, value) = (info.max_entries(), info.value_size() as usize);
        // The kernel maps no memory for a descriptor that is good for reading only.
        let mappable = array && access == Access::ReadWrite && info.map_flags() & BPF_F_MMAPABLE != 0;
        let memory = mappable.then(|| Memory::new(rows, value));
        Ok(Self {
            fd,
            id: info.id(),
            rows,
            key: info.key_size() as usize,
            value,
            array,
            memory,
        })
    }

    /// How many rows the map can hold.
    pub fn capacity(&self) -> u32 {
        self.rows
    }

    /// How many rows a hash map holds, or how many of an array are not all zero.
    pub fn count(&self) -> io::Result<usize> {
        let mut count = 0;
        self.for_each_row(|_, _| count += 1)?;
        Ok(count)
    }

    /// The system call that [`Self::for_each_row`] makes.
    fn reading(&self) -> &'static str {
        if self.memory.is_some() {
            "mmap"
        } else {
            "BPF_MAP_LOOKUP_BATCH"
        }
    }

    /// Calls `take` with key and value of every row; of an array with those that are not all zero.
    fn for_each_row(&self, mut take: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        if let Some(memory) = &self.memory {
            return memory.for_each_used_row(&self.fd, |index, value| take(&index.to_ne_bytes(), value));
        }
        sys::for_each_row(self.fd.as_fd(), self.key, self.value, |key, value| {
            if !self.array || value.iter().any(|byte| *byte != 0) {
                take(key, value);
            }
        })
    }
}

fn map_error(name: &str, source: MapError) -> DataplaneError {
    DataplaneError::Map {
        map: name.to_owned(),
        source,
    }
}

impl MapStore for KernelStore {
    fn for_each_row<T: Table>(&self, take: &mut dyn FnMut(T::Key, T::Value)) -> Result<(), StoreError> {
        let map = self.map::<T>()?;
        let take = |key: &[u8], value: &[u8]| {
            if let Some((key, value)) = sys::from_bytes(key).zip(sys::from_bytes(value)) {
                take(key, value);
            }
        };
        map.for_each_row(take).map_err(|source| StoreError::Kernel {
            call: map.reading(),
            map: T::NAME,
            source,
        })
    }

    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError> {
        let map = self.map::<T>()?;
        sys::update(map.fd.as_fd(), sys::bytes_of(key), sys::bytes_of(value)).map_err(|source| {
            // E2BIG: a hash map's rows are used up; ENOMEM: so is the memory.
            if source.raw_os_error() == Some(libc::E2BIG) {
                StoreError::Full {
                    map: T::NAME,
                    capacity: map.rows as usize,
                }
            } else {
                StoreError::Kernel {
                    call: "BPF_MAP_UPDATE_ELEM",
                    map: T::NAME,
                    source,
                }
            }
        })
    }

    fn set_all<T: Table<Key = u32>>(&mut self, first: u32, values: &[T::Value]) -> Result<(), StoreError> {
        let map = self.map::<T>()?;
        if let Some(memory) = map.memory.as_ref().filter(|_| values.len() > FEW) {
            return memory
                .write(&map.fd, first, values)
                .map_err(|source| StoreError::Kernel {
                    call: "mmap",
                    map: T::NAME,
                    source,
                });
        }
        (first..)
            .zip(values)
            .try_for_each(|(index, value)| self.set::<T>(&index, value))
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError> {
        let map = self.map::<T>()?;
        let failed = |call| {
            move |source| StoreError::Kernel {
                call,
                map: T::NAME,
                source,
            }
        };
        match T::KIND {
            Kind::Array => sys::update(map.fd.as_fd(), sys::bytes_of(key), &vec![0; map.value])
                .map_err(failed("BPF_MAP_UPDATE_ELEM")),
            Kind::Hash => match sys::delete(map.fd.as_fd(), sys::bytes_of(key)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(failed("BPF_MAP_DELETE_ELEM")(error))
                }
                _ => Ok(()),
            },
        }
    }

    fn capacity<T: Table>(&self) -> Result<usize, StoreError> {
        Ok(self.map::<T>()?.rows as usize)
    }

    fn reset_stats(&mut self, service: u32) -> Result<(), StoreError> {
        let failed = |source| StoreError::Kernel {
            call: "BPF_MAP_UPDATE_ELEM",
            map: map::STATS,
            source,
        };
        let cpus = nr_cpus().map_err(|(_, source)| failed(source))?;
        let map = self.map_of(map::STATS, size_of::<u32>(), size_of::<ServiceStats>())?;
        let zeros = vec![0; map.value.next_multiple_of(8) * cpus];
        sys::update(map.fd.as_fd(), sys::bytes_of(&service), &zeros).map_err(failed)
    }
}
