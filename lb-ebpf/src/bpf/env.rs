//! The node and its tables, by maps and helpers. Written once for all hooks.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::bpf_jiffies64;
use lb_common::addr::Address as _;
use lb_common::{
    Backend, Counter, Device, DropReason, Flow, FlowKey, NodeAddress, ServiceKey, ServiceValue, Settings,
    Slot,
};
use lb_ebpf::ctx::{ChecksumPatch, Insert, InsertError, Node, Packet, ServiceEvent, Tables};
use lb_ebpf::verdict::Stop;

use super::lookup::{self, KernelFamily};
use super::maps;

/// A program's context, whatever its hook.
pub(super) trait Hook {
    /// For helpers that take a context.
    fn as_ptr(&self) -> *mut core::ffi::c_void;
    /// The device that the packet arrived on or leaves by.
    fn ifindex(&self) -> u32;
}

/// A hook with the node around it: the core's context.
pub(super) struct Cx<H>(pub(super) H);

/// Counts a dropped packet.
#[inline(always)]
pub(super) fn count_drop(reason: DropReason) {
    if let Some(count) = maps::DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own element, which lives as long as the map.
        unsafe { *count = (*count).wrapping_add(1) };
    }
}

impl<H: Hook> Node for Cx<H> {
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
    fn device(&self) -> Option<Device> {
        // SAFETY: copied at once; a row that is being replaced is another device's for this one packet.
        maps::DEVICE_ROWS
            .get_ptr(self.0.ifindex())
            .map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn count(&mut self, counter: Counter) {
        if let Some(count) = maps::COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: this CPU's own element, which lives as long as the map.
            unsafe { *count = (*count).wrapping_add(1) };
        }
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
}

impl<H: Hook, F: KernelFamily> Tables<F> for Cx<H> {
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
    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Flow<F::Addr>> {
        // SAFETY: copied at once; an element that was reused meanwhile fails the comparison with its backend.
        F::flows().get_ptr(key).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn insert_flow(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        how: Insert,
    ) -> Result<(), InsertError> {
        const EXISTS: i32 = -17;
        let flags = match how {
            Insert::New => BPF_NOEXIST,
            Insert::Replace => BPF_ANY,
        };
        F::flows()
            .insert(key, flow, flags.into())
            .map_err(|error| match error {
                EXISTS => InsertError::Exists,
                _ => InsertError::Full,
            })
    }

    #[inline(always)]
    fn delete_flow(&mut self, key: &FlowKey<F::Addr>) {
        let _absent = F::flows().remove(key);
    }

    #[inline(always)]
    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress> {
        // SAFETY: copied at once.
        F::node_addresses().get_ptr(addr).map(|row| unsafe { *row })
    }

    #[inline(always)]
    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool {
        lookup::routed_by::<F>(self.0.as_ptr(), self.0.ifindex(), &addr, ifindex)
    }

    #[inline(always)]
    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool {
        F::connected_socket(self.0.as_ptr(), packet)
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
    fn write_u32(&mut self, at: u32, word: u32) -> Result<(), Stop> {
        self.0.write_u32(at, word)
    }

    #[inline(always)]
    fn forget(&mut self, word: u32) -> u32 {
        self.0.forget(word)
    }

    #[inline(always)]
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        self.0.patch_checksum(patch)
    }
}
