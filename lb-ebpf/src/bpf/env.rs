//! The node and its tables, by maps and helpers. Written once for all hooks.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_jiffies64};
use lb_common::addr::Address as _;
use lb_common::{
    Affinity, Backend, ClientKey, Counter, Device, Flow, FlowKey, Fragment, FragmentKey, Hop, LocalKey,
    NodeAddress, PathMtu, Prefix, RangeKey, ServiceKey, ServicePolicy, ServiceValue, Settings, Slot,
    protocol,
};
use lb_ebpf::crc32c;
use lb_ebpf::ctx::{
    ChecksumPatch, Hook, Insert, InsertError, Node, Packet, Room, Route, ServiceEvent, Tables,
};
use lb_ebpf::hop::{KNOWN_WAYS, KnownWay};
use lb_ebpf::verdict::Stop;

use super::devices;
use super::flows;
use super::lookup::{self, KernelFamily};
use super::maps::{self, RangeData, RangeMapKey};

/// A program's context, whatever its hook.
pub(super) trait Context {
    /// For helpers that take a context.
    fn as_ptr(&self) -> *mut core::ffi::c_void;
    /// The device that the packet arrived on or leaves by.
    fn ifindex(&self) -> u32;
    /// Whether the packet did not come in by a device of this node.
    fn is_own(&self) -> bool;
}

/// A hook with the node around it: the core's context.
pub(super) struct Cx<H>(pub(super) H);

/// Counts a dropped packet by the number of the [`DropReason`](lb_common::DropReason).
#[inline(always)]
pub(super) fn count_drop(reason: u32) {
    if let Some(count) = maps::DROPS.get_ptr_mut(reason) {
        // SAFETY: this CPU's own element, which lives as long as the map.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

/// Counts an event.
#[inline(always)]
pub(super) fn count(counter: Counter) {
    if let Some(count) = maps::COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: this CPU's own element, which lives as long as the map.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

impl<H: Context> Node for Cx<H> {
    #[inline(always)]
    fn settings(&self) -> Settings {
        maps::SETTINGS.get(0).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_jiffies64() as u32 }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }

    #[inline(always)]
    fn device(&self, ifindex: u32) -> Option<Device> {
        // SAFETY: copied at once; a row that is being replaced is another device's for this one packet.
        maps::DEVICE_ROWS.get_ptr(ifindex).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn known_device(&self, ifindex: u32) -> Option<Device> {
        devices::known(ifindex)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        self.0.is_own()
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        count(counter);
    }

    #[inline(always)]
    fn count_service(&mut self, service: u32, what: ServiceEvent) {
        let Some(stats) = maps::STATS.get_ptr_mut(service) else {
            return;
        };
        // SAFETY: this CPU's own element, which lives as long as the map.
        let stats = unsafe { &mut *stats };
        match what {
            ServiceEvent::Forward { packets, bytes } => {
                stats.packets = stats.packets.wrapping_add(packets.into());
                stats.bytes = stats.bytes.wrapping_add(bytes.into());
            }
            ServiceEvent::Reply { packets, bytes } => {
                stats.reply_packets = stats.reply_packets.wrapping_add(packets.into());
                stats.reply_bytes = stats.reply_bytes.wrapping_add(bytes.into());
            }
            ServiceEvent::Connection => stats.connections = stats.connections.wrapping_add(1),
            ServiceEvent::Dropped => stats.dropped = stats.dropped.wrapping_add(1),
        }
    }

    #[inline(always)]
    fn policy(&self, service: u32) -> ServicePolicy {
        maps::POLICIES.get(service).copied().unwrap_or_default()
    }

    /// The number of connections that this CPU has opened, from another start than other CPUs.
    #[inline(always)]
    fn turn(&mut self, service: u32) -> u32 {
        /// The golden ratio of 2^32: multiples are far apart.
        const STEP: u32 = 0x9e37_79b9;
        // SAFETY: the helper takes nothing.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let opened = maps::STATS
            .get(service)
            .map_or(0, |stats| stats.connections as u32);
        opened.wrapping_add(cpu.wrapping_mul(STEP))
    }

    #[inline(always)]
    fn limit(&self, row: u32) -> u64 {
        maps::LIMITS.get(row).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set_limit(&mut self, row: u32, until: u64) {
        if let Some(limit) = maps::LIMITS.get_ptr_mut(row) {
            // SAFETY: an element of an array lives as long as the map. Other CPUs write it, too: one of them wins.
            unsafe { limit.write_volatile(until) };
        }
    }
}

impl<H: Context, F: KernelFamily> Tables<F> for Cx<H> {
    #[inline(always)]
    fn may_be_front_end(&self, addr: F::Addr) -> bool {
        let bit = addr.filter_bit();
        F::filter().get(bit.row).is_none_or(|row| row & bit.mask != 0)
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey<F::Addr>) -> Option<ServiceValue> {
        // SAFETY: copied at once; what was read in the middle of a flip fails the comparison of generations.
        F::services().get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        F::slots().get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, index: u32) -> Option<Backend<F::Addr>> {
        F::backends().get(index).copied()
    }

    #[inline(always)]
    fn local(&self, key: &LocalKey<F::Addr>) -> Option<u32> {
        // SAFETY: copied at once.
        F::locals().get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn flow_hash(&self, key: &FlowKey<F::Addr>) -> u32 {
        F::hash_flow(key)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
        F::find_flow(key, flow)
    }

    #[inline(always)]
    fn insert_flow(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        how: Insert,
    ) -> Result<(), InsertError> {
        match F::put_flow(key, flow, how == Insert::Replace) {
            flows::DONE => Ok(()),
            flows::EXISTS => Err(InsertError::Exists),
            _ => Err(InsertError::Full),
        }
    }

    #[inline(always)]
    fn delete_flow(&mut self, key: &FlowKey<F::Addr>) {
        F::take_flow(key);
    }

    #[inline(always)]
    fn affinity(&self, client: &ClientKey<F::Addr>) -> Option<Affinity> {
        // SAFETY: copied at once; what is torn names no backend of the service, or another good one.
        F::affinity().get_ptr(client).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn set_affinity(&mut self, client: &ClientKey<F::Addr>, affinity: &Affinity) {
        let _full = F::affinity().insert(client, affinity, BPF_ANY.into());
    }

    #[inline(always)]
    fn source_limit(&self, client: &ClientKey<F::Addr>) -> u64 {
        // SAFETY: one word, read at once.
        F::sources().get_ptr(client).map_or(0, |row| unsafe { *row })
    }

    #[inline(always)]
    fn set_source_limit(&mut self, client: &ClientKey<F::Addr>, until: u64) {
        let _full = F::sources().insert(client, until, BPF_ANY.into());
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment> {
        // SAFETY: copied at once.
        F::fragments().get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn set_fragment(&mut self, key: &FragmentKey<F::Addr>, fragment: &Fragment) {
        let _full = F::fragments().insert(key, fragment, BPF_ANY.into());
    }

    #[inline(always)]
    fn path_mtu(&self, addr: F::Addr) -> Option<PathMtu> {
        if maps::PATHS_LEARNED.get(0) != Some(&1) {
            return None;
        }
        // SAFETY: copied at once; what is torn is a size or a time that was right for another moment.
        F::paths().get_ptr(addr).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn set_path_mtu(&mut self, addr: F::Addr, path: &PathMtu) {
        let _full = F::paths().insert(addr, path, BPF_ANY.into());
        if let Some(learned) = maps::PATHS_LEARNED.get_ptr_mut(0) {
            // SAFETY: an element of an array lives as long as the map; all write the same.
            unsafe { learned.write_volatile(1) };
        }
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> u32 {
        F::loads().get(backend).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn add_load(&mut self, backend: u32, more: bool) {
        if let Some(load) = F::loads().get_ptr_mut(backend) {
            // SAFETY: an element of an array lives as long as the map. A count that another CPU overwrites is set right
            // by the agent.
            unsafe {
                let count = load.read_volatile();
                let next = if more {
                    count.wrapping_add(1)
                } else {
                    count.saturating_sub(1)
                };
                load.write_volatile(next);
            }
        }
    }

    #[inline(always)]
    fn in_range(&self, key: &RangeKey<F::Addr>) -> bool {
        let data = RangeData {
            list: key.list,
            addr: key.addr,
        };
        F::ranges()
            .get(&RangeMapKey::new(key.prefix_length, data))
            .is_some()
    }

    #[inline(always)]
    fn service_cidr(&self, number: usize) -> Prefix<F::Addr> {
        F::family()
            .get(0)
            .and_then(|row| row.service_cidrs.get(number).copied())
            .unwrap_or_default()
    }

    #[inline(always)]
    fn snat_address(&self, ifindex: u32) -> F::Addr {
        // SAFETY: copied at once.
        match F::snat().get_ptr(ifindex).map(|row| unsafe { *row }) {
            Some(addr) => addr,
            None => Tables::<F>::node_addr(self),
        }
    }

    #[inline(always)]
    fn node_addr(&self) -> F::Addr {
        F::family().get(0).map_or(F::Addr::default(), |row| row.node_addr)
    }

    #[inline(always)]
    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress> {
        // SAFETY: copied at once.
        F::node_addresses().get_ptr(addr).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn route(&self, key: &FlowKey<F::Addr>, length: u32, hop: &mut Hop) -> Route {
        let asked = (self.0.ifindex(), length);
        lookup::route::<F>(self.0.as_ptr(), key, asked, hop)
    }

    #[inline(always)]
    fn known_way(&mut self, backend: u32) -> Option<&mut KnownWay<F::Addr>> {
        let row = F::known_ways().get_ptr_mut(backend % KNOWN_WAYS);
        // SAFETY: this CPU's own element, which lives as long as the map; programs run one after the other on a CPU.
        row.map(|row| unsafe { &mut *row })
    }

    #[inline(always)]
    fn way_by(&self, key: &FlowKey<F::Addr>, ifindex: u32) -> Option<u16> {
        match lookup::way_by::<F>(self.0.as_ptr(), key, self.0.ifindex(), ifindex) {
            0 => None,
            size => Some(size as u16),
        }
    }

    #[inline(always)]
    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool {
        lookup::routed_by::<F>(self.0.as_ptr(), self.0.ifindex(), &addr, ifindex)
    }

    #[inline(always)]
    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        packet.protocol == protocol::UDP && F::connected_socket(self.0.as_ptr(), packet)
    }

    #[inline(always)]
    fn any_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        packet.protocol != protocol::SCTP && F::any_socket(self.0.as_ptr(), packet)
    }
}

impl<H: Packet> Packet for Cx<H> {
    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.length()
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        self.0.segments()
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        self.0.segment_size()
    }

    #[inline(always)]
    fn linearize(&mut self, bytes: u32) -> Result<(), Stop> {
        self.0.linearize(bytes)
    }

    #[inline(always)]
    fn read_u16(&self, at: u32) -> Result<u16, Stop> {
        self.0.read_u16(at)
    }

    #[inline(always)]
    fn read<const WORDS: usize>(&self, at: u32) -> Result<[u32; WORDS], Stop> {
        self.0.read(at)
    }

    #[inline(always)]
    fn write_u16(&mut self, at: u32, word: u16) -> Result<(), Stop> {
        self.0.write_u16(at, word)
    }

    #[inline(always)]
    fn write<const WORDS: usize>(&mut self, at: u32, words: [u32; WORDS]) -> Result<(), Stop> {
        self.0.write(at, words)
    }

    #[inline(always)]
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        self.0.patch_checksum(patch)
    }

    #[inline(always)]
    fn crc32c_change(&self, difference: u32, length: u32) -> u32 {
        lb_crc32c_change(difference, length)
    }

    #[inline(always)]
    fn unbalanced(&mut self, change: u32) {
        self.0.unbalanced(change);
    }

    #[inline(always)]
    fn put_checksum(&mut self, at: u32, whole: u16, offloaded: u16) -> Result<(), Stop> {
        self.0.put_checksum(at, whole, offloaded)
    }

    #[inline(always)]
    fn trim(&mut self, length: u32) -> Result<(), Stop> {
        self.0.trim(length)
    }

    #[inline(always)]
    fn make_room(&mut self, l3: u32, bytes: u32, what: Room) -> Result<(), Stop> {
        self.0.make_room(l3, bytes, what)
    }

    #[inline(always)]
    fn take_away(&mut self, l3: u32, bytes: u32, what: Room) -> Result<(), Stop> {
        self.0.take_away(l3, bytes, what)
    }

    #[inline(always)]
    fn readdress(&mut self, l3: u32, mac: [u8; 6]) -> Result<(), Stop> {
        self.0.readdress(l3, mac)
    }

    #[inline(always)]
    fn hook(&self) -> Hook {
        self.0.hook()
    }

    #[inline(always)]
    fn is_for(&self, mac: [u8; 6]) -> bool {
        self.0.is_for(mac)
    }
}

// Global functions: see [`super::flows`].

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_crc32c_change(difference: u32, length: u32) -> u32 {
    crc32c::change(difference, length, |one, other| lb_crc32c_product(one, other))
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_crc32c_product(one: u32, other: u32) -> u32 {
    crc32c::product(one, other)
}
