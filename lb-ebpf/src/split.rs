//! Masquerade on the way through the stack: pre has rewritten the destination, the kernel has routed the packet to the
//! backend, and post replaces the source by an address of the device that it leaves by.
//!
//! Two pairs of entries: `pre (C→V) ⇒ dst B` with `post (B→C) ⇒ src V`, and `post (C→B) ⇒ src N` with
//! `pre (B→N) ⇒ dst C`. The second pair begins as an entry of post that only says that it has to be made.

use lb_common::{DropReason, FlowFlags, Stage};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::reverse;
use crate::snat;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// In pre: tells post that the packets of `work.flow` are to be masqueraded, unless it knows.
#[inline(always)]
pub fn announce<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let Work {
        packet,
        flow,
        other_key: key,
        other,
        ..
    } = work;
    (key.src, key.src_port) = (packet.key.src, flow.peer_port);
    (key.dst, key.dst_port) = (flow.addr, flow.port);
    key.protocol = packet.key.protocol;
    key.stage = Stage::Post as u8;
    key.pad = [0; 2];
    *other = *flow;
    match cx.insert_flow(key, other, Insert::New) {
        Ok(()) | Err(InsertError::Exists) => Ok(()),
        Err(InsertError::Full) => Err(Stop::Drop(DropReason::FlowTableFull)),
    }
}

/// In post: gives the flow of `work.packet` its source.
#[inline(never)]
pub fn settle<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let addr = cx.snat_address(cx.ifindex());
    if F::difference(addr, F::Addr::default()) == 0 {
        return Err(Stop::Drop(DropReason::NoSnatAddress));
    }
    work.flow.addr = addr;
    work.flow.peer_port = work.packet.key.dst_port;
    work.flow.last_seen = cx.now();
    work.flow.flags &= !FlowFlags::MASQUERADE;
    reverse::derive(work);
    snat::search(cx, work)?;
    work.flow.port = work.other_key.dst_port;
    cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace)
        .map_err(|_| Stop::Drop(DropReason::FlowTableFull))
}
