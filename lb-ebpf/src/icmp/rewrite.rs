//! Puts the endpoints into an ICMP error, and makes all of its checksums right.
//!
//! No helper of the kernel is needed, at any hook: all that is written here is covered by a checksum of the packet
//! that is made right at once, so that the sum of all bytes, which a device may have given, stays what it was. And no
//! device computes checksums of ICMP, so that none is left to it.

use lb_common::protocol;

use crate::checksum;
use crate::ctx::Ctx;
use crate::rewrite::sctp_checksum;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// The error is about a packet of the opposite direction of `work.packet.key`; makes it one about a packet with the
/// tuple `work.other_key`. With `hop`, it is sent on, one hop further.
#[inline(never)]
pub(super) fn error<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, hop: bool) -> Result<(), Stop> {
    let outer = outer(cx, work, hop)?;
    let inner = quoted(cx, work)?;
    let at = work.packet.l4 + CHECKSUM;
    let change = if F::HEADER_CHECKSUM {
        inner
    } else {
        // The pseudo-header.
        checksum::fold32(u64::from(inner) + u64::from(outer))
    };
    let old = cx.read_u16(at)?;
    cx.write_u16(at, checksum::patched(old, change))
}

/// The error's own addresses. Returns the change.
#[inline(always)]
fn outer<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, hop: bool) -> Result<u32, Stop> {
    let Work {
        packet,
        quoted,
        other_key: new,
        ..
    } = work;
    let mut change = F::change(packet.key.dst, new.src);
    F::write(cx, packet.l3 + F::DESTINATION, new.src)?;
    if hop || F::difference(quoted.sender, packet.key.src) == 0 {
        let source = F::change(quoted.sender, new.dst);
        change = checksum::fold32(u64::from(change) + u64::from(source));
        F::write(cx, packet.l3 + F::SOURCE, new.dst)?;
    }
    if hop {
        F::forward(cx, packet.l3, change)?;
    } else {
        F::patch_header(cx, packet.l3, change)?;
    }
    Ok(change)
}

/// The quoted packet. Returns the change of all its bytes.
#[inline(always)]
fn quoted<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<u32, Stop> {
    let Work {
        packet,
        quoted,
        other_key: new,
        ..
    } = work;
    let old = &packet.key;
    let (source, destination) = (F::change(old.dst, new.src), F::change(old.src, new.dst));
    let addresses = checksum::fold32(u64::from(source) + u64::from(destination));
    F::write(cx, quoted.l3 + F::SOURCE, new.src)?;
    F::write(cx, quoted.l3 + F::DESTINATION, new.dst)?;
    F::patch_header(cx, quoted.l3, addresses)?;

    let old_ports = crate::rewrite::word((old.dst_port, old.src_port));
    let new_ports = crate::rewrite::word((new.src_port, new.dst_port));
    let ports = checksum::fold32(checksum::step(0, old_ports, new_ports));
    cx.write(quoted.l4, [new_ports])?;

    // A header checksum balances the addresses.
    let mut change = u64::from(ports);
    if !F::HEADER_CHECKSUM {
        change += u64::from(addresses);
    }
    if quoted.checksum == 0 {
        return Ok(checksum::fold32(change));
    }
    if packet.key.protocol == protocol::SCTP {
        let at = (quoted.l3, quoted.l4, quoted.checksum);
        // It covers all of a packet that is quoted in part.
        change += u64::from(sctp_checksum(cx, at, old_ports ^ new_ports)?);
    } else {
        let covered = checksum::fold32(u64::from(addresses) + u64::from(ports));
        let old = cx.read_u16(quoted.checksum)?;
        let new = match checksum::patched(old, covered) {
            0 if packet.key.protocol == protocol::UDP => 0xffff,
            new => new,
        };
        cx.write_u16(quoted.checksum, new)?;
        change = checksum::step(change, old.into(), new.into());
    }
    Ok(checksum::fold32(change))
}

/// Where the checksum stands in an ICMP header.
const CHECKSUM: u32 = 2;
