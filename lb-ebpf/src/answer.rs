//! Answers that the programs give by themselves.

use lb_common::DropReason;

use crate::ctx::Ctx;
use crate::verdict::{Answer, Next, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// Makes the packet an answer to itself.
#[inline(never)]
pub fn give<F: Wire, C: Ctx<F>>(_cx: &mut C, _work: &mut Work<F>, answer: Answer) -> Result<Next, Stop> {
    match answer {
        Answer::Reject => Err(Stop::Drop(DropReason::NoBackend)),
        Answer::TooBig | Answer::TimeExceeded => Err(Stop::Drop(DropReason::TimeExceeded)),
        Answer::Echo => Err(Stop::Pass),
    }
}
