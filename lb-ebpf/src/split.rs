//! Masquerade on the way through the stack: pre has rewritten the destination, the kernel has routed the packet to the
//! backend, and post replaces the source by an address of the device that it leaves by.
//!
//! Two pairs of entries: `pre (C→V) ⇒ dst B` with `post (B→C) ⇒ src V`, and `post (C→B) ⇒ src N` with
//! `pre (B→N) ⇒ dst C`. The second pair begins as an entry of post that only says that it has to be made.

use lb_common::{DropReason, Flow, FlowFlags, FlowKey, Stage};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::known;
use crate::reverse;
use crate::snat;
use crate::verdict::{Reason, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// Whether post has to give the packets of this flow a source: an entry of pre says that of the way there, and one of
/// post that it has still to be found.
#[inline(always)]
pub fn is_due<F: Wire>(flow: &Flow<F::Addr>) -> bool {
    flow.flags & WAY_BACK == FlowFlags::MASQUERADE
}

/// Both of them: the way back of a flow that is masqueraded.
const WAY_BACK: u8 = FlowFlags::MASQUERADE | FlowFlags::REPLY;

/// In pre: whether post gives the packets of `work.flow` a source already. In mid-connection a new one is of no use.
#[inline(never)]
pub fn stands<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    key(work);
    cx.flow(&work.other_key, &mut work.standing) && !is_due::<F>(&work.standing)
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

/// In pre: the flow whose way back was `work.standing`, at `work.other_key`, makes room. If it was masqueraded, post must
/// forget it: another flow of the same client to the same backend would be given its source.
#[inline(never)]
pub fn end<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) {
    let Work {
        other_key: back,
        standing,
        partner_key: key,
        partner,
        ..
    } = work;
    if standing.flags & WAY_BACK != WAY_BACK {
        return;
    }
    turn::<F>(back, key);
    if cx.flow(key, partner) && partner.flags & FlowFlags::REPLY == 0 {
        let at = *key;
        reverse::delete_both(cx, &at, partner, key);
    }
}

/// The key under which post meets packets of the opposite direction.
#[inline(always)]
fn turn<F: Wire>(key: &FlowKey<F::Addr>, back: &mut FlowKey<F::Addr>) {
    (back.src, back.src_port) = (key.dst, key.dst_port);
    (back.dst, back.dst_port) = (key.src, key.src_port);
    back.protocol = key.protocol;
    back.stage = Stage::Post as u8;
    back.pad = [0; 2];
}

/// In post: gives the flow of `work.packet` its source.
#[inline(never)]
pub fn settle<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if work.flow.flags & FlowFlags::REPLY != 0 {
        // The entry has just been evicted.
        return Err(Stop::PASS);
    }
    if !is_due::<F>(&work.flow) && !is_masqueraded(cx, work) {
        // The entry was left by a flow that is over, and the packet is another's.
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

/// In post: whether `work.packet` is of a flow that is masqueraded, by what stands for its way back.
#[inline(always)]
fn is_masqueraded<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    let Work {
        packet,
        other_key: back,
        standing,
        ..
    } = work;
    turn::<F>(&packet.key, back);
    cx.flow(back, standing) && standing.flags & WAY_BACK == WAY_BACK
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
    turn::<F>(&packet.key, back);
    if cx.flow(back, standing) {
        reverse::key::<F>(back, standing, partner_key);
        cx.delete_flow(partner_key);
        cx.delete_flow(back);
    }
    Stop::drop(DropReason::NoFlow)
}
