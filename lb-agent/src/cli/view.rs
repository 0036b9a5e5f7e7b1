//! What the maps say, put together for people.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lb_common::addr::Address as _;
use lb_common::layout::map;
use lb_common::{
    Backend, BackendFlags, BackendState, Family, ServiceFlags, ServiceName, ServiceStats, ServiceValue,
    SlotRange, V4, V6,
};
use serde::Serialize;

use crate::dataplane::{Access, KernelStore, PerCpu, Pins};
use crate::image::{algorithm, is_address};
use crate::model::Protocol;
use crate::store::{FamilyTables, MapStore as _, Names, Policies, SettingsTable};

/// A service port.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    /// `namespace/name:port/protocol`.
    #[serde(rename = "service")]
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) frontends: Vec<Frontend>,
    /// Seconds for which a client stays with its backend.
    pub(super) affinity_seconds: Option<u32>,
    /// New connections in a second, at most.
    pub(super) connections_per_second: Option<u32>,
    /// New connections of one source in a second, at most.
    pub(super) connections_per_second_per_source: Option<u32>,
    /// The sources that may use the load balancer's addresses; none: all.
    pub(super) source_ranges: Vec<String>,
    /// Backends by state.
    pub(super) backends: BackendCounts,
    #[serde(flatten)]
    pub(super) traffic: Traffic,
}

#[derive(Debug, Serialize)]
pub(super) struct Frontend {
    /// `ipv4` or `ipv6`.
    pub(super) family: &'static str,
    /// Unspecified for a NodePort.
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) protocol: &'static str,
    pub(super) node_port: bool,
    /// Backends for clients from outside the cluster.
    pub(super) eligible: usize,
    /// Backends for pods and the node itself.
    pub(super) eligible_inside: usize,
    /// How one is chosen for clients from outside: `maglev`, `hash`, `round-robin`, `least-connections`.
    pub(super) algorithm: &'static str,
    /// The same for pods and the node itself.
    pub(super) algorithm_inside: &'static str,
    /// How packets from outside reach backends on other nodes: `dsr`, `snat`.
    pub(super) forwarding: &'static str,
    /// Whether sources are limited to the Service's ranges here.
    pub(super) source_ranges: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct BackendCounts {
    pub(super) active: usize,
    pub(super) no_new: usize,
    pub(super) removed: usize,
}

/// Sums over all CPUs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Traffic {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) reply_packets: u64,
    pub(super) reply_bytes: u64,
    pub(super) connections: u64,
    pub(super) dropped: u64,
}

/// A backend.
#[derive(Debug, Serialize)]
pub(super) struct BackendView {
    /// `namespace/name:port/protocol`.
    pub(super) service: String,
    pub(super) family: &'static str,
    pub(super) address: String,
    pub(super) port: u16,
    pub(super) state: &'static str,
    /// Index into the map.
    pub(super) id: u32,
    pub(super) epoch: u16,
    /// Whether it is on this node.
    pub(super) local: bool,
    /// Its part of the new flows of clients from outside the cluster, in percent.
    pub(super) share: f64,
    /// Its part of the new flows of pods and of the node itself, in percent.
    pub(super) share_inside: f64,
}

/// Every service port that has a name, by name.
pub(super) fn services(pins: &Pins) -> anyhow::Result<Vec<Service>> {
    let store = KernelStore::open(pins, Access::Read)?;
    let stats = PerCpu::<ServiceStats>::open(pins, map::STATS)?;
    let policies = store.rows::<Policies>()?;
    let settings = store.rows::<SettingsTable>()?.remove(&0).unwrap_or_default();
    let mut services: BTreeMap<u32, Service> = BTreeMap::new();
    for (id, name) in store.rows::<Names>()? {
        let traffic = Traffic::sum(&stats.get(id)?);
        let name = text(&name);
        let policy = policies.get(&id).copied().unwrap_or_default();
        let rate = |interval| rate(interval, settings.jiffies_per_second);
        services.insert(
            id,
            Service {
                name,
                id,
                frontends: Vec::new(),
                affinity_seconds: policy
                    .affinity
                    .checked_div(settings.jiffies_per_second)
                    .filter(|time| *time > 0),
                connections_per_second: rate(policy.interval),
                connections_per_second_per_source: rate(policy.source_interval),
                source_ranges: Vec::new(),
                backends: BackendCounts::default(),
                traffic,
            },
        );
    }
    add_family::<V4>(&store, &mut services)?;
    add_family::<V6>(&store, &mut services)?;
    let mut services: Vec<Service> = services.into_values().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(services)
}

/// Every backend that is in use, by service.
pub(super) fn backends(pins: &Pins) -> anyhow::Result<Vec<BackendView>> {
    let store = KernelStore::open(pins, Access::Read)?;
    let names = names(&store)?;
    let mut backends = family_backends::<V4>(&store, &names)?;
    backends.extend(family_backends::<V6>(&store, &names)?);
    backends.sort_by(|a, b| (&a.service, a.family, a.id).cmp(&(&b.service, b.family, b.id)));
    Ok(backends)
}

fn add_family<F: FamilyTables>(
    store: &KernelStore,
    services: &mut BTreeMap<u32, Service>,
) -> anyhow::Result<()> {
    for (key, value) in store.rows::<F::Services>()? {
        let Some(service) = services.get_mut(&value.service).filter(|_| !is_address(&value)) else {
            continue;
        };
        let (outside, inside) = (
            shares::<F>(store, value.outside)?,
            shares::<F>(store, value.inside)?,
        );
        let has = |flag| value.flags & flag != 0;
        service.frontends.push(Frontend {
            family: F::NAME,
            address: key.addr.ip().to_string(),
            port: key.port.number(),
            protocol: protocol_name(key.protocol),
            node_port: has(ServiceFlags::NODE_PORT),
            eligible: outside.len(),
            eligible_inside: inside.len(),
            algorithm: algorithm(value.flags, value.outside.count, outside.len()),
            algorithm_inside: algorithm(value.flags, value.inside.count, inside.len()),
            forwarding: if has(ServiceFlags::DSR) { "dsr" } else { "snat" },
            source_ranges: has(ServiceFlags::SOURCE_RANGES),
        });
    }
    for key in store.rows::<F::Ranges>()?.keys() {
        if let Some(service) = services.get_mut(&key.list) {
            let length = key.prefix_length.saturating_sub(u32::BITS);
            service.source_ranges.push(format!("{}/{length}", key.addr));
        }
    }
    for backend in store.rows::<F::Backends>()?.values() {
        let Some(service) = services.get_mut(&backend.service) else {
            continue;
        };
        match BackendState::from_number(backend.state) {
            Some(BackendState::Active) => service.backends.active += 1,
            Some(BackendState::NoNew | BackendState::NotServing) => service.backends.no_new += 1,
            Some(BackendState::Removed) => service.backends.removed += 1,
            Some(BackendState::Free) | None => {}
        }
    }
    Ok(())
}

fn family_backends<F: FamilyTables>(
    store: &KernelStore,
    names: &BTreeMap<u32, String>,
) -> anyhow::Result<Vec<BackendView>> {
    let mut services: Vec<ServiceValue> = store.rows::<F::Services>()?.into_values().collect();
    // A ClusterIP says nothing of clients from outside while there are other ways for them.
    services.sort_by_key(|row| row.flags & ServiceFlags::CLUSTER_IP);
    let of_first = |region: fn(&ServiceValue) -> SlotRange| -> anyhow::Result<_> {
        let mut found = BTreeMap::<u32, Shares>::new();
        for row in services.iter().filter(|row| region(row).count > 0) {
            if let Entry::Vacant(place) = found.entry(row.service) {
                place.insert(shares::<F>(store, region(row))?);
            }
        }
        Ok(found)
    };
    let (outside, inside) = (of_first(|row| row.outside)?, of_first(|row| row.inside)?);
    let share = |shares: &BTreeMap<u32, Shares>, service, id| {
        let shares = shares.get(&service)?;
        let slots: u32 = shares.values().sum();
        Some(100.0 * f64::from(*shares.get(&id)?) / f64::from(slots.max(1)))
    };
    let view = |(id, row): (&u32, &Backend<F::Addr>)| {
        let view = backend::<F>(*id, row, names)?;
        Some(BackendView {
            share: share(&outside, row.service, *id).unwrap_or_default(),
            share_inside: share(&inside, row.service, *id).unwrap_or_default(),
            ..view
        })
    };
    Ok(store.rows::<F::Backends>()?.iter().filter_map(view).collect())
}

fn backend<F: Family>(id: u32, row: &Backend<F::Addr>, names: &BTreeMap<u32, String>) -> Option<BackendView> {
    let state = BackendState::from_number(row.state)?;
    (state != BackendState::Free).then(|| BackendView {
        service: service_name(names, row.service).into_owned(),
        family: F::NAME,
        address: row.addr.ip().to_string(),
        port: row.port.number(),
        state: state.as_str(),
        id,
        epoch: row.epoch,
        local: row.flags & BackendFlags::LOCAL != 0,
        share: 0.0,
        share_inside: 0.0,
    })
}

/// How many slots of a region each backend has.
type Shares = BTreeMap<u32, u32>;

fn shares<F: FamilyTables>(store: &KernelStore, region: SlotRange) -> anyhow::Result<Shares> {
    let mut shares = Shares::new();
    for slot in store.some_rows::<F::Slots>(region.base, region.count)? {
        if slot.generation == region.generation {
            *shares.entry(slot.backend).or_default() += 1;
        }
    }
    Ok(shares)
}

/// The rate whose events take so much time of a limit.
fn rate(interval: u32, jiffies_per_second: u32) -> Option<u32> {
    let parts = u64::from(jiffies_per_second) << u16::BITS;
    let interval = u64::from(interval);
    // Rounded, as the interval was.
    (interval > 0).then(|| u32::try_from((parts + interval / 2) / interval).unwrap_or(u32::MAX))
}

impl Traffic {
    fn sum(per_cpu: &[ServiceStats]) -> Self {
        per_cpu.iter().fold(Self::default(), |sum, cpu| {
            let ServiceStats {
                packets,
                bytes,
                reply_packets,
                reply_bytes,
                connections,
                dropped,
            } = cpu;
            Self {
                packets: sum.packets + packets,
                bytes: sum.bytes + bytes,
                reply_packets: sum.reply_packets + reply_packets,
                reply_bytes: sum.reply_bytes + reply_bytes,
                connections: sum.connections + connections,
                dropped: sum.dropped + dropped,
            }
        })
    }
}

/// `address:port`, as people write it.
pub(super) fn socket(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// What service ports are called, by id.
pub(super) fn names(store: &KernelStore) -> anyhow::Result<BTreeMap<u32, String>> {
    let names = store.rows::<Names>()?;
    Ok(names.iter().map(|(id, name)| (*id, text(name))).collect())
}

/// What a service port is called; `#` and its number when it is gone.
pub(super) fn service_name(names: &BTreeMap<u32, String>, id: u32) -> Cow<'_, str> {
    match names.get(&id) {
        Some(name) => Cow::from(name),
        None => Cow::from(format!("#{id}")),
    }
}

fn text(name: &ServiceName) -> String {
    let end = name
        .text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.text.len());
    String::from_utf8_lossy(&name.text[..end]).into_owned()
}

pub(super) fn protocol_name(number: u8) -> &'static str {
    Protocol::from_number(number).map_or("unknown", Protocol::as_str)
}
