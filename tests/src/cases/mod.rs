//! What the data plane does to packets.

/// x
pub const X: u32 = 0;
