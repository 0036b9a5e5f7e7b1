//! The node's own devices and addresses, where NodePorts listen, and what is told of a family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address as _;
use lb_common::{
    Device, DeviceRole, Family, FamilySettings, NodeAddress, Prefix, RangeKey, RangeList, SERVICE_CIDRS,
};

use super::node_ports::{LOCALHOST, NodePortAddresses};
use super::{ip_family, range_key};
use crate::model::{HostAddress, HostState, IpFamily, IpPrefix, Node, World};

/// Prefixes that the flags name, of both families.
#[derive(Clone, Debug, Default)]
pub struct Prefixes {
    /// Those that pods get their addresses from; none: those of this node's Node.
    pub cluster: Vec<IpPrefix>,
    /// Those that services get their addresses from.
    pub service: Vec<IpPrefix>,
    /// Those that may send wrapped packets, beside the nodes.
    pub peers: Vec<IpPrefix>,
    /// Where NodePorts listen.
    pub node_ports: NodePortAddresses,
}

/// The rows of the node in one family.
#[derive(Debug)]
pub struct NodeRows<F: Family> {
    /// The rows of `lb_node_addrs`.
    pub addresses: BTreeMap<F::Addr, NodeAddress>,
    /// The rows of `lb_snat`.
    pub snat_addresses: BTreeMap<u32, F::Addr>,
    /// The row of `lb_family`.
    pub settings: FamilySettings<F::Addr>,
    /// Its lists in `lb_ranges`.
    pub ranges: BTreeSet<RangeKey<F::Addr>>,
}

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

/// The rows of the node of this name in one family.
pub fn node_rows<F: Family>(
    host: &HostState,
    world: &World,
    node_name: &str,
    prefixes: &Prefixes,
) -> NodeRows<F> {
    let node = world.node(node_name);
    let of_node = node.map(|node| node.pod_cidrs.as_slice()).unwrap_or_default();
    let pods = match prefixes.cluster.as_slice() {
        [] => of_node,
        cluster => cluster,
    };
    let nodes = world.nodes().flat_map(|node| &node.internal_ips);
    let nodes = nodes
        .map(|ip| IpPrefix::host(*ip))
        .chain(prefixes.peers.iter().copied());
    let pods = pods
        .iter()
        .filter_map(|prefix| range_key::<F>(RangeList::PODS, *prefix));
    let nodes = nodes.filter_map(|prefix| range_key::<F>(RangeList::NODES, prefix));
    NodeRows {
        addresses: addresses::<F>(host, node, &prefixes.node_ports),
        snat_addresses: snat_addresses::<F>(host),
        settings: FamilySettings {
            node_addr: node_address::<F>(host, node).unwrap_or_default(),
            service_cidrs: service_cidrs::<F>(&service_prefixes(world, prefixes)),
        },
        ranges: pods.chain(nodes).collect(),
    }
}

/// Where a port of the node's own is to be opened that listens where NodePorts do: the unspecified address where every
/// address of the family is meant.
pub fn listening_ips<F: Family>(
    host: &HostState,
    world: &World,
    node_name: &str,
    node_ports: &NodePortAddresses,
) -> BTreeSet<IpAddr> {
    if node_ports.is_everywhere(ip_family::<F>()) {
        return BTreeSet::from([F::Addr::default().ip()]);
    }
    let rows = addresses::<F>(host, world.node(node_name), node_ports);
    let listening = rows.into_iter().filter(|(_, row)| row.node_ports != 0);
    listening.map(|(addr, _)| addr.ip()).collect()
}

/// The prefixes that services get their addresses from: those of the flags first, then those of ServiceCIDRs.
pub fn service_prefixes(world: &World, prefixes: &Prefixes) -> Vec<IpPrefix> {
    let mut found = prefixes.service.clone();
    for prefix in world.service_prefixes() {
        if !found.contains(&prefix) {
            found.push(prefix);
        }
    }
    found
}

/// What is the matter with prefixes of services.
pub fn prefix_problems(service_prefixes: &[IpPrefix]) -> Vec<String> {
    let many = |family| {
        let count = service_prefixes
            .iter()
            .filter(|prefix| prefix.family() == family)
            .count();
        (count > SERVICE_CIDRS).then(|| {
            format!(
                "there are {count} {family} prefixes of services (--service-cidr, ServiceCIDRs); the first \
                 {SERVICE_CIDRS} count, in the others addresses of no service are not dropped"
            )
        })
    };
    [IpFamily::V4, IpFamily::V6]
        .into_iter()
        .filter_map(many)
        .collect()
}

/// The rows of `lb_node_addrs` of one family: the host's own addresses, and localhost, but nothing else of loopback's.
///
/// The primary addresses are the internal ones of the Node as far as the host has them; when it has none of them in this
/// family, those of uplinks.
fn addresses<F: Family>(
    host: &HostState,
    node: Option<&Node>,
    node_ports: &NodePortAddresses,
) -> BTreeMap<F::Addr, NodeAddress> {
    let internal = |ip: &IpAddr| node.is_some_and(|node| node.internal_ips.contains(ip));
    let named = own::<F>(host).any(|address| internal(&address.ip));
    let is_primary = |address: &HostAddress| {
        if named {
            internal(&address.ip)
        } else {
            on_uplink(host, address.ifindex)
        }
    };
    let mut rows = BTreeMap::<_, NodeAddress>::new();
    for address in own::<F>(host) {
        if let Some(addr) = F::Addr::from_ip(address.ip) {
            let row = rows.entry(addr).or_default();
            row.node_ports |= u32::from(node_ports.listens(address.ip, is_primary(address)));
        }
    }
    let localhost = LOCALHOST.into_iter().filter_map(F::Addr::from_ip);
    let row = NodeAddress {
        node_ports: u32::from(node_ports.localhost),
    };
    rows.extend(localhost.map(|addr| (addr, row)));
    rows
}

/// The first address of each device. A bridge's port has its bridge's.
fn snat_addresses<F: Family>(host: &HostState) -> BTreeMap<u32, F::Addr> {
    let mut rows = BTreeMap::new();
    for address in own::<F>(host) {
        if let Some(addr) = F::Addr::from_ip(address.ip) {
            rows.entry(address.ifindex).or_insert(addr);
        }
    }
    let ports = host.devices.iter().filter_map(|device| {
        let addr = rows.get(&device.route_ifindex)?;
        (!rows.contains_key(&device.ifindex)).then_some((device.ifindex, *addr))
    });
    let ports: Vec<_> = ports.collect();
    rows.extend(ports);
    rows
}

/// The first internal address of the Node that the host has, or else the first address of an uplink.
fn node_address<F: Family>(host: &HostState, node: Option<&Node>) -> Option<F::Addr> {
    let ours = |ip: &&IpAddr| own::<F>(host).any(|address| address.ip == **ip);
    let internal = node.and_then(|node| node.internal_ips.iter().find(ours).copied());
    let on_uplink = || own::<F>(host).find(|address| on_uplink(host, address.ifindex));
    let ip = internal.or_else(|| Some(on_uplink()?.ip))?;
    F::Addr::from_ip(ip)
}

fn service_cidrs<F: Family>(prefixes: &[IpPrefix]) -> [Prefix<F::Addr>; SERVICE_CIDRS] {
    let ones = F::Addr::from_ip(IpPrefix::host(F::Addr::default().ip()).mask()).unwrap_or_default();
    let mut rows = [Prefix {
        addr: F::Addr::default(),
        mask: ones,
    }; SERVICE_CIDRS];
    let found = prefixes.iter().filter_map(|prefix| {
        Some(Prefix {
            addr: F::Addr::from_ip(prefix.ip())?,
            mask: F::Addr::from_ip(prefix.mask())?,
        })
    });
    rows.iter_mut().zip(found).for_each(|(row, prefix)| *row = prefix);
    rows
}

/// The host's addresses of one family.
fn own<F: Family>(host: &HostState) -> impl Iterator<Item = &HostAddress> {
    host.addresses.iter().filter(|address| is_ours::<F>(address.ip))
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
    use crate::desired::node_ports::NodePortWord;
    use crate::model::{HostAddress, HostDevice};

    /// Compares at which addresses NodePorts listen on a host with an uplink and a bridge of pods.
    fn device(ifindex: u32, role: DeviceRole, route_ifindex: u32) -> HostDevice {
        HostDevice {
            ifindex,
            name: String::new(),
            role,
            flags: 0,
            route_ifindex,
            mtu: 1500,
            mac: [0; 6],
        }
    }

    fn address((ip, ifindex): (&str, u32)) -> HostAddress {
        HostAddress {
            ip: ip.parse().unwrap(),
            ifindex,
        }
    }

    #[track_caller]
    fn check(internal_ips: &[&str], v4: &[&str], v6: &[&str]) {
        let addresses = [
            ("127.0.0.1", 1),
            ("192.0.2.1", 2),
            ("192.0.2.2", 2),
            ("10.0.0.1", 3),
            ("2001:db8::1", 2),
        ];
        let host = HostState {
            devices: vec![device(2, DeviceRole::Uplink, 0), device(3, DeviceRole::Pod, 0)],
            addresses: addresses.map(address).into(),
        };
        let internal_ips = internal_ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let node = Node {
            name: "node-a".into(),
            internal_ips,
            pod_cidrs: Vec::new(),
            leaving: false,
            zone: None,
        };
        assert_eq!(listening::<V4>(&host, &node), v4);
        assert_eq!(listening::<V6>(&host, &node), v6);
        let node_ports = NodePortAddresses::default();
        assert_eq!(super::addresses::<V4>(&host, None, &node_ports).len(), 4);
    }

    fn listening<F: Family>(host: &HostState, node: &Node) -> Vec<String> {
        let rows = addresses::<F>(host, Some(node), &NodePortAddresses::default());
        rows.iter()
            .filter(|(addr, row)| row.node_ports == 1 && !addr.ip().is_loopback())
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

    #[test]
    fn the_nodes_own_ports_listen_where_node_ports_do() {
        let cases = [
            ("", "127.0.0.1 192.0.2.1", "::1 2001:db8::1"),
            ("primary", "192.0.2.1", "2001:db8::1"),
            ("localhost", "127.0.0.1", "::1"),
            ("all", "0.0.0.0", "::"),
            ("10.0.0.0/8", "10.0.0.1", "::"),
            ("10.0.0.0/8,2001:db8:1::/64", "10.0.0.1", ""),
            (
                "10.0.0.0/8,127.0.0.0/8,2001:db8:1::/64",
                "10.0.0.1 127.0.0.1",
                "::1",
            ),
            ("primary,2001:db8::/32", "192.0.2.1", "2001:db8::1"),
            ("primary,::/0", "127.0.0.1 192.0.2.1", "::"),
        ];
        let mut world = World::default();
        let node = node("node-a", &["192.0.2.1", "2001:db8::1"], &[]);
        world.apply(crate::model::Object::Node(node), crate::model::Origin::default());
        for (flag, v4, v6) in cases {
            let words = flag.split(',').filter(|word| !word.is_empty());
            let at = words.map(|word| word.parse::<NodePortWord>().unwrap()).collect();
            let text = |ips: BTreeSet<IpAddr>| {
                let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
                ips.join(" ")
            };
            let found = (
                text(listening_ips::<V4>(&host(), &world, "node-a", &at)),
                text(listening_ips::<V6>(&host(), &world, "node-a", &at)),
            );
            assert_eq!(found, (v4.to_owned(), v6.to_owned()), "{flag}");
        }
    }

    /// A host with an uplink, a bridge of pods and its port.
    fn host() -> HostState {
        let addresses = [
            ("10.0.0.1", 3),
            ("192.0.2.1", 2),
            ("192.0.2.2", 2),
            ("2001:db8::1", 2),
        ];
        HostState {
            devices: vec![
                device(2, DeviceRole::Uplink, 2),
                device(3, DeviceRole::Pod, 3),
                device(4, DeviceRole::Pod, 3),
                device(5, DeviceRole::Pod, 5),
            ],
            addresses: addresses.map(address).into(),
        }
    }

    fn node(name: &str, internal_ips: &[&str], pod_cidrs: &[&str]) -> Node {
        Node {
            name: name.into(),
            internal_ips: internal_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            leaving: false,
            zone: None,
        }
    }

    fn rows<F: Family>(nodes: &[Node], prefixes: &Prefixes) -> NodeRows<F> {
        let mut world = World::default();
        for node in nodes {
            world.apply(
                crate::model::Object::Node(node.clone()),
                crate::model::Origin::default(),
            );
        }
        node_rows(&host(), &world, "node-a", prefixes)
    }

    #[test]
    fn masqueraded_packets_leave_with_the_first_address_of_the_device_or_of_its_bridge() {
        let rows = rows::<V4>(&[], &Prefixes::default());
        let found: Vec<_> = rows
            .snat_addresses
            .iter()
            .map(|(ifindex, addr)| format!("{ifindex} {addr}"))
            .collect();
        assert_eq!(found, ["2 192.0.2.1", "3 10.0.0.1", "4 10.0.0.1"]);
    }

    #[test]
    fn the_nodes_address_is_internal_or_an_uplinks() {
        let address = |ips| {
            rows::<V4>(&[node("node-a", ips, &[])], &Prefixes::default())
                .settings
                .node_addr
        };
        assert_eq!(address(&["198.51.100.1", "192.0.2.2"]).to_string(), "192.0.2.2");
        assert_eq!(address(&["198.51.100.1"]).to_string(), "192.0.2.1");
        assert_eq!(
            rows::<V6>(&[], &Prefixes::default())
                .settings
                .node_addr
                .to_string(),
            "2001:db8::1"
        );
    }

    #[test]
    fn pods_and_nodes_are_lists_of_prefixes() {
        let list = |rows: &NodeRows<V4>, list| -> Vec<_> {
            let keys = rows.ranges.iter().filter(|key| key.list == list);
            keys.map(|key| format!("{}/{}", key.addr, key.prefix_length - 32))
                .collect()
        };
        let nodes = [
            node(
                "node-a",
                &["192.0.2.1", "2001:db8::1"],
                &["10.244.1.0/24", "fd00:244:1::/64"],
            ),
            node("node-b", &["192.0.2.9"], &["10.244.2.0/24"]),
        ];
        let mut prefixes = Prefixes::default();
        let found = rows::<V4>(&nodes, &prefixes);
        assert_eq!(list(&found, RangeList::PODS), ["10.244.1.0/24"]);
        assert_eq!(list(&found, RangeList::NODES), ["192.0.2.1/32", "192.0.2.9/32"]);
        assert_eq!(rows::<V6>(&nodes, &prefixes).ranges.len(), 2);
        prefixes.cluster = ["10.244.0.0/16", "fd00:244::/32"]
            .map(|text| text.parse().unwrap())
            .into();
        prefixes.peers = vec!["198.51.100.0/24".parse().unwrap()];
        let found = rows::<V4>(&nodes, &prefixes);
        assert_eq!(list(&found, RangeList::PODS), ["10.244.0.0/16"]);
        assert_eq!(
            list(&found, RangeList::NODES),
            ["198.51.100.0/24", "192.0.2.1/32", "192.0.2.9/32"]
        );
    }

    #[test]
    fn prefixes_of_services_are_masks_and_the_rest_matches_nothing() {
        let prefixes = Prefixes {
            service: ["10.96.0.0/12", "fd00:96::/112"]
                .map(|text| text.parse().unwrap())
                .into(),
            ..Prefixes::default()
        };
        let found = rows::<V4>(&[], &prefixes).settings.service_cidrs;
        let found = found.map(|prefix| format!("{} {}", prefix.addr, prefix.mask));
        let none = "0.0.0.0 255.255.255.255";
        assert_eq!(found, ["10.96.0.0 255.240.0.0", none, none, none]);
        assert_eq!(prefix_problems(&prefixes.service).len(), 0);
        let many = Prefixes {
            service: vec!["10.96.0.0/12".parse().unwrap(); 5],
            ..Prefixes::default()
        };
        assert_eq!(prefix_problems(&many.service).len(), 1);
    }
}
