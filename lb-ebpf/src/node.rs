//! Processes of the node itself: their packets meet no ingress hook, so they are translated where they leave, and sent
//! to the device that leads to the backend. The replies get the service's address back where they arrive.

use lb_common::FlowFlags;

use crate::ctx::{Ctx, Hook};
use crate::hop;
use crate::rewrite;
use crate::stage;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// A new flow of the node's own: the backend sees the address that the process has.
#[inline(always)]
pub fn open<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    work.flow.flags |= FlowFlags::BOTH | FlowFlags::NODE;
    work.flow.peer_addr = work.packet.key.src;
    hop::look(cx, work)
}

/// A reply to the node's own: it goes up the stack as if the service had sent it.
#[inline(never)]
pub fn deliver<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if cx.hook() == Hook::Xdp {
        return Err(hop::pass(cx));
    }
    stage::count(cx, work);
    rewrite::both(cx, work, false)?;
    if work.flow.arrival == cx.ifindex() {
        Ok(Next::Stack)
    } else {
        Ok(Next::Arrive)
    }
}
