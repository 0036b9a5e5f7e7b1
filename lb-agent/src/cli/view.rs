//! What the maps say, put together for people.

use std::collections::BTreeMap;

use lb_common::addr::Address as _;
use lb_common::layout::map;
use lb_common::{Backend, BackendState, Family, ServiceFlags, ServiceName, ServiceStats, V4, V6, protocol};
use serde::Serialize;

use crate::dataplane::{Access, KernelStore, PerCpu, Pins};
use crate::store::{FamilyTables, MapStore as _, Names};

/// A service port.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    /// `namespace/name:port/protocol`.
    #[serde(rename = "service")]
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) frontends: Vec<Frontend>,
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
    /// Backends that are eligible at this front end.
    pub(super) eligible: u32,
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
}

/// Every service port that has a name, by name.
pub(super) fn services(pins: &Pins) -> anyhow::Result<Vec<Service>> {
    let store = KernelStore::open(pins, Access::Read)?;
    let stats = PerCpu::<ServiceStats>::open(pins, map::STATS)?;
    let mut services: BTreeMap<u32, Service> = BTreeMap::new();
    for (id, name) in store.rows::<Names>()? {
        let traffic = Traffic::sum(&stats.get(id)?);
        let name = text(&name);
        services.insert(
            id,
            Service {
                name,
                id,
                frontends: Vec::new(),
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
    let names: BTreeMap<u32, String> = store
        .rows::<Names>()?
        .iter()
        .map(|(id, name)| (*id, text(name)))
        .collect();
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
        let Some(service) = services.get_mut(&value.service) else {
            continue;
        };
        service.frontends.push(Frontend {
            family: F::NAME,
            address: key.addr.ip().to_string(),
            port: key.port.number(),
            protocol: protocol_name(key.protocol),
            node_port: value.flags & ServiceFlags::NODE_PORT != 0,
            eligible: value.outside.count,
        });
    }
    for backend in store.rows::<F::Backends>()?.values() {
        let Some(service) = services.get_mut(&backend.service) else {
            continue;
        };
        match BackendState::from_number(backend.state) {
            Some(BackendState::Active) => service.backends.active += 1,
            Some(BackendState::NoNew) => service.backends.no_new += 1,
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
    let rows = store.rows::<F::Backends>()?;
    Ok(rows
        .iter()
        .filter_map(|(id, row)| backend::<F>(*id, row, names))
        .collect())
}

fn backend<F: Family>(id: u32, row: &Backend<F::Addr>, names: &BTreeMap<u32, String>) -> Option<BackendView> {
    let state = BackendState::from_number(row.state)?;
    (state != BackendState::Free).then(|| BackendView {
        service: names
            .get(&row.service)
            .cloned()
            .unwrap_or_else(|| format!("#{}", row.service)),
        family: F::NAME,
        address: row.addr.ip().to_string(),
        port: row.port.number(),
        state: state.as_str(),
        id,
        epoch: row.epoch,
    })
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

fn text(name: &ServiceName) -> String {
    let end = name
        .text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.text.len());
    String::from_utf8_lossy(&name.text[..end]).into_owned()
}

fn protocol_name(number: u8) -> &'static str {
    match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "unknown",
    }
}
