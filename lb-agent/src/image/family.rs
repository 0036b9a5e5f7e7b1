//! One family's rows: who has which front ends, indices of backends, places of slots, and lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use lb_common::{
    Backend, BackendState, Family, LocalKey, RangeKey, ServiceFlags, ServiceKey, ServiceValue, SlotRange,
};

use super::addresses::{AddressRow, Addresses, is_address};
use super::backends::{free, local_of, locals, own_row, removed, target_of};
use super::half::HalfRows;
use super::pods::Pods;
use super::regions::{Found, Region};
use super::{IndexPool, Layout, NoRoom, SlotRegions};
use crate::desired::{Half, Target, range_key};
use crate::store::{FamilyTables, MapStore, Rows, StoreError, Table};

/// What is in use of one family's maps, and by which port.
#[derive(Debug)]
pub(super) struct FamilyImage<F: Family> {
    pub(super) indices: IndexPool,
    pub(super) slots: SlotRegions,
    pub(super) ports: BTreeMap<u32, Holdings<F>>,
    /// Indices that are nobody's, but whose rows do not say so yet.
    cast_off: BTreeSet<u32>,
    addresses: Addresses<F::Addr>,
}

/// What one port has of one family's maps.
#[derive(Debug)]
pub(super) struct Holdings<F: Family> {
    /// Front ends that may have a row of this port.
    keys: BTreeSet<ServiceKey<F::Addr>>,
    /// The index of each endpoint, also of those that have left.
    pub(super) backends: BTreeMap<Target<F::Addr>, u32>,
    pub(super) pods: Pods<F::Addr>,
    pub(super) regions: Vec<Region<F::Addr>>,
    /// Prefixes that may have a row of this port.
    ranges: BTreeSet<RangeKey<F::Addr>>,
    /// Local endpoints that may have a row of this port.
    locals: BTreeMap<LocalKey<F::Addr>, u32>,
}

// === impl FamilyImage ===

impl<F: FamilyTables> FamilyImage<F> {
    pub(super) fn adopt(store: &impl MapStore, rows: &Rows, now: Instant) -> Result<Self, StoreError> {
        let slots = SlotRegions::new(capacity::<F::Slots>(store)?);
        let indices = IndexPool::new(0, capacity::<F::Backends>(store)?);
        let mut image = Self {
            indices,
            slots,
            ports: BTreeMap::new(),
            cast_off: BTreeSet::new(),
            addresses: Addresses::default(),
        };
        image.adopt_backends(rows, now);
        image.adopt_services(rows);
        image.adopt_lists(rows);
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
        layout: &mut Layout<'_>,
    ) -> Result<HalfRows<F>, NoRoom> {
        let mut found = self.assign_backends(id, half, rows)?;
        let mut regions = Found::default();
        let mut addresses = BTreeMap::<_, u32>::new();
        for (key, frontend) in &half.frontends {
            let row = ServiceValue {
                service: id,
                flags: frontend.flags,
                outside: self.assign_region(id, half, frontend.outside, rows, layout, &mut regions)?,
                inside: self.assign_region(id, half, frontend.inside, rows, layout, &mut regions)?,
            };
            found.services.insert(*key, row);
            if frontend.address_flags != 0 {
                addresses.insert(key.addr, frontend.address_flags);
            }
        }
        found.slots = regions.into_slots();
        self.addresses.want(id, &addresses);
        let port = self.ports.entry(id).or_default();
        let gone = port.keys.iter().filter(|key| !half.frontends.contains_key(key));
        found.gone = gone.copied().collect();
        port.keys.extend(half.frontends.keys());
        port.assign_lists(id, half, rows, &mut found);
        Ok(found)
    }

    /// Says that a port keeps what it has, because what it should have cannot be.
    pub(super) fn keep(&mut self, id: u32, rows: &Rows) {
        let Some(port) = self.ports.get(&id) else { return };
        let flags = |addr| {
            rows.get::<F::Services>(&ServiceKey::address(addr))
                .map(|row| row.flags)
        };
        let own = port
            .keys
            .iter()
            .filter(|key| rows.get::<F::Services>(key).is_some_and(|row| row.service == id));
        let kept = own.filter_map(|key| Some((key.addr, flags(key.addr)?))).collect();
        self.addresses.want(id, &kept);
    }

    /// Says that a port wants nothing of addresses as such any more.
    pub(super) fn forget_wishes(&mut self, id: u32) {
        self.addresses.want(id, &BTreeMap::new());
    }

    /// The rows of addresses as such that differ, whosever they are. `planned`: whether a port is in this pass.
    pub(super) fn address_rows(
        &mut self,
        rows: &Rows,
        planned: impl Fn(u32) -> bool,
    ) -> Vec<AddressRow<F::Addr>> {
        let ports = &self.ports;
        let listed = |addr, id| {
            let keys = ports.get(&id).into_iter().flat_map(|port| &port.keys);
            let own = |row: &ServiceValue| row.service == id;
            let mut keys = keys.filter(|key| key.addr == addr);
            keys.any(|key| rows.get::<F::Services>(key).is_some_and(own))
        };
        self.addresses.rows::<F>(rows, listed, planned)
    }

    /// No front ends, and backends that have left.
    pub(super) fn retire(&mut self, id: u32, rows: &Rows) -> HalfRows<F> {
        let mut found = HalfRows::default();
        self.forget_wishes(id);
        if let Some(port) = self.ports.get(&id) {
            found.gone = port.keys.iter().copied().collect();
            found.gone_ranges = port.ranges.iter().copied().collect();
            for (target, index) in &port.backends {
                if let Some(row) = own_row::<F>(rows, id, target, *index) {
                    found.backends.insert(*index, removed(row));
                }
            }
            let stay = |index| found.backends.contains_key(index);
            let gone = port.locals.iter().filter(|(_, index)| !stay(index));
            found.gone_locals = gone.map(|(key, _)| *key).collect();
        }
        found
    }

    /// Frees the backends that the former holder of an id has left behind.
    pub(super) fn vacate(&mut self, id: u32, rows: &Rows) -> HalfRows<F> {
        let Holdings { backends, locals, .. } = self.ports.remove(&id).unwrap_or_default();
        for index in backends.into_values() {
            self.give_back(index, rows);
        }
        let row = |index: &u32| Some((*index, *rows.get::<F::Backends>(index)?));
        let left = self.cast_off.iter().filter_map(row);
        let left = left.filter(|(_, row)| row.service == id);
        HalfRows {
            backends: left.map(|(index, row)| (index, free(&row))).collect(),
            vacated_locals: locals.into_keys().collect(),
            ..HalfRows::default()
        }
    }

    /// Frees the backends that have left at `then` or before.
    pub(super) fn expire(&self, then: Instant, rows: &Rows) -> Vec<(u32, HalfRows<F>)> {
        let mut found = BTreeMap::<u32, HalfRows<F>>::new();
        for index in self.indices.resting_since(then) {
            if let Some(row) = rows.get::<F::Backends>(&index)
                && row.state == BackendState::Removed as u8
            {
                let half = found.entry(row.service).or_default();
                half.backends.insert(index, free(row));
                half.vacated_locals.extend(local_of::<F>(rows, row, index));
            }
        }
        found.into_iter().collect()
    }

    /// When the backend that left first did so.
    pub(super) fn first_removed(&self) -> Option<Instant> {
        self.indices.first_rest()
    }

    /// Gives back what no row speaks of. Returns whether anything is left but removed backends.
    pub(super) fn settle(&mut self, id: u32, rows: &Rows, now: Instant) -> bool {
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
            let used = generations.contains(&region.range.generation);
            if !used {
                self.slots.release(region.range.base, region.range.count);
            }
            used
        });
        port.ranges.retain(|key| rows.get::<F::Ranges>(key).is_some());
        port.locals.retain(|key, index| match rows.get::<F::Locals>(key) {
            Some(row) => {
                *index = *row;
                true
            }
            None => false,
        });
        let mut unused = Vec::new();
        port.backends.retain(|target, index| {
            let row = own_row::<F>(rows, id, target, *index);
            match row.and_then(|row| BackendState::from_number(row.state)) {
                None | Some(BackendState::Free) => {
                    port.pods.forget(target);
                    unused.push(*index);
                }
                Some(BackendState::Removed) => self.indices.rest(*index, now),
                Some(BackendState::Active | BackendState::NoNew | BackendState::NotServing) => {
                    self.indices.wake(*index);
                }
            }
            row.is_some()
        });
        let resting = port.backends.values().all(|index| self.indices.rests(*index));
        let left = !(port.keys.is_empty() && port.regions.is_empty() && port.ranges.is_empty() && resting);
        if !left && port.backends.is_empty() && port.locals.is_empty() {
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
                    vacated_locals: local_of::<F>(rows, &row, index).into_iter().collect(),
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

    fn adopt_backends(&mut self, rows: &Rows, now: Instant) {
        let mut spare = Vec::new();
        for (index, row) in rows.iter::<F::Backends>() {
            self.indices.adopt(index);
            let target = target_of(row);
            let port = self.ports.entry(row.service).or_default();
            match BackendState::from_number(row.state) {
                None | Some(BackendState::Free) => spare.push(index),
                // Only a row that flows can still mean may be kept twice; the first one counts.
                Some(_) if port.backends.contains_key(&target) => spare.push(index),
                Some(state) => {
                    port.backends.insert(target, index);
                    if state == BackendState::Removed {
                        self.indices.rest(index, now);
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
            if is_address(row) {
                self.addresses.adopt(key.addr);
                continue;
            }
            let port = self.ports.entry(row.service).or_default();
            port.keys.insert(key);
            for region in regions(row) {
                // Slots that another row has already are not this row's: it will get new ones.
                if region.count > 0
                    && !port.regions.iter().any(|other| other.range == region)
                    && self.slots.reserve(region.base, region.count)
                {
                    port.regions.push(Region::adopted(region));
                }
            }
        }
    }

    fn adopt_lists(&mut self, rows: &Rows) {
        for (key, _) in rows.iter::<F::Ranges>().filter(|(key, _)| is_port(key.list)) {
            self.ports.entry(key.list).or_default().ranges.insert(key);
        }
        for (key, index) in rows.iter::<F::Locals>() {
            let port = self.ports.entry(key.service).or_default();
            port.locals.insert(key, *index);
        }
    }
}

// === impl Holdings ===

impl<F: FamilyTables> Holdings<F> {
    /// The sources of a port, and its local endpoints where packets come wrapped.
    fn assign_lists(&mut self, id: u32, half: &Half<F>, rows: &Rows, found: &mut HalfRows<F>) {
        found.ranges = half
            .ranges
            .iter()
            .filter_map(|range| range_key::<F>(id, *range))
            .collect();
        found.gone_ranges = self.ranges.difference(&found.ranges).copied().collect();
        self.ranges.extend(&found.ranges);
        let mut frontends = half.frontends.values();
        if frontends.any(|frontend| frontend.flags & ServiceFlags::DSR != 0) {
            found.locals = locals::<F>(id, &found.backends, rows);
        }
        let gone = self.locals.keys().filter(|key| !found.locals.contains_key(key));
        found.gone_locals = gone.copied().collect();
        self.locals.extend(&found.locals);
    }
}

/// Whether a list of prefixes is a port's.
fn is_port(list: u32) -> bool {
    list < lb_common::RangeList::PODS
}

/// The regions that a front end leads to.
fn regions(row: &ServiceValue) -> [SlotRange; 2] {
    [row.outside, row.inside]
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
            ranges: BTreeSet::new(),
            locals: BTreeMap::new(),
        }
    }
}
