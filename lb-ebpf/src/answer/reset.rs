//! TCP resets (RFC 9293, section 3.10.7.1): from the address that the segment was sent to, as if its host had found no
//! connection.

use lb_common::protocol;

use super::message::Header;
use super::pseudo_header;
use crate::checksum;
use crate::ctx::{Ctx, Room};
use crate::headers::tcp_flag;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;

/// Length of a TCP header without options, in bytes.
const LENGTH: u32 = 20;
/// The same, as the header's first bits after the numbers say it: in words.
const OFFSET: u8 = 5 << 4;
/// Where the checksum stands.
const CHECKSUM: u32 = 16;

/// Makes a TCP segment the reset that answers it; whether that went well.
#[inline(never)]
pub(super) fn make<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    put(cx, work).is_ok()
}

#[inline(always)]
fn put<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let packet = &work.packet;
    let (sequence, acknowledgement, flags) = numbers(cx, work)?;
    // The TCP header stays where it is: its checksum may be yet to be computed.
    cx.trim(packet.l4 + LENGTH)?;
    let options = packet.l4 - packet.l3 - F::LENGTH;
    if options != 0 {
        cx.take_away(packet.l3, options, Room::Answer)?;
    }
    let header = Header {
        src: &packet.key.dst,
        dst: &packet.key.src,
        protocol: protocol::TCP,
        length: LENGTH,
    };
    F::write_header(cx, packet.l3, header)?;
    let l4 = packet.l3 + F::LENGTH;
    let ([a, b], [c, d]) = (packet.key.dst_port.octets, packet.key.src_port.octets);
    let words = [
        u32::from_ne_bytes([a, b, c, d]),
        sequence,
        acknowledgement,
        u32::from_ne_bytes([OFFSET, flags, 0, 0]),
        0,
    ];
    let pseudo = pseudo_header::<F>(&header);
    let mut sum = u64::from(pseudo);
    for (at, word) in (l4..).step_by(4).zip(words) {
        cx.write(at, [word])?;
        sum += u64::from(word);
    }
    let whole = !checksum::fold16(checksum::fold32(sum));
    cx.put_checksum(l4 + CHECKSUM, whole, checksum::fold16(pseudo))
}

/// Sequence number, acknowledgement and flags of the reset.
#[inline(always)]
fn numbers<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Result<(u32, u32, u8), Stop> {
    let packet = &work.packet;
    let [_ports, sequence, acknowledgement, fourth, _checksum] = cx.read::<5>(packet.l4)?;
    if packet.tcp_flags & tcp_flag::ACK != 0 {
        return Ok((acknowledgement, 0, tcp_flag::RST));
    }
    let [offset, ..] = fourth.to_ne_bytes();
    let data = packet.l4 + u32::from(offset >> 4) * 4;
    let length = F::end(cx, packet.l3)?.wrapping_sub(data);
    // SYN and FIN count as one each.
    let counted =
        u32::from(packet.tcp_flags & tcp_flag::SYN != 0) + u32::from(packet.tcp_flags & tcp_flag::FIN != 0);
    let next = u32::from_be(sequence).wrapping_add(length).wrapping_add(counted);
    Ok((0, next.to_be(), tcp_flag::RST | tcp_flag::ACK))
}
