//! What the core needs from its surroundings: the packet's bytes, the tables, the node.
//!
//! Implemented by the BPF programs (`bpf/`) and, for tests, by the host engine (`testkit/`).

use lb_common::{
    Backend, Counter, Device, Family, Flow, FlowKey, NodeAddress, ServiceKey, ServiceValue, Settings, Slot,
};

use crate::verdict::Stop;

/// The bytes of one packet. Words are in memory order: as they stand in the packet, not swapped.
pub trait Packet {
    /// Length in bytes, link-layer header included.
    fn length(&self) -> u32;

    /// How many packets this one will be, or was, on the wire (generic segmentation offload).
    fn segments(&self) -> u32;

    /// Makes sure that the first `bytes` (or the whole packet, if shorter) can be read.
    fn linearize(&mut self, bytes: u32) -> Result<(), Stop>;

    /// Two bytes; [`Stop::Pass`] when the packet ends before.
    fn read_u16(&self, at: u32) -> Result<u16, Stop>;

    /// Words of four bytes, at any even offset; [`Stop::Pass`] when the packet ends before the last.
    fn read<const WORDS: usize>(&self, at: u32) -> Result<[u32; WORDS], Stop>;

    /// Overwrites two bytes.
    fn write_u16(&mut self, at: u32, word: u16) -> Result<(), Stop>;

    /// Overwrites four bytes, at any even offset.
    fn write_u32(&mut self, at: u32, word: u32) -> Result<(), Stop>;

    /// Gives the word back. On the way the kernel's verifier forgets how it came about, so that it does not follow
    /// each way of finding a header through all that comes after.
    fn forget(&mut self, word: u32) -> u32;

    /// Makes a TCP or UDP checksum right again. The last change to a packet: offsets must be checked anew after it.
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop>;
}

/// What changed under a TCP or UDP checksum, as one's complement sums of (new - old), 32 bits wide.
#[derive(Clone, Copy, Debug)]
pub struct ChecksumPatch {
    /// Where the checksum stands in the packet.
    pub at: u32,
    /// The change of the addresses, which the checksum covers by way of the pseudo-header.
    pub addresses: u32,
    /// The change of the ports.
    pub ports: u32,
    /// UDP's rule (RFC 768): zero means that there is no checksum.
    pub zero_is_none: bool,
    /// The change of the addresses is balanced by a checksum of the IP header (IPv4).
    pub balanced_in_header: bool,
}

/// The node around the packet.
pub trait Node {
    /// What the agent has set.
    fn settings(&self) -> Settings;

    /// Low 32 bits of the kernel's jiffies.
    fn now(&self) -> u32;

    /// The device that the packet arrived on or leaves by; `None` when the agent does not know it.
    fn device(&self) -> Option<Device>;

    /// Counts one event.
    fn count(&mut self, counter: Counter);

    /// Counts for a service port.
    fn count_service(&mut self, service: u32, what: ServiceEvent);
}

/// What is counted for a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEvent {
    /// A packet on its way to a backend.
    Forward {
        /// Packets on the wire.
        packets: u32,
        /// Bytes from the network header on.
        bytes: u32,
    },
    /// A packet on its way back to a client.
    Reply {
        /// Packets on the wire.
        packets: u32,
        /// Bytes from the network header on.
        bytes: u32,
    },
    /// A new flow.
    Connection,
    /// A packet dropped.
    Dropped,
}

/// How an entry is put into the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Only if there is none.
    New,
    /// Whether there is one or not.
    Replace,
}

/// Why an entry was not put into the flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// There is one already ([`Insert::New`]).
    Exists,
    /// The table takes none.
    Full,
}

/// The tables of one family, and the look-ups that depend on it.
pub trait Tables<F: Family> {
    /// Whether an address may be a front end's. Only `false` is certain.
    fn may_be_front_end(&self, addr: F::Addr) -> bool;

    /// A front end.
    fn service(&self, key: &ServiceKey<F::Addr>) -> Option<ServiceValue>;

    /// A slot of a service's region.
    fn slot(&self, index: u32) -> Option<Slot>;

    /// An endpoint, whatever its state.
    fn backend(&self, index: u32) -> Option<Backend<F::Addr>>;

    /// A copy of a flow's entry; marks it as used.
    fn flow(&self, key: &FlowKey<F::Addr>) -> Option<Flow<F::Addr>>;

    /// Puts an entry into the flow table.
    fn insert_flow(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        how: Insert,
    ) -> Result<(), InsertError>;

    /// Removes an entry, if there is one.
    fn delete_flow(&mut self, key: &FlowKey<F::Addr>);

    /// The row of an address that is the node's own.
    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress>;

    /// Whether the route to `addr` leads out of the device with this ifindex. True when the kernel cannot say.
    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool;

    /// Whether a UDP socket of the node is connected with the sender of this packet.
    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool;
}

/// Everything together: what a step of the core is given.
pub trait Ctx<F: Family>: Packet + Node + Tables<F> {}

impl<F: Family, C: Packet + Node + Tables<F>> Ctx<F> for C {}
