//! How a packet's way through the core ends.

use core::fmt;
use core::num::NonZeroU16;

use lb_common::DropReason;

/// Where a packet goes that a stage has finished with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Next {
    /// On its way: translated, the rest is the stack's.
    Stack = 0,
    /// Out by the flow's next hop, without the stack.
    Out,
    /// Back to where it came from: it has become an answer.
    Back,
    /// In by another device, the flow's [`lb_common::Flow::arrival`].
    Arrive,
    /// The first look was not enough: [`crate::stage::more_of_pre`] or [`crate::stage::more_of_post`] goes on.
    More,
    /// The node itself has made it, and it is no reply: [`crate::stage::own`] goes on.
    Own,
    /// It is a reply, and has got its source; it may belong to another uplink ([`crate::uplink::leave`]).
    Return,
    /// An answer is due, [`crate::work::Work::answer`]: [`crate::answer::give`] makes it, in a call of its own.
    Answer,
}

/// Why a step does not go on.
///
/// One number, never 0: so a `Result<(), Stop>` is one register. Of an enum with data the compiler makes a pair, which a
/// real call in BPF returns by way of the stack, or moves bytes that no way has set, and the verifier refuses both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stop(NonZeroU16);

/// What a [`Stop`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// [`Stop::PASS`].
    Pass,
    /// [`Stop::drop`], with the number of the [`DropReason`].
    Drop(u32),
    /// [`Stop::answer`], with the number of the [`Answer`].
    Answer(u32),
}

impl Stop {
    /// Not ours: the packet goes by untouched.
    pub const PASS: Self = Self::new(Self::DROP - 1);

    /// Numbers of reasons to drop begin here, and those of answers there.
    const DROP: u16 = 1 << 8;
    const ANSWER: u16 = 1 << 9;

    /// The packet is dropped and counted.
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self::new(Self::DROP | reason as u16)
    }

    /// The packet is answered; nothing in it is changed so far.
    #[inline(always)]
    pub const fn answer(answer: Answer) -> Self {
        Self::new(Self::ANSWER | answer as u16)
    }

    /// What it says.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        let number = self.0.get();
        if number & Self::ANSWER != 0 {
            Reason::Answer((number & 0xff) as u32)
        } else if number & Self::DROP != 0 {
            Reason::Drop((number & 0xff) as u32)
        } else {
            Reason::Pass
        }
    }

    #[inline(always)]
    const fn new(number: u16) -> Self {
        match NonZeroU16::new(number) {
            Some(number) => Self(number),
            // No number above is 0.
            None => Self(NonZeroU16::MIN),
        }
    }
}

/// How a step of a packet's way has ended, in one number, for the result of a real call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done(u32);

impl Done {
    /// Numbers of ends begin here; those below are of [`Next`].
    const STOPPED: u32 = 1 << 16;

    /// From the result.
    #[inline(always)]
    pub const fn of(done: Result<Next, Stop>) -> Self {
        match done {
            Ok(next) => Self(next as u32),
            Err(Stop(number)) => Self(Self::STOPPED | number.get() as u32),
        }
    }

    /// The result.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low half is a Stop's number")]
    pub const fn result(self) -> Result<Next, Stop> {
        match self.0 {
            0 => Ok(Next::Stack),
            1 => Ok(Next::Out),
            2 => Ok(Next::Back),
            3 => Ok(Next::Arrive),
            4 => Ok(Next::More),
            5 => Ok(Next::Own),
            6 => Ok(Next::Return),
            7 => Ok(Next::Answer),
            number => Err(Stop::new(number as u16)),
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason().fmt(f)
    }
}

/// Answers that the programs give by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answer {
    /// A TCP reset, or ICMP port unreachable for other protocols.
    Reject = 0,
    /// ICMP "fragmentation needed" or "packet too big", with the size in the flow's hop.
    TooBig = 1,
    /// ICMP "time exceeded".
    TimeExceeded = 2,
    /// An echo reply.
    Echo = 3,
}

impl Answer {
    /// From its number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Reject,
            1 => Self::TooBig,
            2 => Self::TimeExceeded,
            _ => Self::Echo,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_says_it_all() {
        let nexts = [
            Next::Stack,
            Next::Out,
            Next::Back,
            Next::Arrive,
            Next::More,
            Next::Own,
            Next::Return,
            Next::Answer,
        ];
        let drops = DropReason::ALL.map(Stop::drop);
        let answers = [Answer::Reject, Answer::TooBig, Answer::TimeExceeded, Answer::Echo].map(Stop::answer);
        let stops = drops.into_iter().chain(answers).chain([Stop::PASS]);
        for done in nexts.into_iter().map(Ok).chain(stops.map(Err)) {
            assert_eq!(Done::of(done).result(), done);
        }
        assert_eq!(Stop::PASS.reason(), Reason::Pass);
        for reason in DropReason::ALL {
            assert_eq!(Stop::drop(reason).reason(), Reason::Drop(reason as u32));
        }
        assert_eq!(
            Stop::answer(Answer::Echo).reason(),
            Reason::Answer(Answer::Echo as u32)
        );
    }

    #[test]
    fn a_result_is_one_register() {
        assert_eq!(size_of::<Result<(), Stop>>(), 2);
    }
}
