//! A connection straight to a pod that meets the reverse entry of a service flow: same client, same port, same pod.
//! Without care the pod's answers would be given the service's address.

use lb_common::{Counter, DeviceFlags, Flow, FlowFlags, FlowKey, Stage};

use crate::ctx::Ctx;
use crate::headers::Headers;
use crate::known;
use crate::reverse;
use crate::verdict::Stop;
use crate::wire::Wire;

/// Whether this packet may be the first of a connection that [`check`] has to look at: the rest goes by at the price
/// of two failed look-ups.
#[inline(always)]
pub fn may_collide<F: Wire>(packet: &Headers<F>) -> bool {
    packet.is_syn() || !packet.is_tcp()
}

/// Deletes a dead reverse entry out of the way; gives the connection another client port where a live one stands, and
/// leaves its entry in `flow`, to be remembered.
#[inline(never)]
pub fn check<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    let FlowKey {
        src,
        dst,
        src_port,
        dst_port,
        protocol,
        pad,
        ..
    } = packet.key;
    let back = &FlowKey {
        src: dst,
        dst: src,
        src_port: dst_port,
        dst_port: src_port,
        protocol,
        stage: Stage::Post as u8,
        pad,
    };
    let Some(standing) = cx.flow(back) else {
        return Err(Stop::Pass);
    };
    if cx
        .device()
        .is_some_and(|device| device.flags & DeviceFlags::STACKED != 0)
    {
        // The packet is not direct: the lower device has translated it just now.
        return Err(Stop::Pass);
    }
    if reverse::is_over::<F, C>(cx, back, &standing) {
        let forward = reverse::key::<F>(back, &standing);
        cx.delete_flow(back);
        if cx.flow(&forward).is_some_and(|entry| {
            (entry.addr, entry.port, entry.peer_port) == (back.src, back.src_port, back.dst_port)
        }) {
            cx.delete_flow(&forward);
        }
        cx.count(Counter::DeadReverseDeleted);
        return Err(Stop::Pass);
    }
    *flow = Flow {
        addr: packet.key.dst,
        port: packet.key.dst_port,
        peer_port: packet.key.src_port,
        service: 0,
        backend: 0,
        last_seen: cx.now(),
        epoch: 0,
        tcp: known::next_state(0, packet),
        flags: FlowFlags::DIRECT,
    };
    Ok(())
}
