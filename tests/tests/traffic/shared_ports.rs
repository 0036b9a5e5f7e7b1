//! One client port, several connections that end at the same backend: their replies differ in nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use lb_common::Counter;
use lb_tests::dns::Resolver;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, Port, Service};
use lb_tests::need_root;
use lb_tests::topology::{CLIENT, web_address};
use lb_tests::world::{OTHER_CLUSTER_IP, OTHER_VIP, VIP, World, web};

use super::on;

const BACKEND: usize = 0;

/// Two services with one and the same backend.
fn world() -> World {
    let world = World::new(&[BACKEND]).unwrap();
    let ports = [ECHO_TCP, DNS].map(|port| Port {
        node_port: None,
        ..port
    });
    let other = Service::new("other", OTHER_CLUSTER_IP, OTHER_VIP, &ports);
    world.add_service(&other, &[(BACKEND, Condition::Ready)]).unwrap();
    world
}

/// Ways to the backend: two ClusterIPs, two load balancers, and straight.
fn ways(family: Family, port: Port) -> [SocketAddr; 5] {
    let usual = web();
    let front_ends = [usual.cluster_ip, OTHER_CLUSTER_IP, usual.vip, OTHER_VIP];
    let [a, b, c, d] = front_ends.map(|address| SocketAddr::new(address.of(family), port.port));
    [
        a,
        b,
        c,
        d,
        SocketAddr::new(web_address(BACKEND).of(family), port.target),
    ]
}

fn client(family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(CLIENT.of(family), port)
}

#[test]
fn tcp_connections_from_one_port_live_side_by_side() {
    need_root!();
    let world = world();
    for family in Family::BOTH {
        on(&world.topology.client, || {
            let ways = ways(family, ECHO_TCP).into_iter();
            let mut connections: Vec<_> = ways
                .map(|to| Echo::open(to, Some(client(family, 40_000))))
                .collect::<Result<_>>()?;
            for round in 0..3 {
                for (number, connection) in connections.iter_mut().enumerate() {
                    connection.say(&format!("round {round} of connection {number}"))?;
                }
            }
            let clients: Vec<_> = connections
                .iter()
                .map(|connection| connection.answer().client)
                .collect();
            assert!(
                clients.iter().all(|seen| seen.ip() == CLIENT.of(family)),
                "addresses are kept: {clients:?}"
            );
            Ok(())
        });
    }
    // All but the first of each family.
    assert_eq!(world.agent.maps().counter(Counter::PortReplaced).unwrap(), 8);
}

#[test]
fn udp_flows_from_one_port_live_side_by_side() {
    need_root!();
    let world = world();
    for family in Family::BOTH {
        on(&world.topology.client, || {
            let ways = ways(family, DNS).into_iter();
            let mut resolvers: Vec<_> = ways
                .map(|to| Resolver::open(to, Some(client(family, 40_001))))
                .collect::<Result<_>>()?;
            for _ in 0..3 {
                for resolver in &mut resolvers {
                    assert_eq!(resolver.ask()?.client.ip(), CLIENT.of(family));
                }
            }
            Ok(())
        });
    }
}

#[test]
fn a_port_is_free_again_when_its_tcp_connection_is_closed() {
    need_root!();
    let world = world();
    for family in Family::BOTH {
        on(&world.topology.client, || {
            // Each way after each other one.
            let ways = ways(family, ECHO_TCP);
            let pairs = ways
                .iter()
                .flat_map(|first| ways.iter().map(move |second| (*first, *second)));
            for (number, (first, second)) in pairs.filter(|(first, second)| first != second).enumerate() {
                let from = Some(client(family, 41_000 + u16::try_from(number)?));
                Echo::open(first, from)?.say("first")?;
                Echo::open(second, from)?.say("second")?;
            }
            Ok(())
        });
    }
}

#[test]
fn a_port_whose_connection_was_reset_opens_a_new_flow() {
    need_root!();
    let world = World::new(&[0, 1]).unwrap();
    for family in Family::BOTH {
        let vip = SocketAddr::new(VIP.of(family), ECHO_TCP.port);
        let from = Some(client(family, 42_000));
        world
            .set_endpoints(&[(0, Condition::Ready), (1, Condition::Ready)])
            .unwrap();
        let backend = on(&world.topology.client, || {
            let mut backends = BTreeSet::new();
            for _ in 0..5 {
                let mut connection = Echo::open(vip, from)?;
                connection.say("hello")?;
                backends.insert(connection.answer().backend.clone());
                connection.reset()?;
            }
            assert_eq!(
                backends.len(),
                1,
                "the choice is a hash of the flow: {backends:?}"
            );
            Ok(backends.pop_first())
        });
        let other = usize::from(backend.as_deref() == Some("web-1"));
        world.set_endpoints(&[(other, Condition::Ready)]).unwrap();
        on(&world.topology.client, || {
            let connection = Echo::open(vip, from)?;
            assert_ne!(
                Some(&connection.answer().backend),
                backend.as_ref(),
                "the old backend has left"
            );
            connection.reset()
        });
    }
}
