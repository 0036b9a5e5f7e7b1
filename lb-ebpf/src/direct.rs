//! A connection straight to a pod that meets the reverse entry of a service flow: same client, same port, same pod.
//! Without care the pod's answers would be given the service's address.

use lb_common::{Counter, DeviceFlags, Flow, FlowFlags};

use crate::admit;
use crate::ctx::{Ctx, Hook};
use crate::headers::Headers;
use crate::known;
use crate::node;
use crate::reverse;
use crate::split;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// Whether this packet may be the first of a connection that [`check`] has to look at: the rest goes by at the price
/// of two failed look-ups.
#[inline(always)]
pub fn may_collide<F: Wire>(packet: &Headers<F>) -> bool {
    packet.opens()
}

/// Deletes a dead reverse entry out of the way; gives the connection another client port where a live one stands, and
/// leaves its entry in `work.flow`, to be remembered.
#[inline(never)]
pub fn check<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let key = &work.packet.key;
    (work.other_key.src, work.other_key.src_port) = (key.dst, key.dst_port);
    (work.other_key.dst, work.other_key.dst_port) = (key.src, key.src_port);
    work.other_key.protocol = key.protocol;
    work.other_key.stage = node::way_back(cx) as u8;
    work.other_key.pad = [0; 2];
    if !cx.flow(&work.other_key, &mut work.standing) {
        return Err(Stop::PASS);
    }
    if was_translated(cx) {
        return Err(Stop::PASS);
    }
    if reverse::is_over(cx, work) {
        split::end(cx, work);
        delete_both(cx, work);
        cx.count(Counter::DeadReverseDeleted);
        return Err(Stop::PASS);
    }
    admit::arrive(cx, work);
    if admit::has_forged_source(cx, work) {
        return Err(Stop::PASS);
    }
    if cx.hook() == Hook::Egress {
        node::direct(cx, work);
        return Ok(());
    }
    let packet = &work.packet;
    work.flow = Flow {
        addr: packet.key.dst,
        port: packet.key.dst_port,
        peer_port: packet.key.src_port,
        last_seen: cx.now(),
        tcp: known::next_state(0, packet),
        flags: FlowFlags::DIRECT,
        ..Flow::default()
    };
    Ok(())
}

/// The packet is not direct: the lower device, or XDP, has translated it just now.
#[inline(always)]
fn was_translated<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    let flags = cx.device(cx.ifindex()).map_or(0, |device| device.flags);
    match cx.hook() {
        Hook::Xdp | Hook::Egress => false,
        Hook::Ingress => flags & (DeviceFlags::STACKED | DeviceFlags::XDP) != 0,
    }
}

/// Deletes `work.standing` and its partner, if that is still turned here.
#[inline(always)]
fn delete_both<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
    let Work {
        other_key: at,
        standing,
        partner_key,
        ..
    } = work;
    reverse::delete_both(cx, at, standing, partner_key);
}
