//! Which backend?
//!
//! As a rule the flow's hash says it. What a service may ask for instead:
//!
//! - Session affinity: the backend that the client was last given, for a time that each new connection extends. It is
//!   chosen by a hash of the client's address alone, so that first packets at the same time are not torn apart.
//! - In turn: each CPU goes through the slots in their order, beginning at another place. Over all CPUs that is even in
//!   the long run.
//! - Least connections: the better one of two slots that the hash names. Connections are counted by each node for
//!   itself, and the agent sets the counts right.
//!
//! With affinity the last two are not looked at, and in mid-connection only the hash can tell.

use core::hint::black_box;

use lb_common::{BackendFlags, BackendState, Counter, DropReason, ServiceFlags, SlotRange};

use crate::admit;
use crate::ctx::Ctx;
use crate::hash;
use crate::service;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};

/// Chooses a backend for a new flow, into `work.backend`.
///
/// Between the look-up of the service and that of its slot an update may have moved the slots: then the service is
/// looked up once more.
#[inline(always)]
pub fn backend<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    work.stays = 0;
    if work.given != 0 {
        return given(cx, work);
    }
    if choose(cx, work)? {
        return Ok(());
    }
    cx.count(Counter::SlotRetried);
    if !service::find(cx, &work.packet.key, &mut work.front_end) {
        return Err(Stop::drop(DropReason::NoBackend));
    }
    if choose(cx, work)? {
        Ok(())
    } else {
        Err(Stop::drop(DropReason::ServiceChanging))
    }
}

/// The one that another node has chosen: it may have left by now, for the flow may be old.
#[inline(always)]
fn given<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> Result<(), Stop> {
    let index = work.given.wrapping_sub(1);
    if take(cx, work, index) && work.backend.state != BackendState::Free as u8 {
        Ok(())
    } else {
        Err(Stop::drop(DropReason::WrappedForNobody))
    }
}

/// False when the slot is not this front end's any more, or its backend takes no new flows.
#[inline(never)]
fn choose<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<bool, Stop> {
    let drops = range(work);
    // Asked of memory: the verifier does not go on for each sender.
    let range = *black_box(&mut work.range);
    if range.count == 0 {
        return Err(if work.front_end.flags & drops != 0 {
            Stop::drop(DropReason::NoLocalBackend)
        } else {
            Stop::answer(Answer::Reject)
        });
    }
    let (seed, flags) = (cx.settings().hash_seed, work.front_end.flags);
    let index = if flags & ServiceFlags::AFFINITY != 0 {
        if stays(cx, work) {
            return Ok(true);
        }
        let hash = work.packet.client_hash(seed, work.term);
        slot(cx, range, hash::below(hash, range.count))
    } else if flags & ServiceFlags::ROUND_ROBIN != 0 && work.packet.opens() {
        let turn = cx.turn(work.front_end.service);
        slot(cx, range, turn.checked_rem(range.count).unwrap_or(0))
    } else {
        let hash = work.flow_hash(cx);
        let first = slot(cx, range, hash::below(hash, range.count));
        if flags & ServiceFlags::LEAST_CONNECTIONS != 0 && work.packet.opens() {
            let second = slot(cx, range, hash::below(hash::next(hash), range.count));
            less_loaded(cx, first, second)
        } else {
            first
        }
    };
    Ok(index.is_some_and(|index| take(cx, work, index)) && work.backend.state == BackendState::Active as u8)
}

/// Puts the slots of the backends that the sender may be given into the work area. The flag that says whether its packets
/// are dropped while there are none.
#[inline(always)]
fn range<F: Wire>(work: &mut Work<F>) -> u32 {
    if work.is_from(Origin::Outside) {
        work.range = work.front_end.outside;
        ServiceFlags::OUTSIDE_DROPS
    } else {
        work.range = work.front_end.inside;
        ServiceFlags::INSIDE_DROPS
    }
}

/// The backend in a slot of the range; `None` when it is not this front end's any more.
#[inline(always)]
fn slot<F: Wire, C: Ctx<F>>(cx: &C, range: SlotRange, place: u32) -> Option<u32> {
    let slot = cx.slot(range.base.wrapping_add(place))?;
    (slot.generation == range.generation).then_some(slot.backend)
}

/// Puts a backend into the work area; false when it is not the service's any more.
#[inline(always)]
fn take<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>, index: u32) -> bool {
    let Some(backend) = cx.backend(index) else {
        return false;
    };
    work.backend = backend;
    work.chosen = index;
    work.backend.service == work.front_end.service
}

/// Of two backends the one with fewer connections; of equals, the first.
#[inline(always)]
fn less_loaded<F: Wire, C: Ctx<F>>(cx: &C, first: Option<u32>, second: Option<u32>) -> Option<u32> {
    match (first, second) {
        (Some(one), Some(other)) if cx.load(other) < cx.load(one) => second,
        _ => first,
    }
}

/// Takes the backend that the client stays with, if there is one. Else a new one is chosen, another after each time that
/// is over: all packets that find it over depend on the same number.
#[inline(always)]
fn stays<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    work.term = 0;
    let Some(kept) = cx.affinity(&admit::client(work)) else {
        return false;
    };
    work.term = kept.term;
    let age = cx.now().wrapping_sub(kept.last_used);
    // A packet in mid-connection asks where its connection went, however long ago.
    if work.packet.opens() && age > cx.policy(work.front_end.service).affinity {
        work.term = kept.term.wrapping_add(1);
        return false;
    }
    if !take(cx, work, kept.backend) {
        return false;
    }
    let difference = u32::from(work.backend.state ^ BackendState::Active as u8)
        | u32::from(work.backend.epoch ^ kept.epoch)
        | out_of_scope(work);
    if difference != 0 {
        return false;
    }
    work.stays = 1;
    true
}

/// 0 when the policy in force for the sender leads to the backend in the work area.
#[inline(always)]
fn out_of_scope<F: Wire>(work: &Work<F>) -> u32 {
    let policy = if work.is_from(Origin::Outside) {
        ServiceFlags::OUTSIDE_LOCAL | ServiceFlags::INSIDE_LOCAL
    } else {
        ServiceFlags::INSIDE_LOCAL
    };
    if work.front_end.flags & policy != 0 {
        u32::from(!work.backend.flags & BackendFlags::LOCAL)
    } else {
        u32::from(work.backend.flags & BackendFlags::LOCAL_ONLY)
    }
}
