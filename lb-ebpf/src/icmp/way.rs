//! Where an ICMP packet goes, in one byte.

use lb_common::DropReason;

use crate::verdict::{Answer, Next, Stop};

/// A verdict as a real call can return it: of a result with a [`Stop`] in all its shapes the compiler makes moves of
/// what was never set, which the verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Way {
    /// [`Next::Stack`].
    Stack,
    /// [`Next::Out`].
    Out,
    /// [`Next::Arrive`].
    Arrive,
    /// [`Stop::Pass`].
    Pass,
    /// [`Answer::Reject`].
    Reject,
    /// [`Answer::TooBig`].
    TooBig,
    /// [`Answer::Echo`].
    Echo,
    /// [`DropReason::IcmpRedirect`].
    Redirect,
    /// [`DropReason::TimeExceeded`].
    TimeExceeded,
    /// [`DropReason::NotAnswerable`].
    NotAnswerable,
    /// [`DropReason::UnusedServiceAddress`].
    Unused,
    /// [`DropReason::NoRoute`].
    NoRoute,
    /// [`DropReason::NoSnatAddress`].
    NoAddress,
    /// [`DropReason::WrapFailed`].
    WrapFailed,
    /// [`DropReason::RewriteFailed`].
    RewriteFailed,
}

impl Way {
    #[inline(always)]
    pub(super) const fn of(done: Result<Next, Stop>) -> Self {
        match done {
            Ok(Next::Stack) => Self::Stack,
            Ok(Next::Out) => Self::Out,
            Ok(Next::Arrive) => Self::Arrive,
            Err(Stop::Pass) => Self::Pass,
            Err(Stop::Answer(Answer::Reject)) => Self::Reject,
            Err(Stop::Answer(Answer::TooBig)) => Self::TooBig,
            Err(Stop::Answer(Answer::Echo)) => Self::Echo,
            Err(Stop::Answer(Answer::TimeExceeded) | Stop::Drop(DropReason::TimeExceeded)) => {
                Self::TimeExceeded
            }
            Err(Stop::Drop(DropReason::IcmpRedirect)) => Self::Redirect,
            Err(Stop::Drop(DropReason::NotAnswerable)) => Self::NotAnswerable,
            Err(Stop::Drop(DropReason::UnusedServiceAddress)) => Self::Unused,
            Err(Stop::Drop(DropReason::NoRoute)) => Self::NoRoute,
            Err(Stop::Drop(DropReason::NoSnatAddress)) => Self::NoAddress,
            Err(Stop::Drop(DropReason::WrapFailed)) => Self::WrapFailed,
            // No other comes about.
            Ok(_) | Err(Stop::Drop(_)) => Self::RewriteFailed,
        }
    }

    #[inline(always)]
    pub(super) const fn result(self) -> Result<Next, Stop> {
        match self {
            Self::Stack => Ok(Next::Stack),
            Self::Out => Ok(Next::Out),
            Self::Arrive => Ok(Next::Arrive),
            Self::Pass => Err(Stop::Pass),
            Self::Reject => Err(Stop::Answer(Answer::Reject)),
            Self::TooBig => Err(Stop::Answer(Answer::TooBig)),
            Self::Echo => Err(Stop::Answer(Answer::Echo)),
            Self::Redirect => Err(Stop::Drop(DropReason::IcmpRedirect)),
            Self::TimeExceeded => Err(Stop::Drop(DropReason::TimeExceeded)),
            Self::NotAnswerable => Err(Stop::Drop(DropReason::NotAnswerable)),
            Self::Unused => Err(Stop::Drop(DropReason::UnusedServiceAddress)),
            Self::NoRoute => Err(Stop::Drop(DropReason::NoRoute)),
            Self::NoAddress => Err(Stop::Drop(DropReason::NoSnatAddress)),
            Self::WrapFailed => Err(Stop::Drop(DropReason::WrapFailed)),
            Self::RewriteFailed => Err(Stop::Drop(DropReason::RewriteFailed)),
        }
    }
}
