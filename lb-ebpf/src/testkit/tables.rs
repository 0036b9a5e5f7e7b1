//! A family's tables in memory, and the node as far as it depends on the family.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address as _;
use lb_common::{
    Affinity, Backend, ClientKey, Family, FamilySettings, FlowKey, Fragment, FragmentKey, Hop, LocalKey,
    NodeAddress, PathMtu, Port, RangeKey, ServiceKey, ServiceValue, Slot, V4, V6,
};

use super::{Flows, Host};
use crate::wire::Wire;

/// An address with a port.
pub type Endpoint<A> = (A, Port);

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Way<A> {
    /// The prefix that it is for.
    pub addr: A,
    /// How many bits of it count.
    pub bits: u32,
    /// Where it leads. Device 0: nowhere. One without a hardware address: a neighbour that has to be asked for.
    pub hop: Hop,
}

/// Tables of one family.
#[derive(Debug)]
pub struct FamilyTables<F: Family> {
    /// Front ends.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Slots by index.
    pub slots: BTreeMap<u32, Slot>,
    /// Backends by index.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
    /// Local endpoints of services with direct server return.
    pub locals: BTreeMap<LocalKey<F::Addr>, u32>,
    /// Lists of prefixes.
    pub ranges: BTreeSet<RangeKey<F::Addr>>,
    /// Addresses for masqueraded packets by ifindex.
    pub snat: BTreeMap<u32, F::Addr>,
    /// The agent's settings for this family.
    pub family: FamilySettings<F::Addr>,
    /// The backends that clients stay with.
    pub affinity: BTreeMap<ClientKey<F::Addr>, Affinity>,
    /// Limits on the connections of clients.
    pub sources: BTreeMap<ClientKey<F::Addr>, u64>,
    /// Packets in fragments.
    pub fragments: BTreeMap<FragmentKey<F::Addr>, Fragment>,
    /// The largest packets on ways to backends.
    pub paths: BTreeMap<F::Addr, PathMtu>,
    /// Open connections by index of the backend.
    pub loads: BTreeMap<u32, u32>,
    /// The node's own addresses.
    pub node_addresses: BTreeMap<F::Addr, NodeAddress>,
    /// Flows.
    pub flows: Flows<F::Addr>,
    /// The most flows that are taken.
    pub flow_limit: usize,
    /// The routes.
    pub ways: Vec<Way<F::Addr>>,
    /// Where packets with these sources go, wherever they are going: rules that the kernel asks before all routes.
    pub rules: BTreeMap<F::Addr, Hop>,
    /// Sockets that are bound, or listen: local endpoint and protocol.
    pub bound: BTreeSet<(F::Addr, Port, u8)>,
    /// Connected UDP sockets: local endpoint and peer.
    pub sockets: BTreeSet<[Endpoint<F::Addr>; 2]>,
    /// Replaces a front end right after it was looked up: an update in the middle of a packet.
    pub flip: RefCell<Option<(ServiceKey<F::Addr>, ServiceValue)>>,
    /// Front ends that [`FamilyTables::flip`] has replaced.
    pub flipped: RefCell<BTreeMap<ServiceKey<F::Addr>, ServiceValue>>,
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            locals: BTreeMap::new(),
            ranges: BTreeSet::new(),
            snat: BTreeMap::new(),
            family: FamilySettings::default(),
            affinity: BTreeMap::new(),
            sources: BTreeMap::new(),
            fragments: BTreeMap::new(),
            paths: BTreeMap::new(),
            loads: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            flows: Flows::new(),
            flow_limit: usize::MAX,
            ways: Vec::new(),
            rules: BTreeMap::new(),
            bound: BTreeSet::new(),
            sockets: BTreeSet::new(),
            flip: RefCell::default(),
            flipped: RefCell::default(),
        }
    }
}

impl<F: Family> FamilyTables<F> {
    pub(super) fn service(&self, key: &ServiceKey<F::Addr>) -> Option<ServiceValue> {
        let standing = self.flipped.borrow().get(key).copied();
        let flip = self.flip.borrow_mut().take_if(|(flipped, _)| flipped == key);
        self.flipped.borrow_mut().extend(flip);
        standing.or_else(|| self.services.get(key).copied())
    }

    /// Front ends are again as they were written.
    pub fn unflip(&self) {
        self.flip.take();
        self.flipped.take();
    }

    pub(super) fn connected(&self, packet: &FlowKey<F::Addr>) -> bool {
        let local = (packet.dst, packet.dst_port);
        let peer = (packet.src, packet.src_port);
        self.sockets.contains(&[local, peer])
    }
}

impl<F: Wire> FamilyTables<F> {
    /// The route to an address: the one of the longest prefix.
    pub(super) fn way(&self, addr: F::Addr) -> Option<Hop> {
        let fitting = self
            .ways
            .iter()
            .filter(|way| starts_alike(way.addr.ip(), addr.ip(), way.bits));
        let way = fitting.max_by_key(|way| way.bits)?;
        (way.hop.ifindex != 0).then_some(way.hop)
    }

    /// The route of a packet: as a rule for its source says, but the node's own addresses come first.
    pub(super) fn way_between(&self, key: &FlowKey<F::Addr>) -> Option<Hop> {
        let is_own = |way: &Way<F::Addr>| way.hop.ifindex == 0 && way.addr == key.dst;
        let rule = self.rules.get(&key.src).copied();
        rule.filter(|_| !self.ways.iter().any(is_own))
            .or_else(|| self.way(key.dst))
    }

    /// The size of the way out by a device: as a rule for the source says, or by a route; of IPv6, the programs ask for
    /// no other way than that of the packet.
    pub(super) fn way_by(&self, key: &FlowKey<F::Addr>, ifindex: u32) -> Option<u16> {
        let longest = self.way_between(key);
        let any = || {
            let fits = |way: &&Way<F::Addr>| starts_alike(way.addr.ip(), key.dst.ip(), way.bits);
            let here = self.ways.iter().filter(|way| way.hop.ifindex == ifindex);
            let way = here.filter(fits).max_by_key(|way| way.bits)?;
            (F::SUFFIX == '4').then_some(way.hop)
        };
        let hop = longest.filter(|hop| hop.ifindex == ifindex).or_else(any)?;
        Some(if hop.dst == [0; 6] { u16::MAX } else { hop.mtu })
    }

    pub(super) fn in_range(&self, wanted: &RangeKey<F::Addr>) -> bool {
        self.ranges.iter().any(|range| {
            let bits = range.prefix_length.saturating_sub(32);
            range.list == wanted.list && starts_alike(range.addr.ip(), wanted.addr.ip(), bits)
        })
    }
}

/// Whether the first bits of two addresses are the same.
fn starts_alike(one: IpAddr, other: IpAddr, bits: u32) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (one.to_bits() ^ other.to_bits())
                .checked_shr(32 - bits)
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => {
            (one.to_bits() ^ other.to_bits())
                .checked_shr(128 - bits)
                .unwrap_or(0)
                == 0
        }
        _ => false,
    }
}

/// A family whose tables the host engine keeps.
pub trait Kept: Wire {
    /// Its tables.
    fn of(host: &Host) -> &FamilyTables<Self>;
    /// Its tables, to be changed.
    fn of_mut(host: &mut Host) -> &mut FamilyTables<Self>;
}

impl Kept for V4 {
    fn of(host: &Host) -> &FamilyTables<Self> {
        &host.v4
    }
    fn of_mut(host: &mut Host) -> &mut FamilyTables<Self> {
        &mut host.v4
    }
}

impl Kept for V6 {
    fn of(host: &Host) -> &FamilyTables<Self> {
        &host.v6
    }
    fn of_mut(host: &mut Host) -> &mut FamilyTables<Self> {
        &mut host.v6
    }
}
