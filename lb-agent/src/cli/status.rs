//! `lb-agent status`.
//!
//! JSON: an object with
//!
//! - `version`, `layout`, `pin_root`;
//! - `settings`: the row of `lb_settings`; `node_port_min` and `node_port_max` are null when there are no NodePorts, and
//!   `snat_port_min` and `snat_port_max` when nothing can be masqueraded;
//! - `devices`, each `name`, `ifindex`, `role`, `stacked`, `xdp` (`native`, `generic` or null), `xdp_reason` (why an uplink
//!   has none: `off`, `no-ethernet`, `stacked`, `bridge-port`, `virtual`, `vlans`, `foreign`, `not-loaded` or `refused-` and
//!   the error's number; else null), `ingress` and `egress` (`tcx`, `clsact`, or `missing: why`; null where no program
//!   belongs);
//! - `maps`, each `name`, `rows`, `used` (null where that cannot be counted; a connection has two rows in a table of flows);
//! - `evictions`: `evicted` (an entry of an open flow made room for another), and what packets of such flows led to:
//!   `restored` (half of a flow was made again) and `adopted` (a flow was opened in mid-connection);
//! - `drops` and `counters`: numbers by name.

use std::collections::BTreeMap;

use lb_common::layout::VERSION;
use lb_common::{Counter, Device, DeviceFlags, DeviceRole, Settings, SettingsFlags};
use nix::net::if_::{if_indextoname, if_nametoindex};
use rtnetlink::Handle;
use serde::Serialize;

use super::output::{Format, json, print, table};
use crate::dataplane::attach::{AttachError, Hook, Way, inspect, inspect_xdp};
use crate::dataplane::netlink::connect;
use crate::dataplane::tally::{self, Fill};
use crate::dataplane::xdp::{NoXdp, XdpMode};
use crate::dataplane::{Access, KernelStore, Pins};
use crate::store::{self, MapStore as _};

#[derive(Debug, Serialize)]
struct Status {
    version: &'static str,
    layout: u32,
    pin_root: String,
    settings: SettingsView,
    devices: Vec<DeviceView>,
    maps: Vec<MapView>,
    evictions: Evictions,
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
    route_epoch: u32,
    snat_always: bool,
    masquerade_all: bool,
    node_port_min: Option<u16>,
    node_port_max: Option<u16>,
    snat_port_min: Option<u16>,
    snat_port_max: Option<u16>,
}

#[derive(Debug, Serialize)]
struct DeviceView {
    name: String,
    ifindex: u32,
    role: &'static str,
    stacked: bool,
    xdp: Option<&'static str>,
    xdp_reason: Option<String>,
    ingress: Option<String>,
    egress: Option<String>,
    #[serde(skip)]
    no_xdp: Option<NoXdp>,
}

#[derive(Debug, Serialize)]
struct MapView {
    name: &'static str,
    rows: u32,
    used: Option<usize>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Evictions {
    evicted: u64,
    restored: u64,
    adopted: u64,
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
    let counters: BTreeMap<_, _> = tally::counters(pins)?
        .into_iter()
        .map(|(counter, count)| (counter.as_str(), count))
        .collect();
    let drops = tally::drops(pins)?.into_iter();
    let count = |counter: Counter| counters.get(counter.as_str()).copied().unwrap_or_default();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION"),
        layout: VERSION,
        pin_root: pins.root().display().to_string(),
        settings: settings_view(&settings),
        devices: device_views(pins, &store).await?,
        maps: tally::fills(pins, Access::Read)?
            .into_iter()
            .map(MapView::from)
            .collect(),
        evictions: Evictions {
            evicted: count(Counter::FlowEvicted),
            restored: count(Counter::FlowRestored),
            adopted: count(Counter::FlowAdopted),
        },
        drops: drops.map(|(reason, count)| (reason.as_str(), count)).collect(),
        counters,
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
        route_epoch,
        answer_interval: _,
        flags,
        node_port_min,
        node_port_max,
        snat_port_min,
        snat_port_max,
    } = *settings;
    // 1 and 0 when there are none; both 0 before anything is written.
    let node_ports = (1..=node_port_max).contains(&node_port_min);
    let snat_ports = (1..=snat_port_max).contains(&snat_port_min);
    let seconds = |jiffies: u32| jiffies.checked_div(jiffies_per_second).unwrap_or_default();
    SettingsView {
        jiffies_per_second,
        tcp_established_seconds: seconds(tcp_established),
        tcp_handshake_seconds: seconds(tcp_handshake),
        tcp_closing_seconds: seconds(tcp_closing),
        udp_idle_seconds: seconds(udp_idle),
        hash_seed: u64::from(seed_high) << 32 | u64::from(seed_low),
        route_epoch,
        snat_always: flags & SettingsFlags::SNAT_ALWAYS != 0,
        masquerade_all: flags & SettingsFlags::MASQUERADE_ALL != 0,
        node_port_min: node_ports.then_some(node_port_min),
        node_port_max: node_ports.then_some(node_port_max),
        snat_port_min: snat_ports.then_some(snat_port_min),
        snat_port_max: snat_ports.then_some(snat_port_max),
    }
}

async fn device_views(pins: &Pins, store: &KernelStore) -> anyhow::Result<Vec<DeviceView>> {
    let netlink = connect()?;
    let mut views = Vec::new();
    views.extend(loopback_view(&netlink, pins).await);
    for (ifindex, row) in store.rows::<store::DevicesTable>()? {
        let Device {
            route_ifindex: _,
            mtu: _,
            role,
            flags,
            mac: _,
        } = row;
        // That it cannot be asked for comes up at the other hooks, too.
        let xdp = inspect_xdp(&netlink, pins, ifindex).await.unwrap_or_default();
        let no_xdp = pins.no_xdp(ifindex).filter(|_| xdp.is_none());
        let ingress = inspect(&netlink, pins, ifindex, Hook::Ingress).await;
        let egress = inspect(&netlink, pins, ifindex, Hook::Egress).await;
        views.push(DeviceView {
            name: device_name(ifindex),
            ifindex,
            role: DeviceRole::from_number(role).map_or("unknown", DeviceRole::as_str),
            stacked: flags & DeviceFlags::STACKED != 0,
            xdp: xdp.map(XdpMode::as_str),
            xdp_reason: no_xdp.map(NoXdp::code),
            ingress: Some(place(ingress)),
            egress: Some(place(egress)),
            no_xdp,
        });
    }
    Ok(views)
}

/// Loopback has no row, and a program at egress alone.
async fn loopback_view(netlink: &Handle, pins: &Pins) -> Option<DeviceView> {
    let ifindex = if_nametoindex(LOOPBACK).ok()?;
    let egress = inspect(netlink, pins, ifindex, Hook::Egress).await;
    Some(DeviceView {
        name: LOOPBACK.to_owned(),
        ifindex,
        role: "loopback",
        stacked: false,
        xdp: None,
        xdp_reason: None,
        ingress: None,
        egress: Some(place(egress)),
        no_xdp: None,
    })
}

/// What Linux calls it in every network namespace, unless somebody renames it.
const LOOPBACK: &str = "lo";

fn place(way: Result<Way, AttachError>) -> String {
    match way {
        Ok(way) => way.as_str().to_owned(),
        Err(error) => format!("missing: {:#}", anyhow::Error::new(error)),
    }
}

fn device_name(ifindex: u32) -> String {
    if_indextoname(ifindex).map_or_else(|_| "-".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl From<Fill> for MapView {
    fn from(fill: Fill) -> Self {
        let Fill { map, rows, used } = fill;
        Self {
            name: map,
            rows,
            used,
        }
    }
}

fn text(status: &Status) -> String {
    let numbers = |title: &str, numbers: &BTreeMap<&str, u64>| {
        let rows = numbers
            .iter()
            .map(|(name, count)| vec![(*name).to_owned(), count.to_string()]);
        table(&[title, "COUNT"], &["COUNT"], rows)
    };
    [
        head(status),
        devices_text(&status.devices),
        maps_text(&status.maps),
        numbers("DROPS", &status.drops),
        numbers("COUNTERS", &status.counters),
    ]
    .join("\n")
}

fn head(status: &Status) -> String {
    let settings = &status.settings;
    let range = |ports: (Option<u16>, Option<u16>)| match ports {
        (Some(min), Some(max)) => format!("{min}-{max}"),
        _ => "none".to_owned(),
    };
    let masquerade = match (settings.masquerade_all, settings.snat_always) {
        (true, _) => "everything",
        (false, true) => "as kube-proxy does",
        (false, false) => "when needed",
    };
    let lines = [
        (
            "Version",
            format!("{} (map layout {})", status.version, status.layout),
        ),
        ("Pin root", status.pin_root.clone()),
        ("Clock", format!("{} jiffies/s", settings.jiffies_per_second)),
        (
            "Idle",
            format!(
                "TCP {} s, handshake {} s, closing {} s, UDP {} s",
                settings.tcp_established_seconds,
                settings.tcp_handshake_seconds,
                settings.tcp_closing_seconds,
                settings.udp_idle_seconds
            ),
        ),
        ("Hash seed", settings.hash_seed.to_string()),
        (
            "NodePorts",
            range((settings.node_port_min, settings.node_port_max)),
        ),
        (
            "Masquerade",
            format!(
                "{masquerade}, ports {}",
                range((settings.snat_port_min, settings.snat_port_max))
            ),
        ),
        ("Routes", format!("epoch {}", settings.route_epoch)),
        (
            "Evictions",
            format!(
                "{} entries of open flows (halves of flows restored {}, flows adopted in mid-connection {})",
                status.evictions.evicted, status.evictions.restored, status.evictions.adopted
            ),
        ),
    ];
    lines
        .map(|(name, value)| format!("{:<13}{value}\n", format!("{name}:")))
        .concat()
}

fn devices_text(devices: &[DeviceView]) -> String {
    let none = || "-".to_owned();
    let rows = devices.iter().map(|device| {
        let role = if device.stacked {
            format!("{} (stacked)", device.role)
        } else {
            device.role.to_owned()
        };
        let xdp = match (device.xdp, device.no_xdp) {
            (Some(mode), _) => mode.to_owned(),
            (None, Some(reason)) => format!("no: {reason}"),
            (None, None) => none(),
        };
        vec![
            device.name.clone(),
            device.ifindex.to_string(),
            role,
            xdp,
            device.ingress.clone().unwrap_or_else(none),
            device.egress.clone().unwrap_or_else(none),
        ]
    });
    table(
        &["DEVICE", "IFINDEX", "ROLE", "XDP", "INGRESS", "EGRESS"],
        &["IFINDEX"],
        rows,
    )
}

fn maps_text(maps: &[MapView]) -> String {
    let rows = maps.iter().map(|map| {
        let percent = map.used.map(|used| used * 100 / (map.rows.max(1) as usize));
        let or_none = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        vec![
            map.name.to_owned(),
            or_none(map.used.map(|used| used.to_string())),
            map.rows.to_string(),
            or_none(percent.map(|percent| format!("{percent} %"))),
        ]
    });
    table(&["MAP", "USED", "ROWS", "FULL"], &["USED", "ROWS", "FULL"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ports_their_ranges_are_null() {
        let row = Settings {
            node_port_min: 30_000,
            node_port_max: 30_000,
            snat_port_min: 61_000,
            snat_port_max: 65_000,
            ..Settings::default()
        };
        let view = settings_view(&row);
        assert_eq!(
            (view.node_port_min, view.node_port_max),
            (Some(30_000), Some(30_000))
        );
        assert_eq!(
            (view.snat_port_min, view.snat_port_max),
            (Some(61_000), Some(65_000))
        );
        for (min, max) in [(1, 0), (0, 0)] {
            let none = Settings {
                node_port_min: min,
                node_port_max: max,
                snat_port_min: min,
                snat_port_max: max,
                ..row
            };
            let view = settings_view(&none);
            assert_eq!((view.node_port_min, view.node_port_max), (None, None));
            assert_eq!((view.snat_port_min, view.snat_port_max), (None, None));
        }
    }

    #[test]
    fn a_device_without_xdp_says_why() {
        let view = DeviceView {
            name: "eth0".to_owned(),
            ifindex: 2,
            role: "uplink",
            stacked: false,
            xdp: None,
            xdp_reason: Some(NoXdp::Foreign.code()),
            ingress: Some("tcx".to_owned()),
            egress: None,
            no_xdp: Some(NoXdp::Foreign),
        };
        let text = devices_text(&[view]);
        assert!(
            text.contains("no: another XDP program is attached   tcx       -"),
            "{text}"
        );
    }
}
