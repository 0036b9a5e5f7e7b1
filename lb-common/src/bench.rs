//! What the bench tells its wrapper programs; no part of the map layout.

/// The one row of `bench_plan`: the packet to restore, and how one differs from the next.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Plan {
    /// The packet from byte [`Plan::START`] on, as words in memory order.
    pub words: [u32; Self::WORDS],
    /// Which bits of the run's number are used: 0 for one flow, 4095 for 4096 flows, all for a new flow each time.
    pub mask: u32,
    /// The run's number; counted by the wrapper.
    pub run: u32,
    /// Client port of the first flow, in host order.
    pub first_port: u32,
    /// 0: the sixteen lowest bits of the run's number choose the client's port, those above its address. 1: the twelve
    /// lowest choose the address, those above the port.
    pub clients_first: u32,
    /// 0: the client is the packet's source; 1: it is the destination.
    pub client_is_destination: u32,
    /// The hardware addresses before that, as words in memory order: only wrappers of XDP programs restore them.
    pub hardware: [u32; 3],
    /// By how many bytes the program under test makes the packet longer at its front.
    pub growth: u32,
}

impl Plan {
    /// Programs at TC do not change the Ethernet header before.
    pub const START: usize = 14;
    /// An IPv6 and a TCP header.
    pub const WORDS: usize = 15;
}
