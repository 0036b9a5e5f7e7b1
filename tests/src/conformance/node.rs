//! The node of a scenario: a network namespace with an uplink and the device of its pods.
//!
//! ```text
//!   everybody else --- gateway --- UPLINK, with all addresses of the node
//!   pods of this node --- PODS
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Result;
use lb_agent::model::{HostAddress, HostDevice, HostState};
use lb_common::{DeviceFlags, DeviceRole};

use super::flows::{Pods, Scenario};
use crate::netns::Netns;

/// The ifindex of the device to the outside, with the default route.
pub(super) const UPLINK: u32 = 10;
/// The ifindex of the device of the node's pods.
pub(super) const PODS: u32 = 12;
/// The ifindex of the loopback device.
pub(super) const LOOPBACK: u32 = 1;
/// The hardware address of all devices.
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const MAC_TEXT: &str = "02:00:00:00:00:01";
const GATEWAY_MAC: &str = "02:00:00:00:00:02";
const POD_MAC: &str = "02:00:00:00:01:00";
/// What the default routes are for, and where they lead: to link-local addresses, which no scenario uses.
const GATEWAYS: [(&str, &str); 2] = [("0.0.0.0/0", "169.254.0.254"), ("::/0", "fe80::fe")];

/// The namespace of one scenario.
#[derive(Debug)]
pub(super) struct Ground {
    namespace: Netns,
}

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    own: BTreeSet<IpAddr>,
    pods: BTreeSet<IpAddr>,
}

/// Where somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The node itself.
    Node,
    /// A pod of the node.
    Pod,
    /// Somewhere else.
    Outside,
}

impl Ground {
    /// Makes it, with the addresses and routes of these places.
    pub(super) fn new(places: &Places) -> Result<Self> {
        let namespace = Netns::new("conformance")?;
        namespace.sysctls(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
        ])?;
        namespace.ip(&lines(places))?;
        Ok(Self { namespace })
    }

    /// Runs `work` inside, on a thread of its own.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.run(work)
    }
}

/// Commands of `ip` that give a node its devices, addresses and routes.
fn lines(places: &Places) -> String {
    let mut lines = Vec::new();
    for (name, index) in [("uplink", UPLINK), ("pods", PODS)] {
        lines.push(format!(
            "link add name {name} index {index} address {MAC_TEXT} type veth peer name {name}-peer\n\
             link set {name} up\n\
             link set {name}-peer up"
        ));
    }
    for ip in &places.own {
        let nodad = if ip.is_ipv4() { "" } else { " nodad" };
        lines.push(format!("addr add {}{nodad} dev uplink", host_prefix(*ip)));
    }
    for (all, gateway) in GATEWAYS {
        lines.push(format!(
            "neigh add {gateway} lladdr {GATEWAY_MAC} nud permanent dev uplink\n\
             route add {all} via {gateway} dev uplink onlink"
        ));
    }
    for ip in &places.pods {
        lines.push(format!(
            "route add {} dev pods\n\
             neigh add {ip} lladdr {POD_MAC} nud permanent dev pods",
            host_prefix(*ip)
        ));
    }
    lines.join("\n")
}

fn host_prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

impl Places {
    /// Who is where in a scenario. Pods of the node are its endpoints, and all else that is told for a pod and is no
    /// endpoint of another node.
    pub(super) fn of(scenario: &Scenario, pods: &Pods) -> Self {
        let endpoints = scenario.endpoints();
        let own: BTreeSet<_> = scenario.config.node_ips.iter().copied().collect();
        let prefixes = match pods {
            Pods::Unknown => &[],
            Pods::Cluster(prefixes) | Pods::Node(prefixes) => prefixes.as_slice(),
        };
        let is_pod =
            |ip: &IpAddr| !endpoints.contains_key(ip) && prefixes.iter().any(|prefix| prefix.contains(*ip));
        let sources = scenario.packets.iter().map(|packet| packet.src).filter(is_pod);
        let here = endpoints
            .iter()
            .filter(|(_, node)| **node == Some(scenario.config.node_name.as_str()))
            .map(|(ip, _)| *ip);
        let mut pods: BTreeSet<_> = here.chain(sources).collect();
        pods.retain(|ip| !own.contains(ip));
        Self { own, pods }
    }

    /// Where an address is.
    pub(super) fn place(&self, ip: IpAddr) -> Place {
        if ip.is_loopback() || self.own.contains(&ip) {
            Place::Node
        } else if self.pods.contains(&ip) {
            Place::Pod
        } else {
            Place::Outside
        }
    }

    /// Whether an address is the node's, and not localhost.
    pub(super) fn is_address_of_node(&self, ip: IpAddr) -> bool {
        self.own.contains(&ip)
    }
}

/// What netlink would tell of the node; its addresses in the order that the scenario has them. `xdp`: the uplink has an XDP
/// program.
pub(super) fn host_state(node_ips: &[IpAddr], xdp: bool) -> HostState {
    let device = |(ifindex, name, role, flags): (u32, &str, DeviceRole, u8)| HostDevice {
        ifindex,
        name: name.into(),
        role,
        flags,
        route_ifindex: ifindex,
        mtu: 1500,
        mac: MAC,
    };
    let flags = if xdp {
        DeviceFlags::XDP | DeviceFlags::XDP_TARGET
    } else {
        0
    };
    let devices = [
        (UPLINK, "uplink", DeviceRole::Uplink, flags),
        (PODS, "pods", DeviceRole::Pod, 0),
    ];
    HostState {
        devices: devices.map(device).into(),
        addresses: node_ips
            .iter()
            .map(|ip| HostAddress {
                ip: *ip,
                ifindex: UPLINK,
            })
            .collect(),
    }
}
