//! A store that checks after every single write what packets rely on, and that can fail.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::addr::Address as _;
use lb_common::{Backend, BackendState, Ip4, ServiceFlags, ServiceKey, ServiceValue, Slot, V4, V6};

use crate::image::is_address;
use crate::store::{FakeStore, FamilyTables, MapStore, Names, Policies, Rows, Services, StoreError, Table};
use crate::testkit::Random;

/// Checks every write.
#[derive(Default)]
pub(super) struct CheckedStore {
    pub(super) inner: FakeStore,
    /// One of so many writes fails, chosen at random.
    pub(super) faults: Option<(Random, u32)>,
    pub(super) writes: usize,
    /// A front end that is never away.
    pub(super) stays: Option<ServiceKey<Ip4>>,
    /// What was there of each id when it got its name.
    pub(super) left: BTreeMap<u32, Vec<Left>>,
}

/// A backend of a former holder of an id: its family, index and epoch.
pub(super) type Left = (&'static str, u32, u16);

impl MapStore for CheckedStore {
    fn for_each_row<T: Table>(&self, take: &mut dyn FnMut(T::Key, T::Value)) -> Result<(), StoreError> {
        self.inner.for_each_row::<T>(take)
    }

    fn set<T: Table>(&mut self, key: &T::Key, value: &T::Value) -> Result<(), StoreError> {
        self.fail::<T>()?;
        check_epoch::<T, V4>(&self.inner, key, value);
        check_epoch::<T, V6>(&self.inner, key, value);
        check_address::<T, V4>(&self.inner, key, value);
        check_address::<T, V6>(&self.inner, key, value);
        self.check_former_holder::<T>(key, value);
        self.inner.set::<T>(key, value)?;
        self.check();
        Ok(())
    }

    /// In two parts, so that a region may be half written.
    fn set_all<T: Table<Key = u32>>(&mut self, first: u32, values: &[T::Value]) -> Result<(), StoreError> {
        let (one, two) = values.split_at(values.len() / 2);
        for (first, part) in [(first, one), (first + u32::try_from(one.len()).unwrap(), two)] {
            self.fail::<T>()?;
            self.inner.set_all::<T>(first, part)?;
            self.check();
        }
        Ok(())
    }

    fn delete<T: Table>(&mut self, key: &T::Key) -> Result<(), StoreError> {
        self.fail::<T>()?;
        self.inner.delete::<T>(key)?;
        self.check();
        Ok(())
    }

    fn capacity<T: Table>(&self) -> Result<usize, StoreError> {
        self.inner.capacity::<T>()
    }

    fn reset_stats(&mut self, service: u32) -> Result<(), StoreError> {
        self.inner.reset_stats(service)
    }
}

impl CheckedStore {
    fn fail<T: Table>(&mut self) -> Result<(), StoreError> {
        if let Some((random, one_of)) = &mut self.faults
            && random.below(*one_of) == 0
        {
            let source = io::Error::other("the test says so");
            return Err(StoreError::Kernel {
                call: "BPF_MAP_UPDATE_ELEM",
                map: T::NAME,
                source,
            });
        }
        Ok(())
    }

    /// An id leads nowhere before the backends of its former holder are gone.
    fn check_former_holder<T: Table>(&mut self, key: &T::Key, value: &T::Value) {
        let (key, value): (&dyn Any, &dyn Any) = (key, value);
        let all_of = |id| {
            let v4 = backends_of::<V4>(&self.inner, id);
            v4.chain(backends_of::<V6>(&self.inner, id)).collect::<Vec<_>>()
        };
        if let Some(row) = value
            .downcast_ref::<ServiceValue>()
            .filter(|row| !is_address(row))
        {
            let now = all_of(row.service);
            let left = self.left.get(&row.service).into_iter().flatten();
            assert!(
                left.into_iter().all(|row| !now.contains(row)),
                "id {} is not free",
                row.service
            );
        }
        if let Some(id) = key.downcast_ref::<u32>()
            && T::NAME == Names::NAME
            && self.inner.contents().get::<Names>(id).is_none()
        {
            self.left.insert(*id, all_of(*id));
        }
    }

    fn check(&mut self) {
        self.writes += 1;
        check_family::<V4>(&self.inner);
        check_family::<V6>(&self.inner);
        if let Some(key) = &self.stays {
            let row = self.inner.contents().get::<Services<V4>>(key);
            assert!(row.is_some(), "{key:?} is away");
        }
    }
}

/// Every front end leads to slots of its own generation, and those to active backends of its own; what its flags need
/// more of is there; free rows are nobody's.
fn check_family<F: FamilyTables>(store: &FakeStore) {
    let rows = store.contents();
    let mut regions = BTreeSet::new();
    for (key, row) in rows.iter::<F::Services>() {
        let bit = key.addr.filter_bit();
        let filter = rows.get::<F::Filter>(&bit.row).copied().unwrap_or_default();
        assert_ne!(filter & bit.mask, 0, "the filter hides {key:?}");
        if is_address(row) {
            let bare = ServiceValue {
                flags: row.flags,
                ..ServiceValue::default()
            };
            assert_eq!((key, *row), (ServiceKey::address(key.addr), bare));
            continue;
        }
        assert!(rows.get::<Names>(&row.service).is_some(), "{key:?} has no name");
        regions.extend([(row.outside, row.service), (row.inside, row.service)]);
        check_flags::<F>(rows, row);
    }
    for (region, service) in regions {
        for index in region.base..region.base + region.count {
            let slot = rows.get::<F::Slots>(&index).copied().unwrap_or_default();
            let Slot { generation, backend } = slot;
            assert_eq!(generation, region.generation, "slot {index} of {region:?}");
            let backend = rows
                .get::<F::Backends>(&backend)
                .expect("a slot leads to a backend");
            assert_eq!(backend.service, service, "{region:?} leads to {backend:?}");
            assert_eq!(
                backend.state,
                BackendState::Active as u8,
                "{region:?} leads to {backend:?}"
            );
        }
    }
    for (index, row) in rows.iter::<F::Backends>() {
        assert_eq!(
            row.state == BackendState::Free as u8,
            row.service == 0,
            "{index} {row:?}"
        );
    }
    for (key, index) in rows.iter::<F::Locals>() {
        let backend = rows.get::<F::Backends>(index).copied().unwrap_or_default();
        let found = (backend.addr, backend.service);
        assert_eq!(found, (key.addr, key.service), "{key:?} leads to {index}");
    }
}

/// What the flags of a front end need more of is there.
fn check_flags<F: FamilyTables>(rows: &Rows, row: &ServiceValue) {
    let policy = rows.get::<Policies>(&row.service).copied().unwrap_or_default();
    let has = |flag| row.flags & flag != 0;
    assert!(!has(ServiceFlags::AFFINITY) || policy.affinity > 0, "{row:?}");
    let limited = policy.interval > 0 || policy.source_interval > 0;
    assert!(!has(ServiceFlags::LIMITED) || limited, "{row:?}");
    let mut ranges = rows.iter::<F::Ranges>();
    let mut limited_sources = || ranges.any(|(key, _)| key.list == row.service);
    assert!(!has(ServiceFlags::SOURCE_RANGES) || limited_sources(), "{row:?}");
}

/// The backends of an id, by family, index and epoch.
fn backends_of<F: FamilyTables>(store: &FakeStore, id: u32) -> impl Iterator<Item = Left> {
    let rows = store.contents().iter::<F::Backends>();
    rows.filter(move |(_, row)| row.service == id)
        .map(|(index, row)| (F::NAME, index, row.epoch))
}

/// A row's epoch rises by one exactly when it is given to an endpoint that has not got it already.
fn check_epoch<T: Table, F: FamilyTables>(store: &FakeStore, key: &T::Key, value: &T::Value) {
    let (key, value): (&dyn Any, &dyn Any) = (key, value);
    let Some((index, row)) = key
        .downcast_ref::<u32>()
        .zip(value.downcast_ref::<Backend<F::Addr>>())
    else {
        return;
    };
    let before = store
        .contents()
        .get::<F::Backends>(index)
        .copied()
        .unwrap_or_default();
    let free = BackendState::Free as u8;
    let same = (before.service, before.addr, before.port) == (row.service, row.addr, row.port);
    let kept = row.state == free || (same && before.state != free);
    assert_eq!(
        row.epoch,
        if kept {
            before.epoch
        } else {
            before.epoch.wrapping_add(1)
        },
        "{before:?} {row:?}"
    );
}

/// An address as such is told of only when a front end of it is there.
fn check_address<T: Table, F: FamilyTables>(store: &FakeStore, key: &T::Key, value: &T::Value) {
    let (key, value): (&dyn Any, &dyn Any) = (key, value);
    let Some((key, row)) = key
        .downcast_ref::<ServiceKey<F::Addr>>()
        .zip(value.downcast_ref::<ServiceValue>())
    else {
        return;
    };
    let mut front_ends = store.contents().iter::<F::Services>();
    let mut has_front_end = || front_ends.any(|(other, row)| other.addr == key.addr && !is_address(row));
    assert!(!is_address(row) || has_front_end(), "{key:?} without a front end");
}
