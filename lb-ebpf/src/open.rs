//! A new flow to a service: may this packet open it, which backend gets it, what is remembered.

use lb_common::{Counter, DeviceRole, DropReason, Flow, ServiceFlags, ServiceValue};

use crate::choose;
use crate::ctx::{Ctx, Insert, ServiceEvent};
use crate::headers::Headers;
use crate::known;
use crate::reverse;
use crate::verdict::Stop;
use crate::wire::Wire;

/// A new flow to a service: may this packet open it?
///
/// A real call, as [`entry`]: their branches are not multiplied, and their stacks do not add up.
#[inline(never)]
pub fn admit<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    front_end: &ServiceValue,
) -> Result<(), Stop> {
    check_state(cx, packet, front_end)?;
    if has_forged_source(cx, packet) {
        cx.count_service(front_end.service, ServiceEvent::Dropped);
        return Err(Stop::Drop(DropReason::SpoofedSource));
    }
    Ok(())
}

/// Chooses the backend of a new flow and leaves the flow's entry in `flow`, to be remembered.
#[inline(never)]
pub fn entry<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    front_end: &ServiceValue,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    let choice = choose::backend(cx, packet, front_end)
        .inspect_err(|_| cx.count_service(front_end.service, ServiceEvent::Dropped))?;
    *flow = new_entry(cx, packet, &choice);
    Ok(())
}

/// On an address that is the node's own, a packet without state may as well belong to a connection of the node that
/// happens to use a port of the NodePort range: only what surely opens a connection is taken. On any other address a
/// packet in mid-connection is taken, too: its flow moved here from another node, and the hash finds its backend.
#[inline(always)]
fn check_state<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    front_end: &ServiceValue,
) -> Result<(), Stop> {
    let key = &packet.key;
    if front_end.flags & ServiceFlags::NODE_PORT == 0 && cx.node_address(key.dst).is_none() {
        return Ok(());
    }
    let opens = if packet.is_tcp() {
        packet.is_syn()
    } else {
        !cx.connected_socket(key)
    };
    if opens {
        return Ok(());
    }
    cx.count(Counter::NotOpening);
    Err(Stop::Pass)
}

/// A pod with a forged source must not create entries.
#[inline(never)]
pub fn has_forged_source<F: Wire, C: Ctx<F>>(cx: &C, packet: &Headers<F>) -> bool {
    cx.device().is_some_and(|device| {
        device.role == DeviceRole::Pod as u8 && !cx.routed_by(packet.key.src, device.route_ifindex)
    })
}

#[inline(always)]
fn new_entry<F: Wire, C: Ctx<F>>(cx: &C, packet: &Headers<F>, choice: &choose::Choice<F>) -> Flow<F::Addr> {
    Flow {
        addr: choice.backend.addr,
        port: choice.backend.port,
        peer_port: packet.key.src_port,
        service: choice.backend.service,
        backend: choice.index,
        last_seen: cx.now(),
        epoch: choice.backend.epoch,
        tcp: known::next_state(0, packet),
        flags: 0,
    }
}

/// Writes both entries of a new flow, the reverse one first: it decides about the client's port.
#[inline(always)]
pub fn remember<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    let done = reverse::insert(cx, packet, flow).and_then(|()| {
        cx.insert_flow(&packet.key, flow, Insert::Replace)
            .map_err(|_| Stop::Drop(DropReason::FlowTableFull))
    });
    if done.is_ok() {
        cx.count(Counter::FlowOpened);
        cx.count_service(flow.service, ServiceEvent::Connection);
    } else {
        cx.count_service(flow.service, ServiceEvent::Dropped);
    }
    done
}
