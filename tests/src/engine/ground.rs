//! The network namespace in which the kernel engine runs: devices, addresses and routes.
//!
//! Addresses are those of [`super::rows`]; IPv6 ones end with the same four octets.

use anyhow::Result;

use crate::netns::Netns;

/// The ifindex of the device to the outside, which has the default route and the node's addresses.
pub const UPLINK: u32 = 10;
/// The ifindex of a pod's device: the route to 8.0.1.50 leads there.
pub const POD: u32 = 12;
/// The ifindex of a bridge over other devices: the route to 8.0.1.60 leads there.
pub const BRIDGE: u32 = 14;
/// The ifindex of a port of the bridge.
pub const BRIDGE_PORT: u32 = 16;

/// The namespace.
#[derive(Debug)]
pub struct Ground {
    namespace: Netns,
}

impl Ground {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let namespace = Netns::new("packets")?;
        namespace.ip("link add name uplink index 10 type veth peer name uplink-peer
             link add name pod index 12 type veth peer name pod-peer
             link add name bridge index 14 type veth peer name bridge-peer
             link add name port index 16 type veth peer name port-peer
             link set uplink up
             link set uplink-peer up
             link set pod up
             link set pod-peer up
             link set bridge up
             link set bridge-peer up
             addr add 8.0.2.1/24 dev uplink
             addr add 8.0.2.2/24 dev uplink
             addr add 2001:db8:86dd::800:201/120 dev uplink nodad
             addr add 2001:db8:86dd::800:202/120 dev uplink nodad
             route add default dev uplink
             route add ::/0 dev uplink
             route add 8.0.1.50/32 dev pod
             route add 2001:db8:86dd::800:132/128 dev pod
             route add 8.0.1.60/32 dev bridge
             route add 2001:db8:86dd::800:13c/128 dev bridge")?;
        namespace.sysctls(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        Ok(Self { namespace })
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace.run(work)
    }
}
