//! Processes of the node itself: their packets meet no ingress hook, so they are translated where they leave, and sent
//! to the device that leads to the backend. The replies get the service's address back where they arrive, and come in
//! by the device that the request was about to leave by: there the kernel expects the service's address, whatever its
//! reverse-path filter says.
//!
//! What is for the node itself, and what comes from an address of the node, comes in by the loopback device, whose
//! sysctls say that it may.

use lb_common::{DeviceRole, DropReason, Flow, FlowFlags, Port, Stage};

use crate::ctx::{Ctx, Hook, Insert};
use crate::hop;
use crate::known;
use crate::masquerade;
use crate::reverse;
use crate::rewrite;
use crate::stage;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// In [`Flow::peer_port`] of a new flow: any port but the process's own.
pub const OTHER_PORT: Port = Port { octets: [0; 2] };

/// A new flow of the node's own: the backend sees the address and port that the process has, unless the flow is
/// masqueraded. So a masqueraded flow is one whose peer endpoint is not the client's.
#[inline(always)]
pub fn open<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    work.flow.flags |= FlowFlags::BOTH | FlowFlags::NODE;
    let source = work.packet.key.src;
    // The kernel knows no way from localhost, which is replaced in any case.
    if !F::is_loopback(source) {
        work.flow.peer_addr = source;
    }
    hop::look(cx, work)?;
    masquerade(cx, work)
}

/// Gives a new flow another source, where the backend must not see the address that the process has. A real call, for
/// the sake of the stack.
#[inline(never)]
fn masquerade<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let (source, way) = (work.packet.key.src, work.flow.hop.ifindex);
    // A server of the node itself answers from the address that it is asked by.
    let addr = if way == hop::LOOPBACK {
        work.flow.addr
    } else {
        cx.snat_address(way)
    };
    let from_loopback = F::is_loopback(source);
    if F::difference(addr, F::Addr::default()) == 0 {
        return if from_loopback {
            Err(Stop::drop(DropReason::NoSnatAddress))
        } else {
            Ok(())
        };
    }
    let is_foreign = F::difference(addr, source) != 0 && is_strange(cx, way);
    if from_loopback || is_foreign || masquerade::is_wanted(cx, work, false) {
        (work.flow.peer_addr, work.flow.peer_port) = (addr, OTHER_PORT);
    }
    Ok(())
}

/// Whether nobody behind this device may know the address that the process has: it is one of the device that leads to
/// the service. Pods know all of their node's.
#[inline(always)]
fn is_strange<F: Wire, C: Ctx<F>>(cx: &C, way: u32) -> bool {
    way != cx.ifindex()
        && cx
            .device(way)
            .is_none_or(|device| device.role != DeviceRole::Pod as u8)
}

/// A packet of the node straight to an endpoint that meets the way back of another flow: it is given another port.
#[inline(always)]
pub fn direct<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) {
    let packet = &work.packet;
    work.flow = Flow {
        addr: packet.key.dst,
        port: packet.key.dst_port,
        peer_addr: packet.key.src,
        peer_port: OTHER_PORT,
        last_seen: cx.now(),
        tcp: known::next_state(0, packet),
        flags: FlowFlags::DIRECT | FlowFlags::BOTH | FlowFlags::NODE,
        arrival: cx.ifindex(),
        ..Flow::default()
    };
}

/// The packets of the flow leave by another device than before: so its replies have to come in there.
#[inline(never)]
pub fn follow<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
    work.flow.arrival = cx.ifindex();
    reverse::derive(work);
    if cx.flow(&work.other_key, &mut work.other) {
        work.other.arrival = work.flow.arrival;
        let _comes_in_where_it_did = cx.insert_flow(&work.other_key, &work.other, Insert::Replace);
    }
    let _tried_again_with_the_next = cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace);
}

/// A reply to the node's own: it goes up the stack as if the service had sent it.
#[inline(never)]
pub fn deliver<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if cx.hook() == Hook::Xdp {
        return Err(hop::pass(cx));
    }
    stage::count(cx, work);
    rewrite::both(cx, work, false)?;
    arrive(cx, work)
}

/// Lets a packet that is rewritten come in where the replies of `work.flow` do.
#[inline(always)]
pub fn arrive<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<Next, Stop> {
    if cx.hook() == Hook::Ingress && work.flow.arrival == cx.ifindex() {
        return Ok(Next::Stack);
    }
    let mac = cx.device(work.flow.arrival).map_or([0; 6], |device| device.mac);
    cx.readdress(work.packet.l3, mac)?;
    Ok(Next::Arrive)
}

/// Lets a packet that is rewritten come in as one that the node has sent to itself.
#[inline(never)]
pub fn stay<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    work.flow.arrival = hop::LOOPBACK;
    arrive(cx, work)
}

/// The stage whose table has the ways back that a connection straight to an endpoint may meet.
#[inline(always)]
pub fn way_back<F: Wire, C: Ctx<F>>(cx: &C) -> Stage {
    match cx.hook() {
        Hook::Egress => Stage::Pre,
        Hook::Xdp | Hook::Ingress => Stage::Post,
    }
}
