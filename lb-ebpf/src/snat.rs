//! The source that a masqueraded flow is given: an address of the node, and a port that no other flow has.
//!
//! Nothing collects ports. A port is taken while the flow that has it lives; the one that is tried first is a hash of
//! the flow, so that a flow whose entry was evicted finds its port again.

use core::hint::black_box;

use lb_common::{Counter, DropReason, FlowFlags, Port};

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
        return Err(Stop::drop(DropReason::NoSnatAddress));
    }
    work.flow.peer_addr = addr;
    Ok(())
}

/// Inserts the entry of the way back of a new flow that rewrites both endpoints; settles its source port.
#[inline(always)]
pub fn claim<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    reverse::derive(work);
    let keeps_port = reverse::difference(work.flow.peer_port, node::OTHER_PORT) != 0;
    if work.flow.flags & FlowFlags::NODE != 0 && keeps_port {
        // The node's own socket has the port already.
        match own_port(cx, work) {
            Ok(()) => return Ok(()),
            Err(InsertError::Full) => return Err(Stop::drop(DropReason::FlowTableFull)),
            Err(InsertError::Exists) => {}
        }
    }
    search(cx, work)?;
    work.flow.peer_port = work.other_key.dst_port;
    Ok(())
}

/// The entry of the way back under the port of the node's own socket, unless a connection straight to the backend uses
/// the same one.
#[inline(always)]
fn own_port<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), InsertError> {
    let is_taken = if work.packet.is_tcp() {
        work.packet.is_syn() && cx.any_socket(&work.other_key)
    } else {
        cx.connected_socket(&work.other_key)
    };
    if is_taken {
        return Err(InsertError::Exists);
    }
    reverse::claim(cx, work)
}

/// Searches a port for the entry `work.other`, puts it into `work.other_key` and inserts the entry.
///
/// The flow's own port goes before one that is only free: a flow whose entry was evicted must find it again, even if
/// others that it had to give way to are over by now. In mid-connection no other will do.
#[inline(never)]
pub fn search<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let settings = cx.settings();
    let (lowest, highest) = (
        u32::from(settings.snat_port_min),
        u32::from(settings.snat_port_max),
    );
    if lowest == 0 || highest < lowest {
        return Err(Stop::drop(DropReason::NoSnatPort));
    }
    work.search = Search {
        lowest,
        count: highest.wrapping_sub(lowest).wrapping_add(1),
        hash: work.flow_hash(cx),
        ..Search::default()
    };
    if takes_first(cx, work) {
        cx.count(Counter::SnatOpened);
        return Ok(());
    }
    for _attempt in 0..TRIES {
        if attempt(cx, work) {
            break;
        }
    }
    let Search {
        first, found, stands, ..
    } = *black_box(&mut work.search);
    if found == NONE {
        return Err(if work.packet.opens() {
            Stop::drop(DropReason::NoSnatPort)
        } else {
            Stop::answer(Answer::Reject)
        });
    }
    work.other_key.dst_port = port(found);
    insert(cx, work, if stands == 0 { Insert::New } else { Insert::Replace })?;
    if found != first {
        cx.count(Counter::SnatRetried);
    }
    cx.count(Counter::SnatOpened);
    Ok(())
}

/// Takes the port that is tried first, if nobody has it: as nearly always, so that nothing is looked up before. Whether it
/// has done so.
#[inline(always)]
fn takes_first<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    work.other_key.dst_port = port(work.search.next());
    work.packet.opens()
        && !cx.any_socket(&work.other_key)
        && cx.insert_flow(&work.other_key, &work.other, Insert::New).is_ok()
}

/// How far a search is. In memory, so that the verifier does not follow each way in which it came there.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Search {
    /// The lowest port of the range.
    lowest: u32,
    /// How many ports it has.
    count: u32,
    /// The next port, before it is one of the range.
    hash: u32,
    /// The port that was tried first.
    first: u32,
    /// The one that will do, as far as is known.
    found: u32,
    /// 1: an entry stands there.
    stands: u32,
}

impl Search {
    /// The port that comes after `hash`.
    #[inline(always)]
    const fn next(&self) -> u32 {
        self.lowest + hash::below(hash::next(self.hash), self.count)
    }
}

/// Tries the next port; whether the search is over.
#[inline(always)]
fn attempt<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    let search = black_box(&mut work.search);
    let number = search.next();
    search.hash = hash::next(search.hash);
    work.other_key.dst_port = port(number);
    if search.first == NONE {
        search.first = number;
    }
    let holder = holder(cx, work);
    let search = black_box(&mut work.search);
    if holder == OWN || (holder != TAKEN && search.found == NONE) {
        search.found = number;
        search.stands = u32::from(holder != NOBODY);
    }
    // None was ever needed after one that nobody has.
    holder == OWN || holder == NOBODY
}

/// No port.
const NONE: u32 = 0;

/// Nobody has the port.
const NOBODY: u32 = 0;
/// This very flow has it.
const OWN: u32 = 1;
/// A flow that is over has it.
const OVER: u32 = 2;
/// Another flow or a socket has it, or it is not asked for.
const TAKEN: u32 = 3;

/// Who has the port in `work.other_key`.
#[inline(always)]
fn holder<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> u32 {
    let opens = work.packet.opens();
    if !cx.flow(&work.other_key, &mut work.standing) {
        return if !opens || cx.any_socket(&work.other_key) {
            TAKEN
        } else {
            NOBODY
        };
    }
    if reverse::is_own::<F>(&work.standing, &work.other) {
        OWN
    } else if opens && reverse::is_over(cx, work) {
        OVER
    } else {
        TAKEN
    }
}

#[inline(always)]
fn insert<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, how: Insert) -> Result<(), Stop> {
    cx.insert_flow(&work.other_key, &work.other, how)
        .map_err(|error| {
            Stop::drop(match error {
                // Another CPU was faster.
                InsertError::Exists => DropReason::NoSnatPort,
                InsertError::Full => DropReason::FlowTableFull,
            })
        })
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a port of the range")]
fn port(number: u32) -> Port {
    Port::new(number as u16)
}
