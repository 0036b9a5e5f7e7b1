//! One host: a network namespace that forwards, with a name and addresses.

use anyhow::{Context as _, Result};

use crate::family::Pair;
use crate::netns::Netns;

/// A host's reverse-path filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RpFilter {
    /// Any source will do.
    Off,
    /// Any route back will do.
    #[default]
    Loose,
    /// The route back must be the device of arrival.
    Strict,
}

impl RpFilter {
    fn value(self) -> &'static str {
        match self {
            Self::Off => "0",
            Self::Strict => "1",
            Self::Loose => "2",
        }
    }
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

impl Host {
    /// Makes its namespace, without devices.
    pub fn new(name: &str, addresses: Pair, rp_filter: RpFilter) -> Result<Self> {
        let netns = Netns::new(name)?;
        netns.sysctls(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv4/conf/all/rp_filter", rp_filter.value()),
            ("ipv4/conf/default/rp_filter", rp_filter.value()),
            // A test asks for more ICMP errors in a moment than a router gives by default.
            ("ipv4/icmp_ratelimit", "0"),
            ("ipv6/icmp/ratelimit", "0"),
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

    /// Switches features of a device, as `ethtool -K` names them.
    pub fn set_features(&self, device: &str, features: &[&str], state: &str) -> Result<()> {
        let features: Vec<_> = features.iter().map(|feature| [*feature, state]).collect();
        let arguments = [&["-K", device], features.as_flattened()].concat();
        self.netns.command("ethtool", &arguments).map(drop)
    }

    /// Switches checksum and segmentation offloads of every veth.
    pub fn set_offloads(&self, state: &str) -> Result<()> {
        self.veths()?
            .iter()
            .try_for_each(|device| self.set_features(device, &["tx", "rx", "gso", "gro", "tso"], state))
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
