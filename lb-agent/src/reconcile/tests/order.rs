//! After every single write, whatever changes: no front end leads astray.

use lb_common::{BackendState, V4, V6};

use super::store::CheckedStore;
use super::world::SmallWorld;
use super::{expected, front_ends, pipe};
use crate::store::{Backends, FakeStore, FamilyTables, Names, Slots};

/// What goes on beside the changes.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// One of so many writes fails.
    faults: Option<u32>,
    /// The agent is replaced after one of so many passes.
    restarts: Option<u32>,
    /// Maps so small that they are full at times.
    small: bool,
}

/// Plays many random changes, each checked by the store, and compares with what a fresh agent would write.
#[track_caller]
fn check(seed: u64, trouble: Trouble) {
    let mut world = SmallWorld::new(seed);
    let mut store = CheckedStore {
        inner: maps(trouble),
        ..CheckedStore::default()
    };
    let mut agent = pipe(&store, []);
    for _ in 0..400 {
        store.faults = trouble
            .faults
            .map(|one_of| (crate::testkit::Random::new(1 + store.writes as u64), one_of));
        for _ in 0..=world.below(3) {
            agent.apply(world.change());
        }
        let report = agent.sync(&mut store);
        if trouble.restarts.is_some_and(|one_of| world.below(one_of) == 0) {
            agent = pipe(&store, world.events());
        } else if report.retry_after.is_some() {
            agent.retry();
        }
        store.faults = None;
        let report = agent.sync(&mut store);
        if !trouble.small {
            assert!(report.retry_after.is_none(), "{:?}", report.problems);
            assert_eq!(front_ends(&store), expected(world.events()));
        }
        if report.retry_after.is_some() {
            continue;
        }
        assert_eq!(
            agent.sync(&mut store).written,
            0,
            "a pass after which nothing has changed writes nothing"
        );
    }
    for event in world.clear() {
        agent.apply(event);
    }
    agent.retry();
    agent.sync(&mut store);
    agent.sync(&mut store);
    assert_eq!(front_ends(&store), Vec::<String>::new());
    assert_eq!(store.inner.contents().count::<Names>(), 0);
    none_in_use::<V4>(&store.inner);
    none_in_use::<V6>(&store.inner);
}

fn maps(trouble: Trouble) -> FakeStore {
    let store = FakeStore::default();
    if !trouble.small {
        return store;
    }
    let store = store
        .with_capacity::<Backends<V4>>(20)
        .with_capacity::<Slots<V4>>(40);
    store
        .with_capacity::<Backends<V6>>(8)
        .with_capacity::<Slots<V6>>(12)
        .with_capacity::<Names>(6)
}

fn none_in_use<F: FamilyTables>(store: &FakeStore) {
    for (index, row) in store.contents().iter::<F::Backends>() {
        let unused = [BackendState::Free as u8, BackendState::Removed as u8];
        assert!(unused.contains(&row.state), "{index} {row:?}");
    }
}

#[test]
fn no_write_leads_astray() {
    for seed in 1..=4 {
        check(seed, Trouble::default());
    }
}

#[test]
fn no_write_leads_astray_when_agents_come_and_go() {
    for seed in 11..=14 {
        check(
            seed,
            Trouble {
                restarts: Some(5),
                ..Trouble::default()
            },
        );
    }
}

#[test]
fn no_write_leads_astray_when_writes_fail() {
    for seed in 21..=26 {
        check(
            seed,
            Trouble {
                faults: Some(12),
                ..Trouble::default()
            },
        );
    }
}

#[test]
fn no_write_leads_astray_when_agents_die_in_the_middle() {
    for seed in 31..=36 {
        check(
            seed,
            Trouble {
                faults: Some(12),
                restarts: Some(2),
                ..Trouble::default()
            },
        );
    }
}

#[test]
fn no_write_leads_astray_when_maps_are_full() {
    for seed in 41..=46 {
        check(
            seed,
            Trouble {
                small: true,
                restarts: Some(20),
                ..Trouble::default()
            },
        );
    }
}
