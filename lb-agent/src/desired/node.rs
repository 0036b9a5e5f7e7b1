//! The node's own devices and addresses, and where NodePorts listen.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::addr::Address as _;
use lb_common::{Device, DeviceRole, Family, NodeAddress};

use super::ip_family;
use crate::model::{HostState, IpFamily, Node};

/// The rows of `lb_devices`.
pub fn devices(host: &HostState) -> BTreeMap<u32, Device> {
    let row = |device: &crate::model::HostDevice| Device {
        route_ifindex: device.route_ifindex,
        mtu: device.mtu,
        role: device.role as u8,
        flags: device.flags,
        mac: device.mac,
    };
    host.devices
        .iter()
        .map(|device| (device.ifindex, row(device)))
        .collect()
}

/// What processes of the node call it.
const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// The rows of `lb_node_addrs` of one family: the host's own addresses, and localhost, but nothing else of loopback's.
///
/// NodePorts listen at localhost for the node's own processes. Elsewhere they listen at the internal addresses of the Node as far as the host has them; when it has none of them in this
/// family, at the addresses of uplinks.
pub fn addresses<F: Family>(host: &HostState, node: Option<&Node>) -> BTreeMap<F::Addr, NodeAddress> {
    let own = || host.addresses.iter().filter(|address| is_ours::<F>(address.ip));
    let internal = |ip: &IpAddr| node.is_some_and(|node| node.internal_ips.contains(ip));
    let named = own().any(|address| internal(&address.ip));
    let listens = |address: &crate::model::HostAddress| {
        if named {
            internal(&address.ip)
        } else {
            on_uplink(host, address.ifindex)
        }
    };
    let mut rows = BTreeMap::<_, NodeAddress>::new();
    for address in own() {
        if let Some(addr) = F::Addr::from_ip(address.ip) {
            let row = rows.entry(addr).or_default();
            row.node_ports |= u32::from(listens(address));
        }
    }
    let localhost = LOCALHOST.into_iter().filter_map(F::Addr::from_ip);
    rows.extend(localhost.map(|addr| (addr, NodeAddress { node_ports: 1 })));
    rows
}

fn is_ours<F: Family>(ip: IpAddr) -> bool {
    IpFamily::of(ip) == ip_family::<F>() && !ip.is_loopback()
}

fn on_uplink(host: &HostState, ifindex: u32) -> bool {
    host.devices
        .iter()
        .any(|device| device.ifindex == ifindex && device.role == DeviceRole::Uplink)
}

#[cfg(test)]
mod tests {
    use lb_common::{V4, V6};

    use super::*;
    use crate::model::{HostAddress, HostDevice};

    /// Compares at which addresses NodePorts listen on a host with an uplink and a bridge of pods.
    #[track_caller]
    fn check(internal_ips: &[&str], v4: &[&str], v6: &[&str]) {
        let device = |ifindex, role| HostDevice {
            ifindex,
            name: String::new(),
            role,
            flags: 0,
            route_ifindex: 0,
            mtu: 1500,
            mac: [0; 6],
        };
        let address = |(ip, ifindex): (&str, u32)| HostAddress {
            ip: ip.parse().unwrap(),
            ifindex,
        };
        let addresses = [
            ("127.0.0.1", 1),
            ("192.0.2.1", 2),
            ("192.0.2.2", 2),
            ("10.0.0.1", 3),
            ("2001:db8::1", 2),
        ];
        let host = HostState {
            devices: vec![device(2, DeviceRole::Uplink), device(3, DeviceRole::Pod)],
            addresses: addresses.map(address).into(),
        };
        let internal_ips = internal_ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let node = Node {
            name: "node-a".into(),
            internal_ips,
            pod_cidrs: Vec::new(),
        };
        assert_eq!(listening::<V4>(&host, &node), v4);
        assert_eq!(listening::<V6>(&host, &node), v6);
        assert_eq!(super::addresses::<V4>(&host, None).len(), 4);
    }

    fn listening<F: Family>(host: &HostState, node: &Node) -> Vec<String> {
        let rows = addresses::<F>(host, Some(node));
        rows.iter()
            .filter(|(_, row)| row.node_ports == 1)
            .map(|(addr, _)| addr.to_string())
            .collect()
    }

    #[test]
    fn node_ports_listen_at_internal_ips() {
        check(&["192.0.2.2", "2001:db8::1"], &["192.0.2.2"], &["2001:db8::1"]);
        check(&["10.0.0.1"], &["10.0.0.1"], &["2001:db8::1"]);
    }

    #[test]
    fn without_them_node_ports_listen_on_uplinks() {
        check(&[], &["192.0.2.1", "192.0.2.2"], &["2001:db8::1"]);
        check(&["198.51.100.1"], &["192.0.2.1", "192.0.2.2"], &["2001:db8::1"]);
    }
}
