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
#[repr(u32)]
pub enum Answer {
    /// A TCP reset, or ICMP port unreachable for other protocols.
    Reject = 1,
    /// ICMP "fragmentation needed" or "packet too big", with the size in the flow's hop.
    TooBig,
    /// ICMP "time exceeded".
    TimeExceeded,
    /// An echo reply.
    Echo,
}

impl Answer {
    /// From its number; `None` for a number that is none's.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Reject),
            2 => Some(Self::TooBig),
            3 => Some(Self::TimeExceeded),
            4 => Some(Self::Echo),
            _ => None,
        }
    }
}
