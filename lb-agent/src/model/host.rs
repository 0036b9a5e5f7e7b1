//! The node: as Kubernetes knows it, and as its kernel knows it.

use std::net::IpAddr;

use lb_common::DeviceRole;

use super::IpPrefix;

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its addresses of type `InternalIP`.
    pub internal_ips: Vec<IpAddr>,
    /// The prefixes that its pods get their addresses from.
    pub pod_cidrs: Vec<IpPrefix>,
    /// Whether it is about to be removed, so that load balancers should send it nothing new (KEP-3836).
    pub leaving: bool,
    /// The zone that it is in (label `topology.kubernetes.io/zone`), when known.
    pub zone: Option<String>,
}

/// A ServiceCIDR object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Its name.
    pub name: String,
    /// The prefixes that services get their addresses from.
    pub prefixes: Vec<IpPrefix>,
}

/// A Namespace object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its UID, when it has one.
    pub uid: Option<String>,
}

/// This machine's devices and addresses, as netlink tells them: always all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostState {
    /// The devices that programs are attached to.
    pub devices: Vec<HostDevice>,
    /// The addresses of global scope, on any device.
    pub addresses: Vec<HostAddress>,
}

/// A device that programs are attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostDevice {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub role: DeviceRole,
    /// [`lb_common::DeviceFlags`].
    pub flags: u8,
    /// The device that the route back to a packet's source must name.
    pub route_ifindex: u32,
    /// The largest network packet that it takes, in bytes.
    pub mtu: u32,
    /// Its hardware address; all zero where it has none.
    pub mac: [u8; 6],
}

/// An address of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub ip: IpAddr,
    /// The device that it is on, which need not be in [`HostState::devices`].
    pub ifindex: u32,
}
