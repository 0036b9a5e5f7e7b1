//! How many rows each map has.

use aya::maps::MapInfo;
use aya::util::online_cpus;
use lb_common::flow_table::WAYS;
use lb_common::layout::map;

use super::Pins;
use crate::store::size_flag;

/// What the flags say about sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Service ports.
    pub services: u32,
    /// Slots, per family.
    pub slots: u32,
    /// Backends, per family.
    pub backends: u32,
    /// Connections (and flows of UDP and SCTP) that are remembered, per family.
    pub flows: u32,
    /// Whether IPv4 is on; the maps of a family that is off have one row.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

/// In the place of a flag, for maps whose size no flag decides.
pub(super) const NO_FLAG: &str = "the object";

/// Front ends that there is room for, per service port and family: ClusterIP, NodePort, and a few VIPs.
const FRONT_ENDS_PER_SERVICE: u32 = 4;

/// Buckets of the flow table for this many connections, each with one entry in pre and one in post: half as much room again
/// as they need, because no bucket can take what another has room for. With all connections open, one in thirty has no
/// room; with two thirds of them, one in two hundred.
const BUCKETS: u32 = 3;
const FLOWS_PER_BUCKETS: u32 = 8;
/// Prefixes that may be listed, per service port and family. The map takes memory for those alone that are there.
const RANGES_PER_SERVICE: u32 = 16;
/// Connections for each client that affinity or a limit remembers.
const FLOWS_PER_CLIENT: u32 = 4;
/// Connections for each packet in fragments that is on its way.
const FLOWS_PER_FRAGMENT: u32 = 32;
/// An LRU map hands its rows to the CPUs by the hundred; a smaller one forgets what is new.
const LEAST_LRU: u32 = 1024;

/// Connections for each CPU, and the least, unless a flag says otherwise: kube-proxy's own for the kernel's connection
/// tracking (`--conntrack-max-per-core`, `--conntrack-min`).
const FLOWS_PER_CPU: u32 = 32_768;
const LEAST_FLOWS: u32 = 131_072;

/// Connections that there is room for when no flag says it: what the pinned maps were made for; without any, a number for each
/// CPU that is online.
pub fn default_flows(pins: &Pins) -> u32 {
    pinned_flows(pins).unwrap_or_else(|| {
        let cpus = online_cpus().map_or(1, |cpus| cpus.len());
        flows_for(u32::try_from(cpus).unwrap_or(u32::MAX))
    })
}

fn flows_for(cpus: u32) -> u32 {
    cpus.saturating_mul(FLOWS_PER_CPU).max(LEAST_FLOWS)
}

/// The map of a family that is off has one row.
fn pinned_flows(pins: &Pins) -> Option<u32> {
    let buckets = |name| {
        MapInfo::from_pin(pins.map(name))
            .ok()
            .map(|info| info.max_entries())
    };
    let buckets = [map::FLOW_TAGS4, map::FLOW_TAGS6]
        .into_iter()
        .filter_map(buckets)
        .max()?;
    (buckets > 1).then(|| flows_in(buckets))
}

/// The most connections for which there are so many buckets.
fn flows_in(buckets: u32) -> u32 {
    let flows = u64::from(buckets) * u64::from(FLOWS_PER_BUCKETS) / u64::from(BUCKETS);
    u32::try_from(flows).unwrap_or(u32::MAX)
}

fn buckets_for(flows: u32) -> u32 {
    let buckets = (u64::from(flows) * u64::from(BUCKETS)).div_ceil(FLOWS_PER_BUCKETS.into());
    u32::try_from(buckets).unwrap_or(u32::MAX)
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            services: 16_384,
            slots: 2_097_152,
            backends: 262_144,
            flows: LEAST_FLOWS,
            ipv4: true,
            ipv6: true,
        }
    }
}

/// The size of one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) map: &'static str,
    pub(super) rows: u32,
    /// The flag that decides it.
    pub(super) flag: &'static str,
}

impl Size {
    /// The size of a map, which `otherwise` decides if no flag for sizes does.
    pub(super) fn new(map: &'static str, rows: u32, otherwise: &'static str) -> Self {
        let flag = size_flag(map).unwrap_or(otherwise);
        Self { map, rows, flag }
    }
}

impl Sizes {
    /// Every map whose size is decided by a flag; the others have the size that the object gives them.
    pub(super) fn by_map(&self) -> Vec<Size> {
        let front_ends = self.services.saturating_mul(FRONT_ENDS_PER_SERVICE);
        let ids = self.services.saturating_add(1);
        let mut sizes = vec![
            Size::new(map::NAMES, self.services, NO_FLAG),
            // Indexed by service id, and 0 is nobody's.
            Size::new(map::STATS, ids, NO_FLAG),
            Size::new(map::POLICIES, ids, NO_FLAG),
            Size::new(map::LIMITS, ids, NO_FLAG),
        ];
        let clients = (self.flows / FLOWS_PER_CLIENT).max(LEAST_LRU);
        let fragments = (self.flows / FLOWS_PER_FRAGMENT).max(LEAST_LRU);
        let ranges = self.services.saturating_mul(RANGES_PER_SERVICE);
        let families = [(self.ipv4, "--ipv4", FAMILY4), (self.ipv6, "--ipv6", FAMILY6)];
        for (on, switch, maps) in families {
            let FamilyMaps { by_flag, by_object } = maps;
            if !on {
                let off = by_flag.into_iter().chain(by_object);
                sizes.extend(off.map(|map| Size {
                    map,
                    rows: 1,
                    flag: switch,
                }));
                continue;
            }
            let rows = [
                front_ends,
                lb_common::filter::ROWS,
                self.slots,
                self.backends,
                buckets_for(self.flows),
                buckets_for(self.flows).saturating_mul(WAYS),
                self.backends,
                self.backends,
                ranges,
                clients,
                clients,
                fragments,
            ];
            sizes.extend(
                by_flag
                    .into_iter()
                    .zip(rows)
                    .map(|(map, rows)| Size::new(map, rows, switch)),
            );
        }
        sizes
    }
}

/// The maps of one family.
struct FamilyMaps {
    /// Those whose size a flag decides, in the order of [`Sizes::by_map`].
    by_flag: [&'static str; 12],
    /// Those that are as large as the object says.
    by_object: [&'static str; 4],
}

const FAMILY4: FamilyMaps = FamilyMaps {
    by_flag: [
        map::SERVICES4,
        map::FILTER4,
        map::SLOTS4,
        map::BACKENDS4,
        map::FLOW_TAGS4,
        map::FLOWS4,
        map::LOCALS4,
        map::LOADS4,
        map::RANGES4,
        map::AFFINITY4,
        map::SOURCES4,
        map::FRAGS4,
    ],
    by_object: [map::NODE_ADDRS4, map::SNAT4, map::FAMILY4, map::PATH_MTU4],
};

const FAMILY6: FamilyMaps = FamilyMaps {
    by_flag: [
        map::SERVICES6,
        map::FILTER6,
        map::SLOTS6,
        map::BACKENDS6,
        map::FLOW_TAGS6,
        map::FLOWS6,
        map::LOCALS6,
        map::LOADS6,
        map::RANGES6,
        map::AFFINITY6,
        map::SOURCES6,
        map::FRAGS6,
    ],
    by_object: [map::NODE_ADDRS6, map::SNAT6, map::FAMILY6, map::PATH_MTU6],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_nodes_have_room_for_as_many_connections_as_under_kube_proxy() {
        assert_eq!(
            [1, 4, 5, 64].map(flows_for),
            [131_072, 131_072, 163_840, 2_097_152]
        );
        assert_eq!(default_flows(&Pins::new("/nowhere")) % FLOWS_PER_CPU, 0);
    }

    #[test]
    fn pinned_buckets_say_for_how_many_connections_they_are() {
        for flows in [1, 2, 3, 1000, 1024, 131_072, 2_097_152] {
            let buckets = buckets_for(flows);
            assert!(flows_in(buckets) >= flows);
            assert_eq!(buckets_for(flows_in(buckets)), buckets);
        }
    }

    #[test]
    fn a_family_that_is_off_costs_nothing() {
        let sizes = Sizes {
            ipv6: false,
            ..Sizes::default()
        }
        .by_map();
        let rows = |name| {
            sizes
                .iter()
                .find(|size| size.map == name)
                .map(|size| (size.rows, size.flag))
        };
        assert_eq!(rows(map::FLOW_TAGS4), Some((49_152, "--max-flows")));
        assert_eq!(rows(map::FLOWS4), Some((393_216, "--max-flows")));
        assert_eq!(rows(map::FLOWS6), Some((1, "--ipv6")));
        assert_eq!(rows(map::NODE_ADDRS6), Some((1, "--ipv6")));
        assert_eq!(rows(map::NODE_ADDRS4), None);
        assert_eq!(rows(map::SERVICES4), Some((65_536, "--max-services")));
        assert_eq!(rows(map::STATS), Some((16_385, "--max-services")));
        assert_eq!(rows(map::AFFINITY4), Some((32_768, "--max-flows")));
        assert_eq!(rows(map::AFFINITY6), Some((1, "--ipv6")));
        assert_eq!(rows(map::LOADS4), Some((262_144, "--max-backends")));
    }
}
