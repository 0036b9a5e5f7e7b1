//! What the core needs from its surroundings: the packet's bytes, the tables, the node.
//!
//! Implemented by the BPF programs (`bpf/`) and, for tests, by the host engine (`testkit/`).

use lb_common::{
    Affinity, Backend, ClientKey, Counter, Device, Family, Flow, FlowKey, Fragment, FragmentKey, Hop,
    LocalKey, NodeAddress, PathMtu, Prefix, RangeKey, ServiceKey, ServicePolicy, ServiceValue, Settings,
    Slot,
};

use crate::checksum;
use crate::crc32c;
use crate::hop::KnownWay;
use crate::verdict::Stop;

/// The bytes of one packet. Words are in memory order: as they stand in the packet, not swapped.
pub trait Packet {
    /// Length in bytes, link-layer header included.
    fn length(&self) -> u32;

    /// How many packets this one will be, or was, on the wire (generic segmentation offload).
    fn segments(&self) -> u32;

    /// Bytes of payload in each of them but the last, which may have less; 0 for a packet that is one.
    fn segment_size(&self) -> u32;

    /// Makes sure that the first `bytes` (or the whole packet, if shorter) can be read.
    fn linearize(&mut self, bytes: u32) -> Result<(), Stop>;

    /// Two bytes; [`Stop::PASS`] when the packet ends before.
    fn read_u16(&self, at: u32) -> Result<u16, Stop>;

    /// Words of four bytes, at any even offset; [`Stop::PASS`] when the packet ends before the last.
    fn read<const WORDS: usize>(&self, at: u32) -> Result<[u32; WORDS], Stop>;

    /// Overwrites two bytes.
    fn write_u16(&mut self, at: u32, word: u16) -> Result<(), Stop>;

    /// Overwrites words of four bytes, at any even offset: all of them or, where the packet ends before the last, none.
    fn write<const WORDS: usize>(&mut self, at: u32, words: [u32; WORDS]) -> Result<(), Stop>;

    /// Makes a TCP or UDP checksum right again; SCTP has another. The last change to a packet: offsets must be checked anew
    /// after it.
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop>;

    /// [`crc32c::change`]: in the kernel a function that the verifier checks once, whoever calls it.
    fn crc32c_change(&self, difference: u32, length: u32) -> u32 {
        crc32c::change(difference, length, crc32c::product)
    }

    /// Bytes were changed that no checksum in the packet balances; `change` is the one's complement sum of (new - old). A
    /// sum of all its bytes may have come with the packet.
    fn unbalanced(&mut self, change: u32);

    /// Writes a TCP or ICMP checksum that was computed anew: `whole`; or, where the checksum that the packet came with
    /// is yet to be computed on its way, `offloaded`, which is right together with that one.
    fn put_checksum(&mut self, at: u32, whole: u16, offloaded: u16) -> Result<(), Stop>;

    /// Cuts the packet off after `length` bytes, link-layer header included, and makes it one of its own: not one that
    /// stands for many, nor one whose sum somebody knows. What was read is void.
    fn trim(&mut self, length: u32) -> Result<(), Stop>;

    /// Makes room of `bytes` between the link-layer header and the network header, which begins at `l3`; what stands in
    /// the room is not defined. What was read is void.
    fn make_room(&mut self, l3: u32, bytes: u32, what: Room) -> Result<(), Stop>;

    /// Takes `bytes` away from the start of the network header, which begins at `l3`. What was read is void.
    fn take_away(&mut self, l3: u32, bytes: u32, what: Room) -> Result<(), Stop>;

    /// Makes the packet, whose network header begins at `l3`, one that a device with this hardware address takes in as
    /// its own: without tags. What was read is void.
    fn readdress(&mut self, l3: u32, mac: [u8; 6]) -> Result<(), Stop>;

    /// Where in the packet's way this is.
    fn hook(&self) -> Hook;

    /// Whether the frame is addressed to this node. `mac` is the device's address, for where nobody has looked yet.
    fn is_for(&self, mac: [u8; 6]) -> bool;
}

/// Where in its way a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// In the driver, before the stack: packets that cannot be finished here are left to [`Hook::Ingress`], unchanged.
    Xdp,
    /// It has arrived.
    Ingress,
    /// It is about to leave.
    Egress,
}

/// What room at the front of a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// An outer IPv4 header over IPv4.
    Ip4(Segments),
    /// An outer IPv6 header over IPv6.
    Ip6(Segments),
    /// An answer's headers: the packet is nobody's any more.
    Answer,
}

/// What becomes of the packets that one will be ([`Packet::segment_size`]) when it is given an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segments {
    /// They are cut as before.
    Kept,
    /// They carry less payload, so that they become no longer: for TCP alone, which does not care.
    Smaller,
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

impl ChecksumPatch {
    /// Patches the checksum where no helper of the kernel does it (RFC 1624); it must be complete.
    #[inline(always)]
    pub fn by_hand<P: Packet>(self, packet: &mut P) -> Result<(), Stop> {
        let old = packet.read_u16(self.at)?;
        if self.zero_is_none && old == 0 {
            return Ok(());
        }
        let change = checksum::fold32(u64::from(self.addresses) + u64::from(self.ports));
        let new = match checksum::patched(old, change) {
            0 if self.zero_is_none => 0xffff,
            new => new,
        };
        packet.write_u16(self.at, new)
    }
}

/// The node around the packet.
pub trait Node {
    /// What the agent has set.
    fn settings(&self) -> Settings;

    /// Low 32 bits of the kernel's jiffies.
    fn now(&self) -> u32;

    /// The index of the device that the packet arrived on or leaves by.
    fn ifindex(&self) -> u32;

    /// The row of a device; `None` when the agent does not know it.
    fn device(&self, ifindex: u32) -> Option<Device>;

    /// The same, from this CPU's memory if it has met the device under the same epoch of routes: for what each packet needs.
    fn known_device(&self, ifindex: u32) -> Option<Device>;

    /// At egress: whether the packet was made by this node, not forwarded, nor sent on by a program of ours.
    fn is_own(&self) -> bool;

    /// Counts one event.
    fn count(&mut self, counter: Counter);

    /// Counts for a service port.
    fn count_service(&mut self, service: u32, what: ServiceEvent);

    /// What the agent says about a service port beside its front ends.
    fn policy(&self, service: u32) -> ServicePolicy;

    /// A number that this CPU has not given for the service port yet: one more each time.
    fn turn(&mut self, service: u32) -> u32;

    /// When the limit of a service port ([`Node::set_limit`]) is used up to; row 0 is that of answers.
    fn limit(&self, row: u32) -> u64;

    /// Remembers it.
    fn set_limit(&mut self, row: u32, until: u64);
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
    /// A packet dropped or rejected.
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

/// What the kernel's routes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// There is a way, and the next hop's hardware address is known.
    Neighbour,
    /// There is a way, but the hardware address has to be asked for first.
    NoNeighbour,
    /// The packet is too long for the way, whose size is in [`Hop::mtu`].
    TooLong,
    /// There is none, or it ends here.
    None,
}

/// The tables of one family, and the look-ups that depend on it.
pub trait Tables<F: Family> {
    /// Whether an address may be a front end's. Only `false` is certain.
    fn may_be_front_end(&self, addr: F::Addr) -> bool;

    /// A front end, or an address as such.
    fn service(&self, key: &ServiceKey<F::Addr>) -> Option<ServiceValue>;

    /// A slot.
    fn slot(&self, index: u32) -> Option<Slot>;

    /// An endpoint, whatever its state.
    fn backend(&self, index: u32) -> Option<Backend<F::Addr>>;

    /// The local endpoint of a service with direct server return.
    fn local(&self, key: &LocalKey<F::Addr>) -> Option<u32>;

    /// The hash by which a new flow finds its backend and its ports ([`crate::hash`]).
    fn flow_hash(&self, key: &FlowKey<F::Addr>) -> u32;

    /// Copies a flow's entry into `flow`; whether there is one.
    fn flow(&self, key: &FlowKey<F::Addr>, flow: &mut Flow<F::Addr>) -> bool;

    /// Puts an entry into the flow table.
    fn insert_flow(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        how: Insert,
    ) -> Result<(), InsertError>;

    /// Removes an entry, if there is one.
    fn delete_flow(&mut self, key: &FlowKey<F::Addr>);

    /// The backend that a client stays with.
    fn affinity(&self, client: &ClientKey<F::Addr>) -> Option<Affinity>;

    /// Remembers it.
    fn set_affinity(&mut self, client: &ClientKey<F::Addr>, affinity: &Affinity);

    /// When the limit of a client is used up to; 0 when nothing is known.
    fn source_limit(&self, client: &ClientKey<F::Addr>) -> u64;

    /// Remembers it.
    fn set_source_limit(&mut self, client: &ClientKey<F::Addr>, until: u64);

    /// The ports of a packet in fragments.
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<Fragment>;

    /// Remembers them.
    fn set_fragment(&mut self, key: &FragmentKey<F::Addr>, fragment: &Fragment);

    /// The largest packet on the way to an address.
    fn path_mtu(&self, addr: F::Addr) -> Option<PathMtu>;

    /// Remembers it.
    fn set_path_mtu(&mut self, addr: F::Addr, path: &PathMtu);

    /// Open connections of a backend.
    fn load(&self, backend: u32) -> u32;

    /// One connection more, or one less.
    fn add_load(&mut self, backend: u32, more: bool);

    /// Whether an address is in a list of prefixes; the key's prefix is the whole address.
    fn in_range(&self, key: &RangeKey<F::Addr>) -> bool;

    /// A prefix that services get their addresses from, by number.
    fn service_cidr(&self, number: usize) -> Prefix<F::Addr>;

    /// The address that masqueraded packets leave a device with; unspecified when there is none.
    fn snat_address(&self, ifindex: u32) -> F::Addr;

    /// The address by which other nodes know this one; unspecified when there is none.
    fn node_addr(&self) -> F::Addr;

    /// The row of an address that is the node's own.
    fn node_address(&self, addr: F::Addr) -> Option<NodeAddress>;

    /// The way of a packet of `length` bytes, from the network header on, between the two ends of `key`; fills in `hop`,
    /// but for its epoch. For [`Route::NoNeighbour`] without hardware addresses.
    fn route(&self, key: &FlowKey<F::Addr>, length: u32, hop: &mut Hop) -> Route;

    /// What this CPU remembers of the way to the backend with this index, or to another: to be read and overwritten. `None`
    /// where nothing is remembered.
    fn known_way(&mut self, backend: u32) -> Option<&mut KnownWay<F::Addr>>;

    /// The size of the way out by the device with this ifindex between the two ends of `key`, whatever other ways there are;
    /// `None` without one. A size that the kernel does not tell is the largest.
    fn way_by(&self, key: &FlowKey<F::Addr>, ifindex: u32) -> Option<u16>;

    /// Whether the route to `addr` leads out of the device with this ifindex. True when the kernel cannot say.
    fn routed_by(&self, addr: F::Addr, ifindex: u32) -> bool;

    /// Whether a UDP socket of the node is connected with the sender of this packet.
    fn connected_socket(&self, packet: &FlowKey<F::Addr>) -> bool;

    /// Whether this packet would find a socket of the node: connected, listening or bound. Nobody can tell for SCTP: then
    /// it would not.
    fn any_socket(&self, packet: &FlowKey<F::Addr>) -> bool;
}

/// Everything together: what a step of the core is given.
pub trait Ctx<F: Family>: Packet + Node + Tables<F> {}

impl<F: Family, C: Packet + Node + Tables<F>> Ctx<F> for C {}
