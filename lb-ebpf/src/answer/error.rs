//! ICMP errors (RFC 792, RFC 4443).
//!
//! A router quotes as much of the packet as it may. Here it is less: what is quoted has to be summed up for the
//! checksum, and all that anybody reads of it are the headers.

use core::hint::black_box;

use lb_common::protocol;

use super::message::Header;
use super::pseudo_header;
use crate::checksum;
use crate::ctx::{Ctx, Hook, Room};
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;
use crate::wrap;

/// The most bytes of a packet that are quoted.
const QUOTED: u32 = 256;
/// Length of the ICMP header in bytes.
const LENGTH: u32 = 8;
/// Where the checksum stands.
pub(super) const CHECKSUM: u32 = 2;

/// Makes the packet an ICMP error about itself, as `work.answer` has it; whether that went well.
///
/// A real call says no more than that: a `Result` may go by the stack, and the verifier refuses what is left in the
/// register for it.
#[inline(never)]
pub(super) fn make<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    put(cx, work).is_ok()
}

#[inline(always)]
fn put<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let (l3, l4) = (work.packet.l3, work.packet.l4);
    let quoted = quoted_length(cx, work)?;
    cx.trim(l3 + quoted)?;
    if !sum(cx, work, l3, l4) {
        return Err(Stop::PASS);
    }
    let network = checksum::fold32(work.span.sum);
    if !sum(cx, work, l4, l3 + quoted) {
        return Err(Stop::PASS);
    }
    let transport = checksum::fold32(work.span.sum);
    let unfinished = unfinished(cx, work);
    cx.make_room(l3, F::LENGTH + LENGTH, Room::Answer)?;

    let src = sender(cx, work);
    let header = Header {
        src: &src,
        dst: &work.packet.key.src,
        protocol: F::ICMP,
        length: LENGTH + quoted,
    };
    F::write_header(cx, l3, header)?;
    let l4 = l3 + F::LENGTH;
    let mut message = u64::from(network);
    for (at, word) in (l4..).step_by(4).zip(begin(work)) {
        cx.write(at, [word])?;
        message += u64::from(word);
    }
    if !F::HEADER_CHECKSUM {
        message += u64::from(pseudo_header::<F>(&header));
    }
    let checksum = |quoted: u32| !checksum::fold16(checksum::fold32(message + u64::from(quoted)));
    cx.put_checksum(l4 + CHECKSUM, checksum(transport), checksum(unfinished))
}

/// The words of the ICMP header, without the checksum.
#[inline(always)]
fn begin<F: Wire>(work: &Work<F>) -> [u32; 2] {
    let ([kind, code], rest) = match Answer::from_number(work.answer) {
        Answer::TooBig => {
            let flow = &work.flow;
            (
                F::TOO_BIG,
                u32::from(flow.hop.mtu).wrapping_sub(wrap::overhead(flow)),
            )
        }
        Answer::TimeExceeded => (F::TIME_EXCEEDED, 0),
        Answer::Reject | Answer::Echo => (F::PORT_UNREACHABLE, 0),
    };
    [u32::from_ne_bytes([kind, code, 0, 0]), rest.to_be()]
}

/// Who sends the error: the host that nobody listens at, or the router that this node is. The node itself takes no
/// packets from its own address.
#[inline(always)]
fn sender<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> F::Addr {
    let host = work.packet.key.dst;
    if work.answer == Answer::Reject as u32 || cx.hook() == Hook::Egress {
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
    // One that is shorter than its own header says nothing.
    let whole = if claimed < present && l3 + claimed >= work.packet.l4 {
        claimed
    } else {
        present
    };
    Ok(if whole < QUOTED { whole } else { QUOTED })
}

/// Bytes that are being summed up. In memory, so that the verifier forgets where each step stands: otherwise it goes on
/// from each place where the loop may end, one by one.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Span {
    sum: u64,
    at: u32,
    to: u32,
}

/// Sums up the bytes from `from`, which is even, up to `to`, so many at most as are quoted; whether they are there.
#[inline(never)]
fn sum<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>, from: u32, to: u32) -> bool {
    add_up(cx, work, from, to).is_ok()
}

#[inline(always)]
fn add_up<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>, from: u32, to: u32) -> Result<(), Stop> {
    work.span = Span { sum: 0, at: from, to };
    add_words::<4, F, C>(cx, work, QUOTED / 16)?;
    add_words::<1, F, C>(cx, work, 3)?;
    let Span { mut at, to, .. } = *black_box(&mut work.span);
    if at + 2 <= to {
        work.span.sum += u64::from(cx.read_u16(at)?);
        at += 2;
    }
    if at < to {
        let [_, last] = cx.read_u16(at - 1)?.to_ne_bytes();
        work.span.sum += u64::from(u16::from_ne_bytes([last, 0]));
    }
    Ok(())
}

/// Adds so many words at a time, as long as there are as many left, and so often at most.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a few")]
fn add_words<const WORDS: usize, F: Wire, C: Ctx<F>>(
    cx: &C,
    work: &mut Work<F>,
    times: u32,
) -> Result<(), Stop> {
    let bytes = WORDS as u32 * 4;
    for _time in 0..times {
        let Span { mut sum, at, to } = *black_box(&mut work.span);
        if at + bytes > to {
            break;
        }
        for word in cx.read::<WORDS>(at)? {
            sum += u64::from(word);
        }
        work.span.sum = sum;
        work.span.at = at + bytes;
    }
    Ok(())
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
