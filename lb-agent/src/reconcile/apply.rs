//! Writes plans. What fails is told by its owner and ends that owner's update, not the others'.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use lb_common::addr::Address as _;
use lb_common::{ServiceKey, Slot, SlotRange};

use super::plan::{FamilyWrite, Plan, Planned, Write};
use crate::model::IpFamily;
use crate::store::{
    DevicesTable, FamilyTables, MapStore, Names, Policies, Rows, SettingsTable, StoreError, Table,
};

/// What became of the plans of a pass.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Rows written.
    pub(super) written: usize,
    /// Rows deleted.
    pub(super) deleted: usize,
    /// The owners whose updates ended early, and why.
    pub(super) failed: BTreeMap<u32, StoreError>,
    /// The owners whose updates ended early because another's failed.
    pub(super) held_up: BTreeSet<u32>,
    /// The families that the kernel refused a row of. A full map is no refusal.
    pub(super) unwritten: BTreeSet<IpFamily>,
    /// How long it took.
    pub(super) took: Duration,
}

/// Writes `plan` into `store`; `rows` follows what the store holds. The updates that have ended in `outcome` stay so.
pub(super) fn apply(plan: Plan, store: &mut impl MapStore, rows: &mut Rows, outcome: &mut Outcome) {
    let start = Instant::now();
    for Planned { owner, write } in plan.into_writes() {
        if outcome.failed.contains_key(&owner) || outcome.held_up.contains(&owner) {
            continue;
        }
        let mut writer = Writer { store, rows, outcome };
        if let Err(error) = writer.write(owner, &write) {
            // Who was to lose this row still has it: a front end, and must keep what it leads to; or a backend, which
            // may be its id's former holder's.
            outcome
                .held_up
                .extend(holder(&write, rows).filter(|holder| *holder != owner));
            if !matches!(error, StoreError::Full { .. }) {
                outcome.unwritten.extend(families(&write));
            }
            outcome.failed.insert(owner, error);
        }
    }
    outcome.took += start.elapsed();
}

/// The families that a write is for.
fn families(write: &Write) -> &'static [IpFamily] {
    match write {
        Write::V4(_) => &[IpFamily::V4],
        Write::V6(_) => &[IpFamily::V6],
        Write::Settings(_)
        | Write::Device(..)
        | Write::Name(..)
        | Write::Policy(..)
        | Write::ResetStats(_) => &[IpFamily::V4, IpFamily::V6],
    }
}

/// The port that the row of a write belongs to so far.
fn holder(write: &Write, rows: &Rows) -> Option<u32> {
    fn of_family<F: FamilyTables>(write: &FamilyWrite<F>, rows: &Rows) -> Option<u32> {
        match write {
            FamilyWrite::Service(key, _) => rows.get::<F::Services>(key).map(|row| row.service),
            FamilyWrite::Backend(index, _) => rows.get::<F::Backends>(index).map(|row| row.service),
            FamilyWrite::NodeAddress(..)
            | FamilyWrite::SnatAddress(..)
            | FamilyWrite::Settings(_)
            | FamilyWrite::Slots(..)
            | FamilyWrite::Range(..)
            | FamilyWrite::Local(..)
            | FamilyWrite::Address(..) => None,
        }
    }
    match write {
        Write::V4(write) => of_family(write, rows),
        Write::V6(write) => of_family(write, rows),
        Write::Settings(_)
        | Write::Device(..)
        | Write::Name(..)
        | Write::Policy(..)
        | Write::ResetStats(_) => None,
    }
}

struct Writer<'a, S> {
    store: &'a mut S,
    rows: &'a mut Rows,
    outcome: &'a mut Outcome,
}

impl<S: MapStore> Writer<'_, S> {
    fn write(&mut self, owner: u32, write: &Write) -> Result<(), StoreError> {
        match write {
            Write::Settings(row) => self.put::<SettingsTable>(0, Some(row)),
            Write::Device(ifindex, row) => self.put::<DevicesTable>(*ifindex, row.as_ref()),
            Write::Name(id, row) => self.put::<Names>(*id, row.as_deref()),
            Write::Policy(id, row) => self.put::<Policies>(*id, Some(row)),
            Write::ResetStats(id) => self.store.reset_stats(*id),
            Write::V4(write) => self.write_family(owner, write),
            Write::V6(write) => self.write_family(owner, write),
        }
    }

    fn write_family<F: FamilyTables>(
        &mut self,
        owner: u32,
        write: &FamilyWrite<F>,
    ) -> Result<(), StoreError> {
        match write {
            FamilyWrite::NodeAddress(addr, row) => self.put::<F::NodeAddresses>(*addr, row.as_ref()),
            FamilyWrite::SnatAddress(ifindex, addr) => self.put::<F::SnatAddresses>(*ifindex, addr.as_ref()),
            FamilyWrite::Settings(row) => self.put::<F::FamilySettings>(0, Some(row)),
            FamilyWrite::Range(key, there) => self.put::<F::Ranges>(*key, there.then_some(&1)),
            FamilyWrite::Local(key, index) => self.put::<F::Locals>(*key, index.as_ref()),
            FamilyWrite::Backend(index, row) => self.put::<F::Backends>(*index, Some(row)),
            FamilyWrite::Slots(region, backends) => self.write_slots::<F>(*region, backends),
            FamilyWrite::Service(key, Some(row)) => {
                self.open_filter::<F>(key.addr)?;
                self.put::<F::Services>(*key, Some(row))
            }
            FamilyWrite::Address(addr, row) => {
                if row.is_some() {
                    self.open_filter::<F>(*addr)?;
                }
                self.put::<F::Services>(ServiceKey::address(*addr), row.as_ref())
            }
            FamilyWrite::Service(key, None) => {
                // Another port may have taken the front end over, in this plan or before.
                let own = self
                    .rows
                    .get::<F::Services>(key)
                    .is_some_and(|row| row.service == owner);
                if own {
                    self.put::<F::Services>(*key, None)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Writes a region at once. What a write that fails leaves behind is nobody's, and counts as not there.
    fn write_slots<F: FamilyTables>(
        &mut self,
        region: SlotRange,
        backends: &[u32],
    ) -> Result<(), StoreError> {
        let slot = |backend: &u32| Slot {
            generation: region.generation,
            backend: *backend,
        };
        let slots: Vec<Slot> = backends.iter().map(slot).collect();
        let result = self.store.set_all::<F::Slots>(region.base, &slots);
        for (index, slot) in (region.base..).zip(&slots) {
            self.rows
                .put::<F::Slots>(&index, Some(slot).filter(|_| result.is_ok()));
        }
        self.outcome.written += slots.len();
        result
    }

    /// The programs look for a front end only where the filter says that there may be one.
    fn open_filter<F: FamilyTables>(&mut self, addr: F::Addr) -> Result<(), StoreError> {
        let bit = addr.filter_bit();
        let row = self.rows.get::<F::Filter>(&bit.row).copied().unwrap_or_default();
        if row & bit.mask == 0 {
            self.put::<F::Filter>(bit.row, Some(&(row | bit.mask)))?;
        }
        Ok(())
    }

    fn put<T: Table>(&mut self, key: T::Key, row: Option<&T::Value>) -> Result<(), StoreError> {
        match row {
            Some(row) => self.store.set::<T>(&key, row)?,
            None => self.store.delete::<T>(&key)?,
        }
        self.rows.put::<T>(&key, row);
        let count = if row.is_some() {
            &mut self.outcome.written
        } else {
            &mut self.outcome.deleted
        };
        *count += 1;
        Ok(())
    }
}
