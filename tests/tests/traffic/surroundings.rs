//! What else may be on a node: filters, a bridge, forged packets, traffic that is no service's.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::{Counter, DropReason};
use lb_tests::answer::Answer;
use lb_tests::dns::{self, Resolver};
use lb_tests::echo::Echo;
use lb_tests::family::Family;
use lb_tests::http::{self, Connection};
use lb_tests::manifests::{DNS, ECHO_TCP, HTTP};
use lb_tests::need_root;
use lb_tests::server::HTTP_PORT;
use lb_tests::topology::{Layout, PodNetwork, RpFilter};
use lb_tests::world::{CLUSTER_IP, World};

use super::{front_ends, on};

/// In which the agent sees what others do.
const NOTICED: Duration = Duration::from_secs(5);

/// Every front end works for the client and for a pod, over TCP and UDP.
fn check(world: &World) {
    for from in [&world.topology.client, &world.topology.toolbox] {
        for family in Family::BOTH {
            on(from, || {
                for to in front_ends(family, HTTP) {
                    // Several, so that each backend gets some.
                    for _ in 0..10 {
                        http::ask(to)?;
                    }
                }
                for to in front_ends(family, DNS) {
                    for _ in 0..10 {
                        dns::ask(to)?;
                    }
                }
                for to in front_ends(family, ECHO_TCP) {
                    Echo::open(to, None)?.say("hello")?;
                }
                Ok(())
            });
        }
    }
}

#[test]
fn a_filter_of_invalid_packets_drops_nothing() {
    need_root!();
    let world = World::new(&[0, 1, 2]).unwrap();
    world
        .topology
        .node1
        .netns
        .nft(
            "table inet guard {
                chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
                chain input { type filter hook input priority 0; ct state invalid counter drop; }
            }",
        )
        .unwrap();
    check(&world);
    let rules = world
        .topology
        .node1
        .netns
        .command("nft", &["list", "ruleset"])
        .unwrap();
    assert_eq!(rules.matches("counter packets 0 ").count(), 2, "{rules}");
}

/// What nodes of many a cluster have: what leaves a node gets the node's address, unless it stays among pods.
#[test]
fn rules_that_masquerade_spoil_nothing() {
    need_root!();
    let world = World::new(&[0, 1, 2]).unwrap();
    let node = &world.topology.node1.netns;
    node.nft(
        "table inet cni {
            chain forward { type filter hook forward priority 0; ct state invalid counter drop; }
            chain leave {
                type nat hook postrouting priority 100;
                ip daddr 10.244.0.0/16 accept
                ip6 daddr fd00:244::/32 accept
                oifname \"up-*\" masquerade fully-random
            }
        }",
    )
    .unwrap();
    check(&world);
    let rules = node.command("nft", &["list", "ruleset"]).unwrap();
    assert_eq!(rules.matches("counter packets 0 ").count(), 1, "{rules}");
}

/// Filters of somebody else, who look for what is not there, on every device; ours comes behind them.
#[test]
fn filters_of_others_spoil_nothing() {
    need_root!();
    let world = World::new(&[0, 1, 2]).unwrap();
    let node = &world.topology.node1.netns;
    let tc = |arguments: &str| {
        let arguments: Vec<_> = arguments.split(' ').collect();
        node.command("tc", &arguments).unwrap()
    };
    let devices = ["up-client", "up-fabric", "pod-toolbox", "pod-web-1", "pod-web-2"];
    for device in devices {
        tc(&format!("qdisc add dev {device} clsact"));
        for hook in ["ingress", "egress"] {
            tc(&format!(
                "filter add dev {device} {hook} prio 100 protocol all u32 match u32 0xffffffff 0xffffffff at 0 flowid 1:1"
            ));
        }
    }
    let begin = Instant::now();
    for device in devices {
        while !tc(&format!("filter show dev {device} ingress")).contains("lb_pre") {
            assert!(begin.elapsed() < NOTICED, "no filter on {device} follows");
            thread::sleep(Duration::from_millis(5));
        }
    }
    check(&world);
}

#[test]
fn a_strict_reverse_path_filter_drops_nothing() {
    need_root!();
    check(
        &World::with(
            Layout {
                rp_filter: RpFilter::Strict,
                ..Layout::default()
            },
            &[0, 1, 2],
        )
        .unwrap(),
    );
}

#[test]
fn pods_on_one_bridge_reach_each_other_by_service() {
    need_root!();
    check(
        &World::with(
            Layout {
                pods: PodNetwork::Bridge,
                ..Layout::default()
            },
            &[0, 1, 2],
        )
        .unwrap(),
    );
}

#[test]
fn a_bridge_and_a_strict_filter_go_together() {
    need_root!();
    check(
        &World::with(
            Layout {
                pods: PodNetwork::Bridge,
                rp_filter: RpFilter::Strict,
            },
            &[0, 1, 2],
        )
        .unwrap(),
    );
}

#[test]
fn a_pod_with_a_forged_source_opens_no_flow() {
    need_root!();
    let world = World::new(&[0, 1]).unwrap();
    let toolbox = &world.topology.toolbox;
    toolbox
        .netns
        .ip("addr add 192.0.2.66/32 dev lo\naddr add 2001:db8:bad::66/128 dev lo")
        .unwrap();
    let forged: [IpAddr; 2] = ["192.0.2.66".parse().unwrap(), "2001:db8:bad::66".parse().unwrap()];
    let maps = world.agent.maps();
    for source in forged {
        let to = SocketAddr::new(CLUSTER_IP.of(Family::of(source)), DNS.port);
        on(toolbox, || {
            let asked = Resolver::open(to, Some(SocketAddr::new(source, 5000)))?.ask();
            assert!(asked.is_err(), "{source} got an answer: {asked:?}");
            Ok(())
        });
        assert!(!maps.has_flow_from(source).unwrap(), "{source} has a flow");
    }
    assert_eq!(maps.drops(DropReason::SpoofedSource).unwrap(), 2);
}

#[test]
fn traffic_of_no_service_is_left_alone() {
    need_root!();
    let world = World::new(&[0, 1, 2]).unwrap();
    for from in [&world.topology.client, &world.topology.toolbox] {
        for to in &world.topology.web {
            for family in Family::BOTH {
                let address = to.addresses.of(family);
                from.netns
                    .command("ping", &["-c1", "-W2", &address.to_string()])
                    .unwrap();
                on(from, || {
                    let mut connection = Connection::open(SocketAddr::new(address, HTTP_PORT))?;
                    assert_eq!(connection.ask()?, Answer::new(&to.name, connection.local()));
                    Ok(())
                });
            }
        }
    }
    assert_eq!(world.agent.maps().counter(Counter::FlowOpened).unwrap(), 0);
}
