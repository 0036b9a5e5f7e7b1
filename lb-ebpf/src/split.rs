//! Masquerade on the way through the stack: pre has rewritten the destination, the kernel has routed the packet to the
//! backend, and post replaces the source by an address of the device that it leaves by.
//!
//! Two pairs of entries: `pre (C→V) ⇒ dst B` with `post (B→C) ⇒ src V`, and `post (C→B) ⇒ src N` with
//! `pre (B→N) ⇒ dst C`. The second pair begins as an entry of post that only says that it has to be made.

use lb_common::{DropReason, FlowFlags, Stage};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::known;
use crate::reverse;
use crate::snat;
use crate::verdict::{Reason, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// In pre: whether post gives the packets of `work.flow` a source already. In mid-connection a new one is of no use.
#[inline(never)]
pub fn stands<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    key(work);
    cx.flow(&work.other_key, &mut work.standing) && work.standing.flags & FlowFlags::MASQUERADE == 0
}

/// In pre: tells post that the packets of `work.flow` are to be masqueraded; anew, or unless it knows.
#[inline(always)]
pub fn announce<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, how: Insert) -> Result<(), Stop> {
    key(work);
    let Work {
        flow,
        other_key,
        other,
        ..
    } = work;
    *other = *flow;
    other.flags &= !FlowFlags::COUNTED;
    match cx.insert_flow(other_key, other, how) {
        Ok(()) | Err(InsertError::Exists) => Ok(()),
        Err(InsertError::Full) => Err(Stop::drop(DropReason::FlowTableFull)),
    }
}

/// The key under which post meets the packets of `work.flow`, into `work.other_key`.
#[inline(always)]
fn key<F: Wire>(work: &mut Work<F>) {
    let Work {
        packet,
        flow,
        other_key: key,
        ..
    } = work;
    (key.src, key.src_port) = (packet.key.src, flow.peer_port);
    (key.dst, key.dst_port) = (flow.addr, flow.port);
    key.protocol = packet.key.protocol;
    key.stage = Stage::Post as u8;
    key.pad = [0; 2];
}

/// In post: gives the flow of `work.packet` its source.
#[inline(never)]
pub fn settle<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if work.flow.flags & FlowFlags::REPLY != 0 {
        // The entry has just been evicted.
        return Err(Stop::PASS);
    }
    let addr = cx.snat_address(cx.ifindex());
    if F::difference(addr, F::Addr::default()) == 0 {
        return Err(Stop::drop(DropReason::NoSnatAddress));
    }
    work.flow.addr = addr;
    work.flow.peer_port = work.packet.key.dst_port;
    work.flow.last_seen = cx.now();
    work.flow.tcp = known::next_state(0, &work.packet);
    work.flow.flags &= !FlowFlags::MASQUERADE;
    reverse::derive(work);
    if let Err(stop) = snat::search(cx, work) {
        return Err(match stop.reason() {
            Reason::Answer(_) => forget(cx, work),
            Reason::Pass | Reason::Drop(_) => stop,
        });
    }
    work.flow.port = work.other_key.dst_port;
    cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace)
        .map_err(|_| Stop::drop(DropReason::FlowTableFull))
}

/// The connection's port is lost. The address that a reset would have to come from is not known here: without the
/// entries of the service, pre gives the reset to the packet that comes next.
#[inline(always)]
fn forget<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Stop {
    cx.delete_flow(&work.packet.key);
    let Work {
        packet,
        other_key: back,
        partner_key,
        standing,
        ..
    } = work;
    (back.src, back.src_port) = (packet.key.dst, packet.key.dst_port);
    (back.dst, back.dst_port) = (packet.key.src, packet.key.src_port);
    back.stage = Stage::Post as u8;
    if cx.flow(back, standing) {
        reverse::key::<F>(back, standing, partner_key);
        cx.delete_flow(partner_key);
        cx.delete_flow(back);
    }
    Stop::drop(DropReason::NoFlow)
}
