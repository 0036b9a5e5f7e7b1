//! Answers that the programs give by themselves: the packet becomes the answer to itself and goes back to where it came
//! from.
//!
//! XDP gives none: it leaves the packet, in which nothing is changed, to TC. There an answer is made when the stages are
//! done, in a call of its own: so neither stack nor verifier see it as a part of each way that leads here.

mod error;
mod message;
mod reset;

use lb_common::{Counter, DeviceRole, DropReason};

pub use self::error::Span;
pub use self::message::Message;
use crate::checksum;
use crate::ctx::{Ctx, Hook, Packet};
use crate::headers::{Fragment, tcp_flag};
use crate::hop;
use crate::limit;
use crate::link::ETHERNET;
use crate::verdict::{Answer, Next, Reason, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// Keeps what answer is due, for [`give`].
#[inline(always)]
pub fn due<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    work: &mut Work<F>,
    done: Result<Next, Stop>,
) -> Result<Next, Stop> {
    let Err(stop) = done else {
        return done;
    };
    let Reason::Answer(answer) = stop.reason() else {
        return done;
    };
    if cx.hook() == Hook::Xdp {
        return Err(hop::pass(cx));
    }
    work.answer = answer;
    Ok(Next::Answer)
}

/// Makes the packet the answer to itself that is due.
#[inline(always)]
pub fn give<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    let answer = Answer::from_number(work.answer);
    may_give(cx, work, answer)?;
    let is_made = match answer {
        Answer::Echo => echo(cx, work).is_ok(),
        Answer::Reject if work.packet.is_tcp() => reset::make(cx, work),
        Answer::Reject | Answer::TooBig | Answer::TimeExceeded => error::make(cx, work),
    };
    if !is_made || turn(cx, work.packet.l3).is_err() {
        // Half an answer must not get out.
        return Err(Stop::drop(DropReason::RewriteFailed));
    }
    cx.count(match answer {
        Answer::Reject if work.packet.is_tcp() => Counter::AnsweredReset,
        Answer::Reject => Counter::AnsweredUnreachable,
        Answer::TooBig => Counter::AnsweredTooBig,
        Answer::TimeExceeded => Counter::AnsweredTimeExceeded,
        Answer::Echo => Counter::AnsweredEcho,
    });
    Ok(Next::Back)
}

/// Whether the packet may be answered (RFC 1122, section 3.2.2; RFC 4443, section 2.4), and whether the limit is not
/// used up.
#[inline(never)]
fn may_give<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>, answer: Answer) -> Result<(), Stop> {
    let packet = &work.packet;
    if !is_for_node(cx) {
        return Err(Stop::PASS);
    }
    let is_reset = answer == Answer::Reject && packet.tcp_flags & tcp_flag::RST != 0;
    // The node's own packets may be from its loopback address.
    let is_from_one = cx.hook() == Hook::Egress || !F::is_martian(packet.key.src);
    if is_reset || !is_from_one || packet.fragment == Fragment::LATER || cannot_be_made(work, answer) {
        return Err(Stop::drop(DropReason::NotAnswerable));
    }
    let settings = cx.settings();
    if settings.answer_interval == 0 {
        return Ok(());
    }
    let (interval, burst) = (settings.answer_interval, settings.jiffies_per_second);
    match limit::take(cx.now(), interval, burst, cx.limit(LIMIT)) {
        Some(until) => {
            cx.set_limit(LIMIT, until);
            Ok(())
        }
        None => Err(Stop::drop(DropReason::AnswerLimited)),
    }
}

/// Whether the answer's headers are not as long as the packet's, and a tag stands before them: TC's helper does not find
/// the network header then. The kernel takes one tag out of the packet before, so this is a second one.
#[inline(always)]
fn cannot_be_made<F: Wire>(work: &Work<F>, answer: Answer) -> bool {
    let packet = &work.packet;
    let is_in_place = answer == Answer::Echo
        || (answer == Answer::Reject && packet.is_tcp() && packet.l4.wrapping_sub(packet.l3) == F::LENGTH);
    packet.l3 > ETHERNET && !is_in_place
}

/// The row of the limit on answers.
const LIMIT: u32 = 0;

/// Whether the frame is addressed to this node: it may only pass by, on its way through a bridge. At a bridge's port a
/// pod's frames have the bridge's address.
#[inline(always)]
pub fn is_for_node<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    if cx.hook() == Hook::Egress {
        return true;
    }
    let device = cx.device(cx.ifindex()).unwrap_or_default();
    device.role == DeviceRole::Pod as u8 || cx.is_for(device.mac)
}

/// An echo request becomes the reply. The checksum covers the addresses, if at all, whichever way round they stand.
#[inline(always)]
fn echo<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<(), Stop> {
    let packet = &work.packet;
    F::write_both(cx, packet.l3, packet.key.dst, packet.key.src)?;
    F::renew(cx, packet.l3)?;
    let (old, new) = (cx.read_u16(packet.l4)?, u16::from_ne_bytes([F::ECHO_REPLY, 0]));
    let change = checksum::change(old, new);
    let checksum = cx.read_u16(packet.l4 + error::CHECKSUM)?;
    cx.write_u16(packet.l4, new)?;
    cx.write_u16(packet.l4 + error::CHECKSUM, checksum::patched(checksum, change))
}

/// Addresses the frame to its sender; there may be no link layer.
#[inline(always)]
fn turn<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop> {
    if l3 == 0 {
        return Ok(());
    }
    let [first, second, third] = packet.read::<3>(0)?;
    let (first, second, third) = (first.to_ne_bytes(), second.to_ne_bytes(), third.to_ne_bytes());
    let words = [
        [second[2], second[3], third[0], third[1]],
        [third[2], third[3], first[0], first[1]],
        [first[2], first[3], second[0], second[1]],
    ];
    packet.write(0, words.map(u32::from_ne_bytes))
}

/// The sum of what a TCP or ICMP checksum covers beside the message (RFC 9293, section 3.1; RFC 8200, section 8.1).
#[inline(always)]
fn pseudo_header<F: Wire>(header: &message::Header<'_, F::Addr>) -> u32 {
    let none = F::Addr::default();
    let [_, _, high, low] = header.length.to_be_bytes();
    let rest = u32::from_ne_bytes([high, low, 0, header.protocol]);
    let addresses = u64::from(F::change(none, *header.src)) + u64::from(F::change(none, *header.dst));
    checksum::fold32(addresses + u64::from(rest))
}
