//! How pods are connected to their node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::Host;
use crate::family::Pair;
use crate::netns::veth;

/// How a node's pods are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// A veth and a host route each.
    #[default]
    Routed,
    /// All on one Linux bridge, in one subnet; packets between its ports never meet netfilter.
    Bridge,
    /// The same, and packets between its ports go through netfilter (`br_netfilter`), as Kubernetes asks of such nodes.
    FilteredBridge,
}

/// The gateway that routed pods see.
const POD_GATEWAY: Pair = Pair::new(
    Ipv4Addr::new(169, 254, 1, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
);

/// The address of a pod: the node's number and the pod's on it.
pub const fn pod_address(node: u8, pod: u8) -> Pair {
    Pair::new(
        Ipv4Addr::new(10, 244, node, pod),
        Ipv6Addr::new(0xfd00, 0x244, node as u16, 0, 0, 0, 0, pod as u16),
    )
}

/// The bridge's addresses, in the other layout.
fn bridge_address(node: u8) -> Pair {
    pod_address(node, 1)
}

impl PodNetwork {
    /// Makes what the pods of a node share.
    pub(super) fn prepare(self, node: &Host, number: u8) -> Result<()> {
        let filter = match self {
            Self::Routed => return Ok(()),
            Self::Bridge => "0",
            Self::FilteredBridge => "1",
        };
        let Pair { v4, v6 } = bridge_address(number);
        node.netns.ip(&format!(
            "link add cni0 type bridge\n\
             link set cni0 up\n\
             addr add {v4}/24 dev cni0\n\
             addr add {v6}/64 dev cni0 nodad"
        ))?;
        node.netns.sysctls(&[
            ("bridge/bridge-nf-call-iptables", filter),
            ("bridge/bridge-nf-call-ip6tables", filter),
        ])
    }

    /// Connects a pod to its node.
    pub(super) fn connect(self, node: &Host, number: u8, pod: &Host) -> Result<()> {
        match self {
            Self::Routed => route_pod(node, pod),
            Self::Bridge | Self::FilteredBridge => bridge_pod(node, number, pod),
        }
    }
}

/// As a routing CNI does: host routes at both ends, and a gateway that every pod has.
fn route_pod(node: &Host, pod: &Host) -> Result<()> {
    let device = pod.pod_device();
    veth((&node.netns, &device), (&pod.netns, "eth0"))?;
    let Pair { v4, v6 } = pod.addresses;
    let gateway = POD_GATEWAY;
    node.netns.ip(&format!(
        "addr add {gateway4}/32 dev {device} scope link\n\
         addr add {gateway6}/64 dev {device} nodad\n\
         route add {v4}/32 dev {device} src {source4}\n\
         route add {v6}/128 dev {device} src {source6}",
        gateway4 = gateway.v4,
        gateway6 = gateway.v6,
        source4 = node.addresses.v4,
        source6 = node.addresses.v6,
    ))?;
    pod.netns.ip(&format!(
        "addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"
    ))?;
    pod.netns
        .ip(&format!("route add {}/32 dev eth0 scope link", gateway.v4))?;
    default_routes(pod, gateway)
}

/// As a bridging CNI does: one subnet, the bridge as gateway; a pod may get its own packets back (hairpin mode).
fn bridge_pod(node: &Host, number: u8, pod: &Host) -> Result<()> {
    let device = pod.pod_device();
    veth((&node.netns, &device), (&pod.netns, "eth0"))?;
    node.netns.ip(&format!(
        "link set {device} master cni0\nlink set {device} type bridge_slave hairpin on"
    ))?;
    let Pair { v4, v6 } = pod.addresses;
    pod.netns.ip(&format!(
        "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad"
    ))?;
    default_routes(pod, bridge_address(number))
}

fn default_routes(pod: &Host, gateway: Pair) -> Result<()> {
    let route = |gateway: IpAddr| format!("route add default via {gateway} dev eth0\n");
    pod.netns.ip(&gateway.both().map(route).concat())
}
