//! The network namespaces of the measurements: one device to a router, by which everything is reached.

use anyhow::{Context as _, Result};

use super::frame::{DEVICE, ROUTER};
use crate::netns::{Netns, veth};

/// The namespace of the node, and that of the router.
#[derive(Debug)]
pub(super) struct Ground {
    inside: Netns,
    outside: Netns,
}

impl Ground {
    pub(super) fn new() -> Result<Self> {
        let (inside, outside) = (Netns::new("bench-in")?, Netns::new("bench-out")?);
        veth((&inside, "eth0"), (&outside, "eth0"))?;
        let [device, router] = [DEVICE, ROUTER].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        inside.ip(&format!(
            "link set eth0 address {device}\n\
             addr add 10.9.0.1/24 dev eth0\n\
             addr add fd00:9::1/64 dev eth0 nodad\n\
             neigh add 10.9.0.2 lladdr {router} dev eth0\n\
             neigh add fd00:9::2 lladdr {router} dev eth0\n\
             route add default via 10.9.0.2\n\
             route add ::/0 via fd00:9::2"
        ))?;
        inside.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        Ok(Self { inside, outside })
    }

    /// The namespace of the router.
    pub(super) fn outside(&self) -> &Netns {
        &self.outside
    }

    /// Runs `work` inside, with the index of the device.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce(u32) -> Result<T> + Send) -> Result<T> {
        self.inside
            .run(|| work(nix::net::if_::if_nametoindex("eth0").context("no eth0")?))
    }
}
