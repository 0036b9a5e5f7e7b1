//! Fragments follow their first one, which alone names the ports.
//!
//! The ports of a first fragment for a service, or of a flow, are remembered under addresses and identification, for as
//! long as a receiver waits for the rest. A later fragment that is faster than the first one is not waited for: it is
//! dropped where the address is known to be a service's, for no route leads to such an address, and the sender has to
//! send the packet once more; elsewhere it goes by.
//!
//! Fragments that hide the transport header from those who look only at the first one (RFC 1858, RFC 3128) are dropped
//! where the address is a service's, and for anybody else none of our business.

use lb_common::{
    Counter, DeviceRole, DropReason, Fragment as Ports, FragmentKey, ServiceFlags, ServiceKey, Stage,
    protocol,
};

use crate::ctx::{Ctx, Hook};
use crate::headers::Fragment;
use crate::hop;
use crate::service;
use crate::verdict::Stop;
use crate::wire::{Network, Part, Wire};
use crate::work::Work;

/// For so many seconds are ports remembered: the kernel, too, waits for the rest of a packet for 30 seconds by default
/// (`ipfrag_time`), and an identification may come again.
const SECONDS: u32 = 30;

/// What a fragment is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    /// Its ports are known.
    Known,
    /// It goes by.
    Foreign,
    /// XDP leaves it to TC.
    Left,
    /// Dropped: [`DropReason::TinyFragment`].
    Tiny,
    /// Dropped: [`DropReason::OverlappingFragment`].
    Overlapping,
    /// Dropped: [`DropReason::UnknownFragment`].
    Unknown,
}

/// Remembers the ports of a first fragment; finds those of a later one.
///
/// XDP leaves fragments to TC.
#[inline(always)]
pub fn meet<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    match judge(cx, work) {
        Met::Known => Ok(()),
        Met::Foreign => Err(Stop::PASS),
        Met::Left => Err(hop::pass(cx)),
        Met::Tiny => Err(Stop::drop(DropReason::TinyFragment)),
        Met::Overlapping => Err(Stop::drop(DropReason::OverlappingFragment)),
        Met::Unknown => Err(Stop::drop(DropReason::UnknownFragment)),
    }
}

#[inline(never)]
fn judge<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Met {
    if cx.hook() == Hook::Xdp {
        return if cx.may_be_front_end(work.packet.key.dst) {
            Met::Left
        } else {
            Met::Foreign
        };
    }
    let Ok(part) = part(cx, work) else {
        return Met::Foreign;
    };
    if work.packet.fragment == Fragment::LATER {
        later(cx, work, part)
    } else {
        first(cx, work, part)
    }
}

/// Reads the headers once more, as far as they are about fragments; nobody else looks at the end of a later one's.
#[inline(always)]
fn part<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<Part, Stop> {
    let mut network = Network::default();
    F::network(cx, work.packet.l3, &mut network)?;
    let end = F::end(cx, work.packet.l3)?;
    if end < work.packet.l4 || cx.length() < work.packet.l4 {
        return Err(Stop::PASS);
    }
    F::part(cx, network.transport.part)
}

#[inline(always)]
fn first<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, part: Part) -> Met {
    let end = F::end(cx, work.packet.l3).unwrap_or(0);
    let is_cut = work.packet.l4 + header_length(work) > end;
    if is_cut || work.packet.fragment == Fragment::TINY {
        return if is_service(cx, work) {
            Met::Tiny
        } else {
            Met::Foreign
        };
    }
    if is_ours(cx, work) {
        let ports = Ports {
            src_port: work.packet.key.src_port,
            dst_port: work.packet.key.dst_port,
            first_seen: cx.now(),
        };
        cx.set_fragment(&key(work, part), &ports);
    }
    Met::Known
}

#[inline(always)]
fn later<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, part: Part) -> Met {
    let found = cx.fragment(&key(work, part)).filter(|ports| {
        let second = cx.settings().jiffies_per_second;
        // Half a second more, so that a whole number of seconds is on one side of it.
        let limit = second.wrapping_mul(SECONDS).wrapping_add(second >> 1);
        cx.now().wrapping_sub(ports.first_seen) <= limit
    });
    if found.is_none() && !is_service(cx, work) {
        cx.count(Counter::Fragment);
        return Met::Foreign;
    }
    if part.offset < header_length(work) {
        return Met::Overlapping;
    }
    let Some(ports) = found else {
        return Met::Unknown;
    };
    work.packet.key.src_port = ports.src_port;
    work.packet.key.dst_port = ports.dst_port;
    Met::Known
}

/// Whether the packet may be translated: there is an entry for it, or it is for a service.
#[inline(always)]
fn is_ours<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    if cx.flow(&work.packet.key, &mut work.flow) {
        return true;
    }
    let stage = work.packet.key.stage;
    if stage == Stage::Post as u8 {
        if !cx.is_own() {
            return false;
        }
        // What the node itself sends is looked up once more, as in pre.
        work.packet.key.stage = Stage::Pre as u8;
        let stands = cx.flow(&work.packet.key, &mut work.flow);
        work.packet.key.stage = stage;
        if stands {
            return true;
        }
    }
    service::find(cx, &work.packet.key, &mut work.front_end)
}

/// Whether the address is one of services alone, which no packet without a front end is for.
#[inline(always)]
fn is_service<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> bool {
    let addr = work.packet.key.dst;
    if work.packet.key.stage != Stage::Pre as u8 || !cx.may_be_front_end(addr) {
        return false;
    }
    let Some(row) = cx.service(&ServiceKey::address(addr)) else {
        return false;
    };
    let counts = row.flags & ServiceFlags::FROM_UPLINK == 0
        || cx
            .device(cx.ifindex())
            .is_some_and(|device| device.role == DeviceRole::Uplink as u8);
    counts && cx.node_address(addr).is_none()
}

#[inline(always)]
fn key<F: Wire>(work: &Work<F>, part: Part) -> FragmentKey<F::Addr> {
    let key = &work.packet.key;
    FragmentKey {
        src: key.src,
        dst: key.dst,
        id: part.id,
        protocol: key.protocol,
        stage: key.stage,
        pad: [0; 2],
    }
}

/// The least of a transport header, which a first fragment has to hold.
#[inline(always)]
fn header_length<F: Wire>(work: &Work<F>) -> u32 {
    match work.packet.key.protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        _ => 8,
    }
}
