//! Which backend?

use lb_common::{Backend, BackendState, Counter, DropReason, ServiceFlags, SlotRange};

use crate::ctx::Ctx;
use crate::hash;
use crate::service;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};

/// A backend and its index.
#[derive(Clone, Copy, Debug)]
pub struct Choice<F: Wire> {
    /// Index into the backends.
    pub index: u32,
    /// The row.
    pub backend: Backend<F::Addr>,
}

/// Chooses a backend for a new flow by the flow's hash.
///
/// Between the look-up of the service and that of its slot an update may have moved the slots: then the service is
/// looked up once more.
#[inline(always)]
pub fn backend<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Choice<F>, Stop> {
    let hash = work.packet.hash(cx.settings().hash_seed);
    if let Some(choice) = pick::<F, C>(cx, work, hash)? {
        return Ok(choice);
    }
    cx.count(Counter::SlotRetried);
    if !service::find(cx, &work.packet.key, &mut work.front_end) {
        return Err(Stop::Drop(DropReason::NoBackend));
    }
    pick::<F, C>(cx, work, hash)?.ok_or(Stop::Drop(DropReason::ServiceChanging))
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

/// `None` when the slot is not this front end's any more.
#[inline(always)]
fn pick<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, hash: u32) -> Result<Option<Choice<F>>, Stop> {
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
        return Ok(None);
    };
    if slot.generation != range.generation {
        return Ok(None);
    }
    let Some(backend) = cx.backend(slot.backend) else {
        return Ok(None);
    };
    let usable = backend.state == BackendState::Active as u8 && backend.service == work.front_end.service;
    Ok(usable.then_some(Choice {
        index: slot.backend,
        backend,
    }))
}
