//! After every single write, whatever changes: no front end leads astray.

use std::net::Ipv4Addr;

use lb_common::{BackendState, Ip4, Port, ServiceKey, V4, V6, protocol};

use super::store::CheckedStore;
use super::world::{SmallWorld, applied, service, slice};
use super::{Config, config, expected, front_ends, pipe_with};
use crate::model::{Kind, Object, ObjectRef};
use crate::source::SourceEvent;
use crate::store::{Backends, FakeStore, FamilyTables, Names, Policies, Slots};

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
    // Tables have many slots to check; one world of four has them.
    let max_table = if seed % 4 == 1 { 251 } else { 0 };
    // In half of the worlds all that may go ahead does so.
    let portion = if seed.is_multiple_of(2) {
        1
    } else {
        Config::PORTION
    };
    let config = || Config {
        max_table,
        portion,
        ..config()
    };
    let pipe = |store: &CheckedStore, events: Vec<SourceEvent>| pipe_with(store, config(), events);
    let mut agent = pipe(&store, Vec::new());
    for _ in 0..if max_table == 0 { 400 } else { 100 } {
        store.faults = trouble
            .faults
            .map(|one_of| (crate::testkit::Random::new(1 + store.writes as u64), one_of));
        for _ in 0..=world.below(3) {
            agent.apply(world.change());
        }
        let report = agent.sync(&mut store);
        // Those that have left are forgotten at times.
        if world.below(8) == 0 {
            agent.advance(Config::REMOVED_GRACE);
        }
        if trouble.restarts.is_some_and(|one_of| world.below(one_of) == 0) {
            agent = pipe(&store, world.events());
        } else if report.retry_after.is_some() {
            agent.retry();
        }
        store.faults = None;
        let report = agent.sync(&mut store);
        if !trouble.small {
            assert!(report.retry_after.is_none(), "{:?}", report.problems);
            assert_eq!(front_ends(&store), expected(config(), world.events()));
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
    agent.advance(Config::REMOVED_GRACE);
    agent.sync(&mut store);
    all_free::<V4>(&store.inner);
    all_free::<V6>(&store.inner);
    assert_eq!(agent.sync(&mut store).written, 0);
}

fn maps(trouble: Trouble) -> FakeStore {
    let store = FakeStore::default();
    if !trouble.small {
        return store;
    }
    let store = store
        .with_capacity::<Backends<V4>>(20)
        .with_capacity::<Slots<V4>>(600);
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
    assert_eq!(store.contents().count::<Policies>(), 0);
    assert_eq!(store.contents().count::<F::Services>(), 0);
    assert_eq!(store.contents().count::<F::Ranges>(), 0);
}

/// After the grace nobody remembers them.
fn all_free<F: FamilyTables>(store: &FakeStore) {
    for (index, row) in store.contents().iter::<F::Backends>() {
        assert_eq!(row.state, BackendState::Free as u8, "{index} {row:?}");
    }
    assert_eq!(store.contents().count::<F::Locals>(), 0);
}

#[test]
fn a_front_end_goes_from_one_service_to_another_at_once() {
    // Services are planned in order of their names.
    for [from, to] in [["a", "b"], ["b", "a"]] {
        let ip = Ipv4Addr::new(10, 96, 0, 1);
        let told = |name| {
            let slice = slice(name, name, &[Ipv4Addr::new(10, 244, 0, 1)]);
            let service = service(name, &[ip.into()]);
            [Object::Service(service), Object::EndpointSlice(slice)].map(applied)
        };
        let config = Config {
            portion: 1,
            ..config()
        };
        let mut store = CheckedStore::default();
        let mut agent = pipe_with(&store, config.clone(), told(from));
        agent.sync(&mut store);

        store.stays = Some(ServiceKey::new(
            Ip4::new(ip.octets()),
            Port::new(80),
            protocol::TCP,
        ));
        agent.apply(SourceEvent::Delete(ObjectRef::new(Kind::Service, "", from)));
        for event in told(to) {
            agent.apply(event);
        }
        agent.sync(&mut store);
        assert_eq!(front_ends(&store), expected(config, told(to)));
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
