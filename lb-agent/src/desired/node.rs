//! The node's own devices and addresses, and where NodePorts listen.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::addr::Address as _;
use lb_common::{Device, DeviceRole, Family, NodeAddress};

use super::ip_family;
use crate::model::{HostState, IpFamily, Node};

/// The rows of `lb_devices`.
pub fn devices(host: &HostState) -> BTreeMap<u32, Device> {
    let row = |device: &crate::model::HostDevice| Device {
        route_ifindex: device.route_ifindex,
        role: device.role as u8,
        flags: device.flags,
        pad: [0; 2],
    };
    host.devices.iter().map(|device| (device.ifindex, row(device))).collect()
}

/// The rows of `lb_node_addrs` of one family: the host's own addresses without loopback.
///
/// NodePorts listen at the InternalIPs of the Node as far as the host has them; when it has none of them in this
/// family, at the addresses of uplinks.
pub fn addresses<F: Family>(host: &HostState, node: Option<&Node>) -> BTreeMap<F::Addr, NodeAddress> {
    let own = || host.addresses.iter().filter(|address| is_ours::<F>(address.ip));
    let internal = |ip: &IpAddr| node.is_some_and(|node| node.internal_ips.contains(ip));
    let named = own().any(|address| internal(&address.ip));
    let listens = |address: &crate::model::HostAddress| {
        if named { internal(&address.ip) } else { on_uplink(host, address.ifindex) }
    };
    let mut rows = BTreeMap::<_, NodeAddress>::new();
    for address in own() {
        if let Some(addr) = F::Addr::from_ip(address.ip) {
            let row = rows.entry(addr).or_default();
            row.node_ports |= u32::from(listens(address));
        }
    }
    rows
}

fn is_ours<F: Family>(ip: IpAddr) -> bool {
    IpFamily::of(ip) == ip_family::<F>() && !ip.is_loopback()
}

fn on_uplink(host: &HostState, ifindex: u32) -> bool {
    host.devices.iter().any(|device| device.ifindex == ifindex && device.role == DeviceRole::Uplink)
}
