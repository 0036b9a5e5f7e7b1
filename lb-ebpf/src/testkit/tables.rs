//! A family's tables in memory, and the node as far as it depends on the family.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use lb_common::{Backend, Family, FlowKey, NodeAddress, Port, ServiceKey, ServiceValue, Slot, V4, V6};

use super::{Flows, Host};
use crate::wire::Wire;

/// An address with a port.
pub type Endpoint<A> = (A, Port);

/// Tables of one family.
#[derive(Debug)]
pub struct FamilyTables<F: Family> {
    /// Front ends.
    pub services: BTreeMap<ServiceKey<F::Addr>, ServiceValue>,
    /// Slots by index.
    pub slots: BTreeMap<u32, Slot>,
    /// Backends by index.
    pub backends: BTreeMap<u32, Backend<F::Addr>>,
    /// The node's own addresses.
    pub node_addresses: BTreeMap<F::Addr, NodeAddress>,
    /// Flows.
    pub flows: Flows<F::Addr>,
    /// The most flows that are taken.
    pub flow_limit: usize,
    /// Addresses, with the device that the route to each leads out of.
    pub routes: BTreeSet<(F::Addr, u32)>,
    /// Connected UDP sockets: local endpoint and peer.
    pub sockets: BTreeSet<[Endpoint<F::Addr>; 2]>,
    /// Replaces a front end right after it was looked up: an update in the middle of a packet.
    pub flip: RefCell<Option<(ServiceKey<F::Addr>, ServiceValue)>>,
    /// Front ends that [`FamilyTables::flip`] has replaced.
    flipped: RefCell<BTreeMap<ServiceKey<F::Addr>, ServiceValue>>,
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            slots: BTreeMap::new(),
            backends: BTreeMap::new(),
            node_addresses: BTreeMap::new(),
            flows: Flows::new(),
            flow_limit: usize::MAX,
            routes: BTreeSet::new(),
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

    pub(super) fn connected(&self, packet: &FlowKey<F::Addr>) -> bool {
        let local = (packet.dst, packet.dst_port);
        let peer = (packet.src, packet.src_port);
        self.sockets.contains(&[local, peer])
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
