//! The backend's node: takes the outer header away, and goes on with the packet inside as if the client had sent it
//! here, but with the backend that the outer destination names.

use lb_common::{
    BackendState, Counter, DeviceRole, DropReason, FlowFlags, LocalKey, RangeKey, RangeList, ServiceFlags,
    ServiceKey, Stage,
};

use crate::ctx::{Ctx, Hook, Segments, ServiceEvent};
use crate::fragment;
use crate::headers::{Fragment, Headers, Kind};
use crate::hop;
use crate::link::ETHERNET;
use crate::service;
use crate::verdict::Stop;
use crate::wire::{MAX_HEADERS, Network, Wire};
use crate::work::Work;

/// Unwraps a packet of another node, and leaves the inner packet's headers in `work.packet`: one of TCP, UDP or SCTP, ports
/// included, or an ICMP error.
///
/// Whoever can send wrapped packets can send from any address, so only nodes may. What is of no service with direct
/// server return is somebody else's tunnel, and none of this program's business.
#[inline(always)]
pub fn unwrap<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    match look_inside(cx, work) {
        Inside::Other => return Err(Stop::PASS),
        Inside::Fragment => {
            fragment::meet(cx, work)?;
            work.other_key = work.packet.key;
        }
        Inside::Whole => {}
    }
    match finish(cx, work) {
        Outcome::Unwrapped => {
            cx.count(Counter::Unwrapped);
            return Ok(());
        }
        Outcome::NotOurs => return Err(Stop::PASS),
        Outcome::LeftToTc => return Err(hop::pass(cx)),
        Outcome::Failed => return Err(Stop::drop(DropReason::WrapFailed)),
        Outcome::Foreign | Outcome::ForNobody => {}
    }
    cx.count_service(work.front_end.service, ServiceEvent::Dropped);
    Err(Stop::drop(if is_node::<F, C>(cx, work.outer.key.src) {
        DropReason::WrappedForNobody
    } else {
        DropReason::ForeignWrapper
    }))
}

/// What is in a wrapped packet.
///
/// The steps below are real calls, and each returns one byte: a result of more would be written to the caller's stack
/// by whoever comes first, and the verifier does not like what is in the bytes that do not matter.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Inside {
    /// Nothing that a node of ours sends.
    Other,
    /// A packet with ports, or an error about one.
    Whole,
    /// A fragment of a packet with ports.
    Fragment,
}

/// Reads the headers of the inner packet, while those of the outer one go to `work.outer`; leaves in `work.other_key`
/// what a whole one is sent to. An ICMP error goes where the packet that it is about came from.
#[inline(never)]
fn look_inside<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Inside {
    if !may_bring(cx) || cx.linearize(MAX_HEADERS).is_err() {
        return Inside::Other;
    }
    work.outer = work.packet;
    let inner = work.packet.l4;
    if !fits(cx, &work.outer) {
        return Inside::Other;
    }
    match work.packet.parse(cx, inner, Stage::Pre) {
        Ok(Kind::Transport) => {
            work.other_key = work.packet.key;
            Inside::Whole
        }
        Ok(Kind::Icmp) => match look_into_error(cx, work) {
            Ok(()) => Inside::Whole,
            Err(_) => Inside::Other,
        },
        // What it leaves behind must be a node's.
        Ok(Kind::Fragment) if is_node::<F, C>(cx, work.outer.key.src) => Inside::Fragment,
        Ok(Kind::Fragment | Kind::Wrapped | Kind::Other) | Err(_) => Inside::Other,
    }
}

/// Whether the inner packet ends where the outer one does, or before: what follows is padding, and no part of it.
#[inline(always)]
fn fits<F: Wire, C: Ctx<F>>(cx: &C, outer: &Headers<F>) -> bool {
    match (F::end(cx, outer.l3), F::end(cx, outer.l4)) {
        (Ok(end), Ok(inner_end)) => inner_end <= end,
        _ => false,
    }
}

/// Whether the packet came in by a device behind which other nodes are.
#[inline(always)]
fn may_bring<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    let role = cx.device(cx.ifindex()).map_or(0, |device| device.role);
    role == DeviceRole::Uplink as u8 || role == DeviceRole::Tunnel as u8
}

#[inline(always)]
fn look_into_error<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    const ICMP_HEADER: u32 = 8;
    let mut quoted = Network::<F>::default();
    F::network(cx, work.packet.l4 + ICMP_HEADER, &mut quoted)?;
    if quoted.transport.fragment == Fragment::LATER {
        return Err(Stop::PASS);
    }
    let [ports] = cx.read::<1>(quoted.transport.at)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    let key = &mut work.other_key;
    (key.src, key.src_port.octets) = (quoted.dst, [c, d]);
    (key.dst, key.dst_port.octets) = (quoted.src, [a, b]);
    key.protocol = quoted.transport.protocol;
    key.stage = Stage::Pre as u8;
    key.pad = [0; 2];
    Ok(())
}

/// What has become of a wrapped packet.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Outcome {
    /// It is not wrapped any more.
    Unwrapped,
    /// It is somebody else's.
    NotOurs,
    /// XDP cannot do it.
    LeftToTc,
    /// It is half unwrapped.
    Failed,
    /// It is from somebody who is no node.
    Foreign,
    /// It is for no local backend of the service inside.
    ForNobody,
}

/// Finds the backend that the outer destination names, into `work.given`, and takes the outer header away.
#[inline(never)]
fn finish<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Outcome {
    let is_from_node = is_node::<F, C>(cx, work.outer.key.src);
    if is_returned(cx, work) {
        if !is_from_node {
            return Outcome::Foreign;
        }
        let Some(index) = local(cx, work) else {
            return Outcome::ForNobody;
        };
        work.given = index.wrapping_add(1);
    } else if !is_from_node || !lives_on(cx, work) {
        return Outcome::NotOurs;
    }
    let is_error = work.packet.key.protocol == F::ICMP;
    if cx.hook() == Hook::Xdp && (is_error || work.outer.l3 != ETHERNET) {
        return Outcome::LeftToTc;
    }
    match take_away(cx, work) {
        Ok(()) => Outcome::Unwrapped,
        Err(_) => Outcome::Failed,
    }
}

/// Whether the packet is of a flow that is older than the service's present way: it keeps its backend.
#[inline(always)]
fn lives_on<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    cx.flow(&work.other_key, &mut work.flow)
        && F::difference(work.flow.addr, work.outer.key.dst) == 0
        && work.flow.flags & (FlowFlags::WRAPPED | FlowFlags::BOTH) == 0
}

/// Whether the inner packet is for a service with direct server return; a NodePort is reached at the address of the
/// node that has wrapped the packet.
#[inline(always)]
fn is_returned<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    let (key, front_end) = (&work.other_key, &mut work.front_end);
    let is_found = service::find(cx, key, front_end) || {
        let node_port = ServiceKey::new(F::Addr::default(), key.dst_port, key.protocol);
        match cx.service(&node_port) {
            Some(found) if is_node::<F, C>(cx, key.dst) => {
                *front_end = found;
                true
            }
            _ => false,
        }
    };
    is_found && front_end.flags & ServiceFlags::DSR != 0
}

/// Whether an address is a node's.
#[inline(always)]
fn is_node<F: Wire, C: Ctx<F>>(cx: &C, addr: F::Addr) -> bool {
    cx.in_range(&RangeKey {
        prefix_length: 32 + 8 * F::ADDRESS,
        list: RangeList::NODES,
        addr,
    })
}

/// The index of the local backend that the outer destination names.
#[inline(always)]
fn local<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Option<u32> {
    let service = work.front_end.service;
    let index = cx.local(&LocalKey {
        addr: work.outer.key.dst,
        service,
    })?;
    let backend = cx.backend(index)?;
    let difference = F::difference(backend.addr, work.outer.key.dst)
        | (backend.service ^ service)
        | u32::from(backend.state == BackendState::Free as u8);
    (difference == 0).then_some(index)
}

/// Takes the outer header away; what a router has marked in it is marked inside (RFC 6040).
#[inline(always)]
fn take_away<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let l3 = work.outer.l3;
    let is_marked = F::is_marked(cx, l3)?;
    let length = work.packet.l3.wrapping_sub(l3);
    work.packet.l3 = l3;
    work.packet.l4 = work.packet.l4.wrapping_sub(length);
    cx.take_away(l3, length, F::room(Segments::Kept))?;
    if is_marked { F::mark(cx, l3) } else { Ok(()) }
}

/// Whether a known flow goes where the packet's wrapper says; otherwise it is opened anew.
///
/// In mid-connection a flow that ends here stays with its backend: the node that has wrapped the packet may have lost
/// the flow and chosen by the hash, since when the backends are others. But what has been wrapped once is never sent on
/// to another node: two nodes that do not agree would play ball with it.
#[inline(always)]
pub fn agrees<F: Wire>(work: &Work<F>) -> bool {
    let Work {
        packet, flow, given, ..
    } = work;
    if *given == 0 {
        return true;
    }
    let ends_here = flow.flags & (FlowFlags::WRAPPED | FlowFlags::BOTH) == 0;
    ends_here && (!packet.is_syn() || flow.backend == given.wrapping_sub(1))
}

/// Whether the source of a packet that was wrapped is nobody's outside.
#[inline(always)]
pub fn has_bad_source<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    let src = work.packet.key.src;
    F::is_martian(src) || cx.node_address(src).is_some()
}
