//! What is remembered and known of clients beside their flows.

/// Key of `lb_affinity4`, `lb_affinity6` and of `lb_sources4`, `lb_sources6` (LRU): a client of a service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct ClientKey<A> {
    /// The client's address.
    pub addr: A,
    /// The service port.
    pub service: u32,
}

/// Value of `lb_affinity4`, `lb_affinity6`: the backend that a client stays with (session affinity `ClientIP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Affinity {
    /// Index into `lb_backends4`, `lb_backends6`.
    pub backend: u32,
    /// Low 32 bits of the kernel's jiffies at the client's last new connection.
    pub last_used: u32,
    /// The backend's epoch.
    pub epoch: u16,
    /// How often the time was over: a choice depends on it, or the client would stay for ever.
    pub term: u16,
}

/// Key of `lb_ranges4`, `lb_ranges6` (LPM tries; value: 1): a prefix in a list of prefixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct RangeKey<A> {
    /// Bits that count: 32 for the list, and the prefix's.
    pub prefix_length: u32,
    /// A service port, whose clients are limited to its prefixes; or one of [`RangeList`].
    pub list: u32,
    /// The prefix.
    pub addr: A,
}

/// Lists of prefixes that belong to no service port.
#[derive(Clone, Copy, Debug)]
pub struct RangeList;

impl RangeList {
    /// Pods: what kube-proxy's local detector knows by address.
    pub const PODS: u32 = 0x8000_0000;
    /// Addresses of nodes that may send wrapped packets.
    pub const NODES: u32 = 0x8000_0001;
}
