//! The way between client and pod: links too narrow for full packets, and the routers that a traceroute shows.

use std::net::IpAddr;
use std::time::Duration;

use lb_tests::cluster::{Cluster, ClusterLayout};
use lb_tests::family::Family;
use lb_tests::http::Received;
use lb_tests::manifests::{Condition, ECHO_UDP, HTTP};
use lb_tests::need_root;
use lb_tests::tools::{self, Hop, Probe};
use lb_tests::topology::{FabricLayout, Node};
use lb_tests::world::web;

use super::vip;

const SIZE: u64 = 1_000_000;
/// Far more than it takes, far less than a connection takes that has to guess what fits.
const LIMIT: Duration = Duration::from_secs(5);

/// Node 1 balances.
const BALANCER: Node = 1;
/// A node behind another router.
const REMOTE: Node = 3;

/// Without XDP; the pod of this node is the only backend, and its node is seen by the client through node 1 alone.
fn cluster(fabric: FabricLayout, backend: Node) -> Cluster {
    let cluster = Cluster::new(ClusterLayout {
        fabric,
        agents: &[BALANCER],
        options: &["--xdp=off"],
    })
    .unwrap();
    cluster.fabric().announce(&[BALANCER]).unwrap();
    cluster
        .set_service(&web(), &[(backend, Condition::Ready)])
        .unwrap();
    cluster
}

/// Sends more than a window each way.
fn nothing_stalls(fabric: FabricLayout, backend: Node) {
    let cluster = cluster(fabric, backend);
    let (client, whole) = (cluster.fabric().client(), Received::bulk(SIZE));
    for family in Family::BOTH {
        let to = vip(family, HTTP);
        assert_eq!(
            tools::download(client, to, SIZE, LIMIT).unwrap(),
            whole,
            "download from {to}"
        );
        assert_eq!(
            tools::upload(client, to, SIZE, LIMIT).unwrap(),
            whole,
            "upload to {to}"
        );
    }
}

#[test]
fn a_narrow_path_to_the_client_stalls_no_local_pod() {
    need_root!();
    let layout = FabricLayout {
        client_path: 1400,
        ..FabricLayout::default()
    };
    nothing_stalls(layout, BALANCER);
}

#[test]
fn a_narrow_path_to_the_client_stalls_no_remote_pod() {
    need_root!();
    let layout = FabricLayout {
        client_path: 1400,
        ..FabricLayout::default()
    };
    nothing_stalls(layout, REMOTE);
}

#[test]
fn a_narrow_path_to_a_remote_pod_stalls_nothing() {
    need_root!();
    let layout = FabricLayout {
        backend_path: 1400,
        ..FabricLayout::default()
    };
    nothing_stalls(layout, REMOTE);
}

/// Who answers a traceroute of the client before the service does, in this order, by every kind of probe that the
/// service has a port for.
fn hops(backend: Node, expected: &[&str]) {
    let cluster = cluster(FabricLayout::default(), backend);
    for family in Family::BOTH {
        for (probe, port) in [(Probe::Tcp, HTTP), (Probe::Udp, ECHO_UDP)] {
            let to = vip(family, port);
            let hops = tools::traceroute(cluster.fabric().client(), to, probe).unwrap();
            let (last, others) = hops.split_last().unwrap();
            assert_eq!(last.address, Some(to.ip()), "{probe:?} to {to}: {hops:?}");
            let name = |hop: &Hop| match hop.address {
                address if address == last.address => "service",
                _ => owner(&cluster, hop),
            };
            let names: Vec<_> = others.iter().map(name).collect();
            assert_eq!(names, expected, "{probe:?} to {to}: {hops:?}");
        }
    }
}

/// The host that has a hop's address; `?` if nobody answered or nobody has it.
fn owner<'a>(cluster: &'a Cluster, hop: &Hop) -> &'a str {
    let has = |address: IpAddr, text: String| text.split([' ', '/']).any(|word| word == address.to_string());
    cluster
        .fabric()
        .network()
        .hosts()
        .find(|host| {
            let addresses = host.netns.command("ip", &["-o", "addr"]).unwrap();
            hop.address.is_some_and(|address| has(address, addresses))
        })
        .map_or("?", |host| &host.name)
}

#[test]
fn a_traceroute_shows_the_way_to_a_local_pod() {
    need_root!();
    hops(BALANCER, &["edge", "router", "node1"]);
}

#[test]
fn a_traceroute_ends_behind_the_routers_on_the_way_to_a_remote_pod() {
    need_root!();
    // Beyond the node routers are known by the service's address, as with netfilter.
    hops(
        REMOTE,
        &["edge", "router", "node1", "service", "service", "service"],
    );
}
