//! Native XDP: what is for another node, and what comes back from there, never meets the stack.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lb_common::Counter;
use lb_tests::cluster::{Cluster, ClusterLayout};
use lb_tests::echo;
use lb_tests::family::Family;
use lb_tests::http::{self, Received};
use lb_tests::manifests::{Condition, ECHO_UDP, HTTP};
use lb_tests::need_root;
use lb_tests::socket;
use lb_tests::tools;
use lb_tests::topology::{FabricLayout, Node};
use lb_tests::world::web;

use super::{on, vip};

/// The node that balances, and the one that has the pod.
const BALANCER: Node = 1;
const BACKEND: Node = 3;

const SIZE: u64 = 1_000_000;
/// No packet carries more.
const MTU: u64 = 1500;
const LIMIT: Duration = Duration::from_secs(5);

fn cluster() -> Cluster {
    let cluster = Cluster::new(ClusterLayout {
        fabric: FabricLayout {
            native_xdp: true,
            ..FabricLayout::default()
        },
        agents: &[BALANCER],
        options: &["--xdp=native"],
    })
    .unwrap();
    cluster.fabric().announce(&[BALANCER]).unwrap();
    cluster
        .set_service(&web(), &[(BACKEND, Condition::Ready)])
        .unwrap();
    // The neighbours are known from now on: of that XDP leaves to TC what waits for one.
    for family in Family::BOTH {
        on(cluster.fabric().client(), || {
            http::ask(vip(family, HTTP))?;
            echo::exchange(&socket::udp(vip(family, ECHO_UDP), None)?, b"hello")
        });
    }
    cluster
}

fn count(cluster: &Cluster, counter: Counter) -> u64 {
    cluster.agent(BALANCER).maps().counter(counter).unwrap()
}

/// XDP has sent what `work` sent through the balancer, and TC nothing.
fn by_xdp_alone(cluster: &Cluster, what: &str, work: impl FnOnce() -> Received) {
    let before = [Counter::XdpSent, Counter::TcSent].map(|counter| count(cluster, counter));
    assert_eq!(work(), Received::bulk(SIZE), "{what}");
    let [by_xdp, by_tc] = [Counter::XdpSent, Counter::TcSent].map(|counter| count(cluster, counter));
    assert!(
        by_xdp - before[0] > SIZE / MTU,
        "{what}: {} packets by XDP",
        by_xdp - before[0]
    );
    assert_eq!(by_tc, before[1], "{what}");
}

#[test]
fn bulk_is_masqueraded_both_ways_by_xdp() {
    need_root!();
    let cluster = cluster();
    let fabric = cluster.fabric();
    for family in Family::BOTH {
        let node = fabric.node(BALANCER).addresses.of(family);
        let node_port = SocketAddr::new(node, HTTP.node_port.unwrap());
        for to in [vip(family, HTTP), node_port] {
            by_xdp_alone(&cluster, &format!("upload to {to}"), || {
                tools::upload(fabric.client(), to, SIZE, LIMIT).unwrap()
            });
            by_xdp_alone(&cluster, &format!("download from {to}"), || {
                tools::download(fabric.client(), to, SIZE, LIMIT).unwrap()
            });
        }
    }
}

const CHANGES: u8 = 5;
const BETWEEN_CHANGES: Duration = Duration::from_millis(500);
/// Far more than the agent needs, far less than the second after which a flow looks by itself.
const REACTION: Duration = Duration::from_millis(250);

#[test]
fn a_neighbour_that_changes_costs_what_is_on_the_wire() {
    need_root!();
    let cluster = cluster();
    let (fabric, over) = (cluster.fabric(), AtomicBool::new(false));
    let before = count(&cluster, Counter::XdpSent);
    thread::scope(|scope| {
        let over = &over;
        let talks = Family::BOTH.map(|family| {
            let talk = move || fabric.client().netns.run(|| talk(vip(family, ECHO_UDP), over));
            (family, scope.spawn(talk))
        });
        let mut changes = Vec::new();
        for change in 0..CHANGES {
            thread::sleep(BETWEEN_CHANGES);
            let begin = Instant::now();
            fabric
                .replace_gateway(BALANCER, &format!("02:00:00:00:01:{change:02x}"))
                .unwrap();
            changes.push(begin..Instant::now() + REACTION);
        }
        thread::sleep(BETWEEN_CHANGES);
        over.store(true, Ordering::Relaxed);
        for (family, talk) in talks {
            let talk = talk.join().unwrap().unwrap();
            let mut lost = talk.lost.iter();
            let unexplained = lost.find(|at| !changes.iter().any(|change| change.contains(*at)));
            assert!(
                unexplained.is_none(),
                "{family}: lost {} of {}, not only at changes",
                talk.lost.len(),
                talk.sent
            );
        }
    });
    assert!(count(&cluster, Counter::XdpSent) > before);
}

/// What became of datagrams.
struct Talk {
    sent: usize,
    /// When those were sent that were not echoed.
    lost: Vec<Instant>,
}

/// Sends a datagram a millisecond, until it is over.
fn talk(to: SocketAddr, over: &AtomicBool) -> Result<Talk> {
    let socket = socket::udp(to, None)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    thread::scope(|scope| {
        let hearing = scope.spawn(|| {
            let (mut heard, mut number) = (BTreeSet::new(), [0; 4]);
            while socket.recv(&mut number).is_ok() {
                heard.insert(u32::from_be_bytes(number));
            }
            heard
        });
        let mut sent = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let number = u32::try_from(sent.len())?;
            sent.push(Instant::now());
            socket.send(&number.to_be_bytes())?;
            thread::sleep(Duration::from_millis(1));
        }
        let heard = hearing.join().map_err(|_| anyhow!("hearing panicked"))?;
        let is_lost = |&(number, _): &(u32, Instant)| !heard.contains(&number);
        let lost = (0..).zip(sent.iter().copied()).filter(is_lost);
        Ok(Talk {
            sent: sent.len(),
            lost: lost.map(|(_, at)| at).collect(),
        })
    })
}
