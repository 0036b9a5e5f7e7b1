//! The core's context over a packet and a node in memory.

use std::collections::btree_map::Entry;

use lb_common::addr::Address as _;
use lb_common::{
    Backend, Counter, Device, Flow, FlowKey, NodeAddress, ServiceKey, ServiceValue, Settings, Slot,
};

use super::{Frame, Host, Kept};
use crate::checksum;
use crate::ctx::{ChecksumPatch, Insert, InsertError, Node, Packet, ServiceEvent, Tables};
use crate::verdict::Stop;

/// A packet and the node around it.
pub(super) struct Cx<'a> {
    host: &'a mut Host,
    frame: &'a mut Frame,
}

impl<'a> Cx<'a> {
    pub(super) fn new(host: &'a mut Host, frame: &'a mut Frame) -> Self {
        Self { host, frame }
    }

    /// As it stands in memory.
    pub(super) fn ether_type(&self) -> u16 {
        self.frame.ether_type.to_be()
    }

    fn bytes<const N: usize>(&self, at: u32) -> Result<[u8; N], Stop> {
        let rest = self.frame.bytes.get(at as usize..).ok_or(Stop::Pass)?;
        rest.first_chunk().copied().ok_or(Stop::Pass)
    }

    fn write<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Result<(), Stop> {
        let rest = self.frame.bytes.get_mut(at as usize..).ok_or(Stop::Pass)?;
        *rest.first_chunk_mut().ok_or(Stop::Pass)? = bytes;
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
        self.write(at, word.to_ne_bytes())
    }

    fn write_u32(&mut self, at: u32, word: u32) -> Result<(), Stop> {
        self.write(at, word.to_ne_bytes())
    }

    fn forget(&mut self, word: u32) -> u32 {
        word
    }

    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        let old = self.read_u16(patch.at)?;
        if patch.zero_is_none && old == 0 {
            return Ok(());
        }
        let change = checksum::fold32(u64::from(patch.addresses) + u64::from(patch.ports));
        let new = match checksum::patched(old, change) {
            0 if patch.zero_is_none => 0xffff,
            new => new,
        };
        self.write_u16(patch.at, new)
    }
}

impl Node for Cx<'_> {
    fn settings(&self) -> Settings {
        self.host.settings
    }

    fn now(&self) -> u32 {
        self.host.now
    }

    fn device(&self) -> Option<Device> {
        self.host.devices.get(&self.frame.ifindex).copied()
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

    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Flow<F::Addr>> {
        F::of(self.host).flows.get(key).copied()
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

    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress> {
        F::of(self.host).node_addresses.get(&addr).copied()
    }

    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool {
        F::of(self.host).routes.contains(&(addr, ifindex))
    }

    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        F::of(self.host).connected(packet)
    }
}
