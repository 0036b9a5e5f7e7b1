//! Backends that see the node instead of the client, because flags or rules of the node say so.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use lb_tests::dns::Resolver;
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::http::{Connection, Received};
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, HTTP, Port, Service};
use lb_tests::need_root;
use lb_tests::topology::{CLIENT, Host, Layout, NODE1, RpFilter, web_address};
use lb_tests::world::{CLUSTER_IP, OTHER_CLUSTER_IP, OTHER_VIP, VIP, World, web};

use super::{front_ends, on};

const LOCAL: usize = 0;
const REMOTE: usize = 2;
const SIZE: u64 = 1_000_000;

const PODS: &str = "--cluster-cidr=10.244.0.0/16,fd00:244::/32";

/// What is dropped, whatever is on the node: packets that connection tracking makes nothing of.
const GUARD: &str = "table inet guard {
    chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
    chain input { type filter hook input priority 0; ct state invalid counter drop; }
}";

fn world(backend: usize, rp_filter: RpFilter, options: &[&str]) -> World {
    let layout = Layout {
        rp_filter,
        ..Layout::default()
    };
    let options = [&[PODS, "--xdp=off"], options].concat();
    let world = World::with_options(layout, &[backend], &options).unwrap();
    world.topology.node1.netns.nft(GUARD).unwrap();
    world
}

#[track_caller]
fn nothing_was_invalid(world: &World) {
    let node = &world.topology.node1.netns;
    let rules = node.command("nft", &["list", "ruleset"]).unwrap();
    assert_eq!(rules.matches("counter packets 0 ").count(), 2, "{rules}");
}

/// Who the backend sees when somebody asks, over TCP and UDP, and whether bulk arrives.
fn seen(from: &Host, port_of: fn(Family, Port) -> Vec<SocketAddr>, family: Family) -> BTreeSet<IpAddr> {
    let whole = Received::bulk(SIZE);
    on(from, || {
        let mut seen = BTreeSet::new();
        for to in port_of(family, HTTP) {
            let mut connection = Connection::open(to)?;
            seen.insert(connection.ask()?.client.ip());
            assert_eq!(connection.upload(SIZE)?, whole, "upload to {to}");
            assert_eq!(connection.download(SIZE)?, whole, "download from {to}");
        }
        for to in port_of(family, DNS) {
            let mut resolver = Resolver::open(to, None)?;
            for _ in 0..3 {
                let answer = resolver.ask().with_context(|| format!("{} to {to}", from.name))?;
                seen.insert(answer.client.ip());
            }
        }
        Ok(seen)
    })
}

fn every_front_end(family: Family, port: Port) -> Vec<SocketAddr> {
    front_ends(family, port).to_vec()
}

fn cluster_ip(family: Family, port: Port) -> Vec<SocketAddr> {
    vec![SocketAddr::new(CLUSTER_IP.of(family), port.port)]
}

#[test]
fn to_the_letter_a_local_backend_sees_the_node() {
    need_root!();
    for rp_filter in [RpFilter::Loose, RpFilter::Strict] {
        let world = world(LOCAL, rp_filter, &["--snat=always"]);
        for family in Family::BOTH {
            let node = BTreeSet::from([NODE1.of(family)]);
            assert_eq!(seen(&world.topology.client, every_front_end, family), node);
            let toolbox = &world.topology.toolbox;
            let pod = BTreeSet::from([toolbox.addresses.of(family)]);
            assert_eq!(seen(toolbox, cluster_ip, family), pod);
        }
        nothing_was_invalid(&world);
    }
}

#[test]
fn where_all_is_masqueraded_every_backend_sees_the_node() {
    need_root!();
    for backend in [LOCAL, REMOTE] {
        let world = world(backend, RpFilter::Strict, &["--masquerade-all"]);
        for family in Family::BOTH {
            let node = BTreeSet::from([NODE1.of(family)]);
            for from in [&world.topology.client, &world.topology.toolbox] {
                assert_eq!(
                    seen(from, every_front_end, family),
                    node,
                    "{} to {backend}",
                    from.name
                );
            }
        }
        nothing_was_invalid(&world);
    }
}

#[test]
fn only_where_it_is_needed_a_backend_sees_the_node() {
    need_root!();
    let world = world(LOCAL, RpFilter::Strict, &[]);
    for family in Family::BOTH {
        let client = BTreeSet::from([CLIENT.of(family)]);
        assert_eq!(seen(&world.topology.client, every_front_end, family), client);
    }
    world.set_endpoints(&[(REMOTE, Condition::Ready)]).unwrap();
    for family in Family::BOTH {
        let node = BTreeSet::from([NODE1.of(family)]);
        assert_eq!(seen(&world.topology.client, every_front_end, family), node);
    }
    nothing_was_invalid(&world);
}

/// One client port, two services with the same backend, and the pod itself, of which the services are masqueraded.
fn one_port(backend: usize, options: &[&str]) {
    let world = world(backend, RpFilter::Loose, options);
    let ports = [ECHO_TCP, DNS].map(|port| Port {
        node_port: None,
        ..port
    });
    let other = Service::new("other", OTHER_CLUSTER_IP, OTHER_VIP, &ports);
    world.add_service(&other, &[(backend, Condition::Ready)]).unwrap();
    let usual = web();
    for family in Family::BOTH {
        let from = Some(SocketAddr::new(CLIENT.of(family), 40_000));
        let ways = |port: Port| {
            let services = [OTHER_CLUSTER_IP, usual.cluster_ip, OTHER_VIP, VIP];
            let services = services.map(|address| SocketAddr::new(address.of(family), port.port));
            let pod = SocketAddr::new(web_address(backend).of(family), port.target);
            services.into_iter().chain([pod])
        };
        on(&world.topology.client, || {
            let mut connections: Vec<_> = ways(ECHO_TCP)
                .map(|to| Echo::open(to, from))
                .collect::<Result<_>>()?;
            let mut resolvers: Vec<_> = ways(DNS)
                .map(|to| Resolver::open(to, from))
                .collect::<Result<_>>()?;
            for round in 0..3 {
                for connection in &mut connections {
                    connection.say(&format!("round {round}"))?;
                }
                for resolver in &mut resolvers {
                    resolver.ask()?;
                }
            }
            Ok(())
        });
    }
}

#[test]
fn masqueraded_connections_of_one_port_live_side_by_side() {
    need_root!();
    one_port(REMOTE, &[]);
    one_port(LOCAL, &["--snat=always"]);
}
