//! The core's context over a packet and a node in memory.

use std::collections::btree_map::Entry;

use lb_common::addr::Address as _;
use lb_common::{
    Affinity, Backend, ClientKey, Counter, Device, DropReason, Flow, FlowKey, Fragment, FragmentKey, Hop,
    LocalKey, NodeAddress, PathMtu, Prefix, RangeKey, ServiceKey, ServicePolicy, ServiceValue, Settings,
    Slot, protocol,
};

use super::{Frame, Host, Kept};
use crate::ctx::{ChecksumPatch, Hook, Insert, InsertError, Node, Packet, Room, Route, ServiceEvent, Tables};
use crate::headers;
use crate::hop::KnownWay;
use crate::verdict::Stop;

/// A packet and the node around it.
pub(super) struct Cx<'a> {
    host: &'a mut Host,
    frame: &'a mut Frame,
    hook: Hook,
}

impl<'a> Cx<'a> {
    pub(super) fn new(host: &'a mut Host, frame: &'a mut Frame, hook: Hook) -> Self {
        Self { host, frame, hook }
    }

    /// As it stands in memory.
    pub(super) fn ether_type(&self) -> u16 {
        self.frame.ether_type.to_be()
    }

    fn bytes<const N: usize>(&self, at: u32) -> Result<[u8; N], Stop> {
        let rest = self.frame.bytes.get(at as usize..).ok_or(Stop::PASS)?;
        rest.first_chunk().copied().ok_or(Stop::PASS)
    }

    fn put<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Result<(), Stop> {
        let rest = self.frame.bytes.get_mut(at as usize..).ok_or(Stop::PASS)?;
        *rest.first_chunk_mut().ok_or(Stop::PASS)? = bytes;
        Ok(())
    }
}

impl Packet for Cx<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.frame.bytes.len()).unwrap_or(u32::MAX)
    }

    fn segments(&self) -> u32 {
        self.frame.segments
    }

    /// Test runs in the kernel do not know either.
    fn segment_size(&self) -> u32 {
        0
    }

    fn linearize(&mut self, _bytes: u32) -> Result<(), Stop> {
        Ok(())
    }

    fn read_u16(&self, at: u32) -> Result<u16, Stop> {
        self.bytes(at).map(u16::from_ne_bytes)
    }

    fn read<const WORDS: usize>(&self, at: u32) -> Result<[u32; WORDS], Stop> {
        let mut words = [0; WORDS];
        for (offset, word) in (at..).step_by(4).zip(&mut words) {
            *word = self.bytes(offset).map(u32::from_ne_bytes)?;
        }
        Ok(words)
    }

    fn write_u16(&mut self, at: u32, word: u16) -> Result<(), Stop> {
        self.put(at, word.to_ne_bytes())
    }

    fn write<const WORDS: usize>(&mut self, at: u32, words: [u32; WORDS]) -> Result<(), Stop> {
        self.read::<WORDS>(at)?;
        for (at, word) in (at..).step_by(4).zip(words) {
            self.put(at, word.to_ne_bytes())?;
        }
        Ok(())
    }

    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        patch.by_hand(self)
    }

    fn unbalanced(&mut self, _change: u32) {}

    fn put_checksum(&mut self, at: u32, whole: u16, _offloaded: u16) -> Result<(), Stop> {
        self.write_u16(at, whole)
    }

    fn trim(&mut self, length: u32) -> Result<(), Stop> {
        self.frame.bytes.resize(length as usize, 0);
        Ok(())
    }

    fn make_room(&mut self, l3: u32, bytes: u32, _what: Room) -> Result<(), Stop> {
        let at = l3 as usize;
        if at > self.frame.bytes.len() {
            return Err(Stop::drop(DropReason::RewriteFailed));
        }
        self.frame
            .bytes
            .splice(at..at, std::iter::repeat_n(0, bytes as usize));
        Ok(())
    }

    fn take_away(&mut self, l3: u32, bytes: u32, _what: Room) -> Result<(), Stop> {
        let (from, to) = (l3 as usize, (l3 + bytes) as usize);
        if to > self.frame.bytes.len() {
            return Err(Stop::drop(DropReason::RewriteFailed));
        }
        self.frame.bytes.drain(from..to);
        Ok(())
    }

    fn readdress(&mut self, l3: u32, mac: [u8; 6]) -> Result<(), Stop> {
        const ADDRESSES: usize = 12;
        let kind = match l3.checked_sub(2) {
            Some(at) => self.read_u16(at)?,
            None => self.ether_type(),
        };
        let bytes = &mut self.frame.bytes;
        let network = bytes.split_off(l3 as usize);
        bytes.resize(ADDRESSES, 0);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(network);
        self.put(0, mac)
    }

    fn hook(&self) -> Hook {
        self.hook
    }

    /// At TC as a test run has it, with link layer or without: by the device's own address.
    fn is_for(&self, mac: [u8; 6]) -> bool {
        let to = &self.frame.bytes;
        if self.hook == Hook::Xdp {
            return to.starts_with(&mac);
        }
        let device = self.host.devices.get(&self.frame.ifindex);
        device.is_none_or(|device| to.starts_with(&device.mac))
    }
}

impl Node for Cx<'_> {
    fn settings(&self) -> Settings {
        self.host.settings
    }

    fn now(&self) -> u32 {
        self.host.now
    }

    fn ifindex(&self) -> u32 {
        self.frame.ifindex
    }

    fn device(&self, ifindex: u32) -> Option<Device> {
        self.host.devices.get(&ifindex).copied()
    }

    /// Looked up each time, as [`Tables::known_way`].
    fn known_device(&self, ifindex: u32) -> Option<Device> {
        self.device(ifindex)
    }

    fn is_own(&self) -> bool {
        self.hook == Hook::Egress && self.frame.own
    }

    fn count(&mut self, counter: Counter) {
        *self.host.counts.counters.entry(counter).or_default() += 1;
    }

    fn count_service(&mut self, service: u32, what: ServiceEvent) {
        let stats = self.host.counts.services.entry(service).or_default();
        match what {
            ServiceEvent::Forward { packets, bytes } => {
                stats.packets += u64::from(packets);
                stats.bytes += u64::from(bytes);
            }
            ServiceEvent::Reply { packets, bytes } => {
                stats.reply_packets += u64::from(packets);
                stats.reply_bytes += u64::from(bytes);
            }
            ServiceEvent::Connection => stats.connections += 1,
            ServiceEvent::Dropped => stats.dropped += 1,
        }
    }

    fn policy(&self, service: u32) -> ServicePolicy {
        self.host.policies.get(&service).copied().unwrap_or_default()
    }

    fn turn(&mut self, service: u32) -> u32 {
        let stats = self.host.counts.services.get(&service);
        let connections = stats.map_or(0, |stats| stats.connections);
        u32::try_from(connections).unwrap_or(u32::MAX)
    }

    fn limit(&self, row: u32) -> u64 {
        self.host.limits.get(&row).copied().unwrap_or_default()
    }

    fn set_limit(&mut self, row: u32, until: u64) {
        self.host.limits.insert(row, until);
    }
}

impl<F: Kept> Tables<F> for Cx<'_> {
    fn may_be_front_end(&self, addr: F::Addr) -> bool {
        F::of(self.host)
            .services
            .keys()
            .any(|key| key.addr.filter_bit() == addr.filter_bit())
    }

    fn service(&self, key: &ServiceKey<F::Addr>) -> Option<ServiceValue> {
        F::of(self.host).service(key)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        F::of(self.host).slots.get(&index).copied()
    }

    fn backend(&self, index: u32) -> Option<Backend<F::Addr>> {
        F::of(self.host).backends.get(&index).copied()
    }

    fn local(&self, key: &LocalKey<F::Addr>) -> Option<u32> {
        F::of(self.host).locals.get(key).copied()
    }

    fn flow_hash(&self, key: &FlowKey<F::Addr>) -> u32 {
        headers::flow_hash::<F>(key, self.settings().hash_seed)
    }

    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool {
        let Some(row) = F::of(self.host).flows.get(key) else {
            return false;
        };
        *flow = *row;
        true
    }

    fn insert_flow(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        how: Insert,
    ) -> Result<(), InsertError> {
        let tables = F::of_mut(self.host);
        let is_full = tables.flows.len() >= tables.flow_limit;
        match (tables.flows.entry(*key), how) {
            (Entry::Occupied(_), Insert::New) => return Err(InsertError::Exists),
            (Entry::Occupied(mut standing), Insert::Replace) => _ = standing.insert(*flow),
            (Entry::Vacant(_), _) if is_full => return Err(InsertError::Full),
            (Entry::Vacant(place), _) => _ = place.insert(*flow),
        }
        Ok(())
    }

    fn delete_flow(&mut self, key: &FlowKey<F::Addr>) {
        F::of_mut(self.host).flows.remove(key);
    }

    fn affinity(&self, client: &ClientKey<F::Addr>) -> Option<Affinity> {
        F::of(self.host).affinity.get(client).copied()
    }

    fn set_affinity(&mut self, client: &ClientKey<F::Addr>, affinity: &Affinity) {
        F::of_mut(self.host).affinity.insert(*client, *affinity);
    }

    fn source_limit(&self, client: &ClientKey<F::Addr>) -> u64 {
        F::of(self.host).sources.get(client).copied().unwrap_or_default()
    }

    fn set_source_limit(&mut self, client: &ClientKey<F::Addr>, until: u64) {
        F::of_mut(self.host).sources.insert(*client, until);
    }

    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment> {
        F::of(self.host).fragments.get(key).copied()
    }

    fn set_fragment(&mut self, key: &FragmentKey<F::Addr>, fragment: &Fragment) {
        F::of_mut(self.host).fragments.insert(*key, *fragment);
    }

    fn path_mtu(&self, addr: F::Addr) -> Option<PathMtu> {
        F::of(self.host).paths.get(&addr).copied()
    }

    fn set_path_mtu(&mut self, addr: F::Addr, path: &PathMtu) {
        F::of_mut(self.host).paths.insert(addr, *path);
    }

    fn load(&self, backend: u32) -> u32 {
        F::of(self.host).loads.get(&backend).copied().unwrap_or_default()
    }

    fn add_load(&mut self, backend: u32, more: bool) {
        let load = F::of_mut(self.host).loads.entry(backend).or_default();
        *load = if more { *load + 1 } else { load.saturating_sub(1) };
    }

    fn in_range(&self, key: &RangeKey<F::Addr>) -> bool {
        F::of(self.host).in_range(key)
    }

    fn service_cidr(&self, number: usize) -> Prefix<F::Addr> {
        let cidrs = &F::of(self.host).family.service_cidrs;
        cidrs.get(number).copied().unwrap_or_default()
    }

    fn snat_address(&self, ifindex: u32) -> F::Addr {
        let tables = F::of(self.host);
        tables
            .snat
            .get(&ifindex)
            .copied()
            .unwrap_or(tables.family.node_addr)
    }

    fn node_addr(&self) -> F::Addr {
        F::of(self.host).family.node_addr
    }

    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress> {
        F::of(self.host).node_addresses.get(&addr).copied()
    }

    fn route(&self, key: &FlowKey<F::Addr>, length: u32, hop: &mut Hop) -> Route {
        let Some(way) = F::of(self.host).way_between(key) else {
            return Route::None;
        };
        (hop.ifindex, hop.mtu, hop.dst) = (way.ifindex, way.mtu, way.dst);
        if length > u32::from(way.mtu) {
            Route::TooLong
        } else if way.dst == [0; 6] {
            // As the kernel does: it gives back what it was asked with.
            hop.mtu = u16::try_from(length.max(1)).unwrap_or(u16::MAX);
            Route::NoNeighbour
        } else {
            Route::Neighbour
        }
    }

    /// Nothing: so the kernel, which remembers, is compared with an engine that looks each time.
    fn known_way(&mut self, _backend: u32) -> Option<&mut KnownWay<F::Addr>> {
        None
    }

    fn way_by(&self, key: &FlowKey<F::Addr>, ifindex: u32) -> Option<u16> {
        F::of(self.host).way_by(key, ifindex)
    }

    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool {
        F::of(self.host)
            .way(addr)
            .is_some_and(|way| way.ifindex == ifindex)
    }

    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        packet.protocol == protocol::UDP && F::of(self.host).connected(packet)
    }

    fn any_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        let tables = F::of(self.host);
        if packet.protocol == protocol::SCTP {
            return false;
        }
        tables.connected(packet)
            || tables
                .bound
                .contains(&(packet.dst, packet.dst_port, packet.protocol))
    }
}
