//! The other entry of a flow.
//!
//! Two connections may want one reverse key: the same client port to two VIPs of one backend, or to a VIP and to the
//! pod itself. As netfilter does, the later one gets another client port; post puts the client's own back.

use lb_common::{
    BackendState, Counter, DropReason, Flow, FlowFlags, FlowKey, Port, Stage, TcpState, protocol,
};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::hash;
use crate::split;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// Other client ports that are tried when the client's own is taken.
pub const OTHER_PORTS: u32 = 4;

/// The key of the other entry: the reverse of the packet as this entry leaves it. It stands in the other stage, or in
/// the same one where an entry rewrites both endpoints.
#[inline(always)]
pub fn key<F: Wire>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, other: &mut FlowKey<F::Addr>) {
    let is_pre = key.stage == Stage::Pre as u8;
    other.protocol = key.protocol;
    other.pad = [0; 2];
    if flow.flags & FlowFlags::BOTH != 0 {
        other.stage = key.stage;
        (other.src, other.src_port) = (flow.addr, flow.port);
        (other.dst, other.dst_port) = (flow.peer_addr, flow.peer_port);
    } else if is_pre {
        other.stage = Stage::Post as u8;
        (other.src, other.src_port) = (flow.addr, flow.port);
        (other.dst, other.dst_port) = (key.src, flow.peer_port);
    } else {
        other.stage = Stage::Pre as u8;
        (other.src, other.src_port) = (key.dst, flow.peer_port);
        (other.dst, other.dst_port) = (flow.addr, flow.port);
    }
}

/// The other entry itself: it puts back what this entry's packets had. What the other direction has shown is not
/// known, but that the connection is open.
#[inline(always)]
pub fn entry<F: Wire>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, other: &mut Flow<F::Addr>) {
    *other = *flow;
    other.tcp = flow.tcp & TcpState::ESTABLISHED;
    other.flags = (flow.flags & !FlowFlags::COUNTED) ^ FlowFlags::REPLY;
    other.hop.ifindex = 0;
    if flow.flags & FlowFlags::BOTH != 0 {
        (other.addr, other.port) = (key.src, key.src_port);
        (other.peer_addr, other.peer_port) = (key.dst, key.dst_port);
    } else if key.stage == Stage::Pre as u8 {
        (other.addr, other.port, other.peer_port) = (key.dst, key.dst_port, key.src_port);
    } else {
        (other.addr, other.port, other.peer_port) = (key.src, key.src_port, key.dst_port);
    }
}

/// Puts key and value of the flow's other entry into the work area.
#[inline(always)]
pub fn derive<F: Wire>(work: &mut Work<F>) {
    let Work {
        packet,
        flow,
        other_key,
        other,
        ..
    } = work;
    key::<F>(&packet.key, flow, other_key);
    entry::<F>(&packet.key, flow, other);
}

/// Inserts the reverse entry of a new flow, whose forward entry is `work.flow`; settles the flow's client port.
#[inline(never)]
pub fn insert<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    derive(work);
    match claim(cx, work) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Stop::drop(DropReason::FlowTableFull)),
        Err(InsertError::Exists) => {}
    }
    let mut hash = work.flow_hash(cx);
    for _attempt in 0..OTHER_PORTS {
        hash = hash::next(hash);
        work.other_key.dst_port = port_from(hash);
        let stands = cx.flow(&work.other_key, &mut work.standing);
        let is_own = stands && is_own::<F>(&work.standing, &work.other);
        let how = if is_own { Insert::Replace } else { Insert::New };
        if cx.insert_flow(&work.other_key, &work.other, how).is_ok() {
            work.flow.peer_port = work.other_key.dst_port;
            cx.count(Counter::PortReplaced);
            return Ok(());
        }
    }
    Err(Stop::drop(DropReason::NoClientPort))
}

/// Takes the other entry's key if it is free, our own, or held by a flow that is over.
#[inline(always)]
pub fn claim<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), InsertError> {
    match cx.insert_flow(&work.other_key, &work.other, Insert::New) {
        Err(InsertError::Exists) => {}
        done => return done,
    }
    if cx.flow(&work.other_key, &mut work.standing) {
        if !is_own::<F>(&work.standing, &work.other) && !is_over(cx, work) {
            return Err(InsertError::Exists);
        }
        if work.flow.flags & FlowFlags::MASQUERADE == 0 {
            split::end(cx, work);
        }
    }
    cx.insert_flow(&work.other_key, &work.other, Insert::Replace)
}

/// Whether two entries put the same in.
#[inline(always)]
pub fn is_own<F: Wire>(standing: &Flow<F::Addr>, back: &Flow<F::Addr>) -> bool {
    F::difference(standing.addr, back.addr)
        | F::difference(standing.peer_addr, back.peer_addr)
        | difference(standing.port, back.port)
        | difference(standing.peer_port, back.peer_port)
        == 0
}

/// Whether the flow of the entry `work.standing` at `work.other_key` is over: finished, idle, its backend gone, or its
/// other entry turned elsewhere. Where there is no other entry, this one speaks for both.
#[inline(never)]
pub fn is_over<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    let Work {
        other_key: at,
        standing,
        partner_key,
        partner,
        ..
    } = work;
    key::<F>(at, standing, partner_key);
    let mut turned = 0;
    if cx.flow(partner_key, partner) {
        turned = turned_elsewhere::<F>(partner_key, partner, at);
    } else {
        *partner = *standing;
    }
    turned != 0
        || !has_backend::<F, C>(cx, standing)
        || is_finished::<F, C>(cx, at.protocol, standing, partner)
}

/// Deletes the entry `flow`, which stands at `at`, and its other entry if that is still turned here. `flow` and
/// `other_key` are overwritten.
#[inline(always)]
pub fn delete_both<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    at: &FlowKey<F::Addr>,
    flow: &mut Flow<F::Addr>,
    other_key: &mut FlowKey<F::Addr>,
) {
    cx.delete_flow(at);
    key::<F>(at, flow, other_key);
    if cx.flow(other_key, flow) && turned_elsewhere::<F>(other_key, flow, at) == 0 {
        cx.delete_flow(other_key);
    }
}

/// 0 when the other entry of `flow`, which stands at `key`, is at `at`.
#[inline(always)]
pub fn turned_elsewhere<F: Wire>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, at: &FlowKey<F::Addr>) -> u32 {
    let to_source = F::difference(flow.addr, at.src)
        | difference(flow.port, at.src_port)
        | difference(flow.peer_port, at.dst_port);
    if flow.flags & FlowFlags::BOTH != 0 {
        to_source | F::difference(flow.peer_addr, at.dst)
    } else if key.stage == Stage::Pre as u8 {
        to_source
    } else {
        F::difference(flow.addr, at.dst)
            | difference(flow.port, at.dst_port)
            | difference(flow.peer_port, at.src_port)
    }
}

/// Whether the flow's backend is still the endpoint that was chosen.
#[inline(always)]
pub fn has_backend<F: Wire, C: Ctx<F>>(cx: &C, flow: &Flow<F::Addr>) -> bool {
    if flow.flags & FlowFlags::DIRECT != 0 {
        return true;
    }
    let Some(backend) = cx.backend(flow.backend) else {
        return false;
    };
    let difference = u32::from(backend.epoch ^ flow.epoch)
        | (backend.service ^ flow.service)
        | u32::from(backend.state == BackendState::Free as u8);
    difference == 0
}

/// Whether the two directions have shown that the connection is finished, or that it is idle for too long.
#[inline(always)]
pub fn is_finished<F: Wire, C: Ctx<F>>(
    cx: &C,
    protocol: u8,
    flow: &Flow<F::Addr>,
    other: &Flow<F::Addr>,
) -> bool {
    let over = ((flow.tcp | other.tcp) & TcpState::RST) | (flow.tcp & other.tcp & TcpState::FIN);
    over != 0 || is_idle::<F, C>(cx, protocol, flow, other)
}

/// Whether neither direction was seen for the time that a flow of this protocol and state is kept.
#[inline(always)]
pub fn is_idle<F: Wire, C: Ctx<F>>(
    cx: &C,
    protocol: u8,
    flow: &Flow<F::Addr>,
    other: &Flow<F::Addr>,
) -> bool {
    let (now, settings) = (cx.now(), cx.settings());
    let shown = flow.tcp | other.tcp;
    let limit = if protocol != protocol::TCP {
        settings.udp_idle
    } else if shown & (TcpState::FIN | TcpState::RST) != 0 {
        settings.tcp_closing
    } else if shown & TcpState::ESTABLISHED != 0 {
        settings.tcp_established
    } else {
        settings.tcp_handshake
    };
    now.wrapping_sub(flow.last_seen) > limit && now.wrapping_sub(other.last_seen) > limit
}

/// 0 when both are the same.
#[inline(always)]
pub fn difference(one: Port, other: Port) -> u32 {
    u32::from(one.word() ^ other.word())
}

/// A port that is no well-known one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 65536")]
fn port_from(hash: u32) -> Port {
    const LOWEST: u32 = 1024;
    Port::new((LOWEST + hash::below(hash, 65536 - LOWEST)) as u16)
}
