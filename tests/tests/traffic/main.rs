//! Real traffic through the data plane, in network namespaces, on both families.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod balance;
mod bulk;
mod changes;
mod datagrams;
mod dsr;
mod hairpin;
mod lifecycle;
mod masquerade;
mod node_itself;
mod node_ports;
mod paths;
mod policies;
mod rejects;
mod sctp;
mod shared_ports;
mod shown;
mod surroundings;
mod uplinks;
mod xdp;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Result;
use lb_tests::answer::Answer;
use lb_tests::dns::Resolver;
use lb_tests::family::Family;
use lb_tests::http;
use lb_tests::load::{Load, Sample};
use lb_tests::manifests::{DNS, HTTP, Port};
use lb_tests::topology::{Host, NODE1};
use lb_tests::world::{CLUSTER_IP, VIP, World};

/// Between two requests of a load.
const PAUSE: Duration = Duration::from_millis(1);

/// The addresses under which a port of the usual service is reached: ClusterIP, load balancer, NodePort.
fn front_ends(family: Family, port: Port) -> [SocketAddr; 3] {
    let node_port = port.node_port.unwrap();
    [
        SocketAddr::new(CLUSTER_IP.of(family), port.port),
        SocketAddr::new(VIP.of(family), port.port),
        SocketAddr::new(NODE1.of(family), node_port),
    ]
}

fn vip(family: Family, port: Port) -> SocketAddr {
    SocketAddr::new(VIP.of(family), port.port)
}

/// Those who ask: outside, in a pod, on the node itself.
fn askers(world: &World) -> [&Host; 3] {
    let topology = &world.topology;
    [&topology.client, &topology.toolbox, &topology.node1]
}

/// Does something on a host, which must succeed.
fn on<T: Send>(host: &Host, work: impl FnOnce() -> Result<T> + Send) -> T {
    host.netns.run(work).unwrap()
}

/// Load over TCP and UDP on both families, each request a new flow.
struct Loads(Vec<Load>);

impl Loads {
    fn start(from: &Host) -> Self {
        let both = Family::BOTH.into_iter().flat_map(|family| {
            let (http, dns, own) = (vip(family, HTTP), vip(family, DNS), from.addresses.of(family));
            // A UDP port that is used again would go on with its old flow; these are below the kernel's own choice.
            let port = AtomicU16::new(10_000);
            let new_flow = move || SocketAddr::new(own, port.fetch_add(1, Ordering::Relaxed));
            [
                Load::start(from, PAUSE, move || http::ask(http)).unwrap(),
                Load::start(from, PAUSE, move || Resolver::open(dns, Some(new_flow()))?.ask()).unwrap(),
            ]
        });
        Self(both.collect())
    }

    /// Stops; no request may have failed.
    fn stop(self) -> Vec<Sample> {
        let samples: Vec<_> = self.0.into_iter().flat_map(|load| load.stop().unwrap()).collect();
        for sample in &samples {
            assert!(
                sample.result.is_ok(),
                "a request failed under load: {:#}",
                sample.result.as_ref().unwrap_err()
            );
        }
        samples
    }
}

/// Opens connections until one has the wanted backend.
fn until_backend<T>(backend: &str, mut open: impl FnMut() -> Result<(Answer, T)>) -> Result<T> {
    for _ in 0..100 {
        let (answer, connection) = open()?;
        if answer.backend == backend {
            return Ok(connection);
        }
    }
    anyhow::bail!("none of 100 connections had {backend}")
}
