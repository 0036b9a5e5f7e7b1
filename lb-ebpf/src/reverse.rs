//! The other entry of a flow.
//!
//! Two connections may want one reverse key: the same client port to two VIPs of one backend, or to a VIP and to the
//! pod itself. As netfilter does, the later one gets another client port; post puts the client's own back.

use lb_common::{
    BackendState, Counter, DropReason, Flow, FlowFlags, FlowKey, Port, Stage, TcpState, protocol,
};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::hash;
use crate::headers::Headers;
use crate::verdict::Stop;
use crate::wire::Wire;

/// Other client ports that are tried when the client's own is taken.
pub const OTHER_PORTS: u32 = 4;

/// The key of the other entry: the reverse of the packet as this entry leaves it, in the other stage.
#[inline(always)]
pub fn key<F: Wire>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> FlowKey<F::Addr> {
    let (protocol, pad) = (key.protocol, [0; 2]);
    if key.stage == Stage::Pre as u8 {
        let (src, src_port, dst, dst_port) = (flow.addr, flow.port, key.src, flow.peer_port);
        FlowKey {
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            stage: Stage::Post as u8,
            pad,
        }
    } else {
        let (src, src_port, dst, dst_port) = (key.dst, flow.peer_port, flow.addr, flow.port);
        FlowKey {
            src,
            dst,
            src_port,
            dst_port,
            protocol,
            stage: Stage::Pre as u8,
            pad,
        }
    }
}

/// The other entry itself: it puts back what this entry's packets had. What the other direction has shown is not
/// known, but that the connection is open.
#[inline(always)]
pub fn entry<F: Wire>(key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> Flow<F::Addr> {
    let (addr, port, peer_port) = if key.stage == Stage::Pre as u8 {
        (key.dst, key.dst_port, key.src_port)
    } else {
        (key.src, key.src_port, key.dst_port)
    };
    Flow {
        addr,
        port,
        peer_port,
        tcp: flow.tcp & TcpState::ESTABLISHED,
        ..*flow
    }
}

/// Inserts the reverse entry of a new flow, whose forward entry is `flow`; settles the flow's client port.
#[inline(never)]
pub fn insert<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    let back = entry::<F>(&packet.key, flow);
    let mut at = key::<F>(&packet.key, flow);
    match claim::<F, C>(cx, &at, &back) {
        Ok(()) => return Ok(()),
        Err(InsertError::Full) => return Err(Stop::Drop(DropReason::FlowTableFull)),
        Err(InsertError::Exists) => {}
    }
    let mut hash = packet.hash(cx.settings().hash_seed);
    for _attempt in 0..OTHER_PORTS {
        hash = hash::finish(hash::mix(hash, 1));
        at.dst_port = port_from(hash);
        let is_own = cx.flow(&at).is_some_and(|standing| is_own::<F>(&standing, &back));
        let how = if is_own { Insert::Replace } else { Insert::New };
        if cx.insert_flow(&at, &back, how).is_ok() {
            flow.peer_port = at.dst_port;
            cx.count(Counter::PortReplaced);
            return Ok(());
        }
    }
    Err(Stop::Drop(DropReason::NoClientPort))
}

/// Takes a key that is free, our own, or held by a flow that is over.
#[inline(always)]
fn claim<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    at: &FlowKey<F::Addr>,
    back: &Flow<F::Addr>,
) -> Result<(), InsertError> {
    match cx.insert_flow(at, back, Insert::New) {
        Err(InsertError::Exists) => {}
        done => return done,
    }
    if let Some(standing) = cx.flow(at)
        && !is_own::<F>(&standing, back)
        && !is_over::<F, C>(cx, at, &standing)
    {
        return Err(InsertError::Exists);
    }
    cx.insert_flow(at, back, Insert::Replace)
}

#[inline(always)]
fn is_own<F: Wire>(standing: &Flow<F::Addr>, back: &Flow<F::Addr>) -> bool {
    F::difference(standing.addr, back.addr)
        | difference(standing.port, back.port)
        | difference(standing.peer_port, back.peer_port)
        == 0
}

/// Whether the flow of a reverse entry is over: finished, idle, its backend gone, or its forward entry turned
/// elsewhere. Where there is no forward entry, the reverse one speaks for both.
#[inline(always)]
pub fn is_over<F: Wire, C: Ctx<F>>(cx: &C, at: &FlowKey<F::Addr>, flow: &Flow<F::Addr>) -> bool {
    let forward = cx.flow(&key::<F>(at, flow)).unwrap_or(Flow {
        addr: at.src,
        port: at.src_port,
        peer_port: at.dst_port,
        ..*flow
    });
    let turned = F::difference(forward.addr, at.src)
        | difference(forward.port, at.src_port)
        | difference(forward.peer_port, at.dst_port);
    turned != 0 || !has_backend::<F, C>(cx, flow) || is_finished::<F, C>(cx, at.protocol, flow, &forward)
}

/// Whether the flow's backend is still the endpoint that was chosen.
#[inline(always)]
fn has_backend<F: Wire, C: Ctx<F>>(cx: &C, flow: &Flow<F::Addr>) -> bool {
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
    over != 0 || is_idle::<F, C>(cx, protocol, flow.last_seen, other.last_seen)
}

/// Whether neither direction was seen for the time that a flow of this protocol is kept.
#[inline(always)]
pub fn is_idle<F: Wire, C: Ctx<F>>(cx: &C, protocol: u8, seen: u32, other_seen: u32) -> bool {
    let (now, settings) = (cx.now(), cx.settings());
    let limit = if protocol == protocol::TCP {
        settings.tcp_idle
    } else {
        settings.udp_idle
    };
    now.wrapping_sub(seen) > limit && now.wrapping_sub(other_seen) > limit
}

#[inline(always)]
fn difference(one: Port, other: Port) -> u32 {
    u32::from(one.word() ^ other.word())
}

/// A port that is no well-known one.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below 65536")]
fn port_from(hash: u32) -> Port {
    const LOWEST: u32 = 1024;
    Port::new((LOWEST + hash::below(hash, 65536 - LOWEST)) as u16)
}
