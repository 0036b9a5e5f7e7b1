//! The backend's node: takes the outer header away, and goes on with the packet inside as if the client had sent it
//! here, but with the backend that the outer destination names.

use lb_common::{
    BackendState, Counter, DeviceRole, DropReason, FlowFlags, LocalKey, RangeKey, RangeList, ServiceFlags,
    ServiceKey, Stage,
};

use crate::ctx::{Ctx, Hook, Segments, ServiceEvent};
use crate::fragment;
use crate::headers::{Fragment, Kind};
use crate::hop;
use crate::service;
use crate::verdict::Stop;
use crate::wire::{MAX_HEADERS, Network, Wire};
use crate::work::Work;

/// Unwraps a packet of another node, and leaves the inner packet's headers in `work.packet`. Says what that packet is:
/// one of TCP or UDP, ports included, or an ICMP error.
///
/// Whoever can send wrapped packets can send from any address, so only nodes may. What is of no service with direct
/// server return is somebody else's tunnel, and none of this program's business.
#[inline(never)]
pub fn unwrap<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Kind, Stop> {
    if !may_bring(cx) {
        return Err(Stop::Pass);
    }
    cx.linearize(MAX_HEADERS)?;
    let (l3, inner) = (work.packet.l3, work.packet.l4);
    work.outer = work.packet.key;
    let kind = look_inside(cx, work, inner)?;
    find_backend(cx, work)?;
    if kind == Kind::Icmp {
        work.given = 0;
    }
    if cx.hook() == Hook::Xdp && (kind == Kind::Icmp || l3 != ETHERNET) {
        work.given = 0;
        return Err(hop::pass(cx));
    }
    if take_away(cx, work, l3).is_err() {
        return Err(Stop::Drop(DropReason::WrapFailed));
    }
    cx.count(Counter::Unwrapped);
    Ok(kind)
}

/// Length of an Ethernet header without tags.
const ETHERNET: u32 = 14;

/// Whether the packet came in by a device behind which other nodes are.
#[inline(always)]
fn may_bring<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    let role = cx.device(cx.ifindex()).map_or(0, |device| device.role);
    role == DeviceRole::Uplink as u8 || role == DeviceRole::Tunnel as u8
}

/// Reads the headers of the inner packet; leaves in `work.other_key` what it is sent to. An ICMP error goes where the
/// packet that it is about came from.
#[inline(never)]
fn look_inside<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, inner: u32) -> Result<Kind, Stop> {
    let mut kind = work.packet.parse(cx, inner, Stage::Pre)?;
    match kind {
        Kind::Transport => {}
        // What it leaves behind must be a node's.
        Kind::Fragment if is_node::<F, C>(cx, work.outer.src) => {
            fragment::meet(cx, work)?;
            kind = Kind::Transport;
        }
        Kind::Icmp => return look_into_error(cx, work),
        Kind::Fragment | Kind::Wrapped => return Err(Stop::Pass),
    }
    work.other_key = work.packet.key;
    Ok(kind)
}

#[inline(always)]
fn look_into_error<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Kind, Stop> {
    const ICMP_HEADER: u32 = 8;
    let mut quoted = Network::<F>::default();
    F::network(cx, work.packet.l4 + ICMP_HEADER, &mut quoted)?;
    if quoted.transport.fragment == Fragment::LATER {
        return Err(Stop::Pass);
    }
    let [ports] = cx.read::<1>(quoted.transport.at)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    let key = &mut work.other_key;
    (key.src, key.src_port.octets) = (quoted.dst, [c, d]);
    (key.dst, key.dst_port.octets) = (quoted.src, [a, b]);
    key.protocol = quoted.transport.protocol;
    key.stage = Stage::Pre as u8;
    key.pad = [0; 2];
    Ok(Kind::Icmp)
}

/// Finds the backend that the outer destination names, into `work.given`; 0 when the packet's flow is older than the
/// service's present way, or the service.
#[inline(never)]
fn find_backend<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let is_from_node = is_node::<F, C>(cx, work.outer.src);
    if !is_returned(cx, work) {
        let lives_on = is_from_node
            && cx.flow(&work.other_key, &mut work.flow)
            && F::difference(work.flow.addr, work.outer.dst) == 0
            && work.flow.flags & (FlowFlags::WRAPPED | FlowFlags::BOTH) == 0;
        return if lives_on { Ok(()) } else { Err(Stop::Pass) };
    }
    let reason = if is_from_node {
        match local(cx, work) {
            Some(index) => {
                work.given = index.wrapping_add(1);
                return Ok(());
            }
            None => DropReason::WrappedForNobody,
        }
    } else {
        DropReason::ForeignWrapper
    };
    cx.count_service(work.front_end.service, ServiceEvent::Dropped);
    Err(Stop::Drop(reason))
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
        prefix_length: 32 + size_of::<F::Addr>() as u32 * 8,
        list: RangeList::NODES,
        addr,
    })
}

/// The index of the local backend that the outer destination names.
#[inline(always)]
fn local<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Option<u32> {
    let service = work.front_end.service;
    let index = cx.local(&LocalKey {
        addr: work.outer.dst,
        service,
    })?;
    let backend = cx.backend(index)?;
    let difference = F::difference(backend.addr, work.outer.dst)
        | (backend.service ^ service)
        | u32::from(backend.state == BackendState::Free as u8);
    (difference == 0).then_some(index)
}

/// Takes the outer header away; what a router has marked in it is marked inside (RFC 6040).
#[inline(always)]
fn take_away<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, l3: u32) -> Result<(), Stop> {
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
    let Work { packet, flow, given, .. } = work;
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
