//! Packets that the programs send on by themselves: both endpoints rewritten at once, or wrapped for another node.

use lb_common::{Counter, DropReason, FlowFlags};

use crate::ctx::{Ctx, Hook};
use crate::headers::Headers;
use crate::hop;
use crate::link::ETHERNET;
use crate::node;
use crate::rewrite;
use crate::stage;
use crate::verdict::{Answer, Next, Stop};
use crate::wire::Wire;
use crate::work::Work;
use crate::wrap;

/// Sends the packet of `work.flow` on.
#[inline(always)]
pub fn out<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.flow.flags & (FlowFlags::NODE | FlowFlags::REPLY) == FlowFlags::NODE | FlowFlags::REPLY {
        return node::deliver(cx, work);
    }
    if work.flow.flags & FlowFlags::NODE != 0 && work.flow.arrival != cx.ifindex() {
        node::follow(cx, work);
    }
    ready(cx, work)?;
    stage::count(cx, work);
    if work.flow.flags & FlowFlags::WRAPPED != 0 {
        wrap::wrap(cx, work)?;
    } else {
        // What the node itself has made has come no hop further.
        rewrite::both(cx, work, cx.hook() != Hook::Egress)?;
    }
    sent(cx, work)
}

/// Where a packet goes that is rewritten: out by the flow's next hop, or to the node itself.
#[inline(always)]
pub fn sent<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.flow.hop.ifindex == hop::LOOPBACK {
        return node::stay(cx, work);
    }
    cx.count(if cx.hook() == Hook::Xdp {
        Counter::XdpSent
    } else {
        Counter::TcSent
    });
    Ok(Next::Out)
}

/// Finds the next hop of `work.flow`, if it is not known, and sees whether the packet may leave that way.
#[inline(always)]
pub fn ready<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let stale = (work.flow.hop.epoch ^ cx.settings().route_epoch) | u32::from(work.flow.hop.ifindex == 0);
    if stale != 0 {
        hop::refresh(cx, work)?;
    }
    may_leave(cx, work)
}

/// What a router looks at: time to live, and size.
#[inline(always)]
pub fn may_leave<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let (packet, hop) = (&work.packet, &work.flow.hop);
    let is_xdp = cx.hook() == Hook::Xdp;
    if (is_xdp || work.flow.flags & FlowFlags::OUTSIDE != 0) && !is_for_node(cx) {
        return Err(Stop::PASS);
    }
    if is_xdp {
        // A tag is this device's alone, and in the way of an outer header.
        let is_rebuilt = hop.ifindex != cx.ifindex() || work.flow.flags & FlowFlags::WRAPPED != 0;
        if (is_rebuilt && packet.l3 != ETHERNET) || !hop::may_send(cx, hop) {
            return Err(hop::pass(cx));
        }
    }
    if work.flow.flags & FlowFlags::WRAPPED != 0 && packet.l3 > ETHERNET {
        // A second tag, or one that nobody took out: there is no room to be had behind it.
        return Err(Stop::drop(DropReason::WrapFailed));
    }
    // TCP's segments are made smaller by as much.
    let overhead = if cx.segment_size() != 0 && packet.is_tcp() {
        0
    } else {
        wrap::overhead(&work.flow)
    };
    if hop.mtu != hop::ANY_SIZE && longest(cx, packet)? + overhead > u32::from(hop.mtu) {
        return Err(hop::leave(cx, Answer::TooBig));
    }
    if cx.hook() != Hook::Egress && F::hops_left(cx, packet.l3)? <= 1 {
        return Err(hop::leave(cx, Answer::TimeExceeded));
    }
    Ok(())
}

/// The length, from the network header on, of the packet, or of the longest of those that it will be on the wire.
#[inline(always)]
pub fn longest<F: Wire, C: Ctx<F>>(cx: &C, packet: &Headers<F>) -> Result<u32, Stop> {
    const UDP_HEADER: u32 = 8;
    let size = cx.segment_size();
    if size == 0 {
        return Ok(cx.length().wrapping_sub(packet.l3));
    }
    let header = if packet.is_tcp() {
        let [offset, _flags] = cx.read_u16(packet.l4 + 12)?.to_ne_bytes();
        u32::from(offset >> 4) * 4
    } else {
        UDP_HEADER
    };
    Ok(packet.l4.wrapping_sub(packet.l3) + header + size)
}

/// Whether the frame is addressed to this node. Outside of XDP the driver has looked.
#[inline(always)]
fn is_for_node<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    if cx.hook() != Hook::Xdp {
        return cx.is_for([0; 6]);
    }
    cx.known_device(cx.ifindex())
        .is_some_and(|device| cx.is_for(device.mac))
}
