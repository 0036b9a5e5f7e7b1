//! Every map. The agent sets the sizes when it loads the object; what stands here are the defaults.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use lb_common::filter;
use lb_common::{
    Backend, Counter, Device, DropReason, Family, Flow, FlowKey, Ip4, Ip6, NodeAddress, ServiceKey,
    ServiceName, ServiceStats, ServiceValue, Settings, Slot, V4, V6,
};

/// Do not set memory aside for every row (`linux/bpf.h`).
const NO_PREALLOC: usize = 1;
/// The agent may map it into its memory: so it reads all rows at once when it takes them up again.
const MMAPABLE: usize = 1 << 10;

const SERVICES: usize = 65_536;
const SERVICE_IDS: usize = 16_384;
const SLOTS: usize = 524_288;
const BACKENDS: usize = 262_144;
const FLOWS: usize = 1_048_577;
const NODE_ADDRS: usize = 4_096;
const DEVICES: usize = 16_384;

type ServiceMap<A> = HashMap<ServiceKey<A>, ServiceValue, SERVICES, NO_PREALLOC>;
type FilterMap = Array<u64, { filter::ROWS as usize }>;
type SlotMap = Array<Slot, SLOTS, MMAPABLE>;
type BackendMap<A> = Array<Backend<A>, BACKENDS, MMAPABLE>;
type FlowMap<A> = LruHashMap<FlowKey<A>, Flow<A>, FLOWS>;
type NodeAddressMap<A> = HashMap<A, NodeAddress, NODE_ADDRS, NO_PREALLOC>;

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

/// Flows, the least recently used are forgotten. Written by the programs.
#[btf_map(name = "lb_flows4")]
static FLOWS4: FlowMap<Ip4> = FlowMap::new();
#[btf_map(name = "lb_flows6")]
static FLOWS6: FlowMap<Ip6> = FlowMap::new();

/// The node's own addresses. Written by the agent.
#[btf_map(name = "lb_node_addrs4")]
static NODE_ADDRS4: NodeAddressMap<Ip4> = NodeAddressMap::new();
#[btf_map(name = "lb_node_addrs6")]
static NODE_ADDRS6: NodeAddressMap<Ip6> = NodeAddressMap::new();

/// Devices by ifindex. Written by the agent.
#[btf_map(name = "lb_devices")]
pub(super) static DEVICE_ROWS: HashMap<u32, Device, DEVICES, NO_PREALLOC> = HashMap::new();

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

/// Which maps belong to a family: the only place where a family names a map.
pub(super) trait FamilyMaps: Family {
    fn services() -> &'static ServiceMap<Self::Addr>;
    fn filter() -> &'static FilterMap;
    fn slots() -> &'static SlotMap;
    fn backends() -> &'static BackendMap<Self::Addr>;
    fn flows() -> &'static FlowMap<Self::Addr>;
    fn node_addresses() -> &'static NodeAddressMap<Self::Addr>;
}

macro_rules! family_maps {
    ($family:ident: $services:ident $filter:ident $slots:ident $backends:ident $flows:ident $node_addresses:ident) => {
        impl FamilyMaps for $family {
            #[inline(always)]
            fn services() -> &'static ServiceMap<Self::Addr> {
                &$services
            }
            #[inline(always)]
            fn filter() -> &'static FilterMap {
                &$filter
            }
            #[inline(always)]
            fn slots() -> &'static SlotMap {
                &$slots
            }
            #[inline(always)]
            fn backends() -> &'static BackendMap<Self::Addr> {
                &$backends
            }
            #[inline(always)]
            fn flows() -> &'static FlowMap<Self::Addr> {
                &$flows
            }
            #[inline(always)]
            fn node_addresses() -> &'static NodeAddressMap<Self::Addr> {
                &$node_addresses
            }
        }
    };
}

family_maps!(V4: SERVICES4 FILTER4 SLOTS4 BACKENDS4 FLOWS4 NODE_ADDRS4);
family_maps!(V6: SERVICES6 FILTER6 SLOTS6 BACKENDS6 FLOWS6 NODE_ADDRS6);
