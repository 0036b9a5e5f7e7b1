//! ICMP errors (RFC 792, RFC 4443).
//!
//! A router quotes as much of the packet as it may. Here it is less: what is quoted has to be summed up for the
//! checksum, and all that anybody reads of it are the headers.

use lb_common::protocol;

use super::message::Header;
use super::pseudo_header;
use crate::checksum;
use crate::ctx::{Ctx, Hook, Room};
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::work::Work;
use crate::wrap;

/// The most bytes of a packet that are quoted.
const QUOTED: u32 = 256;
/// Length of the ICMP header in bytes.
const LENGTH: u32 = 8;
/// Where the checksum stands.
pub(super) const CHECKSUM: u32 = 2;

/// Makes the packet an ICMP error about itself.
#[inline(always)]
pub(super) fn make<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, what: [u8; 2]) -> Result<(), Stop> {
    if is_made(cx, work, what) {
        Ok(())
    } else {
        Err(Stop::Pass)
    }
}

/// A real call; a result of more than a word would go through the stack.
#[inline(never)]
fn is_made<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, what: [u8; 2]) -> bool {
    put(cx, work, what).is_ok()
}

#[inline(always)]
fn put<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, what: [u8; 2]) -> Result<(), Stop> {
    let src = sender(cx, work, what);
    let rest = if what == F::TOO_BIG {
        u32::from(work.flow.hop.mtu).wrapping_sub(wrap::overhead(&work.flow))
    } else {
        0
    };
    let packet = &work.packet;
    let quoted = quoted_length(cx, work)?;
    cx.trim(packet.l3 + quoted)?;
    let network = sum(cx, packet.l3, packet.l4)?;
    let transport = sum(cx, packet.l4, packet.l3 + quoted)?;
    let unfinished = unfinished(cx, work);
    cx.make_room(packet.l3, F::LENGTH + LENGTH, Room::Answer)?;

    let header = Header {
        src: &src,
        dst: &packet.key.src,
        protocol: F::ICMP,
        length: LENGTH + quoted,
    };
    F::write_header(cx, packet.l3, header)?;
    let [kind, code] = what;
    let l4 = packet.l3 + F::LENGTH;
    let words = [u32::from_ne_bytes([kind, code, 0, 0]), rest.to_be()];
    let mut message = u64::from(network);
    for (at, word) in (l4..).step_by(4).zip(words) {
        cx.write_u32(at, word)?;
        message += u64::from(word);
    }
    if !F::HEADER_CHECKSUM {
        message += u64::from(pseudo_header::<F>(&header));
    }
    let checksum = |quoted: u32| !checksum::fold16(checksum::fold32(message + u64::from(quoted)));
    cx.put_checksum(l4 + CHECKSUM, checksum(transport), checksum(unfinished))
}

/// Who sends the error: the host that nobody listens at, or the router that this node is. The node itself takes no
/// packets from its own address.
#[inline(always)]
fn sender<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, what: [u8; 2]) -> F::Addr {
    let host = work.packet.key.dst;
    if what == F::PORT_UNREACHABLE || cx.hook() == Hook::Egress {
        return host;
    }
    let router = cx.snat_address(cx.ifindex());
    if F::difference(router, F::Addr::default()) == 0 {
        host
    } else {
        router
    }
}

/// How many bytes of the packet are quoted, from its network header on.
#[inline(always)]
fn quoted_length<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> Result<u32, Stop> {
    let l3 = work.packet.l3;
    let present = cx.length().wrapping_sub(l3);
    let claimed = F::end(cx, l3)?.wrapping_sub(l3);
    let whole = if claimed < present && claimed > F::LENGTH {
        claimed
    } else {
        present
    };
    Ok(if whole < QUOTED { whole } else { QUOTED })
}

/// The one's complement sum of the bytes from `from`, which is even, up to `to`: so many at most as are quoted.
#[inline(never)]
fn sum<F: Wire, C: Ctx<F>>(cx: &C, from: u32, to: u32) -> Result<u32, Stop> {
    let (mut sum, mut at) = (0u64, from);
    for _pair in 0..QUOTED / 2 {
        if at + 2 > to {
            break;
        }
        sum += u64::from(cx.read_u16(at)?);
        at += 2;
    }
    if at < to {
        let [_, last] = cx.read_u16(at - 1)?.to_ne_bytes();
        sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    Ok(checksum::fold32(sum))
}

/// The sum of a TCP or UDP packet whose checksum is yet to be computed, as it will be then: the checksum balances all
/// that it covers, but for the pseudo-header, whose sum stands in its place.
#[inline(always)]
fn unfinished<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> u32 {
    let at = work.packet.l4
        + match work.packet.key.protocol {
            protocol::TCP => 16,
            _ => 6,
        };
    cx.read_u16(at).map_or(0, |pseudo| (!pseudo).into())
}
