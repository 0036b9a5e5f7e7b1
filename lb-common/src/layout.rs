//! Names of maps and programs, and the proof that rows have no padding left to chance.

use core::mem::{align_of, size_of};

use crate::{
    Affinity, Backend, ClientKey, Device, FamilySettings, Flow, FlowHash, FlowKey, FlowRow, FlowTags,
    Fragment, FragmentKey, Hop, Ip4, Ip6, LocalKey, NodeAddress, PathMtu, Port, RangeKey, ServiceKey,
    ServiceName, ServicePolicy, ServiceStats, ServiceValue, Settings, Slot,
};

/// The version of this layout; the pin folder carries it, so that two layouts never share a map.
pub const VERSION: u32 = 6;

/// Names of maps. The kernel keeps 15 bytes of a name.
pub mod map {
    /// Front ends of IPv4 ([`crate::ServiceKey`] to [`crate::ServiceValue`]).
    pub const SERVICES4: &str = "lb_services4";
    /// Front ends of IPv6.
    pub const SERVICES6: &str = "lb_services6";
    /// Which IPv4 addresses may be front ends (array of `u64`, see [`crate::filter`]).
    pub const FILTER4: &str = "lb_filter4";
    /// Which IPv6 addresses may be front ends.
    pub const FILTER6: &str = "lb_filter6";
    /// Eligible backends of IPv4 services (array of [`crate::Slot`]).
    pub const SLOTS4: &str = "lb_slots4";
    /// Eligible backends of IPv6 services.
    pub const SLOTS6: &str = "lb_slots6";
    /// IPv4 endpoints (array of [`crate::Backend`]).
    pub const BACKENDS4: &str = "lb_backends4";
    /// IPv6 endpoints.
    pub const BACKENDS6: &str = "lb_backends6";
    /// How keys of flows are spread over buckets (array of length 1, [`crate::FlowHash`]).
    pub const FLOW_HASH: &str = "lb_flow_hash";
    /// What IPv4 flows are found by (array of [`crate::FlowTags`]).
    pub const FLOW_TAGS4: &str = "lb_flow_tags4";
    /// The same for IPv6.
    pub const FLOW_TAGS6: &str = "lb_flow_tags6";
    /// IPv4 flows (array of [`crate::FlowRow`]).
    pub const FLOWS4: &str = "lb_flows4";
    /// IPv6 flows.
    pub const FLOWS6: &str = "lb_flows6";
    /// IPv4 addresses of the node itself ([`crate::NodeAddress`]).
    pub const NODE_ADDRS4: &str = "lb_node_addrs4";
    /// IPv6 addresses of the node itself.
    pub const NODE_ADDRS6: &str = "lb_node_addrs6";
    /// Local IPv4 endpoints of services with direct server return ([`crate::LocalKey`] to an index of backends).
    pub const LOCALS4: &str = "lb_locals4";
    /// The same for IPv6.
    pub const LOCALS6: &str = "lb_locals6";
    /// Lists of IPv4 prefixes ([`crate::RangeKey`] to 1).
    pub const RANGES4: &str = "lb_ranges4";
    /// Lists of IPv6 prefixes.
    pub const RANGES6: &str = "lb_ranges6";
    /// By ifindex, the IPv4 address that masqueraded packets leave with.
    pub const SNAT4: &str = "lb_snat4";
    /// The same for IPv6.
    pub const SNAT6: &str = "lb_snat6";
    /// The one row of [`crate::FamilySettings`] of IPv4.
    pub const FAMILY4: &str = "lb_family4";
    /// The same for IPv6.
    pub const FAMILY6: &str = "lb_family6";
    /// Which backend an IPv4 client stays with (LRU, [`crate::ClientKey`] to [`crate::Affinity`]).
    pub const AFFINITY4: &str = "lb_affinity4";
    /// The same for IPv6.
    pub const AFFINITY6: &str = "lb_affinity6";
    /// IPv4 packets in fragments (LRU, [`crate::FragmentKey`] to [`crate::Fragment`]).
    pub const FRAGS4: &str = "lb_frags4";
    /// The same for IPv6.
    pub const FRAGS6: &str = "lb_frags6";
    /// Limits on new connections of IPv4 clients (LRU, [`crate::ClientKey`] to `u64`).
    pub const SOURCES4: &str = "lb_sources4";
    /// The same for IPv6.
    pub const SOURCES6: &str = "lb_sources6";
    /// Open connections by index of IPv4 backends (array of `u32`), for services with least-connections.
    pub const LOADS4: &str = "lb_loads4";
    /// The same for IPv6.
    pub const LOADS6: &str = "lb_loads6";
    /// The largest packet on the way to an IPv4 backend (LRU, address to [`crate::PathMtu`]).
    pub const PATH_MTU4: &str = "lb_path_mtu4";
    /// The same for IPv6.
    pub const PATH_MTU6: &str = "lb_path_mtu6";
    /// Limits on new connections by service id (array of `u64`); row 0 is that on the programs' own answers.
    pub const LIMITS: &str = "lb_limits";
    /// [`crate::ServicePolicy`] by service id (array).
    pub const POLICIES: &str = "lb_policies";
    /// Devices by ifindex ([`crate::Device`]).
    pub const DEVICES: &str = "lb_devices";
    /// The one row of [`crate::Settings`].
    pub const SETTINGS: &str = "lb_settings";
    /// Per-CPU [`crate::ServiceStats`] by service id.
    pub const STATS: &str = "lb_stats";
    /// [`crate::ServiceName`] by service id.
    pub const NAMES: &str = "lb_names";
    /// Per-CPU `u64` by [`crate::DropReason`].
    pub const DROPS: &str = "lb_drops";
    /// Per-CPU `u64` by [`crate::Counter`].
    pub const COUNTERS: &str = "lb_counters";

    /// Those that programs only read: the agent alone writes them. All others are written by programs, too, or go with one
    /// that is ([`FLOW_HASH`]).
    pub const OF_AGENT: [&str; 22] = [
        FILTER4,
        FILTER6,
        SERVICES4,
        SERVICES6,
        SLOTS4,
        SLOTS6,
        BACKENDS4,
        BACKENDS6,
        NODE_ADDRS4,
        NODE_ADDRS6,
        LOCALS4,
        LOCALS6,
        RANGES4,
        RANGES6,
        SNAT4,
        SNAT6,
        FAMILY4,
        FAMILY6,
        POLICIES,
        DEVICES,
        SETTINGS,
        NAMES,
    ];

    /// Every map that is pinned.
    pub const ALL: [&str; 41] = [
        FILTER4,
        FILTER6,
        SERVICES4,
        SERVICES6,
        SLOTS4,
        SLOTS6,
        BACKENDS4,
        BACKENDS6,
        FLOWS4,
        FLOWS6,
        FLOW_TAGS4,
        FLOW_TAGS6,
        FLOW_HASH,
        NODE_ADDRS4,
        NODE_ADDRS6,
        LOCALS4,
        LOCALS6,
        RANGES4,
        RANGES6,
        SNAT4,
        SNAT6,
        FAMILY4,
        FAMILY6,
        AFFINITY4,
        AFFINITY6,
        FRAGS4,
        FRAGS6,
        SOURCES4,
        SOURCES6,
        LOADS4,
        LOADS6,
        PATH_MTU4,
        PATH_MTU6,
        LIMITS,
        POLICIES,
        DEVICES,
        SETTINGS,
        STATS,
        NAMES,
        DROPS,
        COUNTERS,
    ];
}

/// Names of programs.
pub mod program {
    /// Stage pre: TC ingress of a device with Ethernet headers.
    pub const PRE: &str = "lb_pre";
    /// Stage post: TC egress of a device with Ethernet headers, and of the loopback device, whose frames have them too.
    pub const POST: &str = "lb_post";
    /// Stage pre on a device without link-layer header (tun, `WireGuard`, IPIP).
    pub const PRE_L3: &str = "lb_pre_l3";
    /// Stage post on a device without link-layer header.
    pub const POST_L3: &str = "lb_post_l3";
    /// XDP at uplinks with Ethernet headers: stage pre, and the whole way of packets that leave again.
    pub const XDP: &str = "lb_xdp";
    /// Attached nowhere: returns the low 31 bits of the jiffies, so that the agent can learn their rate.
    pub const JIFFIES: &str = "lb_jiffies";

    /// Every program of the object.
    pub const ALL: [&str; 6] = [PRE, POST, PRE_L3, POST_L3, XDP, JIFFIES];
}

macro_rules! layout {
    ($($type:ty: $size:literal / $align:literal),+ $(,)?) => {
        $(const _: () = assert!(size_of::<$type>() == $size && align_of::<$type>() == $align);)+
    };
}

// Size (sum of the fields, so nothing is padding) and alignment, in bytes.
layout! {
    Ip4: 4 / 4,
    Ip6: 16 / 4,
    Port: 2 / 2,
    ServiceKey<Ip4>: 8 / 4,
    ServiceKey<Ip6>: 20 / 4,
    ServiceValue: 32 / 4,
    Slot: 8 / 4,
    ServicePolicy: 12 / 4,
    ServiceStats: 48 / 8,
    ServiceName: 152 / 1,
    Backend<Ip4>: 16 / 4,
    Backend<Ip6>: 28 / 4,
    LocalKey<Ip4>: 8 / 4,
    LocalKey<Ip6>: 20 / 4,
    ClientKey<Ip4>: 8 / 4,
    ClientKey<Ip6>: 20 / 4,
    Affinity: 12 / 4,
    RangeKey<Ip4>: 12 / 4,
    RangeKey<Ip6>: 24 / 4,
    FlowKey<Ip4>: 16 / 4,
    FlowKey<Ip6>: 40 / 4,
    Hop: 16 / 4,
    Flow<Ip4>: 48 / 8,
    Flow<Ip6>: 72 / 8,
    FlowTags: 64 / 8,
    FlowRow<Ip4>: 64 / 8,
    FlowRow<Ip6>: 112 / 8,
    FlowHash: 104 / 8,
    FragmentKey<Ip4>: 16 / 4,
    FragmentKey<Ip6>: 40 / 4,
    Fragment: 8 / 4,
    PathMtu: 8 / 4,
    Device: 16 / 4,
    NodeAddress: 4 / 4,
    Settings: 48 / 4,
    FamilySettings<Ip4>: 36 / 4,
    FamilySettings<Ip6>: 144 / 4,
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::{Counter, DropReason};

    #[test]
    fn the_kernel_keeps_every_name_whole() {
        for name in map::ALL.into_iter().chain(program::ALL) {
            assert!(name.len() <= 15, "{name}");
        }
    }

    #[test]
    fn fields_stand_where_dumps_and_programs_expect_them() {
        assert_eq!(offset_of!(FlowKey<Ip4>, src_port), 8);
        assert_eq!(offset_of!(FlowKey<Ip6>, src_port), 32);
        assert_eq!(offset_of!(FlowKey<Ip6>, stage), 37);
        assert_eq!(offset_of!(Flow<Ip4>, service), 12);
        assert_eq!(offset_of!(Flow<Ip6>, last_seen), 44);
        assert_eq!(offset_of!(Flow<Ip4>, hop), 32);
        assert_eq!(offset_of!(Flow<Ip6>, hop), 56);
        assert_eq!(offset_of!(Backend<Ip4>, epoch), 6);
        assert_eq!(offset_of!(Backend<Ip6>, service), 20);
        assert_eq!(offset_of!(Settings, node_port_max), 42);
    }

    #[test]
    fn numbers_of_reasons_and_counters_are_their_places() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place);
        }
    }
}
