//! Direct server return between nodes: two that balance, two that have the pods.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lb_common::{Counter, DropReason};
use lb_tests::cluster::{Cluster, ClusterLayout};
use lb_tests::dns;
use lb_tests::echo::{self, Echo};
use lb_tests::family::Family;
use lb_tests::http::{self, Received};
use lb_tests::manifests::{Condition, DNS, ECHO_TCP, ECHO_UDP, HTTP, Service};
use lb_tests::need_root;
use lb_tests::packet::{PacketBuilder, flag};
use lb_tests::socket;
use lb_tests::tools;
use lb_tests::topology::{FabricLayout, Node};
use lb_tests::wire::Link;
use lb_tests::world::web;

use super::{on, vip};

const SIZE: u64 = 1_000_000;
/// Far more than it takes, far less than a connection takes that has to guess what fits.
const LIMIT: Duration = Duration::from_secs(5);

/// The nodes that the router sends the client's packets to.
const BALANCERS: [Node; 2] = [1, 2];

/// Nodes that choose alike.
fn cluster(fabric: FabricLayout, xdp: &str, pods: &[Node]) -> Cluster {
    let cluster = Cluster::new(ClusterLayout {
        fabric,
        options: &["--hash-seed=4711", xdp],
        ..ClusterLayout::default()
    })
    .unwrap();
    let ready: Vec<_> = pods.iter().map(|node| (*node, Condition::Ready)).collect();
    cluster.set_service(&service(), &ready).unwrap();
    cluster
}

fn service() -> Service {
    web().annotated("sluice.dev/forwarding", "dsr")
}

fn count(cluster: &Cluster, node: Node, counter: Counter) -> u64 {
    cluster.agent(node).maps().counter(counter).unwrap()
}

#[test]
fn the_client_talks_to_the_service_and_the_pod_to_the_client() {
    need_root!();
    for xdp in ["--xdp=off", "--xdp=native"] {
        let layout = FabricLayout {
            native_xdp: xdp == "--xdp=native",
            ..FabricLayout::default()
        };
        let cluster = cluster(layout, xdp, &[3]);
        let client = cluster.fabric().client();
        for family in Family::BOTH {
            let own = client.addresses.of(family);
            on(client, || {
                for _ in 0..20 {
                    let answer = http::ask(vip(family, HTTP))?;
                    assert_eq!((&*answer.backend, answer.client.ip()), ("web-3", own));
                    let answer = dns::ask(vip(family, DNS))?;
                    assert_eq!((&*answer.backend, answer.client.ip()), ("web-3", own));
                }
                let mut connection = http::Connection::open(vip(family, HTTP))?;
                assert_eq!(connection.ask()?.client, connection.local());
                echo::exchange(&socket::udp(vip(family, ECHO_UDP), None)?, &[7; 1200])
            });
        }
        for node in BALANCERS {
            assert!(count(&cluster, node, Counter::Wrapped) > 0, "node {node}, {xdp}");
        }
        let wrapped: u64 = BALANCERS
            .map(|node| count(&cluster, node, Counter::Wrapped))
            .iter()
            .sum();
        assert_eq!(count(&cluster, 3, Counter::Unwrapped), wrapped, "{xdp}");
        if layout.native_xdp {
            assert!(count(&cluster, 1, Counter::XdpSent) > 0);
        }
    }
}

#[test]
fn bulk_goes_both_ways() {
    need_root!();
    for xdp in ["--xdp=off", "--xdp=native"] {
        let layout = FabricLayout {
            native_xdp: xdp == "--xdp=native",
            ..FabricLayout::default()
        };
        bulk(&cluster(layout, xdp, &[3]));
    }
}

#[test]
fn a_narrow_path_between_the_nodes_stalls_nothing() {
    need_root!();
    let layout = FabricLayout {
        backend_path: 1400,
        ..FabricLayout::default()
    };
    bulk(&cluster(layout, "--xdp=off", &[3]));
}

fn bulk(cluster: &Cluster) {
    let (client, whole) = (cluster.fabric().client(), Received::bulk(SIZE));
    for family in Family::BOTH {
        let to = vip(family, HTTP);
        assert_eq!(
            tools::upload(client, to, SIZE, LIMIT).unwrap(),
            whole,
            "upload to {to}"
        );
        assert_eq!(
            tools::download(client, to, SIZE, LIMIT).unwrap(),
            whole,
            "download from {to}"
        );
    }
    let unwrapped = count(cluster, 3, Counter::Unwrapped);
    assert!(unwrapped > 0);
}

/// How many connections of each family talk while nodes come and go.
const TALKS: usize = 150;

#[test]
fn connections_outlive_a_node_that_balances() {
    need_root!();
    let cluster = cluster(FabricLayout::default(), "--xdp=off", &[3, 4]);
    let fabric = cluster.fabric();
    let mut talks: Vec<Echo> = on(fabric.client(), || {
        let of_family = |family| (0..TALKS).map(move |_| Echo::open(vip(family, ECHO_TCP), None));
        Family::BOTH.into_iter().flat_map(of_family).collect()
    });
    for node in BALANCERS {
        assert!(count(&cluster, node, Counter::FlowOpened) > 0, "node {node}");
    }
    let over = AtomicBool::new(false);
    let lived = thread::scope(|scope| {
        let talks: Vec<_> = talks
            .iter_mut()
            .map(|talk| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        talk.say("hello")?;
                        thread::sleep(Duration::from_millis(10));
                    }
                    talk.say("good-bye")
                })
            })
            .collect();
        let pause = || thread::sleep(Duration::from_millis(300));
        pause();
        // Away on purpose, back again, and then without a word.
        for nodes in [&[2][..], &BALANCERS] {
            fabric.announce(nodes).unwrap();
            pause();
        }
        fabric.take_away(1, &[2]).unwrap();
        pause();
        over.store(true, Ordering::Relaxed);
        let ends = talks.into_iter().map(|talk| talk.join().unwrap());
        ends.filter(|end| match end {
            Ok(()) => true,
            Err(error) => {
                eprintln!("{error:#}");
                false
            }
        })
        .count()
    });
    assert!(
        lived * 100 >= 2 * TALKS * 99,
        "{lived} of {} connections live",
        2 * TALKS
    );
    assert!(count(&cluster, 2, Counter::FlowAdopted) > 0);
}

#[test]
fn a_pod_that_wraps_reaches_nobody() {
    need_root!();
    let cluster = cluster(FabricLayout::default(), "--xdp=off", &[3]);
    let fabric = cluster.fabric();
    let toolbox = fabric.toolbox(1);
    let pod = Link::open(toolbox, "eth0").unwrap();
    let node = Link::open(fabric.node(1), &toolbox.pod_device()).unwrap();
    let drops = || {
        let maps = cluster.agent(3).maps();
        maps.drops(DropReason::ForeignWrapper).unwrap()
    };
    for family in Family::BOTH {
        // From somebody outside, as it says.
        let source = SocketAddr::new(fabric.client().addresses.of(family), 40_000);
        let packet = PacketBuilder::tcp(source, vip(family, HTTP)).flags(flag::SYN);
        let wrapped = packet.wrapped(toolbox.addresses.of(family), fabric.web(3).addresses.of(family));
        let before = drops();
        pod.send(&wrapped.macs(node.mac, pod.mac).build()).unwrap();
        let begin = Instant::now();
        while drops() == before {
            assert!(begin.elapsed() < LIMIT, "{family}: nobody has refused it");
            thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(count(&cluster, 3, Counter::Unwrapped), 0);
}
