//! Services: what a packet's destination is looked up as.

use crate::addr::Port;

/// Key of `lb_services4`, `lb_services6`: a front end.
///
/// A NodePort stands under the unspecified address (all zero): it is tried when the destination is in
/// `lb_node_addrs` and allowed there, and no exact entry matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct ServiceKey<A> {
    /// ClusterIP, load-balancer VIP, external IP, or unspecified for a NodePort.
    pub addr: A,
    /// Service port or NodePort.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

impl<A> ServiceKey<A> {
    /// The front end of `addr`:`port` for `protocol`.
    #[inline(always)]
    pub const fn new(addr: A, port: Port, protocol: u8) -> Self {
        Self {
            addr,
            port,
            protocol,
            pad: 0,
        }
    }
}

/// Value of `lb_services4`, `lb_services6`. Replaced as a whole: that is the flip of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ServiceValue {
    /// The service port that this front end belongs to: index into `lb_stats`, key of `lb_names`.
    /// Never 0.
    pub service: u32,
    /// Names one write of a slot region, never used twice: a [`Slot`] of another generation is not this
    /// service's any more.
    pub generation: u32,
    /// Index of the first slot in `lb_slots4`, `lb_slots6`.
    pub slot_base: u32,
    /// Number of slots, one per eligible backend; 0 when no backend is eligible.
    pub slot_count: u32,
    /// [`ServiceFlags`].
    pub flags: u32,
}

/// Bits of [`ServiceValue::flags`].
#[derive(Clone, Copy, Debug)]
pub struct ServiceFlags;

impl ServiceFlags {
    /// A NodePort entry (unspecified address).
    pub const NODE_PORT: u32 = 1;
}

/// Value of `lb_slots4`, `lb_slots6` (arrays): one eligible backend of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Slot {
    /// The service port that the slot was written for; 0: never written.
    pub service: u32,
    /// Compared with [`ServiceValue::generation`].
    pub generation: u32,
    /// Index into `lb_backends4`, `lb_backends6`.
    pub backend: u32,
}

/// Value of `lb_stats` (a per-CPU array, index [`ServiceValue::service`]). It starts at zero for each service port that is
/// given the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceStats {
    /// Packets translated on their way to a backend.
    pub packets: u64,
    /// Bytes of those packets, from the network header on.
    pub bytes: u64,
    /// Reply packets translated back.
    pub reply_packets: u64,
    /// Bytes of those packets, from the network header on.
    pub reply_bytes: u64,
    /// New flows.
    pub connections: u64,
    /// Packets dropped after the service was known.
    pub dropped: u64,
}

/// Value of `lb_names`: what people call a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ServiceName {
    /// `namespace/name:port/protocol` in UTF-8 (port name, or number when unnamed), filled up with zeros.
    pub text: [u8; Self::LEN],
}

impl ServiceName {
    /// Room for two DNS labels, a port name and a protocol: 63 + 1 + 63 + 1 + 15 + 1 + 4 = 148.
    pub const LEN: usize = 152;
}
