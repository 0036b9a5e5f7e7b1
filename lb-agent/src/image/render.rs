//! Rows as text, one a line, in a stable order: what golden tests compare.
//!
//! Places of slots and generations are left out; that slots fit their front end is shown by the backends in them. Of a
//! Maglev table only the shares are shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use lb_common::addr::Address;
use lb_common::{
    Backend, BackendFlags, BackendState, Device, DeviceRole, FamilySettings, NodeAddress, Port, RangeKey,
    RangeList, ServiceFlags, ServiceKey, ServicePolicy, ServiceValue, Settings, SettingsFlags, SlotRange, V4,
    V6,
};

use super::{is_address, maglev, name_text};
use crate::desired::seed_of_words;
use crate::model::Protocol;
use crate::store::{DevicesTable, FamilyTables, Names, Policies, Rows, SettingsTable};

/// Every row as a line, sorted by the name of the port that it belongs to.
pub fn render(rows: &Rows) -> String {
    let mut lines = BTreeSet::new();
    for (id, name) in rows.iter::<Names>() {
        lines.insert(format!("PORT {} id={id}", name_text(name)));
    }
    for (id, row) in rows.iter::<Policies>() {
        let ServicePolicy {
            affinity,
            interval,
            source_interval,
        } = row;
        lines.insert(format!(
            "POLICY {} affinity={affinity} interval={interval} source-interval={source_interval}",
            name_of(rows, id)
        ));
    }
    render_family::<V4>(rows, &mut lines);
    render_family::<V6>(rows, &mut lines);
    for (ifindex, row) in rows.iter::<DevicesTable>() {
        lines.insert(device_line(ifindex, *row));
    }
    for (_, row) in rows.iter::<SettingsTable>() {
        lines.insert(settings_line(row));
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

fn render_family<F: FamilyTables>(rows: &Rows, lines: &mut BTreeSet<String>) {
    for (key, row) in rows.iter::<F::Services>() {
        if is_address(row) {
            lines.insert(format!("ADDR {}{}", key.addr, words(row.flags, &SERVICE_FLAGS)));
        } else {
            lines.insert(service_line::<F>(rows, &key, row));
        }
    }
    for (index, row) in rows.iter::<F::Backends>() {
        lines.insert(backend_line(rows, index, row));
    }
    for (addr, NodeAddress { node_ports }) in rows.iter::<F::NodeAddresses>() {
        lines.insert(format!("NODE {addr} node-ports={node_ports}"));
    }
    for (key, _) in rows.iter::<F::Ranges>() {
        lines.insert(range_line(rows, key));
    }
    for (key, index) in rows.iter::<F::Locals>() {
        let name = name_of(rows, key.service);
        lines.insert(format!("LOCAL {name} {} -> index={index}", key.addr));
    }
    for (ifindex, addr) in rows.iter::<F::SnatAddresses>() {
        lines.insert(format!("SNAT {ifindex} {addr}"));
    }
    for (_, row) in rows.iter::<F::FamilySettings>() {
        lines.insert(family_line::<F>(row));
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
    let (name, protocol) = (name_of(rows, service), Protocol::name_of(key.protocol));
    let front = if flags & ServiceFlags::NODE_PORT != 0 {
        format!(
            "{}:{}",
            if key.addr.ip().is_ipv4() { "NODE4" } else { "NODE6" },
            key.port
        )
    } else {
        socket(key.addr, key.port).to_string()
    };
    let flags = words(flags, &SERVICE_FLAGS);
    format!("SVC {name} {front}/{protocol} -> {backends}{flags}")
}

/// The backends of the slots in their order; of a table how many slots each has.
fn region_text<F: FamilyTables>(rows: &Rows, region: SlotRange) -> String {
    let backends = (region.base..region.base.saturating_add(region.count)).map(|index| {
        let slot = rows.get::<F::Slots>(&index);
        let ours = slot.filter(|slot| slot.generation == region.generation);
        let backend = ours.and_then(|slot| rows.get::<F::Backends>(&slot.backend));
        backend.map_or_else(|| "?".to_owned(), |row| socket(row.addr, row.port).to_string())
    });
    if !maglev::SIZES.contains(&region.count) {
        return format!("[{}]", backends.collect::<Vec<_>>().join(" "));
    }
    let mut shares = BTreeMap::<String, u32>::new();
    for backend in backends {
        *shares.entry(backend).or_default() += 1;
    }
    let shares = shares
        .into_iter()
        .map(|(backend, slots)| format!("{backend}={slots}"));
    format!(
        "maglev {} [{}]",
        region.count,
        shares.collect::<Vec<_>>().join(" ")
    )
}

fn range_line<A: Address>(rows: &Rows, key: RangeKey<A>) -> String {
    let list = match key.list {
        RangeList::PODS => "pods".to_owned(),
        RangeList::NODES => "nodes".to_owned(),
        id => name_of(rows, id),
    };
    let length = key.prefix_length.saturating_sub(u32::BITS);
    format!("RANGE {list} {}/{length}", key.addr)
}

fn settings_line(row: &Settings) -> String {
    let (low, high) = (row.node_port_min, row.node_port_max);
    let range = if low > high {
        "none".to_owned()
    } else {
        format!("{low}-{high}")
    };
    let seed = match seed_of_words(row.hash_seed) {
        0 => String::new(),
        seed => format!(" seed={seed}"),
    };
    let flags = words(row.flags, &SETTINGS_FLAGS);
    format!("SETTINGS node-ports={range}{seed}{flags}")
}

fn family_line<F: FamilyTables>(row: &FamilySettings<F::Addr>) -> String {
    let FamilySettings {
        node_addr,
        service_cidrs,
    } = row;
    // Those that are not used match one address, which is nobody's.
    let used = service_cidrs
        .iter()
        .filter(|prefix| prefix.addr != F::Addr::default());
    let services = used.map(|prefix| format!(" services={}&{}", prefix.addr, prefix.mask));
    format!(
        "FAMILY {} node={node_addr}{}",
        F::NAME,
        services.collect::<String>()
    )
}

/// The names of flags that are set; what the rest of the line says already has none.
fn words(flags: u32, names: &[(u32, &str)]) -> String {
    let set = names.iter().filter(|(flag, _)| flags & flag != 0);
    set.flat_map(|(_, name)| [" ", name]).collect()
}

const SERVICE_FLAGS: [(u32, &str); 13] = [
    (ServiceFlags::OUTSIDE_LOCAL, "outside-local"),
    (ServiceFlags::INSIDE_LOCAL, "inside-local"),
    (ServiceFlags::OUTSIDE_DROPS, "outside-drops"),
    (ServiceFlags::INSIDE_DROPS, "inside-drops"),
    (ServiceFlags::AFFINITY, "affinity"),
    (ServiceFlags::SOURCE_RANGES, "source-ranges"),
    (ServiceFlags::LIMITED, "limited"),
    (ServiceFlags::DSR, "dsr"),
    (ServiceFlags::ROUND_ROBIN, "round-robin"),
    (ServiceFlags::LEAST_CONNECTIONS, "least-connections"),
    (ServiceFlags::REJECT, "reject"),
    (ServiceFlags::ECHO, "echo"),
    (ServiceFlags::FROM_UPLINK, "from-uplink"),
];

const SETTINGS_FLAGS: [(u32, &str); 4] = [
    (SettingsFlags::SNAT_ALWAYS, "snat-always"),
    (SettingsFlags::MASQUERADE_ALL, "masquerade-all"),
    (SettingsFlags::DETECTS_PODS, "detects-pods"),
    (SettingsFlags::SERVICE_CIDRS, "service-cidrs"),
];

fn backend_line<A: Address>(rows: &Rows, index: u32, row: &Backend<A>) -> String {
    let Backend {
        addr,
        port,
        epoch,
        service,
        state,
        flags,
        pad: _,
    } = *row;
    let family = if addr.ip().is_ipv4() { 4 } else { 6 };
    match BackendState::from_number(state) {
        Some(BackendState::Free) => format!("BACKEND - free index{family}={index} epoch={epoch}"),
        Some(state) => {
            let (name, target, state) = (name_of(rows, service), socket(addr, port), state.as_str());
            let local = if flags & BackendFlags::LOCAL != 0 {
                if flags & BackendFlags::LOCAL_ONLY != 0 {
                    " local-only"
                } else {
                    " local"
                }
            } else {
                ""
            };
            format!("BACKEND {name} {target} {state} index{family}={index} epoch={epoch}{local}")
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
