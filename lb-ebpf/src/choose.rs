//! Which backend?

use lb_common::{Backend, BackendState, Counter, DropReason, ServiceValue};

use crate::ctx::Ctx;
use crate::hash;
use crate::headers::Headers;
use crate::service;
use crate::verdict::Stop;
use crate::wire::Wire;

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
pub fn backend<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    front_end: &ServiceValue,
) -> Result<Choice<F>, Stop> {
    let hash = packet.hash(cx.settings().hash_seed);
    if let Some(choice) = pick::<F, C>(cx, front_end, hash)? {
        return Ok(choice);
    }
    cx.count(Counter::SlotRetried);
    let again = service::find(cx, &packet.key).ok_or(Stop::Drop(DropReason::NoBackend))?;
    pick::<F, C>(cx, &again, hash)?.ok_or(Stop::Drop(DropReason::ServiceChanging))
}

/// `None` when the slot is not this front end's any more.
#[inline(always)]
fn pick<F: Wire, C: Ctx<F>>(cx: &C, front_end: &ServiceValue, hash: u32) -> Result<Option<Choice<F>>, Stop> {
    if front_end.slot_count == 0 {
        return Err(Stop::Drop(DropReason::NoBackend));
    }
    let at = front_end
        .slot_base
        .wrapping_add(hash::below(hash, front_end.slot_count));
    let Some(slot) = cx.slot(at) else {
        return Ok(None);
    };
    if slot.generation != front_end.generation {
        return Ok(None);
    }
    let Some(backend) = cx.backend(slot.backend) else {
        return Ok(None);
    };
    let usable = backend.state == BackendState::Active as u8 && backend.service == front_end.service;
    Ok(usable.then_some(Choice {
        index: slot.backend,
        backend,
    }))
}
