//! Services: what a packet's destination is looked up as.

use crate::addr::Port;

/// Key of `lb_services4`, `lb_services6`: a front end.
///
/// A NodePort stands under the unspecified address (all zero): it is tried when the destination is in
/// `lb_node_addrs` and allowed there, and no exact entry matches. An address as such ([`ServiceFlags::ADDRESS`]) stands
/// under port 0 and protocol 0: it is tried when no front end matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct ServiceKey<A> {
    /// ClusterIP, load-balancer VIP, external IP, or unspecified for a NodePort.
    pub addr: A,
    /// Service port or NodePort; 0 for the address as such.
    pub port: Port,
    /// IP protocol number; 0 for the address as such.
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

    /// The address as such.
    #[inline(always)]
    pub const fn address(addr: A) -> Self {
        Self::new(addr, Port { octets: [0; 2] }, 0)
    }
}

/// Value of `lb_services4`, `lb_services6`. Replaced as a whole: that is the flip of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ServiceValue {
    /// The service port that this front end belongs to: index into `lb_stats` and `lb_policies`, key of `lb_names`.
    /// Never 0, but in the row of an address as such, where it is 0.
    pub service: u32,
    /// [`ServiceFlags`].
    pub flags: u32,
    /// The backends for clients from outside the cluster.
    pub outside: SlotRange,
    /// The backends for pods and for the node itself.
    pub inside: SlotRange,
}

/// Neighbouring slots, written at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct SlotRange {
    /// Names one write of the slots, never used twice: a [`Slot`] of another generation is not this front end's any
    /// more.
    pub generation: u32,
    /// Index of the first slot in `lb_slots4`, `lb_slots6`.
    pub base: u32,
    /// Number of slots; 0 when no backend is eligible.
    pub count: u32,
}

/// Bits of [`ServiceValue::flags`].
#[derive(Clone, Copy, Debug)]
pub struct ServiceFlags;

impl ServiceFlags {
    /// A NodePort entry (unspecified address).
    pub const NODE_PORT: u32 = 1;
    /// A ClusterIP entry.
    pub const CLUSTER_IP: u32 = 1 << 1;
    /// The policy for clients from outside is Local: they keep their address.
    pub const OUTSIDE_LOCAL: u32 = 1 << 2;
    /// While there is no backend for clients from outside, their packets are dropped, not rejected: there are backends
    /// elsewhere.
    pub const OUTSIDE_DROPS: u32 = 1 << 3;
    /// The same for pods and the node itself.
    pub const INSIDE_DROPS: u32 = 1 << 4;
    /// A client stays with its backend: `lb_affinity4`, `lb_affinity6`.
    pub const AFFINITY: u32 = 1 << 5;
    /// Only sources in the ranges of this service port: `lb_ranges4`, `lb_ranges6`.
    pub const SOURCE_RANGES: u32 = 1 << 6;
    /// New connections are counted against the limits in `lb_policies`.
    pub const LIMITED: u32 = 1 << 7;
    /// Remote backends answer the client directly (direct server return).
    pub const DSR: u32 = 1 << 8;
    /// Slots are taken in turn, not by the flow's hash.
    pub const ROUND_ROBIN: u32 = 1 << 9;
    /// Of two slots that the hash names, the backend with fewer connections is taken.
    pub const LEAST_CONNECTIONS: u32 = 1 << 10;
    /// The row of an address as such (port 0): no front end, it says what becomes of other packets to the address.
    pub const ADDRESS: u32 = 1 << 11;
    /// In an address row: a port that no front end has is rejected.
    pub const REJECT: u32 = 1 << 12;
    /// In an address row: an echo request is answered.
    pub const ECHO: u32 = 1 << 13;
    /// In an address row: only for packets that arrive by an uplink.
    pub const FROM_UPLINK: u32 = 1 << 14;
    /// The policy for pods and the node itself is Local; at a ClusterIP, for all clients.
    pub const INSIDE_LOCAL: u32 = 1 << 15;
}

/// Value of `lb_slots4`, `lb_slots6` (arrays): a backend for one part of the hash's range. How many slots a backend
/// has, and in which order they stand, is the agent's choice: one each, as many as its weight, or a Maglev table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Slot {
    /// Compared with [`SlotRange::generation`]; 0: never written.
    pub generation: u32,
    /// Index into `lb_backends4`, `lb_backends6`.
    pub backend: u32,
}

/// Value of `lb_policies` (an array, index [`ServiceValue::service`]): what a front end's flags need more of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct ServicePolicy {
    /// Jiffies for which a client stays with its backend after its last new connection ([`ServiceFlags::AFFINITY`]).
    pub affinity: u32,
    /// The time that one new connection takes of the service's limit, in 1/65536 of a jiffy; 0: no limit
    /// ([`ServiceFlags::LIMITED`]).
    pub interval: u32,
    /// The same for the connections of one source.
    pub source_interval: u32,
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
    /// Packets dropped or rejected after the service was known.
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

impl Default for ServiceName {
    fn default() -> Self {
        Self { text: [0; Self::LEN] }
    }
}
