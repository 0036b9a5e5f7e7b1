//! Which backend?

use lb_common::{BackendState, Counter, DropReason, ServiceFlags, SlotRange};

use crate::ctx::Ctx;
use crate::hash;
use crate::service;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};

/// Chooses a backend for a new flow by the flow's hash, into `work.backend`.
///
/// Between the look-up of the service and that of its slot an update may have moved the slots: then the service is
/// looked up once more.
#[inline(never)]
pub fn backend<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let hash = work.packet.hash(cx.settings().hash_seed);
    if pick(cx, work, hash)? {
        return Ok(());
    }
    cx.count(Counter::SlotRetried);
    if !service::find(cx, &work.packet.key, &mut work.front_end) {
        return Err(Stop::Drop(DropReason::NoBackend));
    }
    if pick(cx, work, hash)? {
        Ok(())
    } else {
        Err(Stop::Drop(DropReason::ServiceChanging))
    }
}

/// The backends that the sender may be given, and what becomes of its packets while there are none.
#[inline(always)]
fn range<F: Wire>(work: &Work<F>) -> (SlotRange, u32) {
    if work.is_from(Origin::Outside) {
        (work.front_end.outside, ServiceFlags::OUTSIDE_DROPS)
    } else {
        (work.front_end.inside, ServiceFlags::INSIDE_DROPS)
    }
}

/// False when the slot is not this front end's any more.
#[inline(always)]
fn pick<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>, hash: u32) -> Result<bool, Stop> {
    let (range, drops) = range(work);
    if range.count == 0 {
        return Err(if work.front_end.flags & drops != 0 {
            Stop::Drop(DropReason::NoLocalBackend)
        } else {
            Stop::Answer(Answer::Reject)
        });
    }
    let at = range.base.wrapping_add(hash::below(hash, range.count));
    let Some(slot) = cx.slot(at) else {
        return Ok(false);
    };
    if slot.generation != range.generation {
        return Ok(false);
    }
    let Some(backend) = cx.backend(slot.backend) else {
        return Ok(false);
    };
    work.backend = backend;
    work.chosen = slot.backend;
    let unusable = u32::from(work.backend.state ^ BackendState::Active as u8)
        | (work.backend.service ^ work.front_end.service);
    Ok(unusable == 0)
}
