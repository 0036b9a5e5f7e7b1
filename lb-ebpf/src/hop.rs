//! The next hop of a flow that the programs send on by themselves.
//!
//! A look-up in the kernel's routes costs more than all the rest, so the flow remembers what was found, together with
//! the agent's epoch of routes.

use lb_common::{Counter, DeviceFlags, DropReason, HopFlags};

use crate::ctx::{Ctx, Hook, Insert, Route};
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;
use crate::wrap;

/// The index of the loopback device, in every network namespace. As a next hop: the node itself.
pub const LOOPBACK: u32 = 1;

/// In [`lb_common::Hop::mtu`]: packets of any size. IPv6 knows some that are longer than the number says, and loopback takes them.
pub const ANY_SIZE: u16 = u16::MAX;

/// Asks the kernel how the packets of `work.flow` leave: to its endpoint, from its other endpoint. Uses
/// `work.other_key`.
#[inline(never)]
pub fn look<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    cx.count(Counter::HopLooked);
    let Work {
        packet,
        flow,
        other_key: way,
        ..
    } = work;
    (way.src, way.src_port) = (flow.peer_addr, flow.peer_port);
    (way.dst, way.dst_port) = (flow.addr, flow.port);
    way.protocol = packet.key.protocol;
    let length = if cx.segment_size() != 0 {
        0
    } else {
        cx.length().wrapping_sub(packet.l3) + wrap::overhead(flow)
    };
    let epoch = cx.settings().route_epoch;
    flow.hop.flags = 0;
    flow.hop.epoch = epoch;
    let route = cx.route(way, length, &mut flow.hop);
    wrap::narrow(cx, flow);
    match route {
        Route::Neighbour => {}
        Route::TooLong => return Err(leave(cx, Answer::TooBig)),
        Route::NoNeighbour if cx.hook() != Hook::Xdp => {
            flow.hop.epoch = epoch.wrapping_sub(1);
            flow.hop.mtu = device_mtu(cx, flow.hop.ifindex);
            wrap::narrow(cx, flow);
        }
        Route::None if cx.hook() != Hook::Xdp => {
            // The kernel does not tell whether there is no way, or none is needed.
            if cx.node_address(flow.addr).is_none() {
                return Err(Stop::drop(DropReason::NoRoute));
            }
            (flow.hop.ifindex, flow.hop.mtu) = (LOOPBACK, ANY_SIZE);
        }
        Route::NoNeighbour | Route::None => return Err(pass(cx)),
    }
    let here = cx.ifindex();
    let may_send = flow.hop.ifindex == here
        || cx
            .device(flow.hop.ifindex)
            .is_some_and(|device| device.flags & DeviceFlags::XDP_TARGET != 0);
    if may_send {
        flow.hop.flags = HopFlags::XDP;
    }
    if cx.hook() == Hook::Xdp && !may_send {
        return Err(pass(cx));
    }
    Ok(())
}

/// The size that a device takes: the kernel does not tell a way's without a neighbour.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "at most 65535")]
pub fn device_mtu<F: Wire, C: Ctx<F>>(cx: &C, ifindex: u32) -> u16 {
    cx.device(ifindex)
        .map_or(u16::MAX, |device| device.mtu.min(u16::MAX.into()) as u16)
}

/// As [`look`], for a flow that is known: what was found is written down.
#[inline(never)]
pub fn refresh<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    look(cx, work)?;
    let _kept_as_it_was = cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace);
    Ok(())
}

/// The packet cannot go on as it is: it is answered, but XDP leaves that to TC.
#[inline(always)]
pub fn leave<F: Wire, C: Ctx<F>>(cx: &mut C, answer: Answer) -> Stop {
    match cx.hook() {
        Hook::Xdp => pass(cx),
        Hook::Ingress | Hook::Egress => Stop::answer(answer),
    }
}

/// XDP leaves a packet to TC.
#[inline(always)]
pub fn pass<F: Wire, C: Ctx<F>>(cx: &mut C) -> Stop {
    cx.count(Counter::XdpPassed);
    Stop::PASS
}
