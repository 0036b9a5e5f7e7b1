//! What fails is told once, with its object, and hurts nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use lb_common::{BackendState, ServiceStats, Settings, V4, V6};

use super::store::CheckedStore;
use super::world::{applied, service, slice};
use super::{front_ends, pipe};
use crate::model::{HostAddress, HostDevice, HostState, Kind, Object, ObjectName, ObjectRef};
use crate::source::SourceEvent;
use crate::store::{
    Backends, DevicesTable, FakeStore, MapStore as _, Names, NodeAddresses, Services, SettingsTable, Slots,
    Table,
};

/// A Service with two ports and two endpoints.
fn first() -> Vec<SourceEvent> {
    vec![
        applied(Object::Service(service("first", &[vip(1)]))),
        applied(Object::EndpointSlice(slice(
            "first",
            "first-1",
            &[pod(1), pod(4)],
        ))),
    ]
}

/// Another one.
fn second() -> Vec<SourceEvent> {
    vec![
        applied(Object::Service(service("second", &[vip(2)]))),
        applied(Object::EndpointSlice(slice(
            "second",
            "second-1",
            &[pod(2), pod(3)],
        ))),
    ]
}

fn vip(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 96, 0, host).into()
}

fn pod(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, host)
}

/// Writes two Services into maps of which `T` has only `rows` rows, which is too few for the second. Compares the
/// warnings, then makes the map larger and sees that the second is there, too.
#[track_caller]
fn check_full<T: Table>(rows: usize, warnings: &[&str]) {
    let mut store = CheckedStore {
        inner: FakeStore::default().with_capacity::<T>(rows),
        ..Default::default()
    };
    let mut agent = pipe(&store, first());
    assert_eq!(agent.sync(&mut store).problems, []);
    let before = front_ends(&store);
    for event in second() {
        agent.apply(event);
    }
    let report = agent.sync(&mut store);
    let told: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, warnings);
    assert!(report.retry_after.is_some());
    assert!(before.iter().all(|line| front_ends(&store).contains(line)));
    agent.retry();
    let again = agent.sync(&mut store);
    assert_eq!(again.problems, [], "the same is told once");
    assert!(again.retry_after > report.retry_after);
    agent.apply(SourceEvent::Delete(ObjectRef {
        kind: Kind::Service,
        name: ObjectName::new("default", "first"),
    }));
    let freed = agent.sync(&mut store);
    assert_eq!(
        freed.retry_after,
        Some(Duration::ZERO),
        "no back-off when room was made"
    );
    agent.retry();
    assert_eq!(agent.sync(&mut store).retry_after, None, "there is room now");
    assert_eq!(front_ends(&store).len(), before.len());
}

#[test]
fn no_row_of_services_is_left() {
    let text = "Service default/second: port a/tcp: map lb_services4 is full (3 rows); raise --max-services; \
                its last good state stays";
    let other = text.replace("a/tcp", "b/udp");
    check_full::<Services<V4>>(3, &[text, &other]);
}

#[test]
fn no_row_of_backends_is_left() {
    let text = "Service default/second: port a/tcp: map lb_backends4 is full; raise --max-backends; its last good \
                state stays";
    let other = text.replace("a/tcp", "b/udp");
    check_full::<Backends<V4>>(5, &[text, &other]);
}

#[test]
fn no_id_is_left() {
    let text = "Service default/second: port a/tcp: every service id is in use; raise --max-services; its last good \
                state stays";
    let other = text.replace("a/tcp", "b/udp");
    check_full::<Names>(2, &[text, &other]);
}

#[test]
fn no_slots_are_left() {
    let text = "Service default/second: port a/tcp: map lb_slots4 has no 2 free slots in one piece; raise --max-slots; \
                its last good state stays";
    let other = text.replace("a/tcp", "b/udp");
    check_full::<Slots<V4>>(5, &[text, &other]);
}

#[test]
fn settings_that_nobody_has_made_are_not_written_before_all_is_known() {
    let mut store = CheckedStore::default();
    let mut agent = super::Pipe::adopt(&store, super::config()).unwrap();
    agent.routes_changed(&mut store).unwrap();
    let settings = store.rows::<SettingsTable>().unwrap().remove(&0);
    assert_eq!(settings.unwrap_or_default(), Settings::default());
}

#[test]
fn nothing_of_objects_is_written_before_all_are_known() {
    let mut store = CheckedStore::default();
    pipe(&store, first()).sync(&mut store);
    let before = front_ends(&store);

    let mut agent = super::Pipe::adopt(&store, super::config()).unwrap();
    let host = HostState {
        devices: vec![HostDevice {
            ifindex: 2,
            name: "eth0".into(),
            role: lb_common::DeviceRole::Uplink,
            flags: 0,
            route_ifindex: 2,
            mtu: 1500,
            mac: [2, 0, 0, 0, 0, 1],
        }],
        addresses: vec![HostAddress {
            ip: Ipv4Addr::new(192, 0, 2, 1).into(),
            ifindex: 2,
        }],
    };
    agent.host_changed(host);
    let report = agent.sync(&mut store);
    assert_eq!((report.written, report.deleted), (1, 0));
    assert_eq!(store.rows::<DevicesTable>().unwrap().len(), 1);
    assert_eq!(front_ends(&store), before);

    let settings = |store: &CheckedStore| store.rows::<SettingsTable>().unwrap().remove(&0);
    let known = settings(&store).unwrap();
    assert_ne!(known, Settings::default());
    agent.routes_changed(&mut store).unwrap();
    let expected = Settings {
        route_epoch: known.route_epoch + 1,
        ..known
    };
    assert_eq!(settings(&store), Some(expected));

    agent.apply(SourceEvent::Synced);
    agent.sync(&mut store);
    assert_eq!(front_ends(&store), Vec::<String>::new());
    assert_eq!(store.rows::<NodeAddresses<V4>>().unwrap().len(), 2);
    assert_eq!(store.rows::<NodeAddresses<V6>>().unwrap().len(), 1);
    assert_eq!(store.rows::<SettingsTable>().unwrap().len(), 1);
}

#[test]
fn rows_whose_name_is_gone_are_cleared_up() {
    let mut store = CheckedStore::default();
    pipe(&store, first()).sync(&mut store);
    let ids: Vec<_> = store.rows::<Names>().unwrap().into_keys().collect();
    for id in ids {
        store.inner.delete::<Names>(&id).unwrap();
    }

    let mut agent = pipe(&store, second());
    // The stray front ends have no name until they are gone: that is not this agent's doing.
    agent.sync(&mut store.inner);
    assert!(
        front_ends(&store)
            .iter()
            .all(|line| line.contains("default/second") || line.starts_with("ADDR 10.96.0.2"))
    );
    assert_eq!(agent.sync(&mut store).written, 0);
}

#[test]
fn an_id_that_is_given_to_another_port_says_nothing_of_the_former() {
    let mut store = CheckedStore {
        inner: FakeStore::default().with_capacity::<Names>(2),
        ..Default::default()
    };
    let mut agent = pipe(&store, first());
    agent.sync(&mut store);
    for id in [1, 2] {
        store.inner.stats(id).connections = 7;
    }
    agent.apply(SourceEvent::Delete(ObjectRef {
        kind: Kind::Service,
        name: ObjectName::new("default", "first"),
    }));
    agent.sync(&mut store);
    let states = |store: &CheckedStore| -> Vec<_> {
        let rows = store.rows::<Backends<V4>>().unwrap();
        rows.values().map(|row| (row.state, row.service)).collect()
    };
    let (free, active, removed) = (
        BackendState::Free as u8,
        BackendState::Active as u8,
        BackendState::Removed as u8,
    );
    let left = [(removed, 1), (removed, 1), (removed, 2), (removed, 2)];
    assert_eq!(states(&store), left);
    assert_eq!(
        store.inner.stats(1).connections,
        7,
        "the last numbers stay to be read"
    );

    for event in second() {
        agent.apply(event);
    }
    assert_eq!(agent.sync(&mut store).problems, []);
    let new = [(active, 1), (active, 1), (active, 2), (active, 2)];
    assert_eq!(states(&store), [[(free, 0); 4], new].concat());
    for id in [1, 2] {
        assert_eq!(*store.inner.stats(id), ServiceStats::default());
    }
}

#[test]
fn without_room_for_a_table_a_smaller_one_or_none_does() {
    let mut store = CheckedStore {
        inner: FakeStore::default().with_capacity::<Slots<V4>>(250),
        ..Default::default()
    };
    let mut agent = pipe(&store, exposed());
    let mut check = |slots: Option<usize>, told: &[&str], shown: &str| {
        if let Some(slots) = slots {
            store.inner.resize::<Slots<V4>>(slots);
            agent = pipe(&store, exposed());
        }
        agent.retry();
        let report = agent.sync(&mut store);
        let problems: Vec<_> = report.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, told);
        assert_eq!(report.retry_after.is_some(), shown != "maglev 1021");
        let lines = front_ends(&store);
        let line = lines.iter().find(|line| line.contains("203.0.113.9")).unwrap();
        assert!(line.contains(&format!("-> {shown}")), "{line}");
    };
    let plain = "Service default/first: port a/tcp: map lb_slots4 has no 1021 free slots in one piece: the flow's hash \
                 decides without a Maglev table; raise --max-slots";
    check(None, &[plain], "[10.244.0.1:8080 ");
    check(None, &[], "[10.244.0.1:8080 ");
    let smaller = plain.replace(
        "the flow's hash decides without a Maglev table",
        "its Maglev table has 251",
    );
    check(Some(600), &[&smaller], "maglev 251");
    check(Some(2000), &[], "maglev 1021");
}

/// A Service with one port, which is also reached from outside, and three endpoints.
fn exposed() -> Vec<SourceEvent> {
    let mut service = service("first", &[vip(1)]);
    service.ports.truncate(1);
    service.external_ips = vec![Ipv4Addr::new(203, 0, 113, 9).into()];
    let slice = slice("first", "first-1", &[pod(1), pod(2), pod(3)]);
    vec![
        applied(Object::Service(service)),
        applied(Object::EndpointSlice(slice)),
    ]
}
