//! Rows as text, one a line, in a stable order: what golden tests compare.
//!
//! Places of slots and generations are left out; that slots fit their front end is shown by the backends in them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address;
use lb_common::{
    Backend, BackendState, Device, DeviceRole, NodeAddress, Port, ServiceFlags, ServiceKey, ServiceValue,
    SlotRange, V4, V6, protocol,
};

use super::name_text;
use crate::store::{DevicesTable, FamilyTables, Names, Rows, SettingsTable};

/// Every row as a line, sorted by the name of the port that it belongs to.
pub fn render(rows: &Rows) -> String {
    let mut lines = BTreeSet::new();
    for (id, name) in rows.iter::<Names>() {
        lines.insert(format!("PORT {} id={id}", name_text(name)));
    }
    render_family::<V4>(rows, &mut lines);
    render_family::<V6>(rows, &mut lines);
    for (ifindex, row) in rows.iter::<DevicesTable>() {
        lines.insert(device_line(ifindex, *row));
    }
    for (_, row) in rows.iter::<SettingsTable>() {
        let (low, high) = (row.node_port_min, row.node_port_max);
        let range = if low > high {
            "none".to_owned()
        } else {
            format!("{low}-{high}")
        };
        lines.insert(format!("SETTINGS node-ports={range}"));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn render_family<F: FamilyTables>(rows: &Rows, lines: &mut BTreeSet<String>) {
    for (key, row) in rows.iter::<F::Services>() {
        lines.insert(service_line::<F>(rows, &key, row));
    }
    for (index, row) in rows.iter::<F::Backends>() {
        lines.insert(backend_line(rows, index, row));
    }
    for (addr, NodeAddress { node_ports }) in rows.iter::<F::NodeAddresses>() {
        lines.insert(format!("NODE {addr} node-ports={node_ports}"));
    }
}

fn service_line<F: FamilyTables>(rows: &Rows, key: &ServiceKey<F::Addr>, row: &ServiceValue) -> String {
    let ServiceValue {
        service,
        flags,
        outside,
        inside,
    } = *row;
    let mut backends = region_text::<F>(rows, outside);
    if inside != outside {
        backends = format!("{backends} inside {}", region_text::<F>(rows, inside));
    }
    let (name, protocol) = (name_of(rows, service), protocol_name(key.protocol));
    let front = if flags & ServiceFlags::NODE_PORT != 0 {
        format!(
            "{}:{}",
            if key.addr.ip().is_ipv4() { "NODE4" } else { "NODE6" },
            key.port
        )
    } else {
        socket(key.addr, key.port).to_string()
    };
    format!("SVC {name} {front}/{protocol} -> {backends}")
}

fn region_text<F: FamilyTables>(rows: &Rows, region: SlotRange) -> String {
    let backends = (region.base..region.base.saturating_add(region.count)).map(|index| {
        let slot = rows.get::<F::Slots>(&index);
        let ours = slot.filter(|slot| slot.generation == region.generation);
        let backend = ours.and_then(|slot| rows.get::<F::Backends>(&slot.backend));
        backend.map_or_else(|| "?".to_owned(), |row| socket(row.addr, row.port).to_string())
    });
    format!("[{}]", backends.collect::<Vec<_>>().join(" "))
}

fn backend_line<A: Address>(rows: &Rows, index: u32, row: &Backend<A>) -> String {
    let Backend {
        addr,
        port,
        epoch,
        service,
        state,
        flags: _,
        pad: _,
    } = *row;
    let family = if addr.ip().is_ipv4() { 4 } else { 6 };
    match BackendState::from_number(state) {
        Some(BackendState::Free) => format!("BACKEND - free index{family}={index} epoch={epoch}"),
        Some(state) => {
            let (name, target, state) = (name_of(rows, service), socket(addr, port), state.as_str());
            format!("BACKEND {name} {target} {state} index{family}={index} epoch={epoch}")
        }
        None => format!("BACKEND ? state {state} index{family}={index} epoch={epoch}"),
    }
}

fn device_line(ifindex: u32, row: Device) -> String {
    let Device {
        route_ifindex,
        mtu,
        role,
        flags,
        mac: _,
    } = row;
    let role = DeviceRole::from_number(role).map_or("?", DeviceRole::as_str);
    format!("DEVICE {ifindex} {role} route={route_ifindex} mtu={mtu} flags={flags}")
}

fn name_of(rows: &Rows, id: u32) -> String {
    rows.get::<Names>(&id)
        .map_or_else(|| format!("?{id}"), |name| name_text(name).to_owned())
}

fn socket<A: Address>(addr: A, port: Port) -> impl fmt::Display {
    let ip: IpAddr = addr.ip();
    SocketAddr::new(ip, port.number())
}

const fn protocol_name(number: u8) -> &'static str {
    match number {
        protocol::TCP => "tcp",
        protocol::UDP => "udp",
        _ => "?",
    }
}
