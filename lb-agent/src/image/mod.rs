//! From what the maps should say to their exact rows: ids, epochs, generations and places of slots.
//!
//! Nothing here writes. What is in use is decided by the rows that the maps really hold, so that a write that failed
//! leaves nothing behind.

mod addresses;
mod algorithm;
mod backends;
mod family;
mod half;
mod ids;
pub mod maglev;
mod names;
mod pods;
mod regions;
pub mod render;
mod slots;
mod spread;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lb_common::layout::map;
use lb_common::{Ip4, Ip6, ServiceName, ServicePolicy, V4, V6};
use thiserror::Error;

use crate::desired::DesiredPort;
use crate::model::{ObjectName, PortName};
use crate::store::{MapStore, Names, Policies, Rows, StoreError, remedy};

pub use addresses::{AddressRow, is_address};
pub use algorithm::algorithm;
use family::FamilyImage;
pub use half::HalfRows;
pub use ids::IndexPool;
pub use names::{name_text, service_name};
pub use regions::holds;
pub use slots::SlotRegions;

/// Which numbers belong to which port of which Service.
#[derive(Debug)]
pub struct Image {
    names: BTreeMap<PortName, u32>,
    ids: IndexPool,
    generations: Generations,
    tables: Tables,
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
    /// Its times and limits.
    pub policy: ServicePolicy,
    /// Its rows of IPv4.
    pub v4: HalfRows<V4>,
    /// Its rows of IPv6.
    pub v6: HalfRows<V6>,
    /// Where a table is not what it should be.
    pub compromises: Vec<Compromise>,
}

/// What Maglev tables depend on beside endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The seed of hashes.
    pub seed: u64,
    /// The largest table that is made.
    pub max_size: u32,
}

/// A table that is smaller than it should be, for want of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("map {map} has no {wanted} free slots in one piece: {}; {}", instead(*.got), remedy(.map))]
pub struct Compromise {
    /// The map.
    pub map: &'static str,
    /// The slots that it should have.
    pub wanted: u32,
    /// The slots of the Maglev table that it has; 0 for none.
    pub got: u32,
}

/// How slots are laid out.
#[derive(Debug)]
struct Layout<'a> {
    seed: u64,
    max_table: u32,
    generations: &'a mut Generations,
    compromises: Vec<Compromise>,
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
    pub fn adopt(store: &impl MapStore, rows: &Rows, now: Instant) -> Result<Self, StoreError> {
        let capacity = u32::try_from(store.capacity::<Names>()?).unwrap_or(u32::MAX);
        let v4 = FamilyImage::adopt(store, rows, now)?;
        let v6 = FamilyImage::adopt(store, rows, now)?;
        let last = FamilyImage::<V4>::last_generation(rows).max(FamilyImage::<V6>::last_generation(rows));
        let (names, ids) = (BTreeMap::new(), IndexPool::new(1, capacity.saturating_add(1)));
        let mut image = Self {
            names,
            ids,
            generations: Generations { last },
            tables: Tables::default(),
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

    /// Makes tables from now on by `tables`. Returns whether those that are there are others.
    pub fn make_tables_by(&mut self, tables: Tables) -> bool {
        std::mem::replace(&mut self.tables, tables) != tables
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
            v4: self.v4.vacate(id, rows),
            v6: self.v6.vacate(id, rows),
            ..PortRows::as_it_is(id, rows)
        })
    }

    /// The rows that a port should have, with indices and slots for what is new.
    pub fn assign(&mut self, id: u32, port: &DesiredPort, rows: &Rows) -> Result<PortRows, NoRoom> {
        let mut layout = Layout {
            seed: self.tables.seed,
            max_table: self.tables.max_size,
            generations: &mut self.generations,
            compromises: Vec::new(),
        };
        let v4 = self.v4.assign(id, &port.v4, rows, &mut layout)?;
        let v6 = self.v6.assign(id, &port.v6, rows, &mut layout)?;
        Ok(PortRows {
            id,
            name: Some(service_name(&port.name)),
            policy: port.policy,
            v4,
            v6,
            compromises: layout.compromises,
        })
    }

    /// Says that a port keeps what it has, because [`Self::assign`] has failed.
    pub fn keep(&mut self, id: u32, name: &PortName, rows: &Rows, now: Instant) {
        self.v4.keep(id, rows);
        self.v6.keep(id, rows);
        // What it took and will not use is other ports' again.
        self.settle(id, Some(name), rows, now);
    }

    /// The rows that are left of a port that is gone.
    pub fn retire(&mut self, id: u32, rows: &Rows) -> PortRows {
        PortRows {
            id,
            name: None,
            policy: ServicePolicy::default(),
            v4: self.v4.retire(id, rows),
            v6: self.v6.retire(id, rows),
            compromises: Vec::new(),
        }
    }

    /// Rows of backends that are nobody's but do not say so yet: left over by an agent that was killed, or by a write
    /// that failed. They are in no [`Self::settle`].
    pub fn cast_off(&mut self, rows: &Rows) -> Vec<PortRows> {
        let (v4, v6) = (self.v4.cast_off(rows), self.v6.cast_off(rows));
        as_they_are(v4, v6, rows)
    }

    /// Rows of backends that have left at `then` or before: from now on they are nobody's.
    pub fn expire(&self, then: Instant, rows: &Rows) -> Vec<PortRows> {
        as_they_are(self.v4.expire(then, rows), self.v6.expire(then, rows), rows)
    }

    /// When the backend that left first did so.
    pub fn first_removed(&self) -> Option<Instant> {
        let firsts = [self.v4.first_removed(), self.v6.first_removed()];
        firsts.into_iter().flatten().min()
    }

    /// The rows of addresses of IPv4 as such that differ from what ports want. `planned`: whether a port is in this pass.
    pub fn address_rows4(&mut self, rows: &Rows, planned: impl Fn(u32) -> bool) -> Vec<AddressRow<Ip4>> {
        self.v4.address_rows(rows, planned)
    }

    /// The same for IPv6.
    pub fn address_rows6(&mut self, rows: &Rows, planned: impl Fn(u32) -> bool) -> Vec<AddressRow<Ip6>> {
        self.v6.address_rows(rows, planned)
    }

    /// Gives back what, after the writes, the maps hold no more of a port; `name` is what it was called, if known.
    /// Removed backends are no reason to keep its id, only to take others first.
    pub fn settle(&mut self, id: u32, name: Option<&PortName>, rows: &Rows, now: Instant) {
        let policy = rows.get::<Policies>(&id).is_some();
        let left = self.v4.settle(id, rows, now)
            | self.v6.settle(id, rows, now)
            | (policy || rows.get::<Names>(&id).is_some());
        if !left {
            if let Some(name) = name {
                self.names.remove(name);
            }
            self.v4.forget_wishes(id);
            self.v6.forget_wishes(id);
            self.ids.rest(id, now);
        }
    }

    /// Every id that any row speaks of.
    fn used_ids(&self, rows: &Rows) -> BTreeSet<u32> {
        let named = rows.iter::<Names>().map(|(id, _)| id);
        named
            .chain(rows.iter::<Policies>().map(|(id, _)| id))
            .chain(self.v4.services())
            .chain(self.v6.services())
            .collect()
    }
}

impl PortRows {
    /// What a port has, without anything of a family.
    fn as_it_is(id: u32, rows: &Rows) -> Self {
        Self {
            id,
            name: rows.get::<Names>(&id).copied(),
            policy: rows.get::<Policies>(&id).copied().unwrap_or_default(),
            v4: HalfRows::default(),
            v6: HalfRows::default(),
            compromises: Vec::new(),
        }
    }
}

/// The rows of ports of which only these are to change.
fn as_they_are(v4: Vec<(u32, HalfRows<V4>)>, v6: Vec<(u32, HalfRows<V6>)>, rows: &Rows) -> Vec<PortRows> {
    let v4 = v4.into_iter().map(|(id, v4)| PortRows {
        v4,
        ..PortRows::as_it_is(id, rows)
    });
    let v6 = v6.into_iter().map(|(id, v6)| PortRows {
        v6,
        ..PortRows::as_it_is(id, rows)
    });
    v4.chain(v6).collect()
}

fn instead(size: u32) -> String {
    match size {
        0 => "the flow's hash decides without a Maglev table".to_owned(),
        size => format!("its Maglev table has {size}"),
    }
}

impl Generations {
    fn next(&mut self) -> u32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.last
    }
}
