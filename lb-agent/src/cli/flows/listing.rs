//! Which entries are listed, and in which order.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::bail;
use lb_common::addr::Address;
use lb_common::{Family, Flow, FlowFlags, FlowKey, Port, V4, V6};
use serde::{Serialize, Serializer};

use super::super::view::service_name;
use super::view::{FlowView, Rewrite};
use crate::dataplane::KernelStore;
use crate::model::ObjectName;
use crate::store::StoreError;

/// Names of service ports, by id.
type Names = BTreeMap<u32, String>;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// One that an entry has anywhere.
    address: Option<IpAddr>,
    /// Ids of service ports.
    services: Option<BTreeSet<u32>>,
}

impl Wanted {
    /// An error when there is no such Service.
    pub(super) fn new(
        address: Option<IpAddr>,
        service: Option<&ObjectName>,
        names: &Names,
    ) -> anyhow::Result<Self> {
        let services = service.map(|service| ports(service, names));
        if let Some(service) = service
            && services.as_ref().is_some_and(BTreeSet::is_empty)
        {
            bail!("there is no Service {service} here (`lb-agent services` lists those that there are)");
        }
        Ok(Self { address, services })
    }

    /// Whether the family may have such entries.
    fn may_be_of<F: Family>(&self) -> bool {
        self.address
            .is_none_or(|address| F::Addr::from_ip(address).is_some())
    }

    fn has<A: Address>(&self, key: &FlowKey<A>, flow: &Flow<A>) -> bool {
        let stands = |address: IpAddr| {
            A::from_ip(address)
                .is_some_and(|address| [key.src, key.dst, flow.addr, flow.peer_addr].contains(&address))
        };
        self.address.is_none_or(stands)
            && self
                .services
                .as_ref()
                .is_none_or(|services| services.contains(&flow.service))
    }
}

/// The ids of a Service's ports.
fn ports(service: &ObjectName, names: &Names) -> BTreeSet<u32> {
    let service = service.to_string();
    let is_one = |name: &str| {
        name.strip_prefix(&service)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    let ports = names.iter().filter(|(_, name)| is_one(name));
    ports.map(|(id, _)| *id).collect()
}

/// The entries to be listed: those of IPv4, and then those of IPv6.
pub(super) struct Listing<'a> {
    names: &'a Names,
    limit: usize,
    v4: Entries<V4>,
    v6: Entries<V6>,
    /// Where the kernel's clock stands, and jiffies per second.
    pub(super) clock: Option<(u32, u32)>,
}

impl<'a> Listing<'a> {
    pub(super) fn read(
        store: &KernelStore,
        names: &'a Names,
        wanted: &Wanted,
        limit: usize,
    ) -> anyhow::Result<Self> {
        let listing = Self::select(
            names,
            wanted,
            limit,
            |take| store.for_each_flow::<V4>(take),
            |take| store.for_each_flow::<V6>(take),
        );
        Ok(listing?)
    }

    /// `v4` and `v6` tell all entries of their family.
    pub(super) fn select(
        names: &'a Names,
        wanted: &Wanted,
        limit: usize,
        v4: impl FnOnce(&mut Take<'_, V4>) -> Result<(), StoreError>,
        v6: impl FnOnce(&mut Take<'_, V6>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            names,
            limit,
            v4: Entries::select(names, wanted, limit, v4)?,
            v6: Entries::select(names, wanted, limit, v6)?,
            clock: None,
        })
    }

    /// How many there are.
    pub(super) fn found(&self) -> usize {
        self.v4.found + self.v6.found
    }

    /// The first of them, as many as are to be shown.
    pub(super) fn rows(&self) -> impl Iterator<Item = FlowView<'a>> {
        self.rows_of(&self.v4)
            .chain(self.rows_of(&self.v6))
            .take(self.limit)
    }

    fn rows_of<F: Family>(&self, entries: &Entries<F>) -> impl Iterator<Item = FlowView<'a>> {
        let (names, clock) = (self.names, self.clock);
        entries
            .first
            .iter()
            .map(move |(key, flow)| FlowView::new::<F>(key, flow, service_name(names, flow.service), clock))
    }
}

/// The list alone, which may be long: each row is made when it is written.
impl Serialize for Listing<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

/// Entries of one family.
#[derive(Debug)]
struct Entries<F: Family> {
    found: usize,
    /// In order.
    first: Vec<Entry<F::Addr>>,
}

type Entry<A> = (FlowKey<A>, Flow<A>);

/// Takes one entry.
pub(super) type Take<'a, F> = dyn FnMut(FlowKey<<F as Family>::Addr>, Flow<<F as Family>::Addr>) + 'a;

impl<F: Family> Entries<F> {
    /// Of the entries that are wanted keeps the first ones: those of a large table would take as much memory as the table.
    fn select(
        names: &Names,
        wanted: &Wanted,
        limit: usize,
        tell: impl FnOnce(&mut Take<'_, F>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let (mut found, mut first) = (0, Vec::new());
        let cut = |first: &mut Vec<_>| {
            first.sort_by_cached_key(|entry| order(entry, names));
            first.truncate(limit);
        };
        if wanted.may_be_of::<F>() {
            tell(&mut |key, flow| {
                if wanted.has(&key, &flow) {
                    found += 1;
                    first.push((key, flow));
                }
                if first.len() > limit.saturating_mul(2) {
                    cut(&mut first);
                }
            })?;
            cut(&mut first);
        }
        Ok(Self { found, first })
    }
}

/// What entries are sorted by, so that those of one flow stand together, the way there first: service, client, the address
/// that the client asks.
fn order<'a, A: Address>((key, flow): &Entry<A>, names: &'a Names) -> impl Ord + use<'a, A> {
    let Rewrite { source, destination } = Rewrite::of(key, flow);
    let is_reply = flow.flags & FlowFlags::REPLY != 0;
    let [from, to] = [(key.src, key.src_port), (key.dst, key.dst_port)];
    let (client, asked): ((A, Port), (A, Port)) = if is_reply {
        (destination.unwrap_or(to), source.unwrap_or(from))
    } else {
        (from, to)
    };
    let service: Cow<'a, str> = service_name(names, flow.service);
    (service, key.protocol, client, asked, is_reply, key.stage)
}
