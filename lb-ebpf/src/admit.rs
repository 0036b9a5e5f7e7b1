//! May this packet open a flow to a service? State, source, source ranges, limits, in this order.
//!
//! XDP may leave the packet to TC after all, where everything is asked again. So [`check`] only looks; what a new flow
//! uses up is taken by [`commit`], just before the flow is remembered.

use lb_common::{
    Affinity, ClientKey, Counter, Device, DeviceRole, DropReason, FlowFlags, RangeKey, RangeList,
    ServiceFlags, SettingsFlags, protocol,
};

use crate::ctx::{Ctx, Hook, Packet, ServiceEvent};
use crate::limit;
use crate::verdict::{Reason, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};
use crate::wrap;

/// Whether the packet may open a flow to `work.front_end`; finds out who has sent it.
///
/// A real call: its branches are not multiplied, and its stack does not add up.
#[inline(never)]
pub fn check<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    check_state(cx, work)?;
    arrive(cx, work);
    if has_forged_source(cx, work) {
        return Err(Stop::drop(DropReason::SpoofedSource));
    }
    work.origin = origin(cx, work) as u32;
    let (service, flags) = (work.front_end.service, work.front_end.flags);
    if flags & ServiceFlags::SOURCE_RANGES != 0 && !is_in(cx, work, service) {
        return Err(Stop::drop(DropReason::SourceNotAllowed));
    }
    if is_limited(work) {
        return limits(cx, work, false);
    }
    Ok(())
}

/// The flow in `work.flow` is about to be remembered: it takes its share of the limits, and its client stays with the
/// backend from now on.
#[inline(always)]
pub fn commit<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if is_limited(work) {
        limits(cx, work, true)?;
    }
    let flags = work.front_end.flags;
    if flags & ServiceFlags::LEAST_CONNECTIONS != 0 {
        work.flow.flags |= FlowFlags::COUNTED;
    }
    if flags & ServiceFlags::AFFINITY == 0 || work.given != 0 {
        return Ok(());
    }
    if work.stays != 0 {
        cx.count(Counter::AffinityHit);
    }
    if work.packet.opens() {
        let kept = Affinity {
            backend: work.chosen,
            last_used: cx.now(),
            epoch: work.backend.epoch,
            term: work.term,
        };
        cx.set_affinity(&client(work), &kept);
    }
    Ok(())
}

/// Counts a packet that a service does not take. What XDP leaves to TC is counted there.
#[inline(always)]
pub fn refused<F: Wire, C: Ctx<F>>(cx: &mut C, service: u32, stop: Stop) {
    let is_final = match stop.reason() {
        Reason::Pass => false,
        Reason::Drop(_) => true,
        Reason::Answer(_) => cx.hook() != Hook::Xdp,
    };
    if is_final {
        cx.count_service(service, ServiceEvent::Dropped);
    }
}

/// The client as tables know it.
#[inline(always)]
pub fn client<F: Wire>(work: &Work<F>) -> ClientKey<F::Addr> {
    ClientKey {
        addr: work.packet.key.src,
        service: work.front_end.service,
    }
}

/// On an address that is the node's own, a packet without state may as well belong to a connection of the node that
/// happens to use a port of the NodePort range: only what surely opens a connection is taken. On any other address a
/// packet in mid-connection is taken, too: its flow moved here from another node, and the hash finds its backend. What
/// another node has wrapped has been through this there.
#[inline(always)]
fn check_state<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let key = &work.packet.key;
    if work.packet.is_syn() || work.given != 0 {
        return Ok(());
    }
    let is_ours = work.front_end.flags & ServiceFlags::NODE_PORT != 0 || cx.node_address(key.dst).is_some();
    if !is_ours {
        return Ok(());
    }
    let opens = match key.protocol {
        protocol::TCP => false,
        protocol::SCTP => is_init(cx, work.packet.l4),
        _ => !cx.connected_socket(key),
    };
    if opens {
        return Ok(());
    }
    if cx.hook() != Hook::Xdp {
        cx.count(Counter::NotOpening);
    }
    Err(Stop::PASS)
}

/// Whether an SCTP packet opens an association: its first chunk is an INIT, and has no other beside it (RFC 9260, section
/// 6.10).
#[inline(always)]
fn is_init<P: Packet>(packet: &P, l4: u32) -> bool {
    const COMMON_HEADER: u32 = 12;
    const INIT: u8 = 1;
    packet.read_u16(l4 + COMMON_HEADER).is_ok_and(|word| {
        let [kind, _flags] = word.to_ne_bytes();
        kind == INIT
    })
}

/// Notes what is known of the device that a packet arrived on which may open a flow.
#[inline(always)]
pub fn arrive<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) {
    work.device = match cx.hook() {
        // The device is the one that it leaves by.
        Hook::Egress => Device::default(),
        Hook::Xdp | Hook::Ingress => cx.known_device(cx.ifindex()).unwrap_or_default(),
    };
}

/// A pod with a forged source must not create entries, nor somebody outside with one that is nobody's. The device is
/// known by [`arrive`].
#[inline(always)]
pub fn has_forged_source<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    match cx.hook() {
        // The node's own packets.
        Hook::Egress => false,
        Hook::Xdp | Hook::Ingress if work.given != 0 => wrap::has_bad_source(cx, work),
        Hook::Xdp | Hook::Ingress => {
            is_from_pod_device(work) && !cx.routed_by(work.packet.key.src, work.device.route_ifindex)
        }
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
    // As kube-proxy does it, the address alone decides.
    if is_from_pod_device(work) && settings.flags & SettingsFlags::SNAT_ALWAYS == 0 {
        Origin::Pod
    } else {
        Origin::Outside
    }
}

/// Whether the packet came in by a pod's device, by what [`arrive`] has noted.
#[inline(always)]
pub fn is_from_pod_device<F: Wire>(work: &Work<F>) -> bool {
    work.device.role == DeviceRole::Pod as u8
}

/// Whether the source is in the prefixes that pods have.
#[inline(always)]
pub fn is_pod<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    is_in(cx, work, RangeList::PODS)
}

/// Whether the source is in a list of prefixes.
#[inline(always)]
fn is_in<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, list: u32) -> bool {
    cx.in_range(&RangeKey {
        prefix_length: 32 + 8 * F::ADDRESS,
        list,
        addr: work.packet.key.src,
    })
}

/// Whether the flow counts against limits: not one in mid-connection, nor one that another node has counted.
#[inline(always)]
fn is_limited<F: Wire>(work: &Work<F>) -> bool {
    work.front_end.flags & ServiceFlags::LIMITED != 0 && work.given == 0 && work.packet.opens()
}

/// Whether source and service may have one connection more; with `take`, they have it. A burst of one second's
/// connections is let through at once.
#[inline(always)]
fn limits<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, take: bool) -> Result<(), Stop> {
    let (client, service) = (client(work), work.front_end.service);
    let policy = cx.policy(service);
    let (now, second) = (cx.now(), cx.settings().jiffies_per_second);
    let until = if policy.source_interval != 0 {
        cx.source_limit(&client)
    } else {
        0
    };
    let Some(of_source) = limit::take(now, policy.source_interval, second, until) else {
        return Err(Stop::drop(DropReason::SourceLimited));
    };
    let Some(of_service) = limit::take(now, policy.interval, second, cx.limit(service)) else {
        return Err(Stop::drop(DropReason::ServiceLimited));
    };
    if take && policy.source_interval != 0 {
        cx.set_source_limit(&client, of_source);
    }
    if take && policy.interval != 0 {
        cx.set_limit(service, of_service);
    }
    Ok(())
}
