//! One family's rows: indices of backends, places of slots.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Backend, BackendFlags, BackendState, Family, ServiceKey, ServiceValue, Slot, SlotRange};

use super::pods::Pods;
use super::{Generations, IndexPool, NoRoom, SlotRegions};
use crate::desired::{Half, Target};
use crate::model::TrafficPolicy;
use crate::store::{FamilyTables, MapStore, Rows, StoreError, Table};

/// What is in use of one family's maps, and by which port.
#[derive(Debug)]
pub(super) struct FamilyImage<F: Family> {
    indices: IndexPool,
    slots: SlotRegions,
    ports: BTreeMap<u32, Holdings<F>>,
    /// Indices that are nobody's, but whose rows do not say so yet.
    cast_off: BTreeSet<u32>,
}

/// What one port has of one family's maps.
#[derive(Debug)]
struct Holdings<F: Family> {
    /// Front ends that may have a row of this port.
    keys: BTreeSet<ServiceKey<F::Addr>>,
    /// The index of each endpoint, also of those that have left.
    backends: BTreeMap<Target<F::Addr>, u32>,
    pods: Pods<F::Addr>,
    regions: Vec<SlotRange>,
}

/// The rows of one port in one family's maps.
#[derive(Debug)]
pub struct HalfRows<F: Family> {
    /// Rows of front ends that it should have.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Front ends whose rows it should have no longer.
    pub gone: Vec<ServiceKey<F::Addr>>,
    /// Regions that its front ends need, with the indices of backends in them.
    pub slots: Vec<(SlotRange, Vec<u32>)>,
    /// Rows of backends.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
}

// === impl FamilyImage ===

impl<F: FamilyTables> FamilyImage<F> {
    pub(super) fn adopt(store: &impl MapStore, rows: &Rows) -> Result<Self, StoreError> {
        let slots = SlotRegions::new(capacity::<F::Slots>(store)?);
        let indices = IndexPool::new(0, capacity::<F::Backends>(store)?);
        let mut image = Self {
            indices,
            slots,
            ports: BTreeMap::new(),
            cast_off: BTreeSet::new(),
        };
        image.adopt_backends(rows);
        image.adopt_services(rows);
        Ok(image)
    }

    /// The largest generation that any row speaks of.
    pub(super) fn last_generation(rows: &Rows) -> u32 {
        let slots = rows.iter::<F::Slots>().map(|(_, slot)| slot.generation);
        let services = rows
            .iter::<F::Services>()
            .flat_map(|(_, row)| regions(row).map(|region| region.generation));
        slots.chain(services).max().unwrap_or(0)
    }

    /// The ids of every port that has something here.
    pub(super) fn services(&self) -> impl Iterator<Item = u32> {
        self.ports.keys().copied()
    }

    pub(super) fn assign(
        &mut self,
        id: u32,
        half: &Half<F>,
        rows: &Rows,
        generations: &mut Generations,
    ) -> Result<HalfRows<F>, NoRoom> {
        let mut found = HalfRows {
            backends: self.assign_backends(id, half, rows)?,
            ..HalfRows::default()
        };
        let cluster = self.assign_region(id, &half.cluster, rows, generations, &mut found)?;
        let local = self.assign_region(id, &half.local, rows, generations, &mut found)?;
        let port = self.ports.entry(id).or_default();
        for (key, frontend) in &half.frontends {
            let region = |policy| match policy {
                TrafficPolicy::Cluster => cluster,
                TrafficPolicy::Local => local,
            };
            let row = ServiceValue {
                service: id,
                flags: frontend.flags,
                outside: region(frontend.outside),
                inside: region(frontend.inside),
            };
            found.services.insert(*key, row);
        }
        found.gone = port
            .keys
            .iter()
            .filter(|key| !half.frontends.contains_key(key))
            .copied()
            .collect();
        port.keys.extend(half.frontends.keys());
        Ok(found)
    }

    /// No front ends, and backends that have left.
    pub(super) fn retire(&self, id: u32, rows: &Rows) -> HalfRows<F> {
        let mut found = HalfRows::default();
        if let Some(port) = self.ports.get(&id) {
            found.gone = port.keys.iter().copied().collect();
            for (target, index) in &port.backends {
                if let Some(row) = own_row::<F>(rows, id, target, *index) {
                    found.backends.insert(*index, removed(row));
                }
            }
        }
        found
    }

    /// Frees the backends that the former holder of an id has left behind.
    pub(super) fn vacate(&mut self, id: u32, rows: &Rows) -> HalfRows<F> {
        let port = self.ports.remove(&id).unwrap_or_default();
        for index in port.backends.into_values() {
            self.give_back(index, rows);
        }
        let row = |index: &u32| Some((*index, *rows.get::<F::Backends>(index)?));
        let left = self.cast_off.iter().filter_map(row);
        let left = left.filter(|(_, row)| row.service == id);
        HalfRows {
            backends: left.map(|(index, row)| (index, free(&row))).collect(),
            ..HalfRows::default()
        }
    }

    /// Gives back what no row speaks of. Returns whether anything is left but removed backends.
    pub(super) fn settle(&mut self, id: u32, rows: &Rows) -> bool {
        let Some(port) = self.ports.get_mut(&id) else {
            return false;
        };
        let row_of = |key: &_| rows.get::<F::Services>(key).filter(|row| row.service == id);
        port.keys.retain(|key| row_of(key).is_some());
        let generations: BTreeSet<u32> = port
            .keys
            .iter()
            .filter_map(row_of)
            .flat_map(regions)
            .map(|region| region.generation)
            .collect();
        port.regions.retain(|region| {
            let used = generations.contains(&region.generation);
            if !used {
                self.slots.release(region.base, region.count);
            }
            used
        });
        let mut unused = Vec::new();
        port.backends.retain(|target, index| {
            let row = own_row::<F>(rows, id, target, *index);
            match row.and_then(|row| BackendState::from_number(row.state)) {
                None | Some(BackendState::Free) => {
                    port.pods.forget(target);
                    unused.push(*index);
                }
                Some(BackendState::Removed) => self.indices.rest(*index),
                Some(BackendState::Active | BackendState::NoNew) => self.indices.wake(*index),
            }
            row.is_some()
        });
        let resting = port.backends.values().all(|index| self.indices.rests(*index));
        let left = !(port.keys.is_empty() && port.regions.is_empty() && resting);
        if !left && port.backends.is_empty() {
            self.ports.remove(&id);
        }
        for index in unused {
            self.give_back(index, rows);
        }
        left
    }

    /// Gives back those cast off whose rows are free by now. Returns the rows to write for the others, each with the
    /// port whose flip may still be ahead of it.
    pub(super) fn cast_off(&mut self, rows: &Rows) -> Vec<(u32, HalfRows<F>)> {
        for index in std::mem::take(&mut self.cast_off) {
            self.give_back(index, rows);
        }
        let left = self
            .cast_off
            .iter()
            .filter_map(|index| Some((*index, *rows.get::<F::Backends>(index)?)));
        left.map(|(index, row)| {
            let backends = BTreeMap::from([(index, free(&row))]);
            (
                row.service,
                HalfRows {
                    backends,
                    ..HalfRows::default()
                },
            )
        })
        .collect()
    }

    fn give_back(&mut self, index: u32, rows: &Rows) {
        let is_free = |row: &Backend<F::Addr>| row.state == BackendState::Free as u8;
        if rows.get::<F::Backends>(&index).is_none_or(is_free) {
            self.indices.release(index);
        } else {
            self.indices.wake(index);
            self.cast_off.insert(index);
        }
    }

    fn assign_backends(
        &mut self,
        id: u32,
        half: &Half<F>,
        rows: &Rows,
    ) -> Result<BTreeMap<u32, Backend<F::Addr>>, NoRoom> {
        let mut found = BTreeMap::new();
        if let Some(port) = self.ports.get(&id) {
            // Endpoints that have come back must have their indices before new ones take them.
            for (target, index) in &port.backends {
                if half.backends.contains_key(target) {
                    self.indices.wake(*index);
                } else if let Some(row) = own_row::<F>(rows, id, target, *index) {
                    found.insert(*index, removed(row));
                }
            }
        }
        let port = self.ports.entry(id).or_default();
        let new = half
            .backends
            .keys()
            .filter(|target| !port.backends.contains_key(target))
            .count();
        if new > self.indices.available() {
            return Err(NoRoom::Backends {
                map: F::Backends::NAME,
            });
        }
        for (target, member) in &half.backends {
            let index = self.index_of(id, target, rows)?;
            let flags = if member.local { BackendFlags::LOCAL } else { 0 };
            let state = if member.active {
                BackendState::Active
            } else {
                BackendState::NoNew
            };
            let row = backend_row::<F>(rows, id, target, index, state);
            let port = self.ports.entry(id).or_default();
            let epoch = port.pods.epoch(target, member.pod.as_ref(), row.epoch);
            // This replaces the row of an endpoint of this port that has just lost its index.
            found.insert(index, Backend { epoch, flags, ..row });
        }
        Ok(found)
    }

    /// The index of an endpoint: its own, or a new one.
    fn index_of(&mut self, id: u32, target: &Target<F::Addr>, rows: &Rows) -> Result<u32, NoRoom> {
        if let Some(index) = self.ports.get(&id).and_then(|port| port.backends.get(target)) {
            return Ok(*index);
        }
        let index = self.indices.take().ok_or(NoRoom::Backends {
            map: F::Backends::NAME,
        })?;
        if let Some(row) = rows.get::<F::Backends>(&index) {
            let before = Target {
                addr: row.addr,
                port: row.port,
            };
            if let Some(port) = self.ports.get_mut(&row.service)
                && port.backends.get(&before) == Some(&index)
            {
                port.backends.remove(&before);
                port.pods.forget(&before);
            }
        }
        self.ports.entry(id).or_default().backends.insert(*target, index);
        Ok(index)
    }

    /// The region that holds `targets`: one that holds just these already, or a new one.
    fn assign_region(
        &mut self,
        id: u32,
        targets: &[Target<F::Addr>],
        rows: &Rows,
        generations: &mut Generations,
        found: &mut HalfRows<F>,
    ) -> Result<SlotRange, NoRoom> {
        if targets.is_empty() {
            return Ok(SlotRange::default());
        }
        let port = self.ports.entry(id).or_default();
        let indices: Vec<u32> = targets
            .iter()
            .filter_map(|target| port.backends.get(target).copied())
            .collect();
        if let Some((region, _)) = found.slots.iter().find(|(_, other)| *other == indices) {
            return Ok(*region);
        }
        let mut held = port.regions.iter().copied();
        let region = match held.find(|region| holds::<F>(*region, &indices, rows)) {
            Some(region) => region,
            None => self.new_region(id, indices.len(), generations)?,
        };
        found.slots.push((region, indices));
        Ok(region)
    }

    fn new_region(
        &mut self,
        id: u32,
        count: usize,
        generations: &mut Generations,
    ) -> Result<SlotRange, NoRoom> {
        let full = NoRoom::Slots {
            map: F::Slots::NAME,
            count,
        };
        let count = u32::try_from(count).map_err(|_| full)?;
        let base = self.slots.take(count).ok_or(full)?;
        let region = SlotRange {
            base,
            count,
            generation: generations.next(),
        };
        self.ports.entry(id).or_default().regions.push(region);
        Ok(region)
    }

    fn adopt_backends(&mut self, rows: &Rows) {
        let mut spare = Vec::new();
        for (index, row) in rows.iter::<F::Backends>() {
            self.indices.adopt(index);
            let target = Target {
                addr: row.addr,
                port: row.port,
            };
            let port = self.ports.entry(row.service).or_default();
            match BackendState::from_number(row.state) {
                None | Some(BackendState::Free) => spare.push(index),
                // Only a row that flows can still mean may be kept twice; the first one counts.
                Some(_) if port.backends.contains_key(&target) => spare.push(index),
                Some(state) => {
                    port.backends.insert(target, index);
                    if state == BackendState::Removed {
                        self.indices.rest(index);
                    }
                }
            }
        }
        for index in spare {
            self.give_back(index, rows);
        }
        self.ports.retain(|_, port| !port.backends.is_empty());
    }

    fn adopt_services(&mut self, rows: &Rows) {
        for (key, row) in rows.iter::<F::Services>() {
            let port = self.ports.entry(row.service).or_default();
            port.keys.insert(key);
            for region in regions(row) {
                // Slots that another row has already are not this row's: it will get new ones.
                if region.count > 0
                    && !port.regions.contains(&region)
                    && self.slots.reserve(region.base, region.count)
                {
                    port.regions.push(region);
                }
            }
        }
    }
}

/// Whether the maps hold just these backends in a region.
pub fn holds<F: FamilyTables>(region: SlotRange, indices: &[u32], rows: &Rows) -> bool {
    region.count as usize == indices.len()
        && (region.base..).zip(indices).all(|(slot, index)| {
            let row = Slot {
                generation: region.generation,
                backend: *index,
            };
            rows.get::<F::Slots>(&slot) == Some(&row)
        })
}

/// The regions that a front end leads to.
fn regions(row: &ServiceValue) -> [SlotRange; 2] {
    [row.outside, row.inside]
}

/// The row at `index`, when it is that of `target` and not free.
fn own_row<F: FamilyTables>(
    rows: &Rows,
    service: u32,
    target: &Target<F::Addr>,
    index: u32,
) -> Option<Backend<F::Addr>> {
    let row = *rows.get::<F::Backends>(&index)?;
    let own = row.service == service && row.addr == target.addr && row.port == target.port;
    (own && row.state != BackendState::Free as u8).then_some(row)
}

/// The row for `target` at `index`, of a new epoch when the index has been another's.
fn backend_row<F: FamilyTables>(
    rows: &Rows,
    service: u32,
    target: &Target<F::Addr>,
    index: u32,
    state: BackendState,
) -> Backend<F::Addr> {
    let own = own_row::<F>(rows, service, target, index);
    let epoch = own.map_or_else(
        || {
            rows.get::<F::Backends>(&index)
                .map_or(1, |before| before.epoch.wrapping_add(1))
        },
        |row| row.epoch,
    );
    Backend {
        addr: target.addr,
        port: target.port,
        epoch,
        service,
        state: state as u8,
        flags: 0,
        pad: [0; 2],
    }
}

fn removed<A>(row: Backend<A>) -> Backend<A> {
    Backend {
        state: BackendState::Removed as u8,
        ..row
    }
}

/// Nobody's, so that no flow matches it; the epoch stays, for the next one.
fn free<A: Default>(row: &Backend<A>) -> Backend<A> {
    Backend {
        epoch: row.epoch,
        ..Backend::default()
    }
}

fn capacity<T: Table>(store: &impl MapStore) -> Result<u32, StoreError> {
    Ok(u32::try_from(store.capacity::<T>()?).unwrap_or(u32::MAX))
}

impl<F: Family> Default for Holdings<F> {
    fn default() -> Self {
        Self {
            keys: BTreeSet::new(),
            backends: BTreeMap::new(),
            pods: Pods::default(),
            regions: Vec::new(),
        }
    }
}

impl<F: Family> Default for HalfRows<F> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            gone: Vec::new(),
            slots: Vec::new(),
            backends: BTreeMap::new(),
        }
    }
}
