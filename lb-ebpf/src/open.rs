//! A new flow: what is remembered.

use lb_common::{Counter, DeviceFlags, DropReason, FlowFlags, Hop};

use crate::ctx::{Ctx, Hook, Insert, ServiceEvent};
use crate::known;
use crate::reverse;
use crate::snat;
use crate::split;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// The entry of a new flow to the backend that is chosen, in `work.flow`, to be remembered.
#[inline(always)]
pub fn entry<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
    // The replies to packets that another node has wrapped go their own way.
    let is_asked_for =
        cx.hook() == Hook::Egress || (work.device.flags & DeviceFlags::RETURNS != 0 && work.given == 0);
    let Work {
        packet,
        flow,
        backend,
        chosen,
        ..
    } = work;
    flow.addr = backend.addr;
    flow.peer_addr = F::Addr::default();
    flow.port = backend.port;
    flow.peer_port = packet.key.src_port;
    flow.service = backend.service;
    flow.backend = *chosen;
    flow.last_seen = cx.now();
    flow.epoch = backend.epoch;
    flow.tcp = known::next_state(0, packet);
    flow.flags = 0;
    flow.arrival = if is_asked_for { cx.ifindex() } else { 0 };
    flow.hop = Hop::default();
}

/// Writes both entries of a new flow, the reverse one first: it decides about the client's port.
#[inline(always)]
pub fn remember<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let reverse = if work.flow.flags & FlowFlags::WRAPPED != 0 {
        // The backend's node has the way back.
        Ok(())
    } else if work.flow.flags & FlowFlags::BOTH != 0 {
        snat::claim(cx, work)
    } else {
        reverse::insert(cx, work)
    };
    let done = reverse.and_then(|()| {
        cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace)
            .map_err(|_| Stop::drop(DropReason::FlowTableFull))
    });
    let done = match done {
        Ok(()) if work.flow.flags & FlowFlags::MASQUERADE != 0 => {
            // A connection that begins does not go on with what post knows of one that is over.
            let how = if work.packet.opens() {
                Insert::Replace
            } else {
                Insert::New
            };
            split::announce(cx, work, how)
        }
        done => done,
    };
    done?;
    cx.count(Counter::FlowOpened);
    if !work.packet.opens() {
        cx.count(Counter::FlowAdopted);
    }
    cx.count_service(work.flow.service, ServiceEvent::Connection);
    if work.flow.flags & FlowFlags::COUNTED != 0 {
        cx.add_load(work.flow.backend, true);
    }
    Ok(())
}
