//! Real traffic through the data plane, in network namespaces, on both families.

#![expect(clippy::unwrap_used, reason = "tests panic")]

mod balance;
mod bulk;
mod changes;
mod datagrams;
mod node_ports;
mod shared_ports;
mod surroundings;

use std::net::SocketAddr;

use anyhow::Result;
use lb_tests::answer::Answer;
use lb_tests::family::Family;
use lb_tests::manifests::Port;
use lb_tests::topology::{Host, NODE1};
use lb_tests::world::{CLUSTER_IP, VIP};

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

/// Does something on a host, which must succeed.
fn on<T: Send>(host: &Host, work: impl FnOnce() -> Result<T> + Send) -> T {
    host.netns.run(work).unwrap()
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
