//! How a packet's way through the core ends.

use lb_common::DropReason;

/// Where a packet goes that a stage has finished with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// On its way: translated, the rest is the stack's.
    Stack,
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
    /// An answer is due, [`crate::work::Work::answer`]: [`crate::answer::give`] makes it, in a call of its own.
    Answer,
}

/// Why a step does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not ours: the packet goes by untouched.
    Pass,
    /// The packet is dropped and counted.
    Drop(DropReason),
    /// The packet is answered; nothing in it is changed so far.
    Answer(Answer),
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
