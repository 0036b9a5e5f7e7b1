//! Direct server return: the packet goes, unchanged, inside another one to the backend's address (RFC 2003, RFC 2473).

use lb_common::{DropReason, Flow};

use crate::ctx::Ctx;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// A new flow whose backend, on another node, is to answer the client directly.
#[inline(always)]
pub fn open<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<(), Stop> {
    Err(Stop::Drop(DropReason::WrapFailed))
}

/// Wraps the packet.
#[inline(never)]
pub fn wrap<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<(), Stop> {
    Err(Stop::Drop(DropReason::WrapFailed))
}

/// Unwraps a packet of another node, and leaves the inner packet's headers in `work.packet`.
#[inline(never)]
pub fn unwrap<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<(), Stop> {
    Err(Stop::Pass)
}

/// An ICMP error about a packet that this node has wrapped, [`crate::icmp::Quoted`] in the work area.
#[inline(never)]
pub fn too_big<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<Next, Stop> {
    Err(Stop::Pass)
}

/// By how many bytes the packets of a flow become longer.
#[inline(always)]
pub fn overhead<A>(_flow: &Flow<A>) -> u32 {
    0
}
