//! What is known of a way beside the kernel's routes.

/// Value of `lb_path_mtu4`, `lb_path_mtu6` (LRU; key: the address of a backend on another node): the largest packet that
/// a router on the way there takes, as it has said itself (RFC 1191, RFC 8201).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct PathMtu {
    /// Bytes from the network header on.
    pub mtu: u32,
    /// Low 32 bits of the kernel's jiffies when it was said.
    pub learned: u32,
}
