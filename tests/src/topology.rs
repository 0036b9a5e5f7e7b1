//! The hosts of the tests, one network namespace each:
//!
//! ```text
//!   client --- node1 --- router --- node2
//!               | | |                | |
//!         web-1 ' | ' toolbox  web-3 ' ' web-4
//!               web-2
//! ```
//!
//! There is no masquerade yet, so everything that the client reaches lies behind node 1, where the agent runs, and
//! so do the replies of the pods of node 2.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};

use crate::family::Pair;
use crate::netns::{Netns, veth};
use crate::scratch;

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

/// The gateway that routed pods see.
const POD_GATEWAY: Pair = Pair::new(
    Ipv4Addr::new(169, 254, 1, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
);

/// The bridge's addresses, in the other layout.
const BRIDGE: Pair = Pair::new(
    Ipv4Addr::new(10, 244, 1, 1),
    Ipv6Addr::new(0xfd00, 0x244, 1, 0, 0, 0, 0, 1),
);

/// How node 1's pods are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNetwork {
    /// A veth and a host route each.
    #[default]
    Routed,
    /// All on one Linux bridge, in one subnet.
    Bridge,
}

/// Node 1's reverse-path filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RpFilter {
    /// Any route back will do.
    #[default]
    Loose,
    /// The route back must be the device of arrival.
    Strict,
}

/// What may differ between topologies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// How node 1's pods are connected.
    pub pods: PodNetwork,
    /// Node 1's reverse-path filter.
    pub rp_filter: RpFilter,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Its name for people, and the backend's name in answers.
    pub name: String,
    /// Where it lives.
    pub netns: Netns,
    /// Its addresses.
    pub addresses: Pair,
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
        for host in self.hosts() {
            for device in host.veths()? {
                let features = ["tx", "rx", "gso", "gro", "tso"].map(|feature| [feature, state]);
                let arguments = [&["-K", &device], features.as_flattened()].concat();
                host.netns.command("ethtool", &arguments)?;
            }
        }
        Ok(())
    }

    /// Adds a routed pod to node 1.
    pub fn add_pod(&self, name: &str, number: u8) -> Result<Host> {
        let pod = Host::new(name, pod_address(1, number), RpFilter::Loose)?;
        route_pod(&self.node1, &pod)?;
        Ok(pod)
    }

    fn connect_nodes(&self) -> Result<()> {
        veth((&self.node1.netns, "up-client"), (&self.client.netns, "eth0"))?;
        veth((&self.node1.netns, "up-fabric"), (&self.router.netns, "node1"))?;
        veth((&self.node2.netns, "up-fabric"), (&self.router.netns, "node2"))?;
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
        let pods_of_node1 = self.local_web().chain([&self.toolbox]);
        match network {
            PodNetwork::Routed => pods_of_node1
                .into_iter()
                .try_for_each(|pod| route_pod(&self.node1, pod))?,
            PodNetwork::Bridge => {
                make_bridge(&self.node1)?;
                pods_of_node1
                    .into_iter()
                    .try_for_each(|pod| bridge_pod(&self.node1, pod))?;
            }
        }
        self.web
            .iter()
            .skip(LOCAL_PODS)
            .try_for_each(|pod| route_pod(&self.node2, pod))
    }
}

impl Host {
    fn new(name: &str, addresses: Pair, rp_filter: RpFilter) -> Result<Self> {
        let netns = Netns::new(name)?;
        let rp_filter = match rp_filter {
            RpFilter::Loose => "2",
            RpFilter::Strict => "1",
        };
        netns.sysctls(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv4/conf/all/rp_filter", rp_filter),
            ("ipv4/conf/default/rp_filter", rp_filter),
        ])?;
        Ok(Self {
            name: name.to_owned(),
            netns,
            addresses,
        })
    }

    /// The device at node's end of the veth of a pod of this name.
    pub fn pod_device(&self) -> String {
        format!("pod-{}", self.name)
    }

    fn veths(&self) -> Result<Vec<String>> {
        let links = self
            .netns
            .command("ip", &["-o", "link", "show", "type", "veth"])?;
        let name = |line: &str| line.split([' ', '@', ':']).nth(2).map(str::to_owned);
        links
            .lines()
            .map(|line| name(line).context("a link has no name"))
            .collect()
    }
}

/// The address of a pod: the node's number and the pod's on it.
fn pod_address(node: u8, pod: u8) -> Pair {
    Pair::new(
        Ipv4Addr::new(10, 244, node, pod),
        Ipv6Addr::new(0xfd00, 0x244, node.into(), 0, 0, 0, 0, pod.into()),
    )
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

fn is_local(index: usize) -> bool {
    index < LOCAL_PODS
}

fn web(index: usize) -> Result<Host> {
    Host::new(&format!("web-{}", index + 1), web_address(index), RpFilter::Loose)
}

/// Connects a pod as a routing CNI does: host routes at both ends, and a gateway that every pod has.
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

fn make_bridge(node: &Host) -> Result<()> {
    node.netns.ip(&format!(
        "link add cni0 type bridge\n\
         link set cni0 up\n\
         addr add {}/24 dev cni0\n\
         addr add {}/64 dev cni0 nodad",
        BRIDGE.v4, BRIDGE.v6,
    ))?;
    // Without br_netfilter, packets between two ports never meet the node's conntrack.
    node.netns.sysctls(&[
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
    ])
}

/// Connects a pod as a bridging CNI does: one subnet, the bridge as gateway.
fn bridge_pod(node: &Host, pod: &Host) -> Result<()> {
    let device = pod.pod_device();
    veth((&node.netns, &device), (&pod.netns, "eth0"))?;
    node.netns.ip(&format!("link set {device} master cni0"))?;
    let Pair { v4, v6 } = pod.addresses;
    pod.netns.ip(&format!(
        "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad"
    ))?;
    default_routes(pod, BRIDGE)
}

fn default_routes(pod: &Host, gateway: Pair) -> Result<()> {
    let route = |gateway: IpAddr| format!("route add default via {gateway} dev eth0\n");
    pod.netns.ip(&gateway.both().map(route).concat())
}
