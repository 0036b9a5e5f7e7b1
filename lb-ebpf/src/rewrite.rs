//! Puts the endpoints in, and makes the checksums right.

use lb_common::{DropReason, Port, protocol};

use crate::checksum;
use crate::ctx::{ChecksumPatch, Ctx};
use crate::headers::{Fragment, Headers};
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// Rewrites the destination, and the source's port where the flow says so.
#[inline(always)]
pub fn destination<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let Work { packet, flow, .. } = work;
    let change = F::change(packet.key.dst, flow.addr);
    F::write(cx, packet.l3 + F::DESTINATION, flow.addr)
        .and_then(|()| F::patch_header(cx, packet.l3, change))
        .map_err(failed)
        .and_then(|()| transport(cx, packet, change, (flow.peer_port, flow.port)))
}

/// Rewrites the source, and the destination's port where the flow says so.
#[inline(always)]
pub fn source<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let Work { packet, flow, .. } = work;
    let change = F::change(packet.key.src, flow.addr);
    F::write(cx, packet.l3 + F::SOURCE, flow.addr)
        .and_then(|()| F::patch_header(cx, packet.l3, change))
        .map_err(failed)
        .and_then(|()| transport(cx, packet, change, (flow.port, flow.peer_port)))
}

/// Rewrites both endpoints; with `hop`, the packet has also come one hop further.
#[inline(never)]
pub fn both<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, hop: bool) -> Result<(), Stop> {
    let Work { packet, flow, .. } = work;
    let source = F::change(packet.key.src, flow.peer_addr);
    let change = checksum::fold32(u64::from(source) + u64::from(F::change(packet.key.dst, flow.addr)));
    F::write_both(cx, packet.l3, flow.peer_addr, flow.addr)
        .and_then(|()| {
            if hop {
                F::forward(cx, packet.l3, change)
            } else {
                F::patch_header(cx, packet.l3, change)
            }
        })
        .map_err(failed)
        .and_then(|()| transport(cx, packet, change, (flow.peer_port, flow.port)))
}

/// The bounds were checked when the same words were read; half a rewrite must not get out in any case.
#[inline(always)]
fn failed(_stop: Stop) -> Stop {
    Stop::drop(DropReason::RewriteFailed)
}

/// Puts the new ports `(source, destination)` in. `addresses` is the change of the addresses.
#[inline(always)]
fn transport<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    addresses: u32,
    ports: (Port, Port),
) -> Result<(), Stop> {
    if packet.fragment == Fragment::LATER {
        // The checksum that balances the addresses is in the first part.
        if !F::HEADER_CHECKSUM {
            cx.unbalanced(addresses);
        }
        return Ok(());
    }
    let key = &packet.key;
    if key.protocol == protocol::SCTP {
        return sctp(cx, packet, addresses, word(ports));
    }
    let (old_ports, new_ports) = (word((key.src_port, key.dst_port)), word(ports));
    let patch = ChecksumPatch {
        at: packet.l4
            + if packet.is_tcp() {
                TCP_CHECKSUM
            } else {
                UDP_CHECKSUM
            },
        addresses,
        ports: checksum::fold32(checksum::step(0, old_ports, new_ports)),
        zero_is_none: !packet.is_tcp(),
        balanced_in_header: F::HEADER_CHECKSUM,
    };
    cx.write(packet.l4, [new_ports])
        .and_then(|()| cx.patch_checksum(patch))
        .map_err(failed)
}

/// The same for SCTP, whose checksum is a `CRC32c` of its own bytes alone (RFC 9260, section 6.8).
#[inline(always)]
fn sctp<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    addresses: u32,
    new_ports: u32,
) -> Result<(), Stop> {
    if !F::HEADER_CHECKSUM {
        cx.unbalanced(addresses);
    }
    let old_ports = word((packet.key.src_port, packet.key.dst_port));
    if old_ports == new_ports {
        return Ok(());
    }
    if packet.fragment != Fragment::NONE {
        // The checksum covers the parts that are yet to come.
        return Err(Stop::drop(DropReason::SctpFragment));
    }
    if sctp_ports(cx, packet, old_ports, new_ports) {
        Ok(())
    } else {
        Err(Stop::drop(DropReason::RewriteFailed))
    }
}

/// Whether all went well: see [`crate::answer::error::make`].
#[inline(never)]
fn sctp_ports<F: Wire, C: Ctx<F>>(cx: &mut C, packet: &Headers<F>, old_ports: u32, new_ports: u32) -> bool {
    let (l3, l4, at) = (packet.l3, packet.l4, packet.l4 + SCTP_CHECKSUM);
    let ports = checksum::step(0, old_ports, new_ports);
    let done = sctp_checksum(cx, (l3, l4, at), old_ports ^ new_ports).and_then(|change| {
        cx.write(l4, [new_ports])?;
        cx.unbalanced(checksum::fold32(ports + u64::from(change)));
        Ok(())
    });
    done.is_ok()
}

/// Makes the SCTP checksum at `at` right for ports that differ (exclusive or) from those that it was made for, of a packet
/// whose headers begin at `l3` and `l4`. Returns the change of its bytes.
#[inline(always)]
pub fn sctp_checksum<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    (l3, l4, at): (u32, u32, u32),
    ports: u32,
) -> Result<u32, Stop> {
    let [old] = cx.read::<1>(at)?;
    // It is yet to be computed, or the two have agreed to do without (RFC 9653).
    if old == 0 {
        return Ok(0);
    }
    let length = F::end(cx, l3)?.wrapping_sub(l4);
    let new = old ^ cx.crc32c_change(ports, length);
    cx.write(at, [new])?;
    Ok(checksum::fold32(checksum::step(0, old, new)))
}

const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const SCTP_CHECKSUM: u32 = 8;

/// Both ports, as they stand in the packet.
#[inline(always)]
pub const fn word((source, destination): (Port, Port)) -> u32 {
    Port::joined([source, destination])
}
