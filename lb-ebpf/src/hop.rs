//! The next hop of a flow that the programs send on by themselves.
//!
//! A look-up in the kernel's routes costs more than all the rest, so the flow remembers what was found, together with
//! the agent's epoch of routes. For new flows each CPU remembers, for a moment, the ways to the backends that it has looked
//! up last.

use lb_common::{Counter, DeviceFlags, DropReason, FlowFlags, Hop};

use crate::ctx::{Ctx, Hook, Insert, Route};
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;
use crate::wrap;

/// The index of the loopback device, in every network namespace. As a next hop: the node itself.
pub const LOOPBACK: u32 = 1;

/// In [`lb_common::Hop::mtu`]: packets of any size. IPv6 knows some that are longer than the number says, and loopback takes them.
pub const ANY_SIZE: u16 = u16::MAX;

/// How many ways a CPU remembers: a backend has that of its index, modulo this number.
pub const KNOWN_WAYS: u32 = 256;

/// A way to a backend that a CPU has looked up ([`Tables::known_way`](crate::ctx::Tables::known_way)).
///
/// The kernel may tell ways apart by what is not compared here, the client's port: rules for source ports, and several ways of
/// one cost where `fib_multipath_hash_policy` is not 0. Then the flows of a moment go together.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct KnownWay<A> {
    /// From where, which is unspecified where the way decides about it.
    from: A,
    /// To where.
    to: A,
    /// The device that packets come in by.
    arrival: u32,
    /// When it was looked up, in jiffies.
    found: u32,
    /// What was found.
    hop: Hop,
}

/// Finds out how the packets of `work.flow` leave: to its endpoint, from its other endpoint. Uses `work.other_key`.
#[inline(always)]
pub fn look<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    cx.count(Counter::HopLooked);
    // Replies go to many clients.
    let is_to_backend = work.flow.flags & FlowFlags::REPLY == 0;
    let length = length(cx, work);
    if !(is_to_backend && recall(cx, work, length)) {
        ask(cx, work, length)?;
        if is_to_backend {
            keep(cx, work);
        }
    }
    if cx.hook() == Hook::Xdp && !may_send(cx, &work.flow.hop) {
        return Err(pass(cx));
    }
    // What a router has said counts at once.
    wrap::narrow(cx, &mut work.flow);
    Ok(())
}

/// Whether this CPU knows the way from the moment before. Not for a packet that is too long for it: then the kernel says
/// so.
#[inline(always)]
fn recall<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, length: u32) -> bool {
    let (now, arrival, settings) = (cx.now(), cx.ifindex(), cx.settings());
    let flow = &mut work.flow;
    let Some(known) = cx.known_way(flow.backend) else {
        return false;
    };
    let difference = F::difference(known.to, flow.addr)
        | F::difference(known.from, flow.peer_addr)
        | (known.arrival ^ arrival)
        | (known.hop.epoch ^ settings.route_epoch);
    let is_old = now.wrapping_sub(known.found) >= settings.jiffies_per_second / 4;
    if difference != 0 || is_old || length > u32::from(known.hop.mtu) {
        return false;
    }
    flow.hop = known.hop;
    true
}

/// Remembers the way that was found; one without a neighbour has an epoch that is over.
#[inline(always)]
fn keep<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) {
    let (found, arrival) = (cx.now(), cx.ifindex());
    let flow = &work.flow;
    if let Some(known) = cx.known_way(flow.backend) {
        known.from = flow.peer_addr;
        known.to = flow.addr;
        known.arrival = arrival;
        known.found = found;
        known.hop = flow.hop;
    }
}

/// The length of the packet as the kernel's routes are asked about it; 0 where it will be several.
#[inline(always)]
fn length<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> u32 {
    if cx.segment_size() != 0 {
        0
    } else {
        cx.length().wrapping_sub(work.packet.l3) + wrap::overhead(&work.flow)
    }
}

/// Asks the kernel.
#[inline(always)]
fn ask<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, length: u32) -> Result<(), Stop> {
    let Work {
        packet,
        flow,
        other_key: way,
        ..
    } = work;
    (way.src, way.src_port) = (flow.peer_addr, flow.peer_port);
    (way.dst, way.dst_port) = (flow.addr, flow.port);
    way.protocol = packet.key.protocol;
    let epoch = cx.settings().route_epoch;
    flow.hop.epoch = epoch;
    let route = cx.route(way, length, &mut flow.hop);
    match route {
        Route::Neighbour => {}
        Route::TooLong => {
            wrap::narrow(cx, flow);
            return Err(leave(cx, Answer::TooBig));
        }
        Route::NoNeighbour if cx.hook() != Hook::Xdp => {
            flow.hop.epoch = epoch.wrapping_sub(1);
            flow.hop.mtu = device_mtu(cx, flow.hop.ifindex);
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
    Ok(())
}

/// Whether XDP may send packets this way: back out of the device that they came in by, or out of one that takes them.
#[inline(always)]
pub fn may_send<F: Wire, C: Ctx<F>>(cx: &C, hop: &Hop) -> bool {
    hop.ifindex == cx.ifindex()
        || cx
            .known_device(hop.ifindex)
            .is_some_and(|device| device.flags & DeviceFlags::XDP_TARGET != 0)
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
