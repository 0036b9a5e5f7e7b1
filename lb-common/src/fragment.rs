//! Fragments: only the first one names the ports.

use crate::addr::Port;

/// Key of `lb_frags4`, `lb_frags6` (LRU): a packet in fragments, as a stage meets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct FragmentKey<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// The identification, as it stands in the packet: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::Stage`].
    pub stage: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

/// Value of `lb_frags4`, `lb_frags6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Fragment {
    /// Source port of the packet.
    pub src_port: Port,
    /// Destination port of the packet.
    pub dst_port: Port,
    /// Low 32 bits of the kernel's jiffies when the first fragment came.
    pub first_seen: u32,
}
