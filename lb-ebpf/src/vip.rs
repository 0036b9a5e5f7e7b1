//! Addresses of services behave like those of hosts: what is for no front end is rejected, never routed on.

use crate::ctx::Ctx;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// What becomes of a packet that is for no front end, but perhaps for an address of services.
#[inline(always)]
pub fn check<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<(), Stop> {
    Ok(())
}

/// Whether an echo request, to an address of services, is answered here.
#[inline(always)]
pub fn wants_echo<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &Work<F>) -> bool {
    false
}
