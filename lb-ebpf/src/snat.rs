//! The source that a masqueraded flow is given: an address of the node, and a port that no other flow has.
//!
//! Nothing collects ports. A port is taken while the flow that has it lives; the one that is tried first is a hash of
//! the flow, so that a flow whose entry was evicted finds its port again.

use lb_common::{Counter, DropReason, Flow, FlowFlags, Port};

use crate::ctx::{Ctx, Insert, InsertError};
use crate::hash;
use crate::node;
use crate::reverse;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// How many ports are tried.
pub const TRIES: u32 = 8;

/// Puts the address of the device that the flow leaves by into `work.flow`.
#[inline(always)]
pub fn address<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let addr = cx.snat_address(work.flow.hop.ifindex);
    if F::difference(addr, F::Addr::default()) == 0 {
        return Err(Stop::Drop(DropReason::NoSnatAddress));
    }
    work.flow.peer_addr = addr;
    Ok(())
}

/// Inserts the entry of the way back of a new flow that rewrites both endpoints; settles its source port.
#[inline(never)]
pub fn claim<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    reverse::derive(work);
    // The port that is wanted belongs to a socket of the node.
    if reverse::difference(work.flow.peer_port, node::OTHER_PORT) != 0
        && work.flow.flags & FlowFlags::NODE != 0
        && !is_connected(cx, work)
    {
        match reverse::claim(cx, work) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Stop::Drop(DropReason::FlowTableFull)),
            Err(InsertError::Exists) => {}
        }
    }
    search(cx, work)?;
    work.flow.peer_port = work.other_key.dst_port;
    Ok(())
}

/// Whether replies with the key `work.other_key` would meet a connection straight to the backend: nothing was written
/// down about that one.
#[inline(always)]
fn is_connected<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    if work.packet.is_tcp() {
        cx.any_socket(&work.other_key)
    } else {
        cx.connected_socket(&work.other_key)
    }
}

/// Searches a port for the entry `work.other`, puts it into `work.other_key` and inserts the entry.
#[inline(never)]
pub fn search<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let settings = cx.settings();
    let (lowest, highest) = (
        u32::from(settings.snat_port_min),
        u32::from(settings.snat_port_max),
    );
    let count = highest.wrapping_sub(lowest).wrapping_add(1);
    // In mid-connection only the port that the flow had before will do.
    let opens = !work.packet.is_tcp() || work.packet.is_syn();
    let mut hash = work.packet.hash(settings.hash_seed);
    for attempt in 0..TRIES {
        hash = hash::finish(hash::mix(hash, 1));
        work.other_key.dst_port = port(lowest + hash::below(hash, count));
        match take(cx, work, opens) {
            Ok(true) => {
                if attempt > 0 {
                    cx.count(Counter::SnatRetried);
                }
                cx.count(Counter::SnatOpened);
                return Ok(());
            }
            Ok(false) => {}
            Err(stop) => return Err(stop),
        }
    }
    if opens {
        Err(Stop::Drop(DropReason::NoSnatPort))
    } else {
        Err(Stop::Answer(Answer::Reject))
    }
}

/// Takes the port in `work.other_key` if it is ours already, or held by a flow that is over, or free.
#[inline(never)]
fn take<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, opens: bool) -> Result<bool, Stop> {
    if cx.flow(&work.other_key, &mut work.standing) {
        let is_own = reverse::is_own::<F>(&work.standing, &work.other);
        if !is_own && (!opens || !reverse::is_over(cx, work)) {
            return Ok(false);
        }
        return insert(cx, work, Insert::Replace);
    }
    if !opens || cx.any_socket(&work.other_key) {
        return Ok(false);
    }
    insert(cx, work, Insert::New)
}

#[inline(always)]
fn insert<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, how: Insert) -> Result<bool, Stop> {
    let other: &Flow<F::Addr> = &work.other;
    match cx.insert_flow(&work.other_key, other, how) {
        Ok(()) => Ok(true),
        Err(InsertError::Exists) => Ok(false),
        Err(InsertError::Full) => Err(Stop::Drop(DropReason::FlowTableFull)),
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a port of the range")]
fn port(number: u32) -> Port {
    Port::new(number as u16)
}
