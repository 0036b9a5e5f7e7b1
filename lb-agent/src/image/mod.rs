//! From what the maps should say to their exact rows: ids, epochs, generations and places of slots.
//!
//! Nothing here writes. What is in use is decided by the rows that the maps really hold, so that a write that failed
//! leaves nothing behind.

mod family;
mod ids;
mod names;
mod pods;
pub mod render;
mod slots;

use std::collections::{BTreeMap, BTreeSet};

use lb_common::layout::map;
use lb_common::{ServiceName, V4, V6};
use thiserror::Error;

use crate::desired::DesiredPort;
use crate::model::{ObjectName, PortName};
use crate::store::{MapStore, Names, Rows, StoreError, remedy};

use family::FamilyImage;
pub use family::{HalfRows, holds};
pub use ids::IndexPool;
pub use names::{name_text, service_name};
pub use slots::SlotRegions;

/// Which numbers belong to which port of which Service.
#[derive(Debug)]
pub struct Image {
    names: BTreeMap<PortName, u32>,
    ids: IndexPool,
    generations: Generations,
    v4: FamilyImage<V4>,
    v6: FamilyImage<V6>,
}

/// The rows of one port of a Service.
#[derive(Debug)]
pub struct PortRows {
    /// Its id.
    pub id: u32,
    /// Its row of names, unless it is gone.
    pub name: Option<ServiceName>,
    /// Its rows of IPv4.
    pub v4: HalfRows<V4>,
    /// Its rows of IPv6.
    pub v6: HalfRows<V6>,
}

/// The maps have no room for a port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoRoom {
    /// Every service id is in use.
    #[error("every service id is in use; {}", remedy(map::NAMES))]
    Ids,
    /// No row of the map of backends can be taken.
    #[error("map {map} is full; {}", remedy(.map))]
    Backends {
        /// The map.
        map: &'static str,
    },
    /// There are not enough neighbouring slots.
    #[error("map {map} has no {count} free slots in one piece; {}", remedy(.map))]
    Slots {
        /// The map.
        map: &'static str,
        /// How many were needed.
        count: usize,
    },
}

/// Numbers for writes of slot regions, each given once.
#[derive(Debug)]
struct Generations {
    last: u32,
}

impl Image {
    /// Finds out from the rows of a store what is in use.
    pub fn adopt(store: &impl MapStore, rows: &Rows) -> Result<Self, StoreError> {
        let capacity = u32::try_from(store.capacity::<Names>()?).unwrap_or(u32::MAX);
        let v4 = FamilyImage::adopt(store, rows)?;
        let v6 = FamilyImage::adopt(store, rows)?;
        let last = FamilyImage::<V4>::last_generation(rows).max(FamilyImage::<V6>::last_generation(rows));
        let (names, ids) = (BTreeMap::new(), IndexPool::new(1, capacity.saturating_add(1)));
        let mut image = Self {
            names,
            ids,
            generations: Generations { last },
            v4,
            v6,
        };
        for id in image.used_ids(rows) {
            image.ids.adopt(id);
        }
        for (id, row) in rows.iter::<Names>() {
            if let Some(name) = PortName::parse(name_text(row)) {
                image.names.entry(name).or_insert(id);
            }
        }
        Ok(image)
    }

    /// The ports of a Service that have an id.
    pub fn ports_of(&self, service: &ObjectName) -> Vec<PortName> {
        let names = self
            .names
            .range(PortName::first_of(service)..)
            .map(|(name, _)| name);
        names
            .take_while(|name| name.service == *service)
            .cloned()
            .collect()
    }

    /// Every Service that has ids.
    pub fn services(&self) -> impl Iterator<Item = &ObjectName> {
        self.names.keys().map(|name| &name.service)
    }

    /// Ids that rows speak of, but that no name leads to: left over from an agent that was killed.
    pub fn strays(&self, rows: &Rows) -> Vec<u32> {
        let known: BTreeSet<u32> = self.names.values().copied().collect();
        self.used_ids(rows).difference(&known).copied().collect()
    }

    /// The id of a port.
    pub fn id(&self, name: &PortName) -> Option<u32> {
        self.names.get(name).copied()
    }

    /// Gives a port an id: one never used, or else the one that was given back first. Returns the rows in which its
    /// former holder must be forgotten before anything is written for the new one.
    pub fn take_id(&mut self, name: &PortName, rows: &Rows) -> Result<PortRows, NoRoom> {
        let id = self.ids.take().ok_or(NoRoom::Ids)?;
        self.names.insert(name.clone(), id);
        Ok(PortRows {
            id,
            name: None,
            v4: self.v4.vacate(id, rows),
            v6: self.v6.vacate(id, rows),
        })
    }

    /// The rows that a port should have, with indices and slots for what is new.
    pub fn assign(&mut self, id: u32, port: &DesiredPort, rows: &Rows) -> Result<PortRows, NoRoom> {
        let v4 = self.v4.assign(id, &port.v4, rows, &mut self.generations)?;
        let v6 = self.v6.assign(id, &port.v6, rows, &mut self.generations)?;
        Ok(PortRows {
            id,
            name: Some(service_name(&port.name)),
            v4,
            v6,
        })
    }

    /// The rows that are left of a port that is gone.
    pub fn retire(&self, id: u32, rows: &Rows) -> PortRows {
        PortRows {
            id,
            name: None,
            v4: self.v4.retire(id, rows),
            v6: self.v6.retire(id, rows),
        }
    }

    /// Rows of backends that are nobody's but do not say so yet: left over by an agent that was killed, or by a write
    /// that failed. They are in no [`Self::settle`].
    pub fn cast_off(&mut self, rows: &Rows) -> Vec<PortRows> {
        let name = |id: u32| rows.get::<Names>(&id).copied();
        let v4 = self.v4.cast_off(rows).into_iter();
        let v4 = v4.map(|(id, v4)| PortRows {
            id,
            name: name(id),
            v4,
            v6: HalfRows::default(),
        });
        let v6 = self.v6.cast_off(rows).into_iter();
        let v6 = v6.map(|(id, v6)| PortRows {
            id,
            name: name(id),
            v4: HalfRows::default(),
            v6,
        });
        v4.chain(v6).collect()
    }

    /// Gives back what, after the writes, the maps hold no more of a port; `name` is what it was called, if known.
    /// Removed backends are no reason to keep its id, only to take others first.
    pub fn settle(&mut self, id: u32, name: Option<&PortName>, rows: &Rows) {
        let left = self.v4.settle(id, rows) | self.v6.settle(id, rows) | rows.get::<Names>(&id).is_some();
        if !left {
            if let Some(name) = name {
                self.names.remove(name);
            }
            self.ids.rest(id);
        }
    }

    /// Every id that any row speaks of.
    fn used_ids(&self, rows: &Rows) -> BTreeSet<u32> {
        let named = rows.iter::<Names>().map(|(id, _)| id);
        named
            .chain(self.v4.services())
            .chain(self.v6.services())
            .collect()
    }
}

impl Generations {
    fn next(&mut self) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.last
    }
}
