//! An entry of a flow table in words.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address;
use lb_common::{Family, Flow, FlowFlags, FlowKey, Port, Stage, TcpState, protocol};
use serde::Serialize;

use super::super::view::protocol_name;
use crate::dataplane::clock;

/// What is remembered of a flow in one direction and at one stage.
#[derive(Debug, Serialize)]
pub(super) struct FlowView<'a> {
    /// `namespace/name:port/protocol`; `#` and the id when the service port is gone; null for a connection straight to a
    /// pod.
    pub(super) service: Option<Cow<'a, str>>,
    /// `ipv4` or `ipv6`.
    pub(super) family: &'static str,
    /// `pre` or `post`.
    pub(super) stage: &'static str,
    pub(super) protocol: &'static str,
    /// Of the packet as the stage meets it.
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// What the packet's source becomes; null when it stays.
    pub(super) new_source: Option<SocketAddr>,
    pub(super) new_destination: Option<SocketAddr>,
    /// Where packets go inside other ones (direct server return); else null.
    pub(super) outer_destination: Option<IpAddr>,
    /// Index into the map of backends; null for a connection straight to a pod.
    pub(super) backend: Option<u32>,
    /// The backend's epoch when it was chosen.
    pub(super) epoch: u16,
    /// What this direction has shown: `opening`, `established`, `closing`, `reset` of TCP, `new` or `assured` of UDP and
    /// SCTP.
    pub(super) state: &'static str,
    /// In words.
    pub(super) flags: Vec<&'static str>,
    /// Low 32 bits of the kernel's jiffies; advances at most once a second.
    pub(super) last_seen: u32,
    /// Seconds since then; null when the clock cannot be read.
    pub(super) age_seconds: Option<u32>,
}

impl<'a> FlowView<'a> {
    /// `service` is its name; the clock is where it stands now, and jiffies per second.
    pub(super) fn new<F: Family>(
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        service: Cow<'a, str>,
        clock: Option<(u32, u32)>,
    ) -> Self {
        let is_direct = flow.flags & FlowFlags::DIRECT != 0;
        let Rewrite { source, destination } = Rewrite::of(key, flow);
        let age = |(now, rate)| clock::since(flow.last_seen, now).checked_div(rate);
        Self {
            service: (!is_direct).then_some(service),
            family: F::NAME,
            stage: stage(key.stage),
            protocol: protocol_name(key.protocol),
            source: socket((key.src, key.src_port)),
            destination: socket((key.dst, key.dst_port)),
            new_source: source.map(socket),
            new_destination: destination.map(socket),
            outer_destination: (flow.flags & FlowFlags::WRAPPED != 0).then(|| flow.addr.ip()),
            backend: (!is_direct).then_some(flow.backend),
            epoch: flow.epoch,
            state: state(key.protocol, flow.tcp),
            flags: words(flow.flags),
            last_seen: flow.last_seen,
            age_seconds: clock.and_then(age),
        }
    }
}

/// An address and its port.
type End<A> = (A, Port);

/// What an entry puts into a packet, where that is not what stands there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rewrite<A> {
    pub(super) source: Option<End<A>>,
    pub(super) destination: Option<End<A>>,
}

impl<A: Address> Rewrite<A> {
    pub(super) fn of(key: &FlowKey<A>, flow: &Flow<A>) -> Self {
        let has = |flag| flow.flags & flag != 0;
        let (is_post, is_reply) = (key.stage == Stage::Post as u8, has(FlowFlags::REPLY));
        let (source, destination) = ((key.src, key.src_port), (key.dst, key.dst_port));
        let own = (flow.addr, flow.port);
        let (new_source, new_destination) = if has(FlowFlags::BOTH) {
            ((flow.peer_addr, flow.peer_port), own)
        } else if has(FlowFlags::WRAPPED) || (is_post && has(FlowFlags::MASQUERADE) && !is_reply) {
            // Nothing inside is rewritten; the source has still to be found.
            (source, destination)
        } else if is_post {
            (own, (key.dst, flow.peer_port))
        } else {
            ((key.src, flow.peer_port), own)
        };
        Self {
            source: (new_source != source).then_some(new_source),
            destination: (new_destination != destination).then_some(new_destination),
        }
    }
}

fn stage(number: u8) -> &'static str {
    if number == Stage::Post as u8 {
        "post"
    } else {
        "pre"
    }
}

fn state(number: u8, shown: u8) -> &'static str {
    let has = |state| shown & state != 0;
    match number {
        protocol::TCP if has(TcpState::RST) => "reset",
        protocol::TCP if has(TcpState::FIN) => "closing",
        protocol::TCP if has(TcpState::ESTABLISHED) => "established",
        protocol::TCP => "opening",
        _ if has(TcpState::ESTABLISHED) => "assured",
        _ => "new",
    }
}

fn words(flags: u8) -> Vec<&'static str> {
    [
        (FlowFlags::DIRECT, "direct"),
        (FlowFlags::REPLY, "reply"),
        (FlowFlags::BOTH, "both"),
        (FlowFlags::WRAPPED, "wrapped"),
        (FlowFlags::MASQUERADE, "masqueraded"),
        (FlowFlags::NODE, "node"),
        (FlowFlags::OUTSIDE, "outside"),
        (FlowFlags::COUNTED, "counted"),
    ]
    .into_iter()
    .filter_map(|(flag, word)| (flags & flag != 0).then_some(word))
    .collect()
}

fn socket<A: Address>((addr, port): End<A>) -> SocketAddr {
    SocketAddr::new(addr.ip(), port.number())
}
