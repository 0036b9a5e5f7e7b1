//! Direct server return: the packet goes inside another one to the backend's address (RFC 2003, RFC 2473), and the
//! backend answers the client directly.
//!
//! The outer destination carries the choice, so the backend's node needs no word of this one. In the packet inside
//! nothing changes but its time to live, for it comes one hop further.

mod path;
mod unwrap;

use lb_common::{Counter, DropReason, Flow, FlowFlags};

use crate::ctx::{Ctx, Segments};
use crate::hop;
use crate::send;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

pub use path::{narrow, too_big};
pub use unwrap::{agrees, has_bad_source, unwrap};

/// A new flow whose backend, on another node, is to answer the client directly.
///
/// The outer source is the address by which other nodes know this one, whatever device the flow leaves by.
#[inline(always)]
pub fn open<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if !has_source(cx, work) {
        return Err(Stop::drop(DropReason::NoSnatAddress));
    }
    hop::look(cx, work)
}

/// Makes the flow one that is wrapped, if there is an address for it.
#[inline(always)]
fn has_source<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    work.flow.flags |= FlowFlags::WRAPPED;
    work.flow.peer_addr = cx.node_addr();
    F::difference(work.flow.peer_addr, F::Addr::default()) != 0
}

/// Wraps the packet.
#[inline(always)]
pub fn wrap<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if !is_done(cx, work) {
        // Half a packet must not get out.
        return Err(Stop::drop(DropReason::WrapFailed));
    }
    cx.count(Counter::Wrapped);
    Ok(())
}

/// Whether the packet could be wrapped. A real call; a result of more than a word would go through the stack.
#[inline(never)]
fn is_done<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> bool {
    put_around(cx, work).is_ok()
}

#[inline(always)]
fn put_around<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let (l3, ends) = (work.packet.l3, (work.flow.peer_addr, work.flow.addr));
    let segments = segments(cx, work)?;
    let begin = F::begin(cx, l3)?;
    F::forward(cx, l3, 0)?;
    cx.make_room(l3, F::LENGTH, F::room(segments))?;
    F::put(cx, l3, begin, ends)
}

/// The packets that this one will be keep their size if they still fit.
#[inline(always)]
fn segments<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Result<Segments, Stop> {
    let Work { packet, flow, .. } = work;
    if cx.segment_size() == 0 {
        return Ok(Segments::Kept);
    }
    let length = send::longest(cx, packet)? + overhead(flow);
    Ok(if packet.is_tcp() && length > u32::from(flow.hop.mtu) {
        Segments::Smaller
    } else {
        Segments::Kept
    })
}

/// By how many bytes the packets of a flow become longer.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "an address is short")]
pub const fn overhead<A>(flow: &Flow<A>) -> u32 {
    if flow.flags & FlowFlags::WRAPPED == 0 {
        return 0;
    }
    // Two addresses, and what else the family has in its header.
    match size_of::<A>() as u32 {
        4 => 20,
        addr => 2 * addr + 8,
    }
}
