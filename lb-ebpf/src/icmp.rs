//! ICMP: errors about translated packets are translated, echo requests to services' addresses are answered.

use crate::ctx::Ctx;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// In pre.
#[inline(never)]
pub fn pre<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<Next, Stop> {
    Err(Stop::Pass)
}

/// In post.
#[inline(never)]
pub fn post<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>) -> Result<Next, Stop> {
    Err(Stop::Pass)
}
