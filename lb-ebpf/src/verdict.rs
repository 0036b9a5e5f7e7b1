//! How a packet's way through the core ends early.

use lb_common::DropReason;

/// Why a step does not go on. `Ok` means: go on, and at the end of a stage: translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not ours: the packet goes by untouched.
    Pass,
    /// The packet is dropped and counted.
    Drop(DropReason),
}
