//! Several uplinks: replies leave by the one that their flow arrived at.

use lb_common::{DeviceFlags, DeviceRole};

use super::Device;

/// Marks the uplinks that replies are to return by, if there are several.
///
/// Not those of which programs do not meet packets where the kernel routes them: bridges and their ports, and VLANs and
/// what is below them. `carries_vlans` says it of a device by its index.
pub(super) fn return_replies(devices: &mut [Device], carries_vlans: impl Fn(u32) -> bool) {
    let returns = |device: &&mut Device| {
        device.role == DeviceRole::Uplink
            && device.flags & (DeviceFlags::STACKED | DeviceFlags::L3) == 0
            && device.route_ifindex == device.ifindex
            && !carries_vlans(device.ifindex)
    };
    let uplinks: Vec<&mut Device> = devices.iter_mut().filter(returns).collect();
    if uplinks.len() > 1 {
        for device in uplinks {
            device.flags |= DeviceFlags::RETURNS;
        }
    }
}
