//! What the agent tells the programs, once for all packets.

/// The one row of `lb_settings` (an array of length 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Settings {
    /// Jiffies in a second (the kernel's `CONFIG_HZ`), measured by the agent.
    pub jiffies_per_second: u32,
    /// Jiffies after which an established TCP flow without packets is finished.
    pub tcp_established: u32,
    /// Jiffies after which a TCP flow in its handshake without packets is finished.
    pub tcp_handshake: u32,
    /// Jiffies after which a closing TCP flow without packets is finished.
    pub tcp_closing: u32,
    /// Jiffies after which a UDP flow without packets is finished.
    pub udp_idle: u32,
    /// Seed of the flow hash, low half first; the same on all nodes.
    pub hash_seed: [u32; 2],
    /// Raised whenever a route, a neighbour, a link or an address changes: next hops that flows remember of an earlier
    /// epoch are looked up again.
    pub route_epoch: u32,
    /// The time that one answer of the programs themselves (reset, unreachable, echo) takes of the limit, in 1/65536 of
    /// a jiffy; 0: no limit.
    pub answer_interval: u32,
    /// [`SettingsFlags`].
    pub flags: u32,
    /// Lowest NodePort that any service has, in host order.
    pub node_port_min: u16,
    /// Highest NodePort that any service has, in host order; below the lowest when there is none.
    pub node_port_max: u16,
    /// Lowest source port for masqueraded flows, in host order.
    pub snat_port_min: u16,
    /// Highest source port for masqueraded flows, in host order.
    pub snat_port_max: u16,
}

/// Bits of [`Settings::flags`].
#[derive(Clone, Copy, Debug)]
pub struct SettingsFlags;

impl SettingsFlags {
    /// Masquerade exactly when kube-proxy does (`--snat=always`); otherwise only when the reply would not come back.
    pub const SNAT_ALWAYS: u32 = 1;
    /// Masquerade every service's packets (`--masquerade-all`).
    pub const MASQUERADE_ALL: u32 = 1 << 1;
    /// There are prefixes in list [`crate::RangeList::PODS`]; without them no source is known for a pod's by its address.
    pub const DETECTS_PODS: u32 = 1 << 2;
    /// There are prefixes in `lb_family4` or `lb_family6` that services get their addresses from.
    pub const SERVICE_CIDRS: u32 = 1 << 3;
}

/// The one row of `lb_family4`, `lb_family6` (arrays of length 1): what the agent tells of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FamilySettings<A> {
    /// The node's address, for masqueraded packets that leave by a device without one; all zero when there is none.
    pub node_addr: A,
    /// Prefixes that services get their addresses from; those after the last have a mask of all ones and the
    /// unspecified address.
    pub service_cidrs: [Prefix<A>; SERVICE_CIDRS],
}

/// How many prefixes [`FamilySettings::service_cidrs`] has room for.
pub const SERVICE_CIDRS: usize = 4;

/// A prefix as address and mask, both in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Prefix<A> {
    /// The address; the bits that do not count are 0.
    pub addr: A,
    /// The bits that count.
    pub mask: A,
}
