//! `lb-agent status`.
//!
//! JSON: an object with `version`, `layout`, `pin_root`, `settings` (the row of `lb_settings`;
//! `node_port_min` and `node_port_max` are null when there are no NodePorts), `devices` (each `name`,
//! `ifindex`, `role`, `stacked`, `ingress`, `egress`: `tcx`, `clsact`, or `missing: why`), `maps` (each `name`, `rows`,
//! `used`; null where that cannot be counted; a connection has two rows in a table of flows), `drops` and `counters` (numbers by name).

use std::collections::BTreeMap;

use lb_common::layout::{VERSION, map};
use lb_common::{Counter, Device, DeviceFlags, DeviceRole, DropReason, Settings};
use serde::Serialize;

use super::output::{Format, json, print, table};
use crate::dataplane::attach::{Hook, inspect};
use crate::dataplane::netlink::connect;
use crate::dataplane::{Access, KernelStore, PerCpu, PinnedMap, Pins};
use crate::store::{self, MapStore as _};

#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    layout: u32,
    pin_root: String,
    settings: SettingsView,
    devices: Vec<DeviceView>,
    maps: Vec<MapView>,
    drops: BTreeMap<&'static str, u64>,
    counters: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct SettingsView {
    jiffies_per_second: u32,
    tcp_established_seconds: u32,
    tcp_handshake_seconds: u32,
    tcp_closing_seconds: u32,
    udp_idle_seconds: u32,
    hash_seed: u64,
    node_port_min: Option<u16>,
    node_port_max: Option<u16>,
}

#[derive(Debug, Serialize)]
struct DeviceView {
    name: String,
    ifindex: u32,
    role: &'static str,
    stacked: bool,
    ingress: String,
    egress: String,
}

#[derive(Debug, Serialize)]
struct MapView {
    name: &'static str,
    rows: u32,
    used: Option<usize>,
}

pub(super) async fn show(pins: &Pins, format: Format) -> anyhow::Result<()> {
    let status = status(pins).await?;
    match format {
        Format::Json => json(&status),
        Format::Table => print(&text(&status)),
    }
}

async fn status(pins: &Pins) -> anyhow::Result<Status> {
    let store = KernelStore::open(pins, Access::Read)?;
    let settings = store
        .rows::<store::SettingsTable>()?
        .remove(&0)
        .unwrap_or_default();
    let drops = DropReason::ALL.map(|reason| (reason.as_str(), reason as u32));
    let counters = Counter::ALL.map(|counter| (counter.as_str(), counter as u32));
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        layout: VERSION,
        pin_root: pins.root().display().to_string(),
        settings: settings_view(&settings),
        devices: device_views(pins, &store).await?,
        maps: map::ALL
            .into_iter()
            .map(|name| map_view(pins, name))
            .collect::<anyhow::Result<_>>()?,
        drops: sums(pins, map::DROPS, &drops)?,
        counters: sums(pins, map::COUNTERS, &counters)?,
    })
}

fn settings_view(settings: &Settings) -> SettingsView {
    let Settings {
        jiffies_per_second,
        tcp_established,
        tcp_handshake,
        tcp_closing,
        udp_idle,
        hash_seed: [seed_low, seed_high],
        route_epoch: _,
        answer_interval: _,
        flags: _,
        node_port_min,
        node_port_max,
        snat_port_min: _,
        snat_port_max: _,
    } = *settings;
    // 1 and 0 when there are none; both 0 before anything is written.
    let node_ports = (1..=node_port_max).contains(&node_port_min);
    let seconds = |jiffies: u32| jiffies.checked_div(jiffies_per_second).unwrap_or_default();
    SettingsView {
        jiffies_per_second,
        tcp_established_seconds: seconds(tcp_established),
        tcp_handshake_seconds: seconds(tcp_handshake),
        tcp_closing_seconds: seconds(tcp_closing),
        udp_idle_seconds: seconds(udp_idle),
        hash_seed: u64::from(seed_high) << 32 | u64::from(seed_low),
        node_port_min: node_ports.then_some(node_port_min),
        node_port_max: node_ports.then_some(node_port_max),
    }
}

async fn device_views(pins: &Pins, store: &KernelStore) -> anyhow::Result<Vec<DeviceView>> {
    let netlink = connect()?;
    let mut views = Vec::new();
    for (ifindex, row) in store.rows::<store::DevicesTable>()? {
        let Device {
            route_ifindex: _,
            mtu: _,
            role,
            flags,
            mac: _,
        } = row;
        let [ingress, egress] =
            [Hook::Ingress, Hook::Egress].map(|hook| inspect(&netlink, pins, ifindex, hook));
        views.push(DeviceView {
            name: device_name(ifindex),
            ifindex,
            role: DeviceRole::from_number(role).map_or("unknown", DeviceRole::as_str),
            stacked: flags & DeviceFlags::STACKED != 0,
            ingress: place(ingress.await),
            egress: place(egress.await),
        });
    }
    Ok(views)
}

fn place(way: Result<crate::dataplane::attach::Way, crate::dataplane::attach::AttachError>) -> String {
    match way {
        Ok(way) => way.as_str().to_owned(),
        Err(error) => format!("missing: {:#}", anyhow::Error::new(error)),
    }
}

fn device_name(ifindex: u32) -> String {
    nix::net::if_::if_indextoname(ifindex)
        .map_or_else(|_| "-".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn map_view(pins: &Pins, name: &'static str) -> anyhow::Result<MapView> {
    let map = PinnedMap::open(pins, name, Access::Read)?;
    // The others are per-CPU arrays, which are neither full nor empty.
    let countable = ![map::STATS, map::DROPS, map::COUNTERS].contains(&name);
    let used = countable.then(|| map.count()).transpose()?;
    Ok(MapView {
        name,
        rows: map.capacity(),
        used,
    })
}

fn sums(
    pins: &Pins,
    name: &'static str,
    numbered: &[(&'static str, u32)],
) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let array = PerCpu::<u64>::open(pins, name)?;
    numbered
        .iter()
        .map(|(name, index)| Ok((*name, array.get(*index)?.iter().sum())))
        .collect()
}

fn text(status: &Status) -> String {
    let Status {
        version,
        layout,
        pin_root,
        settings,
        devices,
        maps,
        drops,
        counters,
    } = status;
    let node_ports = match (settings.node_port_min, settings.node_port_max) {
        (Some(min), Some(max)) => format!("{min}-{max}"),
        _ => "none".to_owned(),
    };
    let head = format!(
        "Version:     {version} (map layout {layout})\nPin root:    {pin_root}\nClock:       {} jiffies/s\n\
         Idle:        TCP {} s, handshake {} s, closing {} s, UDP {} s\nHash seed:   {}\nNodePorts:   {node_ports}\n",
        settings.jiffies_per_second,
        settings.tcp_established_seconds,
        settings.tcp_handshake_seconds,
        settings.tcp_closing_seconds,
        settings.udp_idle_seconds,
        settings.hash_seed,
    );
    let devices = devices.iter().map(|device| {
        let role = if device.stacked {
            format!("{} (stacked)", device.role)
        } else {
            device.role.to_owned()
        };
        vec![
            device.name.clone(),
            device.ifindex.to_string(),
            role,
            device.ingress.clone(),
            device.egress.clone(),
        ]
    });
    let devices = table(
        &["DEVICE", "IFINDEX", "ROLE", "INGRESS", "EGRESS"],
        &["IFINDEX"],
        devices,
    );
    let maps = maps.iter().map(|map| {
        vec![
            map.name.to_owned(),
            map.used.map_or_else(|| "-".to_owned(), |used| used.to_string()),
            map.rows.to_string(),
        ]
    });
    let maps = table(&["MAP", "USED", "ROWS"], &["USED", "ROWS"], maps);
    let numbers = |title: &str, numbers: &BTreeMap<&str, u64>| {
        let rows = numbers
            .iter()
            .map(|(name, count)| vec![(*name).to_owned(), count.to_string()]);
        table(&[title, "COUNT"], &["COUNT"], rows)
    };
    [
        head,
        devices,
        maps,
        numbers("DROPS", drops),
        numbers("COUNTERS", counters),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_node_ports_their_range_is_null() {
        let row = Settings {
            node_port_min: 30_000,
            node_port_max: 30_000,
            ..Settings::default()
        };
        let view = settings_view(&row);
        assert_eq!(
            (view.node_port_min, view.node_port_max),
            (Some(30_000), Some(30_000))
        );
        for (node_port_min, node_port_max) in [(1, 0), (0, 0)] {
            let none = Settings {
                node_port_min,
                node_port_max,
                ..row
            };
            let view = settings_view(&none);
            assert_eq!((view.node_port_min, view.node_port_max), (None, None));
        }
    }
}
