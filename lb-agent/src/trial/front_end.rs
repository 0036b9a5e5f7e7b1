//! Front ends as the maps have them: which one an address is, and which ones a Service has.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address as _;
use lb_common::{Port, RangeList, ServiceFlags, ServiceKey, ServiceValue, SlotRange, V4, V6};

use crate::dataplane::KernelStore;
use crate::image::{is_address, name_text};
use crate::model::{ObjectName, PortName, Protocol, TrafficPolicy};
use crate::store::{FamilyTables, MapStore as _, Names, StoreError};

/// What kind of address a Service is asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ClusterIp,
    /// A load balancer's address, or an external IP.
    External,
    NodePort,
}

/// A front end.
#[derive(Clone, Debug)]
pub(super) struct FrontEnd {
    /// Where packets for it go; a NodePort's is an address of the node.
    pub(super) address: SocketAddr,
    pub(super) protocol: u8,
    pub(super) kind: Kind,
    pub(super) name: Option<PortName>,
    pub(super) row: ServiceValue,
}

impl FrontEnd {
    /// The backends for such a sender.
    pub(super) fn range(&self, inside: bool) -> SlotRange {
        if inside { self.row.inside } else { self.row.outside }
    }

    /// The policy in force for such a sender.
    pub(super) fn policy(&self, inside: bool) -> TrafficPolicy {
        let local = if inside {
            ServiceFlags::INSIDE_LOCAL
        } else {
            ServiceFlags::OUTSIDE_LOCAL | ServiceFlags::INSIDE_LOCAL
        };
        if self.has(local) {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        }
    }

    /// Whether its row has one of these flags ([`ServiceFlags`]).
    pub(super) fn has(&self, flags: u32) -> bool {
        self.row.flags & flags != 0
    }

    /// What it is called: its port's name, or its number where it has none that is known.
    pub(super) fn text(&self) -> String {
        self.name
            .as_ref()
            .map_or_else(|| format!("#{}", self.row.service), ToString::to_string)
    }

    /// What its protocol is called.
    pub(super) fn protocol_name(&self) -> &'static str {
        Protocol::name_of(self.protocol)
    }
}

impl Kind {
    /// For people.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::External => "load balancer's or external address",
            Self::NodePort => "NodePort",
        }
    }

    /// For programs.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster-ip",
            Self::External => "external",
            Self::NodePort => "node-port",
        }
    }
}

/// All front ends; NodePorts once for each address at which they listen, but localhost.
pub(super) fn all(store: &KernelStore) -> Result<Vec<FrontEnd>, StoreError> {
    let names: BTreeMap<u32, PortName> = store
        .rows::<Names>()?
        .iter()
        .filter_map(|(id, name)| Some((*id, PortName::parse(name_text(name))?)))
        .collect();
    let mut found = of_family::<V4>(store, &names)?;
    found.extend(of_family::<V6>(store, &names)?);
    Ok(found)
}

/// Those of a Service.
pub(super) fn of_service<'a>(all: &'a [FrontEnd], service: &ObjectName) -> Vec<&'a FrontEnd> {
    let ours = |front_end: &&FrontEnd| {
        front_end
            .name
            .as_ref()
            .is_some_and(|name| name.service == *service)
    };
    all.iter().filter(ours).collect()
}

/// The one that an address is, also where a NodePort is asked for at localhost.
pub(super) fn at(
    all: &[FrontEnd],
    address: SocketAddr,
    protocol: Protocol,
    service: u32,
) -> Option<FrontEnd> {
    let mut fitting = all.iter().filter(|front_end| {
        front_end.row.service == service
            && front_end.protocol == protocol.number()
            && front_end.address.port() == address.port()
            && front_end.address.is_ipv4() == address.is_ipv4()
    });
    let exact = fitting.clone().find(|front_end| front_end.address == address);
    let found = exact.or_else(|| fitting.find(|front_end| front_end.kind == Kind::NodePort))?;
    Some(FrontEnd {
        address,
        ..found.clone()
    })
}

fn of_family<F: FamilyTables>(
    store: &KernelStore,
    names: &BTreeMap<u32, PortName>,
) -> Result<Vec<FrontEnd>, StoreError> {
    let listening: Vec<IpAddr> = store
        .rows::<F::NodeAddresses>()?
        .into_iter()
        .filter(|(_, row)| row.node_ports != 0)
        .map(|(addr, _)| addr.ip())
        .filter(|ip| !ip.is_loopback())
        .collect();
    let mut found = Vec::new();
    for (key, row) in store.rows::<F::Services>()? {
        if is_address(&row) {
            continue;
        }
        let ServiceKey {
            addr, port, protocol, ..
        } = key;
        let front_end = |ip, kind| FrontEnd {
            address: SocketAddr::new(ip, Port::number(port)),
            protocol,
            kind,
            name: names.get(&row.service).cloned(),
            row,
        };
        if row.flags & ServiceFlags::NODE_PORT != 0 {
            found.extend(listening.iter().map(|ip| front_end(*ip, Kind::NodePort)));
        } else if row.flags & ServiceFlags::CLUSTER_IP != 0 {
            found.push(front_end(addr.ip(), Kind::ClusterIp));
        } else {
            found.push(front_end(addr.ip(), Kind::External));
        }
    }
    Ok(found)
}

/// Prefixes of a list: a service's source ranges, or [`RangeList`].
pub(super) fn ranges(
    store: &KernelStore,
    list: u32,
    v4: bool,
) -> Result<Vec<crate::model::IpPrefix>, StoreError> {
    if v4 {
        ranges_of::<V4>(store, list)
    } else {
        ranges_of::<V6>(store, list)
    }
}

/// Whether an address is one that pods have.
pub(super) fn is_pod(store: &KernelStore, ip: IpAddr) -> Result<bool, StoreError> {
    let prefixes = ranges(store, RangeList::PODS, ip.is_ipv4())?;
    Ok(prefixes.iter().any(|prefix| prefix.contains(ip)))
}

fn ranges_of<F: FamilyTables>(
    store: &KernelStore,
    list: u32,
) -> Result<Vec<crate::model::IpPrefix>, StoreError> {
    let rows = store.rows::<F::Ranges>()?;
    let prefixes = rows.keys().filter(|key| key.list == list).filter_map(|key| {
        let length = u8::try_from(key.prefix_length.checked_sub(u32::BITS)?).ok()?;
        crate::model::IpPrefix::new(key.addr.ip(), length)
    });
    Ok(prefixes.collect())
}

/// Whether an address is the node's own.
pub(super) fn is_own(store: &KernelStore, ip: IpAddr) -> Result<bool, StoreError> {
    fn has<F: FamilyTables>(store: &KernelStore, ip: IpAddr) -> Result<bool, StoreError> {
        let addr = F::Addr::from_ip(ip);
        let rows = store.rows::<F::NodeAddresses>()?;
        Ok(addr.is_some_and(|addr| rows.contains_key(&addr)))
    }
    match ip {
        IpAddr::V4(_) => has::<V4>(store, ip),
        IpAddr::V6(_) => has::<V6>(store, ip),
    }
}
