//! A new flow to a service: may this packet open it, which backend gets it, what is remembered.

use lb_common::{
    Counter, DeviceRole, DropReason, FlowFlags, Hop, RangeKey, RangeList, ServiceFlags, SettingsFlags,
};

use crate::ctx::{Ctx, Hook, Insert, ServiceEvent};
use crate::known;
use crate::reverse;
use crate::snat;
use crate::split;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::{Origin, Work};

/// A new flow to a service: may this packet open it?
///
/// A real call, as [`entry`]: their branches are not multiplied, and their stacks do not add up.
#[inline(never)]
pub fn admit<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    check_state(cx, work)?;
    if has_forged_source(cx, work) {
        cx.count_service(work.front_end.service, ServiceEvent::Dropped);
        return Err(Stop::Drop(DropReason::SpoofedSource));
    }
    work.origin = origin(cx, work) as u32;
    Ok(())
}

/// The entry of a new flow to the backend that is chosen, in `work.flow`, to be remembered.
#[inline(never)]
pub fn entry<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
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
    flow.arrival = cx.ifindex();
    flow.hop = Hop::default();
}

/// On an address that is the node's own, a packet without state may as well belong to a connection of the node that
/// happens to use a port of the NodePort range: only what surely opens a connection is taken. On any other address a
/// packet in mid-connection is taken, too: its flow moved here from another node, and the hash finds its backend.
#[inline(always)]
fn check_state<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let key = &work.packet.key;
    let is_ours = work.front_end.flags & ServiceFlags::NODE_PORT != 0 || cx.node_address(key.dst).is_some();
    if !is_ours {
        return Ok(());
    }
    let opens = if work.packet.is_tcp() {
        work.packet.is_syn()
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
pub fn has_forged_source<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    match cx.hook() {
        // The node's own packets.
        Hook::Egress => false,
        Hook::Xdp | Hook::Ingress => cx.device(cx.ifindex()).is_some_and(|device| {
            device.role == DeviceRole::Pod as u8 && !cx.routed_by(work.packet.key.src, device.route_ifindex)
        }),
    }
}

/// Who has sent the packet: by the device it came in by, and by address where pods are known by that.
#[inline(always)]
fn origin<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Origin {
    if cx.hook() == Hook::Egress {
        return Origin::Node;
    }
    let settings = cx.settings();
    if settings.flags & SettingsFlags::DETECTS_PODS != 0 && is_pod(cx, work) {
        return Origin::Pod;
    }
    let role = cx.device(cx.ifindex()).map_or(0, |device| device.role);
    // As kube-proxy does it, the address alone decides.
    if role == DeviceRole::Pod as u8 && settings.flags & SettingsFlags::SNAT_ALWAYS == 0 {
        Origin::Pod
    } else {
        Origin::Outside
    }
}

/// Whether the source is in the prefixes that pods have.
#[inline(always)]
pub fn is_pod<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    cx.in_range(&RangeKey {
        prefix_length: 32 + size_of::<F::Addr>() as u32 * 8,
        list: RangeList::PODS,
        addr: work.packet.key.src,
    })
}

/// Writes both entries of a new flow, the reverse one first: it decides about the client's port.
#[inline(never)]
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
            .map_err(|_| Stop::Drop(DropReason::FlowTableFull))
    });
    let done = match done {
        Ok(()) if work.flow.flags & FlowFlags::MASQUERADE != 0 => split::announce(cx, work),
        done => done,
    };
    if done.is_ok() {
        cx.count(Counter::FlowOpened);
        cx.count_service(work.flow.service, ServiceEvent::Connection);
    } else {
        cx.count_service(work.flow.service, ServiceEvent::Dropped);
    }
    done
}
