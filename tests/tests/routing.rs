//! The hosts reach each other by plain routing, before any service comes into play.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use lb_tests::answer::Answer;
use lb_tests::echo::{self, Echo};
use lb_tests::family::{Family, Pair};
use lb_tests::http::{self, Received};
use lb_tests::need_root;
use lb_tests::server::{DNS_PORT, ECHO_PORT, HTTP_PORT, Server};
use lb_tests::topology::{Fabric, FabricLayout, Host, Layout, PodNetwork, RpFilter, Topology};
use lb_tests::{dns, socket};

fn ping(from: &Host, to: &Host) {
    for family in Family::BOTH {
        let address = to.addresses.of(family).to_string();
        from.netns.command("ping", &["-c1", "-W2", &address]).unwrap();
    }
}

fn check(layout: Layout) {
    let topology = Topology::with(layout).unwrap();
    for from in [&topology.client, &topology.toolbox, &topology.web[2]] {
        for to in topology.hosts().filter(|to| to.name != from.name) {
            ping(from, to);
        }
    }
}

#[test]
fn every_host_reaches_every_other() {
    need_root!();
    check(Layout::default());
}

#[test]
fn bridged_pods_reach_every_host_with_a_strict_filter() {
    need_root!();
    check(Layout {
        pods: PodNetwork::Bridge,
        rp_filter: RpFilter::Strict,
    });
}

#[test]
fn servers_answer_on_both_families() {
    need_root!();
    let topology = Topology::new().unwrap();
    let _server = Server::start(&topology.web[2]).unwrap();
    for family in Family::BOTH {
        let [http, dns, echo] = [HTTP_PORT, DNS_PORT, ECHO_PORT]
            .map(|port| SocketAddr::new(topology.web[2].addresses.of(family), port));
        topology
            .client
            .netns
            .run(|| {
                let mut connection = http::Connection::open(http)?;
                assert_eq!(connection.ask()?, Answer::new("web-3", connection.local()));
                assert_eq!(connection.download(1_000_000)?, Received::bulk(1_000_000));
                assert_eq!(connection.upload(1_000_000)?, Received::bulk(1_000_000));

                let answer = dns::ask(dns)?;
                assert_eq!(
                    (&*answer.backend, answer.client.ip()),
                    ("web-3", topology.client.addresses.of(family))
                );

                let mut connection = Echo::open(echo, None)?;
                assert_eq!(*connection.answer(), Answer::new("web-3", connection.local()?));
                connection.say("hello")?;
                echo::exchange(&socket::udp(echo, None)?, &[7; 1400])
            })
            .unwrap();
    }
}

#[test]
fn every_host_of_a_fabric_reaches_every_other() {
    need_root!();
    for pods in [PodNetwork::Routed, PodNetwork::FilteredBridge] {
        let fabric = Fabric::new(FabricLayout {
            pods,
            rp_filter: RpFilter::Strict,
            ..FabricLayout::default()
        })
        .unwrap();
        for from in [fabric.client(), fabric.web(1), fabric.node(2), fabric.toolbox(3)] {
            for to in fabric.network().hosts().filter(|to| to.name != from.name) {
                ping(from, to);
            }
        }
    }
}

/// An address that both balancing nodes have, as they would have it if they served by themselves.
const ANYCAST: Pair = Pair::new(
    std::net::Ipv4Addr::new(203, 0, 113, 99),
    std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xcb, 0, 0, 0, 0, 0x99),
);

#[test]
fn the_router_spreads_over_the_nodes_that_are_announced() {
    need_root!();
    let fabric = Fabric::new(FabricLayout::default()).unwrap();
    let _servers = [1, 2].map(|node| {
        let host = fabric.node(node);
        host.netns
            .ip(&format!(
                "addr add {}/32 dev lo\naddr add {}/128 dev lo",
                ANYCAST.v4, ANYCAST.v6
            ))
            .unwrap();
        Server::start(host).unwrap()
    });
    let answering = |family: Family| {
        let to = SocketAddr::new(ANYCAST.of(family), HTTP_PORT);
        let ask = || {
            (0..40)
                .map(|_| Ok(http::ask(to)?.backend))
                .collect::<anyhow::Result<BTreeSet<_>>>()
        };
        fabric.client().netns.run(ask).unwrap()
    };
    let both: BTreeSet<String> = ["node1".to_owned(), "node2".to_owned()].into();
    for family in Family::BOTH {
        assert_eq!(answering(family), both);
    }
    for (nodes, expected) in [(vec![2], vec!["node2"]), (vec![1], vec!["node1"])] {
        fabric.announce(&nodes).unwrap();
        let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
        for family in Family::BOTH {
            assert_eq!(answering(family), expected);
        }
    }
    fabric.announce(&[1, 2]).unwrap();
    for family in Family::BOTH {
        assert_eq!(answering(family), both);
    }
}

#[test]
fn narrow_paths_are_found_by_their_routers() {
    need_root!();
    let fabric = Fabric::new(FabricLayout {
        client_path: 1400,
        backend_path: 1360,
        ..FabricLayout::default()
    })
    .unwrap();
    let _server = Server::start(fabric.web(3)).unwrap();
    for family in Family::BOTH {
        let to = fabric.web(3).addresses.of(family);
        let http = SocketAddr::new(to, HTTP_PORT);
        fabric
            .client()
            .netns
            .run(|| {
                let mut connection = http::Connection::open(http)?;
                assert_eq!(connection.upload(1_000_000)?, Received::bulk(1_000_000));
                assert_eq!(connection.download(1_000_000)?, Received::bulk(1_000_000));
                Ok(())
            })
            .unwrap();
        // Both ends know now what the routers told them.
        for (from, to) in [
            (fabric.client(), to),
            (fabric.web(3), fabric.client().addresses.of(family)),
        ] {
            let route = from
                .netns
                .command("ip", &["route", "get", &to.to_string()])
                .unwrap();
            assert!(route.contains("mtu 1360"), "{}: {route}", from.name);
        }
    }
}
