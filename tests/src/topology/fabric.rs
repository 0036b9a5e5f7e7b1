//! Several nodes that balance, behind a router that spreads over them:
//!
//! ```text
//!   client --- edge --- router --- core
//!                       |    |     |   |
//!                    node1 node2 node3 node4
//!                       |    |     |   |
//!                   web-1 web-2 web-3 web-4    and toolbox-1 … toolbox-4, which serve nothing
//! ```
//!
//! The router sends packets for load-balancer addresses to node 1 and node 2 alike, by addresses and ports
//! ([`Fabric::announce`]). Every node routes all that is not its own by way of the router or the core.
//! The paths edge–router and router–core may be narrower than the links at their ends, so that only a router in the
//! middle knows.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use super::{CLIENT, Host, Network, PodNetwork, Prefixes, RpFilter, pod_address};
use crate::family::Pair;
use crate::wire::FLOOD_SOURCES;

/// A node's number, from 1 to [`Fabric::NODES`].
pub type Node = u8;

/// What may differ between fabrics.
#[derive(Clone, Copy, Debug)]
pub struct FabricLayout {
    /// How pods are connected.
    pub pods: PodNetwork,
    /// The nodes' reverse-path filter.
    pub rp_filter: RpFilter,
    /// The MTU between edge and router.
    pub client_path: u32,
    /// The MTU between router and core.
    pub backend_path: u32,
    /// Native XDP is to work on the nodes' uplinks.
    pub native_xdp: bool,
}

impl Default for FabricLayout {
    fn default() -> Self {
        Self {
            pods: PodNetwork::default(),
            rp_filter: RpFilter::default(),
            client_path: 1500,
            backend_path: 1500,
            native_xdp: false,
        }
    }
}

/// All hosts. What is dropped disappears.
#[derive(Debug)]
pub struct Fabric {
    network: Network,
}

/// Where load-balancer addresses come from.
const VIPS: Prefixes<'_> = Prefixes {
    v4: "203.0.113.0/24",
    v6: "2001:db8:cb::/64",
};

impl Fabric {
    /// How many nodes there are, each with one serving pod.
    pub const NODES: Node = 4;

    /// Makes the hosts and connects them.
    pub fn new(layout: FabricLayout) -> Result<Self> {
        let mut fabric = Self {
            network: Network::new(),
        };
        fabric.connect_routers().context("cannot connect the routers")?;
        for node in Self::nodes() {
            fabric
                .connect_node(node, layout)
                .with_context(|| format!("cannot connect node {node}"))?;
        }
        fabric.announce(&[1, 2])?;
        fabric.network.set_mtu(["edge", "router"], layout.client_path)?;
        fabric.network.set_mtu(["router", "core"], layout.backend_path)?;
        Ok(fabric)
    }

    /// The nodes' numbers.
    pub fn nodes() -> impl Iterator<Item = Node> {
        1..=Self::NODES
    }

    /// The hosts and links by themselves.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The client.
    pub fn client(&self) -> &Host {
        &self.network["client"]
    }

    /// A node.
    pub fn node(&self, node: Node) -> &Host {
        &self.network[Self::node_name(node).as_str()]
    }

    /// The serving pod of a node.
    pub fn web(&self, node: Node) -> &Host {
        &self.network[format!("web-{node}").as_str()]
    }

    /// The pod of a node that serves nothing.
    pub fn toolbox(&self, node: Node) -> &Host {
        &self.network[format!("toolbox-{node}").as_str()]
    }

    /// The name of a node.
    pub fn node_name(node: Node) -> String {
        format!("node{node}")
    }

    /// The router sends packets for load-balancer addresses to just these nodes.
    pub fn announce(&self, nodes: &[Node]) -> Result<()> {
        let addresses: Vec<_> = nodes.iter().map(|node| node_address(*node)).collect();
        self.network
            .spread("router", VIPS, &addresses)
            .with_context(|| format!("cannot announce {nodes:?}"))
    }

    /// A node is gone: its link is down, and the router has noticed. `announced` are the nodes that are left.
    pub fn take_away(&self, node: Node, announced: &[Node]) -> Result<()> {
        let router = if is_before_core(node) { "router" } else { "core" };
        self.network.set_link([&Self::node_name(node), router], false)?;
        self.announce(announced)
    }

    /// The router's end of a node's link gets another hardware address, and no longer takes frames to the old one; the
    /// node is told.
    pub fn replace_gateway(&self, node: Node, hardware: &str) -> Result<()> {
        let router = if is_before_core(node) { "router" } else { "core" };
        let name = Self::node_name(node);
        let Pair { v4, v6 } = gateway(node);
        self.network[router]
            .netns
            .ip(&format!("link set {name} address {hardware}"))?;
        self.node(node).netns.ip(&format!(
            "neigh replace {v4} lladdr {hardware} dev up-fabric\n\
             neigh replace {v6} lladdr {hardware} dev up-fabric"
        ))
    }

    /// The prefix of a node's pods of each family.
    pub fn pod_prefixes(node: Node) -> [String; 2] {
        [format!("10.244.{node}.0/24"), format!("fd00:244:{node}::/64")]
    }

    fn connect_routers(&mut self) -> Result<()> {
        let network = &mut self.network;
        network.add("client", CLIENT)?;
        for (router, addresses) in [("edge", EDGE), ("router", ROUTER), ("core", CORE)] {
            network.add(router, addresses)?;
        }
        network.link([("client", "eth0", CLIENT), ("edge", "client", CLIENT_GATEWAY)])?;
        network.link([("edge", "router", EDGE), ("router", "edge", ROUTER)])?;
        network.link([("router", "core", ROUTER_TO_CORE), ("core", "router", CORE)])?;
        network.route("client", Prefixes::ALL, CLIENT_GATEWAY)?;
        network.route("edge", Prefixes::ALL, ROUTER)?;
        network.route("router", CLIENTS, EDGE)?;
        // What answers a flood comes back to where it began, and ends there.
        network.route("router", FLOOD_SOURCES, EDGE)?;
        network.route("edge", FLOOD_SOURCES, CLIENT)?;
        network.blackhole("client", FLOOD_SOURCES)?;
        network.route("core", Prefixes::ALL, ROUTER_TO_CORE)
    }

    fn connect_node(&mut self, node: Node, layout: FabricLayout) -> Result<()> {
        let (name, address, gateway) = (Self::node_name(node), node_address(node), gateway(node));
        let network = &mut self.network;
        network.add_filtering(&name, address, layout.rp_filter)?;
        let router = if is_before_core(node) { "router" } else { "core" };
        network.link([(&name, "up-fabric", address), (router, &name, gateway)])?;
        network.route(&name, Prefixes::ALL, gateway)?;
        let [pods4, pods6] = Self::pod_prefixes(node);
        let pods = Prefixes {
            v4: &pods4,
            v6: &pods6,
        };
        network.route(router, pods, address)?;
        if router == "core" {
            let (nodes4, nodes6) = (format!("10.10.{node}.0/24"), format!("fd00:10:{node}::/64"));
            let nodes = Prefixes {
                v4: &nodes4,
                v6: &nodes6,
            };
            network.route("router", pods, CORE)?;
            network.route("router", nodes, CORE)?;
        }
        layout.pods.prepare(&network[name.as_str()], node)?;
        for (kind, number) in [("web", 10 + node), ("toolbox", 100)] {
            let pod = format!("{kind}-{node}");
            network.add(&pod, pod_address(node, number))?;
            layout
                .pods
                .connect(&network[name.as_str()], node, &network[pod.as_str()])?;
        }
        if layout.native_xdp {
            network.prepare_native_xdp(&name)?;
        }
        Ok(())
    }
}

/// Those that balance are before the core.
fn is_before_core(node: Node) -> bool {
    node <= 2
}

/// A node's address, at which it has its NodePorts.
fn node_address(node: Node) -> Pair {
    fabric_address(node.into(), 1)
}

fn gateway(node: Node) -> Pair {
    fabric_address(node.into(), 254)
}

const fn fabric_address(subnet: u16, host: u8) -> Pair {
    Pair::new(
        Ipv4Addr::new(10, 10, subnet.to_be_bytes()[1], host),
        Ipv6Addr::new(0xfd00, 0x10, subnet, 0, 0, 0, 0, host as u16),
    )
}

const CLIENTS: Prefixes<'_> = Prefixes {
    v4: "198.51.100.0/24",
    v6: "2001:db8:c::/64",
};
const CLIENT_GATEWAY: Pair = Pair::new(
    Ipv4Addr::new(198, 51, 100, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1),
);
const EDGE: Pair = fabric_address(100, 1);
const ROUTER: Pair = fabric_address(100, 2);
const ROUTER_TO_CORE: Pair = fabric_address(101, 1);
const CORE: Pair = fabric_address(101, 2);
