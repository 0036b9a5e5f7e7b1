//! Every map. The agent sets the sizes when it loads the object; what stands here are the defaults.

use aya_ebpf::btf_maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::filter;
use lb_common::{
    Affinity, Backend, ClientKey, Counter, Device, DropReason, Family, FamilySettings, FlowHash, FlowRow,
    FlowTags, Fragment, FragmentKey, Ip4, Ip6, LocalKey, NodeAddress, PathMtu, ServiceKey, ServiceName,
    ServicePolicy, ServiceStats, ServiceValue, Settings, Slot, V4, V6,
};
use lb_ebpf::hop::{KNOWN_WAYS, KnownWay};
use lb_ebpf::wire::Wire;
use lb_ebpf::work::Work;

use super::devices::{KNOWN_DEVICES as KNOWN, KnownDevice};

/// Do not set memory aside for every row (`linux/bpf.h`).
const NO_PREALLOC: usize = 1;
/// The agent may map it into its memory: so it reads all rows at once when it takes them up again. Rows begin with a page,
/// so that none of a power of two is in two cache lines.
const MMAPABLE: usize = 1 << 10;

const SERVICES: usize = 65_536;
const SERVICE_IDS: usize = 16_384;
const SLOTS: usize = 2_097_152;
const BACKENDS: usize = 262_144;
const FLOW_BUCKETS: usize = 49_152;
const FLOWS: usize = FLOW_BUCKETS * lb_common::flow_table::WAYS as usize;
const NODE_ADDRS: usize = 4_096;
const DEVICES: usize = 16_384;
const RANGES: usize = 65_536;
const CLIENTS: usize = 65_536;
const FRAGMENTS: usize = 8_192;
const PATHS: usize = 4_096;

type ServiceMap<A> = HashMap<ServiceKey<A>, ServiceValue, SERVICES, NO_PREALLOC>;
type FilterMap = Array<u64, { filter::ROWS as usize }>;
type SlotMap = Array<Slot, SLOTS, MMAPABLE>;
type BackendMap<A> = Array<Backend<A>, BACKENDS, MMAPABLE>;
type LocalMap<A> = HashMap<LocalKey<A>, u32, BACKENDS, NO_PREALLOC>;
type FlowTagMap = Array<FlowTags, FLOW_BUCKETS, MMAPABLE>;
type FlowMap<A> = Array<FlowRow<A>, FLOWS, MMAPABLE>;
type NodeAddressMap<A> = HashMap<A, NodeAddress, NODE_ADDRS, NO_PREALLOC>;
type SnatMap<A> = HashMap<u32, A, DEVICES, NO_PREALLOC>;
type FamilyMap<A> = Array<FamilySettings<A>, 1>;
type AffinityMap<A> = LruHashMap<ClientKey<A>, Affinity, CLIENTS>;
type SourceMap<A> = LruHashMap<ClientKey<A>, u64, CLIENTS>;
type FragmentMap<A> = LruHashMap<FragmentKey<A>, Fragment, FRAGMENTS>;
type PathMap<A> = LruHashMap<A, PathMtu, PATHS>;
type LoadMap = Array<u32, BACKENDS>;
type KnownWayMap<A> = PerCpuArray<KnownWay<A>, { KNOWN_WAYS as usize }>;
type WorkMap<F> = PerCpuArray<Work<F>, 1>;

/// What follows a prefix's length in the key of a list of prefixes: all of [`lb_common::RangeKey`] but that.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RangeData<A> {
    pub(super) list: u32,
    pub(super) addr: A,
}
type RangeMap<A> = LpmTrie<RangeData<A>, u32, RANGES>;
pub(super) type RangeMapKey<A> = Key<RangeData<A>>;

/// Front ends. Written by the agent.
#[btf_map(name = "lb_services4")]
static SERVICES4: ServiceMap<Ip4> = ServiceMap::new();
#[btf_map(name = "lb_services6")]
static SERVICES6: ServiceMap<Ip6> = ServiceMap::new();

/// Which addresses may be front ends. Written by the agent.
#[btf_map(name = "lb_filter4")]
static FILTER4: FilterMap = FilterMap::new();
#[btf_map(name = "lb_filter6")]
static FILTER6: FilterMap = FilterMap::new();

/// Eligible backends, a region for each set of a service. Written by the agent.
#[btf_map(name = "lb_slots4")]
static SLOTS4: SlotMap = SlotMap::new();
#[btf_map(name = "lb_slots6")]
static SLOTS6: SlotMap = SlotMap::new();

/// Endpoints. Written by the agent.
#[btf_map(name = "lb_backends4")]
static BACKENDS4: BackendMap<Ip4> = BackendMap::new();
#[btf_map(name = "lb_backends6")]
static BACKENDS6: BackendMap<Ip6> = BackendMap::new();

/// What flows are found by. Written by the programs.
#[btf_map(name = "lb_flow_tags4")]
static FLOW_TAGS4: FlowTagMap = FlowTagMap::new();
#[btf_map(name = "lb_flow_tags6")]
static FLOW_TAGS6: FlowTagMap = FlowTagMap::new();

/// Flows; where there is no room, the one that is wanted least is forgotten. Written by the programs.
#[btf_map(name = "lb_flows4")]
static FLOWS4: FlowMap<Ip4> = FlowMap::new();
#[btf_map(name = "lb_flows6")]
static FLOWS6: FlowMap<Ip6> = FlowMap::new();

/// How flows are spread over the buckets. One row, written by the agent when it makes the maps.
#[btf_map(name = "lb_flow_hash")]
pub(super) static FLOW_HASH: Array<FlowHash, 1> = Array::new();

/// The node's own addresses. Written by the agent.
#[btf_map(name = "lb_node_addrs4")]
static NODE_ADDRS4: NodeAddressMap<Ip4> = NodeAddressMap::new();
#[btf_map(name = "lb_node_addrs6")]
static NODE_ADDRS6: NodeAddressMap<Ip6> = NodeAddressMap::new();

/// Local endpoints of services with direct server return. Written by the agent.
#[btf_map(name = "lb_locals4")]
static LOCALS4: LocalMap<Ip4> = LocalMap::new();
#[btf_map(name = "lb_locals6")]
static LOCALS6: LocalMap<Ip6> = LocalMap::new();

/// Lists of prefixes. Written by the agent.
#[btf_map(name = "lb_ranges4")]
static RANGES4: RangeMap<Ip4> = RangeMap::new();
#[btf_map(name = "lb_ranges6")]
static RANGES6: RangeMap<Ip6> = RangeMap::new();

/// The address of each device for masqueraded packets. Written by the agent.
#[btf_map(name = "lb_snat4")]
static SNAT4: SnatMap<Ip4> = SnatMap::new();
#[btf_map(name = "lb_snat6")]
static SNAT6: SnatMap<Ip6> = SnatMap::new();

/// One row. Written by the agent.
#[btf_map(name = "lb_family4")]
static FAMILY4: FamilyMap<Ip4> = FamilyMap::new();
#[btf_map(name = "lb_family6")]
static FAMILY6: FamilyMap<Ip6> = FamilyMap::new();

/// Which backend a client stays with. Written by the programs.
#[btf_map(name = "lb_affinity4")]
static AFFINITY4: AffinityMap<Ip4> = AffinityMap::new();
#[btf_map(name = "lb_affinity6")]
static AFFINITY6: AffinityMap<Ip6> = AffinityMap::new();

/// Limits on the connections of a client. Written by the programs.
#[btf_map(name = "lb_sources4")]
static SOURCES4: SourceMap<Ip4> = SourceMap::new();
#[btf_map(name = "lb_sources6")]
static SOURCES6: SourceMap<Ip6> = SourceMap::new();

/// Packets in fragments. Written by the programs.
#[btf_map(name = "lb_frags4")]
static FRAGS4: FragmentMap<Ip4> = FragmentMap::new();
#[btf_map(name = "lb_frags6")]
static FRAGS6: FragmentMap<Ip6> = FragmentMap::new();

/// The largest packets on ways to other nodes. Written by the programs.
#[btf_map(name = "lb_path_mtu4")]
static PATH_MTU4: PathMap<Ip4> = PathMap::new();
#[btf_map(name = "lb_path_mtu6")]
static PATH_MTU6: PathMap<Ip6> = PathMap::new();

/// 1: there may be some. Most nodes never meet any, and are spared the look-up for each new flow. After programs were
/// replaced, what was learned before counts from when something is learned again; nobody else's business.
#[btf_map(name = "lb_paths_learned")]
pub(super) static PATHS_LEARNED: Array<u32, 1> = Array::new();

/// Open connections of backends. Written by the programs, and set right by the agent.
#[btf_map(name = "lb_loads4")]
static LOADS4: LoadMap = LoadMap::new();
#[btf_map(name = "lb_loads6")]
static LOADS6: LoadMap = LoadMap::new();

/// Each CPU's work area; nobody else's business.
#[btf_map(name = "lb_work4")]
static WORK4: WorkMap<V4> = WorkMap::new();
#[btf_map(name = "lb_work6")]
static WORK6: WorkMap<V6> = WorkMap::new();

/// The ways to backends that a CPU has looked up last; nobody else's business.
#[btf_map(name = "lb_known_ways4")]
static KNOWN_WAYS4: KnownWayMap<Ip4> = KnownWayMap::new();
#[btf_map(name = "lb_known_ways6")]
static KNOWN_WAYS6: KnownWayMap<Ip6> = KnownWayMap::new();

/// What the agent says about a service port beside its front ends, by its id. Written by the agent.
#[btf_map(name = "lb_policies")]
pub(super) static POLICIES: Array<ServicePolicy, SERVICE_IDS> = Array::new();

/// Limits on new connections by service id; row 0 is that on answers. Written by the programs.
#[btf_map(name = "lb_limits")]
pub(super) static LIMITS: Array<u64, SERVICE_IDS> = Array::new();

/// Devices by ifindex. Written by the agent.
#[btf_map(name = "lb_devices")]
pub(super) static DEVICE_ROWS: HashMap<u32, Device, DEVICES, NO_PREALLOC> = HashMap::new();

/// The rows of devices that a CPU has met last; nobody else's business.
#[btf_map(name = "lb_known_devices")]
pub(super) static KNOWN_DEVICES: PerCpuArray<KnownDevice, { KNOWN as usize }> = PerCpuArray::new();

/// One row. Written by the agent.
#[btf_map(name = "lb_settings")]
pub(super) static SETTINGS: Array<Settings, 1> = Array::new();

/// Counters of a service port by its id. Written by the programs.
#[btf_map(name = "lb_stats")]
pub(super) static STATS: PerCpuArray<ServiceStats, SERVICE_IDS> = PerCpuArray::new();

/// Names of service ports by id, for people. Written by the agent, read by no program.
#[btf_map(name = "lb_names")]
static NAMES: HashMap<u32, ServiceName, SERVICE_IDS, NO_PREALLOC> = HashMap::new();

/// Dropped packets by reason. Written by the programs.
#[btf_map(name = "lb_drops")]
pub(super) static DROPS: PerCpuArray<u64, { DropReason::ALL.len() }> = PerCpuArray::new();

/// Other events. Written by the programs.
#[btf_map(name = "lb_counters")]
pub(super) static COUNTERS: PerCpuArray<u64, { Counter::ALL.len() }> = PerCpuArray::new();

/// Declares which maps belong to a family: the only place where a family names a map.
macro_rules! family_maps {
    ($($name:ident: $map:ty, $v4:ident $v6:ident;)+) => {
        /// The maps of a family.
        pub(super) trait FamilyMaps: Family + Wire {
            $(fn $name() -> &'static $map;)+
        }
        impl FamilyMaps for V4 {
            $(#[inline(always)]
            fn $name() -> &'static $map {
                &$v4
            })+
        }
        impl FamilyMaps for V6 {
            $(#[inline(always)]
            fn $name() -> &'static $map {
                &$v6
            })+
        }
    };
}

family_maps! {
    services: ServiceMap<Self::Addr>, SERVICES4 SERVICES6;
    filter: FilterMap, FILTER4 FILTER6;
    slots: SlotMap, SLOTS4 SLOTS6;
    backends: BackendMap<Self::Addr>, BACKENDS4 BACKENDS6;
    locals: LocalMap<Self::Addr>, LOCALS4 LOCALS6;
    flow_tags: FlowTagMap, FLOW_TAGS4 FLOW_TAGS6;
    flows: FlowMap<Self::Addr>, FLOWS4 FLOWS6;
    node_addresses: NodeAddressMap<Self::Addr>, NODE_ADDRS4 NODE_ADDRS6;
    ranges: RangeMap<Self::Addr>, RANGES4 RANGES6;
    snat: SnatMap<Self::Addr>, SNAT4 SNAT6;
    family: FamilyMap<Self::Addr>, FAMILY4 FAMILY6;
    affinity: AffinityMap<Self::Addr>, AFFINITY4 AFFINITY6;
    sources: SourceMap<Self::Addr>, SOURCES4 SOURCES6;
    fragments: FragmentMap<Self::Addr>, FRAGS4 FRAGS6;
    paths: PathMap<Self::Addr>, PATH_MTU4 PATH_MTU6;
    loads: LoadMap, LOADS4 LOADS6;
    work: WorkMap<Self>, WORK4 WORK6;
    known_ways: KnownWayMap<Self::Addr>, KNOWN_WAYS4 KNOWN_WAYS6;
}
