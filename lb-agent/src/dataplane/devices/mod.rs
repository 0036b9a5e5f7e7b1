//! The node's devices and addresses, listed and followed by netlink.

mod classify;
mod netlink;
mod patterns;
mod returns;

use std::collections::BTreeMap;

use lb_common::DeviceFlags;

use crate::model::{HostAddress, HostDevice, HostState};

use super::attach::{AttachPoint, Layer};
use super::xdp::{XdpMode, XdpState};

pub use classify::{Device, Link, LinkKind, classify};
pub use netlink::{Changes, Devices};
pub use patterns::{PatternError, Patterns};

/// What a look at the node found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The devices that programs belong at, but for loopback.
    pub devices: Vec<Device>,
    /// The loopback device.
    pub loopback: Option<Loopback>,
    /// The addresses of global scope, loopback's left out.
    pub addresses: Vec<HostAddress>,
}

/// The loopback device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loopback {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
}

impl Host {
    /// For the pipe; `xdp` is how XDP is attached as far as that is known.
    pub fn state(&self, xdp: &BTreeMap<u32, XdpState>) -> HostState {
        let devices = self.devices.iter().map(|device| {
            let state = xdp.get(&device.ifindex).copied();
            HostDevice {
                ifindex: device.ifindex,
                name: device.name.clone(),
                role: device.role,
                flags: device.flags | xdp_flags(device.xdp, state),
                route_ifindex: device.route_ifindex,
                mtu: device.mtu,
                mac: device.mac,
            }
        });
        HostState {
            devices: devices.collect(),
            addresses: self.addresses.clone(),
        }
    }

    /// The name of a device.
    pub fn name_of(&self, ifindex: u32) -> &str {
        let device = self.devices.iter().find(|device| device.ifindex == ifindex);
        device.map_or("-", |device| &device.name)
    }

    /// For attaching.
    pub fn attach_points(&self) -> Vec<AttachPoint> {
        let loopback = self.loopback.iter().map(|loopback| AttachPoint {
            ifindex: loopback.ifindex,
            name: loopback.name.clone(),
            layer: Layer::Loopback,
            xdp: None,
        });
        let devices = self.devices.iter().map(|device| AttachPoint {
            ifindex: device.ifindex,
            name: device.name.clone(),
            layer: if device.l3 {
                Layer::Headerless
            } else {
                Layer::Ethernet
            },
            xdp: device.xdp,
        });
        loopback.chain(devices).collect()
    }
}

/// What a row says of XDP, when it is planned so and attached so.
///
/// That XDP sees packets first is said from before the program is attached until after it has gone: without it TC takes the
/// first packet of a flow, translated by XDP just now, for one that is not the flow's. That packets may be sent out here is
/// said only while the driver is known to do it.
fn xdp_flags(planned: Option<XdpState>, attached: Option<XdpState>) -> u8 {
    let may_run = match attached {
        Some(state) => state.is_ok(),
        None => planned.is_some_and(|plan| plan.is_ok()),
    };
    let sends = [planned, attached] == [Some(Ok(XdpMode::Native)); 2];
    flag(may_run, DeviceFlags::XDP) | flag(sends, DeviceFlags::XDP_TARGET)
}

const fn flag(holds: bool, flag: u8) -> u8 {
    if holds { flag } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::xdp::NoXdp;

    const NATIVE: Option<XdpState> = Some(Ok(XdpMode::Native));
    const GENERIC: Option<XdpState> = Some(Ok(XdpMode::Generic));
    const OFF: Option<XdpState> = Some(Err(NoXdp::Off));
    const FOREIGN: Option<XdpState> = Some(Err(NoXdp::Foreign));

    #[test]
    fn a_row_tells_of_xdp_before_it_is_attached_and_until_it_has_gone() {
        let tells = |planned, attached| xdp_flags(planned, attached) & DeviceFlags::XDP != 0;
        assert!(tells(NATIVE, None));
        assert!(tells(NATIVE, NATIVE));
        assert!(tells(OFF, NATIVE));
        assert!(tells(None, NATIVE));
        assert!(tells(GENERIC, NATIVE));
        assert!(!tells(NATIVE, FOREIGN));
        assert!(!tells(OFF, OFF));
        assert!(!tells(OFF, None));
        assert!(!tells(None, None));
    }

    #[test]
    fn a_row_tells_that_packets_may_be_sent_out_only_while_they_may() {
        let tells = |planned, attached| xdp_flags(planned, attached) & DeviceFlags::XDP_TARGET != 0;
        assert!(tells(NATIVE, NATIVE));
        for (planned, attached) in [
            (NATIVE, None),
            (NATIVE, GENERIC),
            (GENERIC, GENERIC),
            (OFF, NATIVE),
            (None, NATIVE),
            (NATIVE, FOREIGN),
        ] {
            assert!(!tells(planned, attached), "{planned:?} {attached:?}");
        }
    }
}
