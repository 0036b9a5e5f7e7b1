//! What the data plane does to packets: cases that every engine must pass, for both families.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "what cannot be set up fails the test"
)]

mod affinity;
mod answers;
mod backends;
mod basic;
mod checksums;
mod choice;
mod collisions;
mod direct;
mod dsr;
mod eviction;
mod fragments;
mod headers;
mod icmp;
mod limits;
mod masquerade;
mod node;
mod node_itself;
pub mod random;
mod ranges;
mod sctp;
mod sent_on;
mod state;
mod tcp;
mod through;
mod uplinks;
mod vips;

use std::net::SocketAddr;

use lb_common::ServiceStats;

use crate::engine::{Bed, Step, TestFamily, backend, end};
use crate::packet::{PacketBuilder, View, flag};

/// TCP alone.
const TCP: &[u8] = &[lb_common::protocol::TCP];
/// UDP alone.
const UDP: &[u8] = &[lb_common::protocol::UDP];
/// TCP and UDP.
const BOTH: &[u8] = &[lb_common::protocol::TCP, lb_common::protocol::UDP];
/// SCTP alone.
const SCTP: &[u8] = &[lb_common::protocol::SCTP];
/// TCP, UDP and SCTP.
const ALL: &[u8] = &[
    lb_common::protocol::TCP,
    lb_common::protocol::UDP,
    lb_common::protocol::SCTP,
];

/// One packet was dropped.
const DROPPED: ServiceStats = ServiceStats {
    dropped: 1,
    packets: 0,
    bytes: 0,
    reply_packets: 0,
    reply_bytes: 0,
    connections: 0,
};

/// A case, for one family.
pub struct Case<F: TestFamily> {
    /// Its name: what it shows.
    pub name: &'static str,
    /// The protocols that it is run with.
    pub protocols: &'static [u8],
    /// Runs it.
    pub run: fn(&mut Bed<'_, F>),
}

macro_rules! cases {
    ($($protocols:ident: $($name:ident),+ $(,)?;)+) => {
        pub(super) fn cases<F: crate::engine::TestFamily>() -> Vec<super::Case<F>> {
            vec![$($(super::Case {
                name: concat!(module_path!(), "::", stringify!($name)),
                protocols: super::$protocols,
                run: $name::<F>,
            },)+)+]
        }
    };
}
use cases;

/// Every case.
pub fn all<F: TestFamily>() -> Vec<Case<F>> {
    [
        basic::cases(),
        headers::cases(),
        icmp::cases(),
        fragments::cases(),
        checksums::cases(),
        tcp::cases(),
        backends::cases(),
        collisions::cases(),
        direct::cases(),
        node::cases(),
        answers::cases(),
        vips::cases(),
        node_itself::cases(),
        eviction::cases(),
        sent_on::cases(),
        sctp::cases(),
        dsr::all(),
        choice::cases(),
        affinity::cases(),
        ranges::cases(),
        limits::cases(),
        state::cases(),
        masquerade::cases(),
        through::cases(),
        uplinks::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Where a TCP, UDP or SCTP packet is from.
#[track_caller]
fn source(view: &View) -> SocketAddr {
    SocketAddr::new(view.source, ports(view)[0])
}

/// Where a TCP, UDP or SCTP packet goes.
#[track_caller]
fn destination(view: &View) -> SocketAddr {
    SocketAddr::new(view.destination, ports(view)[1])
}

#[track_caller]
fn ports(view: &View) -> [u16; 2] {
    view.ports()
        .unwrap_or_else(|| panic!("no ports: {:?}", view.content))
}

/// A client outside of the node.
fn client<F: TestFamily>() -> SocketAddr {
    end::<F>([0, 10], 40_000)
}

/// The VIP of a service.
fn vip<F: TestFamily>(service: u8) -> SocketAddr {
    end::<F>([96, service], 80)
}

/// The node's address that NodePorts are reached at.
fn node<F: TestFamily>(port: u16) -> SocketAddr {
    end::<F>([2, 1], port)
}

/// Somebody who has nothing to do with any service.
fn stranger<F: TestFamily>() -> SocketAddr {
    end::<F>([3, 3], 80)
}

/// The index of the backend of service 1 that a packet was sent to.
#[track_caller]
fn chosen<F: TestFamily>(step: &Step, packet: &PacketBuilder) -> u8 {
    (0..3)
        .find(|number| step.after == packet.clone().to(backend::<F>(*number)).build())
        .unwrap_or_else(|| panic!("to no backend of service 1: {step:02x?}"))
}

/// Opens a flow from `client` to `service`, whose backend is `backend`: the handshake, or a datagram each way.
#[track_caller]
fn open<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr, backend: SocketAddr) {
    let opening = bed.opening(client, service);
    bed.pre(&opening).becomes(&opening.clone().to(backend));
    answer(bed, backend, client, service);
    if bed.is_tcp() {
        both_ways(bed, client, service, backend);
    }
}

/// The first packet back.
#[track_caller]
fn answer<F: TestFamily>(bed: &mut Bed<'_, F>, backend: SocketAddr, client: SocketAddr, service: SocketAddr) {
    let mut answer = bed.data(backend, client);
    if bed.is_tcp() {
        answer = answer.flags(flag::SYN | flag::ACK);
    }
    bed.post(&answer).becomes(&answer.clone().from(service));
}

/// A packet of an open flow each way.
#[track_caller]
fn both_ways<F: TestFamily>(
    bed: &mut Bed<'_, F>,
    client: SocketAddr,
    service: SocketAddr,
    backend: SocketAddr,
) {
    let request = bed.data(client, service);
    bed.pre(&request).becomes(&request.clone().to(backend));
    let reply = bed.data(backend, client);
    bed.post(&reply).becomes(&reply.clone().from(service));
}

/// Ends a TCP connection by FIN both ways, lets another one become idle.
#[track_caller]
fn finish<F: TestFamily>(bed: &mut Bed<'_, F>, client: SocketAddr, service: SocketAddr, backend: SocketAddr) {
    if !bed.is_tcp() {
        bed.wait(11);
        return;
    }
    let fin = bed.data(client, service).flags(flag::FIN | flag::ACK);
    bed.pre(&fin).becomes(&fin.clone().to(backend));
    let fin = bed.data(backend, client).flags(flag::FIN | flag::ACK);
    bed.post(&fin).becomes(&fin.clone().from(service));
}
