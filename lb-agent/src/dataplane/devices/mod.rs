//! The node's devices and addresses, listed and followed by netlink.

mod classify;
mod netlink;
mod patterns;

use crate::model::{HostAddress, HostDevice, HostState};

use super::attach::AttachPoint;

pub use classify::{Device, Link, LinkKind, classify};
pub use netlink::{Changes, Devices};
pub use patterns::{PatternError, Patterns};

/// What a look at the node found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The devices that programs belong at.
    pub devices: Vec<Device>,
    /// The addresses of global scope, loopback's left out.
    pub addresses: Vec<HostAddress>,
}

impl Host {
    /// For the pipe.
    pub fn state(&self) -> HostState {
        let devices = self.devices.iter().map(|device| HostDevice {
            ifindex: device.ifindex,
            name: device.name.clone(),
            role: device.role,
            flags: device.flags,
            route_ifindex: device.route_ifindex,
            mtu: device.mtu,
            mac: device.mac,
        });
        HostState {
            devices: devices.collect(),
            addresses: self.addresses.clone(),
        }
    }

    /// For attaching.
    pub fn attach_points(&self) -> Vec<AttachPoint> {
        let point = |device: &Device| AttachPoint {
            ifindex: device.ifindex,
            name: device.name.clone(),
            l3: device.l3,
        };
        self.devices.iter().map(point).collect()
    }
}
