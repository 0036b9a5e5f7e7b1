//! A packet of a known flow for which something has to be written down or thought over: the first and last packets of
//! a connection, one packet a second, and the packets of a flow whose backend has changed.

use lb_common::{BackendState, Counter, DropReason, Flow, FlowFlags, Stage, TcpState};

use crate::admit;
use crate::ctx::{Ctx, Insert};
use crate::headers::{Headers, tcp_flag};
use crate::reverse;
use crate::split;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::Work;

/// Looks at the entry of `work.packet` once more. `Ok(false)`: the packet opens a new flow in the old one's place.
#[inline(never)]
pub fn look<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<bool, Stop> {
    // Read again: the copy may be torn.
    if !cx.flow(&work.packet.key, &mut work.flow) {
        return Ok(false);
    }
    let missing = find_other(cx, work);
    if work.flow.flags & FlowFlags::REPLY != 0 {
        // Replies are translated as long as they come, whatever has become of the backend.
        refresh(cx, work, missing);
        return Ok(true);
    }
    let state = backend_state::<F, C>(cx, &work.flow);
    if opens_anew(cx, work, state) {
        // If the packet opens none, what follows it must not find the old one.
        cx.delete_flow(&work.packet.key);
        if work.flow.flags & FlowFlags::COUNTED != 0 && state != BackendState::Free as u8 {
            cx.add_load(work.flow.backend, false);
        }
        cx.count(Counter::FlowReopened);
        return Ok(false);
    }
    if state == BackendState::Free as u8 {
        // In post the packet has lost the address that an answer would have to come from.
        let stop = if work.packet.key.stage == Stage::Pre as u8 {
            Stop::answer(Answer::Reject)
        } else {
            Stop::drop(DropReason::BackendGone)
        };
        admit::refused(cx, work.flow.service, stop);
        return Err(stop);
    }
    refresh(cx, work, missing);
    Ok(true)
}

/// Looks up the flow's other entry, into `work.standing`. Says how it has to be put in if it is not as it should be.
#[inline(always)]
fn find_other<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Option<Insert> {
    reverse::derive(work);
    if work.flow.flags & FlowFlags::WRAPPED != 0 {
        work.standing = work.flow;
        work.standing.tcp = 0;
        return None;
    }
    if !cx.flow(&work.other_key, &mut work.standing) {
        work.standing = work.flow;
        work.standing.tcp = 0;
        return Some(Insert::New);
    }
    if !reverse::is_own::<F>(&work.standing, &work.other) {
        // Another flow has taken the place, so this one is over.
        work.standing = work.flow;
        work.standing.tcp = TcpState::FIN;
        return None;
    }
    // The client has forgotten the connection: a SYN-ACK must be able to answer again.
    let forgotten = work.packet.is_syn() && work.standing.tcp != 0;
    forgotten.then_some(Insert::Replace)
}

/// What a packet adds to what is known of its direction. A later packet takes a reset back, and data takes an end back:
/// neither is verified.
#[inline(always)]
pub fn next_state<F: Wire>(known: u8, packet: &Headers<F>) -> u8 {
    if packet.is_syn() {
        return 0;
    }
    if !packet.is_tcp() || packet.is_syn_ack() {
        return known;
    }
    let mut state = (known & !TcpState::RST) | TcpState::ESTABLISHED;
    if packet.tcp_flags & tcp_flag::PSH != 0 {
        state &= !TcpState::FIN;
    }
    if packet.tcp_flags & tcp_flag::FIN != 0 {
        state |= TcpState::FIN;
    }
    if packet.tcp_flags & tcp_flag::RST != 0 {
        state |= TcpState::RST;
    }
    state
}

#[inline(always)]
fn opens_anew<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, backend: u8) -> bool {
    let Work {
        packet,
        flow,
        standing: other,
        ..
    } = work;
    let idle = reverse::is_idle::<F, C>(cx, packet.key.protocol, flow, other);
    if !packet.is_tcp() {
        return idle || !BackendState::keeps_datagrams(backend);
    }
    // A client that sends SYN has forgotten the old connection; but a SYN may also be sent twice.
    let over = (flow.tcp | other.tcp) & (TcpState::FIN | TcpState::RST) != 0;
    packet.is_syn() && (over || idle || backend != BackendState::Active as u8)
}

/// The state ([`BackendState`]) of a flow's backend; free when its row is another's by now.
#[inline(always)]
fn backend_state<F: Wire, C: Ctx<F>>(cx: &C, flow: &Flow<F::Addr>) -> u8 {
    if flow.flags & FlowFlags::DIRECT != 0 {
        return BackendState::Active as u8;
    }
    match cx.backend(flow.backend) {
        Some(backend) if u32::from(backend.epoch ^ flow.epoch) | (backend.service ^ flow.service) == 0 => {
            backend.state
        }
        _ => BackendState::Free as u8,
    }
}

/// A connection is no longer counted from the first FIN or reset on. Where the entry of the way there is the other one,
/// it has to be put in anew.
#[inline(always)]
fn discount<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    work: &mut Work<F>,
    state: u8,
    missing: Option<Insert>,
) -> Option<Insert> {
    let counted = (work.flow.flags | work.standing.flags) & FlowFlags::COUNTED;
    if counted == 0 || (state | work.standing.tcp) & (TcpState::FIN | TcpState::RST) == 0 {
        return missing;
    }
    if backend_state::<F, C>(cx, &work.flow) != BackendState::Free as u8 {
        cx.add_load(work.flow.backend, false);
    }
    if work.flow.flags & FlowFlags::COUNTED != 0 {
        work.flow.flags &= !FlowFlags::COUNTED;
        missing
    } else {
        Some(Insert::Replace)
    }
}

/// Writes down what the packet has shown, and makes the other entry again if it was evicted: a pair must not die in
/// halves. A full table is no reason to stop a flow that is known.
#[inline(always)]
fn refresh<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, missing: Option<Insert>) {
    let (now, mut state) = (cx.now(), next_state(work.flow.tcp, &work.packet));
    let flags = work.flow.flags;
    let missing = discount(cx, work, state, missing);
    let second = now.wrapping_sub(work.flow.last_seen) >= cx.settings().jiffies_per_second;
    if second && !work.packet.is_tcp() {
        state |= TcpState::ESTABLISHED;
    }
    if state != work.flow.tcp || flags != work.flow.flags || second {
        work.flow.tcp = state;
        work.flow.last_seen = now;
        if second {
            // Whatever the agent may have missed: the next hop is looked up again.
            work.flow.hop.ifindex = 0;
        }
        let _kept_as_it_was = cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace);
    }
    if second && split::is_due::<F>(&work.flow) {
        let _tried_again_in_a_second = split::announce(cx, work, Insert::New);
    }
    if let Some(how) = missing {
        reverse::derive(work);
        let done = cx.insert_flow(&work.other_key, &work.other, how);
        if done.is_ok() && how == Insert::New {
            cx.count(Counter::FlowRestored);
        }
    }
}
