//! Several uplinks: the replies of a flow leave by the one that its client's packets came in by.
//!
//! The kernel has routed a reply by the pod's address; the service's is put back only now. Where routes depend on the
//! source, as in clouds, whose networks take from each uplink its own addresses alone, it may have chosen the wrong
//! uplink. A flow remembers the right one only if there are several ([`lb_common::DeviceFlags::RETURNS`]).

use lb_common::{Counter, DeviceRole, FlowFlags, Hop};

use crate::ctx::{Ctx, Insert};
use crate::hop;
use crate::send;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// How a packet goes on that post has given its source: out by the device that the kernel has chosen, unless it is a
/// reply that may belong elsewhere.
#[inline(always)]
pub fn after_post<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Next {
    let (arrival, is_reply) = (work.flow.arrival, work.flow.flags & FlowFlags::REPLY != 0);
    if is_reply && arrival != 0 && arrival != cx.ifindex() {
        Next::Return
    } else {
        Next::Stack
    }
}

/// Sends a reply out by the uplink of arrival, if it can.
#[inline(always)]
pub fn leave<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if !returns(cx, work) {
        return Ok(Next::Stack);
    }
    cx.count(Counter::TcSent);
    Ok(Next::Out)
}

/// Whether the packet can leave by the uplink of arrival. Without a way there, or if it is too long for it, it leaves as
/// the kernel says: an answer would have to come from before the translation.
#[inline(always)]
fn returns<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    let stale = (work.flow.hop.epoch ^ cx.settings().route_epoch) | u32::from(work.flow.hop.ifindex == 0);
    if stale != 0 {
        ask(cx, work);
    }
    let Work { packet, flow, .. } = work;
    flow.hop.ifindex == flow.arrival
        && send::longest(cx, packet).is_ok_and(|length| length <= u32::from(flow.hop.mtu))
}

/// Asks the kernel for the way out by the uplink of arrival, and writes down what it says: without one, the next hop is
/// the device that the packet leaves by in any case.
#[inline(always)]
fn ask<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
    let Work {
        packet,
        flow,
        other_key: way,
        ..
    } = work;
    (way.src, way.src_port) = (flow.addr, flow.port);
    (way.dst, way.dst_port) = (packet.key.dst, flow.peer_port);
    way.protocol = packet.key.protocol;
    flow.hop = Hop {
        ifindex: cx.ifindex(),
        epoch: cx.settings().route_epoch,
        ..Hop::default()
    };
    let is_uplink = cx
        .device(cx.ifindex())
        .is_some_and(|device| device.role == DeviceRole::Uplink as u8);
    if is_uplink && let Some(mtu) = cx.way_by(way, flow.arrival) {
        flow.hop.ifindex = flow.arrival;
        flow.hop.mtu = mtu.min(hop::device_mtu(cx, flow.arrival));
    }
    let _asked_again_by_the_next = cx.insert_flow(&packet.key, flow, Insert::Replace);
}
