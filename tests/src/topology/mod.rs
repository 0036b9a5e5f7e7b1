//! The hosts of the tests, one network namespace each:
//!
//! ```text
//!   client --- node1 --- router --- node2
//!               | | |                | |
//!         web-1 ' | ' toolbox  web-3 ' ' web-4
//!               web-2
//! ```
//!
//! Everything that the client reaches lies behind node 1, where the agent runs, and so do the replies of the pods of
//! node 2. For more than one node with an agent see [`Fabric`]; for hosts of a test's own, [`Network`].

mod fabric;
mod host;
mod network;
mod pods;
mod xdp_ends;

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::family::Pair;
use crate::netns::veth;
use crate::scratch;
use crate::wire::FLOOD_SOURCES;

pub use fabric::{Fabric, FabricLayout, Node};
pub use host::{Host, RpFilter};
pub use network::{End, Network, Prefixes};
pub use pods::{PodNetwork, pod_address};

/// What the names of node 1's uplinks begin with.
pub const UPLINKS: &str = "up-*";

/// How many pods serve: the first [`LOCAL_PODS`] on node 1, the others on node 2.
pub const SERVING_PODS: usize = 4;

/// How many of them are on node 1.
const LOCAL_PODS: usize = 2;

/// The client's address.
pub const CLIENT: Pair = Pair::new(
    Ipv4Addr::new(198, 51, 100, 10),
    Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0x10),
);

/// Node 1's address, at which it has its NodePorts.
pub const NODE1: Pair = Pair::new(
    Ipv4Addr::new(10, 10, 1, 1),
    Ipv6Addr::new(0xfd00, 0x10, 1, 0, 0, 0, 0, 1),
);

/// Node 2's address.
pub const NODE2: Pair = Pair::new(
    Ipv4Addr::new(10, 10, 2, 1),
    Ipv6Addr::new(0xfd00, 0x10, 2, 0, 0, 0, 0, 1),
);

/// The router's address on node 1's side.
pub const ROUTER: Pair = Pair::new(
    Ipv4Addr::new(10, 10, 1, 254),
    Ipv6Addr::new(0xfd00, 0x10, 1, 0, 0, 0, 0, 0xfe),
);

/// What may differ between topologies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// How node 1's pods are connected.
    pub pods: PodNetwork,
    /// Node 1's reverse-path filter.
    pub rp_filter: RpFilter,
}

/// All hosts. What is dropped disappears.
#[derive(Debug)]
pub struct Topology {
    /// Outside the cluster.
    pub client: Host,
    /// Runs the agent.
    pub node1: Host,
    /// Between the nodes.
    pub router: Host,
    /// A node without agent.
    pub node2: Host,
    /// A pod of node 1 that serves nothing.
    pub toolbox: Host,
    /// The pods that serve: [`SERVING_PODS`] of them, `web-1` first.
    pub web: Vec<Host>,
}

impl Topology {
    /// The usual layout: routed pods, loose reverse-path filter.
    pub fn new() -> Result<Self> {
        Self::with(Layout::default())
    }

    /// Makes the hosts and connects them.
    pub fn with(layout: Layout) -> Result<Self> {
        scratch::sweep_dead();
        let topology = Self {
            client: Host::new("client", CLIENT, RpFilter::Loose)?,
            node1: Host::new("node1", NODE1, layout.rp_filter)?,
            router: Host::new("router", ROUTER, RpFilter::Loose)?,
            node2: Host::new("node2", NODE2, RpFilter::Loose)?,
            toolbox: Host::new("toolbox", pod_address(1, 100), RpFilter::Loose)?,
            web: (0..SERVING_PODS).map(web).collect::<Result<_>>()?,
        };
        topology.connect_nodes().context("cannot connect the nodes")?;
        topology
            .connect_pods(layout.pods)
            .context("cannot connect the pods")?;
        Ok(topology)
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        [
            &self.client,
            &self.node1,
            &self.router,
            &self.node2,
            &self.toolbox,
        ]
        .into_iter()
        .chain(&self.web)
    }

    /// The serving pods of node 1.
    pub fn local_web(&self) -> impl Iterator<Item = &Host> {
        self.web.iter().take(LOCAL_PODS)
    }

    /// Switches checksum and segmentation offloads of every veth.
    pub fn set_offloads(&self, state: &str) -> Result<()> {
        self.hosts().try_for_each(|host| host.set_offloads(state))
    }

    /// Adds a routed pod to node 1.
    pub fn add_pod(&self, name: &str, number: u8) -> Result<Host> {
        let pod = Host::new(name, pod_address(1, number), RpFilter::Loose)?;
        PodNetwork::Routed.connect(&self.node1, 1, &pod)?;
        Ok(pod)
    }

    fn connect_nodes(&self) -> Result<()> {
        veth((&self.node1.netns, "up-client"), (&self.client.netns, "eth0"))?;
        veth((&self.node1.netns, "up-fabric"), (&self.router.netns, "node1"))?;
        veth((&self.node2.netns, "up-fabric"), (&self.router.netns, "node2"))?;
        // What answers a flood comes back to where it began, and ends there.
        let Prefixes { v4, v6 } = FLOOD_SOURCES;
        self.client
            .netns
            .ip(&format!("route add blackhole {v4}\nroute add blackhole {v6}"))?;
        self.client.netns.ip("addr add 198.51.100.10/24 dev eth0\n\
             addr add 2001:db8:c::10/64 dev eth0 nodad\n\
             route add default via 198.51.100.1\n\
             route add default via 2001:db8:c::1")?;
        self.node1.netns.ip("addr add 198.51.100.1/24 dev up-client\n\
             addr add 2001:db8:c::1/64 dev up-client nodad\n\
             addr add 10.10.1.1/24 dev up-fabric\n\
             addr add fd00:10:1::1/64 dev up-fabric nodad\n\
             route add default via 10.10.1.254\n\
             route add default via fd00:10:1::fe")?;
        self.node1.netns.ip(&format!(
            "route add {v4} via {}\nroute add {v6} via {}",
            CLIENT.v4, CLIENT.v6
        ))?;
        self.router.netns.ip("addr add 10.10.1.254/24 dev node1\n\
             addr add fd00:10:1::fe/64 dev node1 nodad\n\
             addr add 10.10.2.254/24 dev node2\n\
             addr add fd00:10:2::fe/64 dev node2 nodad\n\
             route add 10.244.1.0/24 via 10.10.1.1\n\
             route add fd00:244:1::/64 via fd00:10:1::1\n\
             route add 198.51.100.0/24 via 10.10.1.1\n\
             route add 2001:db8:c::/64 via fd00:10:1::1\n\
             route add 10.244.2.0/24 via 10.10.2.1\n\
             route add fd00:244:2::/64 via fd00:10:2::1")?;
        self.node2.netns.ip("addr add 10.10.2.1/24 dev up-fabric\n\
             addr add fd00:10:2::1/64 dev up-fabric nodad\n\
             route add default via 10.10.2.254\n\
             route add default via fd00:10:2::fe")
    }

    fn connect_pods(&self, network: PodNetwork) -> Result<()> {
        network.prepare(&self.node1, 1)?;
        for pod in self.local_web().chain([&self.toolbox]) {
            network.connect(&self.node1, 1, pod)?;
        }
        self.web
            .iter()
            .skip(LOCAL_PODS)
            .try_for_each(|pod| PodNetwork::Routed.connect(&self.node2, 2, pod))
    }
}

/// The address of a serving pod, counted from 0.
pub fn web_address(index: usize) -> Pair {
    let number = u8::try_from(index + 1).unwrap_or(u8::MAX);
    pod_address(if is_local(index) { 1 } else { 2 }, number + 10)
}

/// The name of the node of a serving pod, counted from 0.
pub fn web_node(index: usize) -> &'static str {
    if is_local(index) { "node1" } else { "node2" }
}

/// Whether a serving pod of this name is on node 1.
pub fn is_local_web(name: &str) -> bool {
    (0..LOCAL_PODS).any(|index| web_name(index) == name)
}

fn is_local(index: usize) -> bool {
    index < LOCAL_PODS
}

fn web(index: usize) -> Result<Host> {
    Host::new(&web_name(index), web_address(index), RpFilter::Loose)
}

/// The name of a serving pod, counted from 0.
pub fn web_name(index: usize) -> String {
    format!("web-{}", index + 1)
}
