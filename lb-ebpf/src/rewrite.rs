//! Puts the endpoint in, and makes the checksums right.

use lb_common::{DropReason, Flow, Port, protocol};

use crate::checksum;
use crate::ctx::{ChecksumPatch, Ctx};
use crate::headers::Headers;
use crate::verdict::Stop;
use crate::wire::Wire;

/// Rewrites the destination, and the source's port where the flow says so.
#[inline(always)]
pub fn destination<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &Flow<F::Addr>,
) -> Result<(), Stop> {
    apply(
        cx,
        packet,
        (F::DESTINATION, packet.key.dst, flow.addr),
        (flow.peer_port, flow.port),
    )
}

/// Rewrites the source, and the destination's port where the flow says so.
#[inline(always)]
pub fn source<F: Wire, C: Ctx<F>>(cx: &mut C, packet: &Headers<F>, flow: &Flow<F::Addr>) -> Result<(), Stop> {
    apply(
        cx,
        packet,
        (F::SOURCE, packet.key.src, flow.addr),
        (flow.port, flow.peer_port),
    )
}

/// `(offset in the network header, old, new)` of the address; `(source, destination)` of the new ports.
#[inline(always)]
fn apply<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    (at, old, new): (u32, F::Addr, F::Addr),
    ports: (Port, Port),
) -> Result<(), Stop> {
    let Headers { key, l3, l4, .. } = packet;
    let addresses = F::change(old, new);
    let (old_ports, new_ports) = (word((key.src_port, key.dst_port)), word(ports));
    let patch = ChecksumPatch {
        at: l4
            + if packet.is_tcp() {
                TCP_CHECKSUM
            } else {
                UDP_CHECKSUM
            },
        addresses,
        ports: checksum::fold32(checksum::step(0, old_ports, new_ports)),
        zero_is_none: key.protocol == protocol::UDP,
        balanced_in_header: F::HEADER_CHECKSUM,
    };
    // The bounds were checked when the same words were read; half a rewrite must not get out in any case.
    F::write(cx, l3 + at, new)
        .and_then(|()| cx.write_u32(*l4, new_ports))
        .and_then(|()| F::patch_header(cx, *l3, addresses))
        .and_then(|()| cx.patch_checksum(patch))
        .map_err(|_| Stop::Drop(DropReason::RewriteFailed))
}

const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;

/// Both ports, as they stand in the packet.
#[inline(always)]
const fn word((source, destination): (Port, Port)) -> u32 {
    let ([a, b], [c, d]) = (source.octets, destination.octets);
    u32::from_ne_bytes([a, b, c, d])
}
