//! Addresses of services behave like those of hosts: what is for no front end is rejected, never routed on.

use lb_common::{DeviceRole, DropReason, SERVICE_CIDRS, ServiceFlags, ServiceKey, SettingsFlags};

use crate::ctx::{Ctx, Hook};
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// What becomes of a packet that is for no front end, but perhaps for an address of services.
///
/// Most are for none, and see no more than the filter: the rest are real calls.
#[inline(always)]
pub fn check<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if cx.may_be_front_end(work.packet.key.dst) && asks(cx, work, ServiceFlags::REJECT) {
        return Err(Stop::answer(Answer::Reject));
    }
    let opens = !work.packet.is_tcp() || work.packet.is_syn();
    if opens && cx.settings().flags & SettingsFlags::SERVICE_CIDRS != 0 && is_unused(cx, work) {
        return Err(Stop::drop(DropReason::UnusedServiceAddress));
    }
    Ok(())
}

/// Whether an echo request is to be answered.
#[inline(always)]
pub fn wants_echo<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    cx.may_be_front_end(work.packet.key.dst) && asks(cx, work, ServiceFlags::ECHO)
}

/// Whether the destination has a row as an address, with this flag, that counts where the packet arrives.
///
/// Addresses of the node itself have none: other things listen there.
#[inline(never)]
fn asks<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, flag: u32) -> bool {
    let addr = work.packet.key.dst;
    let Some(row) = cx.service(&ServiceKey::address(addr)) else {
        return false;
    };
    if row.flags & (ServiceFlags::ADDRESS | flag) != ServiceFlags::ADDRESS | flag {
        return false;
    }
    if row.flags & ServiceFlags::FROM_UPLINK != 0 && !is_from_uplink(cx) {
        return false;
    }
    cx.node_address(addr).is_none()
}

#[inline(always)]
fn is_from_uplink<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    cx.hook() != Hook::Egress
        && cx
            .device(cx.ifindex())
            .is_some_and(|device| device.role == DeviceRole::Uplink as u8)
}

/// Whether the destination is in a prefix that services get their addresses from, but no service's.
#[inline(never)]
fn is_unused<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    let addr = work.packet.key.dst;
    let is_in = (0..SERVICE_CIDRS).any(|number| {
        let cidr = cx.service_cidr(number);
        F::difference(F::masked(addr, cidr.mask), cidr.addr) == 0
    });
    is_in && cx.service(&ServiceKey::address(addr)).is_none() && cx.node_address(addr).is_none()
}
