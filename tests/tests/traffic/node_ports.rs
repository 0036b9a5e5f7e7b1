//! NodePorts, and what else arrives at their numbers.

use std::net::{IpAddr, SocketAddr};

use lb_tests::dns::Resolver;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::manifests::{DNS, ECHO_TCP};
use lb_tests::need_root;
use lb_tests::server::{DNS_PORT, ECHO_PORT, Server};
use lb_tests::topology::{NODE1, Topology};
use lb_tests::world::World;

use super::on;

#[test]
fn the_nodes_own_connections_may_use_ports_of_node_ports() {
    need_root!();
    let world = World::new(&[0, 1]).unwrap();
    let Topology {
        client,
        node1,
        router,
        ..
    } = &world.topology;
    for peer in [client, router] {
        let _server = Server::start(peer).unwrap();
        for family in Family::BOTH {
            let own = |port| Some(SocketAddr::new(NODE1.of(family), port));
            let peers = |port| SocketAddr::new(peer.addresses.of(family), port);
            on(node1, || {
                let mut connection = Echo::open(peers(ECHO_PORT), own(ECHO_TCP.node_port.unwrap()))?;
                assert_eq!(connection.answer().backend, peer.name);
                connection.say("from a NodePort's number")?;

                let mut resolver = Resolver::open(peers(DNS_PORT), own(DNS.node_port.unwrap()))?;
                for _ in 0..3 {
                    assert_eq!(resolver.ask()?.backend, peer.name);
                }
                Ok(())
            });
        }
    }
}

#[test]
fn node_ports_are_only_at_the_nodes_internal_addresses() {
    need_root!();
    let world = World::new(&[0, 1]).unwrap();
    let other: [IpAddr; 2] = ["198.51.100.1".parse().unwrap(), "2001:db8:c::1".parse().unwrap()];
    for address in other {
        let to = SocketAddr::new(address, ECHO_TCP.node_port.unwrap());
        on(&world.topology.client, || {
            assert!(Echo::open(to, None).is_err(), "{to} answers");
            Ok(())
        });
    }
}
