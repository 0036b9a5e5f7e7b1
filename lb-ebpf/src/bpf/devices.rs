//! The rows of devices, of which each CPU remembers those that it has met: known flows need one for each packet, and a
//! hash table takes as long as all the rest of the look.

use lb_common::Device;

use super::maps;

/// How many devices a CPU remembers: each in the place of its index, modulo this number.
pub(super) const KNOWN_DEVICES: u32 = 64;

/// A device that a CPU has met. Good while the settings' epoch of routes is the same: the agent raises it after it has
/// written rows of devices.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct KnownDevice {
    /// Which it is; 0: none.
    ifindex: u32,
    /// [`lb_common::Settings::route_epoch`] from before its row was read.
    epoch: u32,
    /// Its row.
    row: Device,
}

/// The row of a device; `None` when the agent does not know it.
#[inline(always)]
pub(super) fn known(ifindex: u32) -> Option<Device> {
    let known = maps::KNOWN_DEVICES.get_ptr(ifindex % KNOWN_DEVICES)?;
    let epoch = maps::SETTINGS.get(0)?.route_epoch;
    // SAFETY: this CPU's own element, which lives as long as the map.
    unsafe {
        let difference = ((*known).ifindex ^ ifindex) | ((*known).epoch ^ epoch);
        (difference == 0 || lb_meet_device(ifindex) != 0).then(|| (*known).row)
    }
}

/// Looks a device's row up, and remembers it; 0 when there is none. A global function: see [`super::flows`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn lb_meet_device(ifindex: u32) -> u32 {
    let (Some(known), Some(settings)) = (
        maps::KNOWN_DEVICES.get_ptr_mut(ifindex % KNOWN_DEVICES),
        maps::SETTINGS.get_ptr(0),
    ) else {
        return 0;
    };
    // SAFETY: the elements live as long as their maps, and the first is this CPU's own. The epoch is read before the row;
    // a row that is being replaced is copied anew under the next epoch.
    unsafe {
        let epoch = (&raw const (*settings).route_epoch).read_volatile();
        let Some(row) = maps::DEVICE_ROWS.get_ptr(ifindex) else {
            return 0;
        };
        *known = KnownDevice {
            ifindex,
            epoch,
            row: *row,
        };
    }
    1
}
