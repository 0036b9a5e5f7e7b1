//! What a Service says about who may connect, how often, and to which endpoint: by manifests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use lb_common::DropReason;
use lb_tests::family::Family;
use lb_tests::manifests::{Condition, DNS, HTTP, Port, Service};
use lb_tests::topology::{CLIENT, Host};
use lb_tests::world::{World, web};
use lb_tests::{dns, http, need_root, socket};
use serde_json::json;

use super::{front_ends, on, vip};

const EVERYBODY: [(usize, Condition); 4] = [
    (0, Condition::Ready),
    (1, Condition::Ready),
    (2, Condition::Ready),
    (3, Condition::Ready),
];

/// The usual service, with what it says beside the usual.
fn world(service: &Service) -> World {
    let world = World::new(&[0]).unwrap();
    world.add_service(service, &EVERYBODY).unwrap();
    world
}

/// Who answers new connections, over TCP and UDP.
fn answering(from: &Host, family: Family, front_end: fn(Family, Port) -> SocketAddr) -> BTreeSet<String> {
    on(from, || {
        let tcp = (0..20).map(|_| Ok(http::ask(front_end(family, HTTP))?.backend));
        let udp = (0..20).map(|_| Ok(dns::ask(front_end(family, DNS))?.backend));
        tcp.chain(udp).collect::<Result<_>>()
    })
}

#[test]
fn a_client_stays_with_its_endpoint() {
    need_root!();
    let sticky = web().with_spec("sessionAffinity", "ClientIP");
    let world = world(&sticky);
    for from in [&world.topology.client, &world.topology.toolbox] {
        for family in Family::BOTH {
            let of_port = |port: Port| {
                on(from, || {
                    let ask = |to: SocketAddr| {
                        Ok(match port.protocol {
                            "TCP" => http::ask(to)?.backend,
                            _ => dns::ask(to)?.backend,
                        })
                    };
                    (0..20)
                        .map(|_| ask(vip(family, port)))
                        .collect::<Result<BTreeSet<_>>>()
                })
            };
            for port in [HTTP, DNS] {
                let backends = of_port(port);
                assert_eq!(
                    backends.len(),
                    1,
                    "{}, {family}, {}: {backends:?}",
                    from.name,
                    port.name
                );
            }
        }
    }
    // The endpoint leaves, and the client goes to another one, where it stays.
    let old = on(&world.topology.client, || http::ask(vip(Family::V4, HTTP))).backend;
    let left: Vec<_> = EVERYBODY
        .into_iter()
        .filter(|(pod, _)| format!("web-{}", pod + 1) != old)
        .collect();
    world.add_service(&sticky, &left).unwrap();
    let new: BTreeSet<_> = on(&world.topology.client, || {
        (0..20)
            .map(|_| Ok(http::ask(vip(Family::V4, HTTP))?.backend))
            .collect()
    });
    assert!(new.len() == 1 && !new.contains(&old), "{old}, then {new:?}");
}

#[test]
fn without_affinity_a_client_meets_everybody() {
    need_root!();
    let world = world(&web());
    for family in Family::BOTH {
        assert_eq!(
            answering(&world.topology.client, family, vip).len(),
            EVERYBODY.len()
        );
    }
}

#[test]
fn only_sources_in_range_reach_a_load_balancer() {
    need_root!();
    let ranges = |v4: &str, v6: &str| web().with_spec("loadBalancerSourceRanges", json!([v4, v6]));
    let world = world(&ranges("192.0.2.0/24", "2001:db8:bad::/48"));
    let client = &world.topology.client;
    let maps = world.agent.maps();
    for family in Family::BOTH {
        on(client, || {
            let [cluster_ip, vip, node_port] = front_ends(family, HTTP);
            http::ask(cluster_ip)?;
            http::ask(node_port)?;
            let before = maps.drops(DropReason::SourceNotAllowed)?;
            assert!(std::net::TcpStream::connect_timeout(&vip, Duration::from_millis(300)).is_err());
            assert!(maps.drops(DropReason::SourceNotAllowed)? > before);
            Ok(())
        });
    }
    let [v4, v6] = [format!("{}/32", CLIENT.v4), format!("{}/128", CLIENT.v6)];
    world.add_service(&ranges(&v4, &v6), &EVERYBODY[..1]).unwrap();
    for family in Family::BOTH {
        assert_eq!(
            answering(client, family, vip),
            BTreeSet::from(["web-1".to_owned()])
        );
    }
}

/// Connections a second.
const LIMIT: u64 = 10;

/// How many new connections are tried in a moment, and how many of them are dropped for this reason.
fn in_a_moment(world: &World, family: Family, reason: DropReason) -> (u64, u64) {
    let maps = world.agent.maps();
    let before = maps.drops(reason).unwrap();
    let sent = on(&world.topology.client, || {
        let to = vip(family, DNS);
        let sockets: Vec<_> = (0..100).map(|_| socket::udp(to, None)).collect::<Result<_>>()?;
        for socket in &sockets {
            socket.send(b"anybody there?")?;
        }
        Ok(sockets.len() as u64)
    });
    (sent, maps.drops(reason).unwrap() - before)
}

fn check_limit(annotation: &'static str, reason: DropReason) {
    let world = world(&web().annotated(annotation, &LIMIT.to_string()));
    for family in Family::BOTH {
        let (sent, dropped) = in_a_moment(&world, family, reason);
        // The bucket holds a second's worth, and some more comes in meanwhile.
        assert!(
            (50..=sent - LIMIT).contains(&dropped),
            "{dropped} of {sent} dropped, {family}"
        );
        // After a while there is room again.
        thread::sleep(Duration::from_secs(1));
        on(&world.topology.client, || dns::ask(vip(family, DNS)));
        // The other family's connections count, too.
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_service_takes_so_many_connections_a_second() {
    need_root!();
    check_limit(
        "sluice.dev/limit-connections-per-second",
        DropReason::ServiceLimited,
    );
}

#[test]
fn a_source_may_open_so_many_connections_a_second() {
    need_root!();
    check_limit(
        "sluice.dev/limit-connections-per-second-per-source",
        DropReason::SourceLimited,
    );
}
