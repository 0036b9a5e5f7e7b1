//! Several nodes that balance together, behind a router that spreads over them.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use lb_tests::cluster::{Cluster, ClusterLayout};
use lb_tests::family::Family;
use lb_tests::http;
use lb_tests::manifests::{Condition, HTTP};
use lb_tests::need_root;
use lb_tests::topology::{Fabric, FabricLayout};
use lb_tests::world::{VIP, web};

fn ready() -> Vec<(u8, Condition)> {
    Fabric::nodes().map(|node| (node, Condition::Ready)).collect()
}

/// Everybody who answers the client.
fn answering(cluster: &Cluster, family: Family, requests: usize) -> BTreeSet<String> {
    let to = SocketAddr::new(VIP.of(family), HTTP.port);
    let ask = || (0..requests).map(|_| Ok(http::ask(to)?.backend)).collect();
    let done: Result<BTreeSet<_>> = cluster.fabric().client().netns.run(ask);
    done.unwrap()
}

fn all_pods() -> BTreeSet<String> {
    Fabric::nodes().map(|node| format!("web-{node}")).collect()
}

#[test]
fn every_pod_answers_through_every_node() {
    need_root!();
    let cluster = Cluster::new(ClusterLayout::default()).unwrap();
    cluster.set_service(&web(), &ready()).unwrap();
    for nodes in [&[1, 2][..], &[1], &[2]] {
        cluster.fabric().announce(nodes).unwrap();
        for family in Family::BOTH {
            assert_eq!(
                answering(&cluster, family, 60),
                all_pods(),
                "{family} through {nodes:?}"
            );
        }
    }
}

#[test]
fn every_pod_answers_when_a_node_is_gone() {
    need_root!();
    let cluster = Cluster::new(ClusterLayout::default()).unwrap();
    cluster.set_service(&web(), &ready()).unwrap();
    cluster.fabric().take_away(1, &[2]).unwrap();
    cluster.set_service(&web(), &ready()[1..]).unwrap();
    let others: BTreeSet<_> = all_pods().into_iter().skip(1).collect();
    for family in Family::BOTH {
        assert_eq!(answering(&cluster, family, 60), others, "{family}");
    }
}

#[test]
fn native_xdp_sends_and_receives_between_nodes() {
    need_root!();
    let cluster = Cluster::new(ClusterLayout {
        fabric: FabricLayout {
            native_xdp: true,
            ..FabricLayout::default()
        },
        options: &["--xdp=native"],
        ..ClusterLayout::default()
    })
    .unwrap();
    cluster.set_service(&web(), &ready()).unwrap();
    for family in Family::BOTH {
        assert_eq!(answering(&cluster, family, 60), all_pods(), "{family}");
    }
    let sent = [1, 2].map(|node| {
        let maps = cluster.agent(node).maps();
        maps.counter(lb_common::Counter::XdpSent).unwrap()
    });
    assert!(sent.iter().all(|packets| *packets > 0), "{sent:?}");
}
