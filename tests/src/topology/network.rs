//! Hosts, links, addresses and routes, each in one line: what the topologies are made of, and what a test makes its own
//! of.
//!
//! ```no_run
//! # use lb_tests::{family::Pair, topology::{Network, Prefixes}};
//! # fn make(client: Pair, router: Pair) -> anyhow::Result<()> {
//! let mut network = Network::new();
//! network.add("client", client)?;
//! network.add("router", router)?;
//! network.link([("client", "eth0", client), ("router", "client", router)])?;
//! network.route("client", Prefixes::ALL, router)?;
//! network.set_mtu(["client", "router"], 1400)?;
//! # Ok(())
//! # }
//! ```

use std::ops::Index;

use anyhow::{Context as _, Result};

use super::xdp_ends::XdpEnds;
use super::{Host, RpFilter};
use crate::family::Pair;
use crate::netns::veth;
use crate::scratch;

/// A prefix of each family, as `ip` takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixes<'a> {
    /// The IPv4 one.
    pub v4: &'a str,
    /// The IPv6 one.
    pub v6: &'a str,
}

impl Prefixes<'_> {
    /// Everything.
    pub const ALL: Self = Self {
        v4: "0.0.0.0/0",
        v6: "::/0",
    };
}

/// One end of a link: host, device, and the device's addresses in subnets of 24 and 64 bits.
pub type End<'a> = (&'a str, &'a str, Pair);

#[derive(Debug)]
struct Port {
    host: String,
    device: String,
}

/// Hosts and the links between them. What is dropped disappears.
#[derive(Debug, Default)]
pub struct Network {
    hosts: Vec<Host>,
    links: Vec<[Port; 2]>,
    xdp_ends: Option<XdpEnds>,
}

impl Network {
    /// Without hosts yet; what dead runs have left behind is removed.
    pub fn new() -> Self {
        scratch::sweep_dead();
        Self::default()
    }

    /// Adds a host with these addresses.
    pub fn add(&mut self, name: &str, addresses: Pair) -> Result<()> {
        self.add_filtering(name, addresses, RpFilter::default())
    }

    /// Adds a host with another reverse-path filter.
    pub fn add_filtering(&mut self, name: &str, addresses: Pair, filter: RpFilter) -> Result<()> {
        self.hosts.push(Host::new(name, addresses, filter)?);
        Ok(())
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    /// Connects two hosts by a veth.
    pub fn link(&mut self, ends: [End<'_>; 2]) -> Result<()> {
        let [(a, a_device, a_addresses), (b, b_device, b_addresses)] = ends;
        veth((&self[a].netns, a_device), (&self[b].netns, b_device))?;
        self.address(a, a_device, a_addresses)?;
        self.address(b, b_device, b_addresses)?;
        self.links
            .push([(a, a_device), (b, b_device)].map(|(host, device)| Port {
                host: host.to_owned(),
                device: device.to_owned(),
            }));
        Ok(())
    }

    /// Gives a device one more address of each family, in subnets of 24 and 64 bits.
    pub fn address(&self, host: &str, device: &str, Pair { v4, v6 }: Pair) -> Result<()> {
        self[host].netns.ip(&format!(
            "addr add {v4}/24 dev {device}\naddr add {v6}/64 dev {device} nodad"
        ))
    }

    /// Adds routes by a next hop.
    pub fn route(&self, host: &str, to: Prefixes<'_>, via: Pair) -> Result<()> {
        let (Prefixes { v4, v6 }, Pair { v4: via4, v6: via6 }) = (to, via);
        self[host]
            .netns
            .ip(&format!("route add {v4} via {via4}\nroute add {v6} via {via6}"))
    }

    /// Replaces routes by ones with several next hops of equal cost, told apart by addresses and ports.
    pub fn spread(&self, host: &str, to: Prefixes<'_>, via: &[Pair]) -> Result<()> {
        let host = &self[host].netns;
        host.sysctls(&[
            ("ipv4/fib_multipath_hash_policy", "1"),
            ("ipv6/fib_multipath_hash_policy", "1"),
        ])?;
        let hops = |hop: fn(&Pair) -> String| via.iter().map(hop).collect::<String>();
        host.ip(&format!(
            "route replace {}{}\nroute replace {}{}",
            to.v4,
            hops(|via| format!(" nexthop via {}", via.v4)),
            to.v6,
            hops(|via| format!(" nexthop via {}", via.v6)),
        ))
    }

    /// A host throws away what is for these prefixes.
    pub fn blackhole(&self, host: &str, to: Prefixes<'_>) -> Result<()> {
        self[host].netns.ip(&format!(
            "route add blackhole {}\nroute add blackhole {}",
            to.v4, to.v6
        ))
    }

    /// Sets the MTU of both ends of the link between two hosts.
    pub fn set_mtu(&self, hosts: [&str; 2], mtu: u32) -> Result<()> {
        for port in self.link_between(hosts)? {
            let host = &self[port.host.as_str()];
            host.netns.ip(&format!("link set {} mtu {mtu}", port.device))?;
        }
        Ok(())
    }

    /// Takes the link between two hosts down, or up again; addresses stay, routes of IPv4 go.
    pub fn set_link(&self, hosts: [&str; 2], is_up: bool) -> Result<()> {
        let state = if is_up { "up" } else { "down" };
        let [port, _] = self.link_between(hosts)?;
        let host = &self[port.host.as_str()];
        host.netns.ip(&format!("link set {} {state}", port.device))
    }

    /// Makes native XDP work on a host's end of each of its links: the other end takes frames that XDP sends, and sends
    /// none whose checksum it leaves to the device.
    pub fn prepare_native_xdp(&mut self, host: &str) -> Result<()> {
        let mut ends = match self.xdp_ends.take() {
            Some(ends) => ends,
            None => XdpEnds::new()?,
        };
        for [a, b] in &self.links {
            let other = match host {
                host if host == a.host => b,
                host if host == b.host => a,
                _ => continue,
            };
            ends.add(&self[other.host.as_str()], &other.device)?;
        }
        self.xdp_ends = Some(ends);
        Ok(())
    }

    fn link_between(&self, hosts: [&str; 2]) -> Result<&[Port; 2]> {
        let is_between = |ends: &&[Port; 2]| {
            hosts
                .iter()
                .all(|host| ends.iter().any(|port| port.host == *host))
        };
        self.links
            .iter()
            .find(is_between)
            .with_context(|| format!("no link between {hosts:?}"))
    }
}

impl Index<&str> for Network {
    type Output = Host;

    #[expect(clippy::panic, reason = "an index may")]
    fn index(&self, name: &str) -> &Host {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .unwrap_or_else(|| panic!("no host {name}"))
    }
}
