//! A packet of a known flow for which something has to be written down or thought over: the first and last packets of
//! a connection, one packet a second, and the packets of a flow whose backend has changed.

use lb_common::{BackendState, Counter, DropReason, Flow, FlowFlags, FlowKey, TcpState};

use crate::ctx::{Ctx, Insert, ServiceEvent};
use crate::headers::{Headers, tcp_flag};
use crate::reverse;
use crate::verdict::Stop;
use crate::wire::Wire;

/// In pre. `Ok(false)`: the packet opens a new flow in the old one's place.
#[inline(never)]
pub fn pre<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<bool, Stop> {
    // Read again: the copy may be torn.
    match cx.flow(&packet.key) {
        Some(entry) => *flow = entry,
        None => return Ok(false),
    }
    let standing = cx.flow(&reverse::key::<F>(&packet.key, flow));
    let other = standing.unwrap_or(Flow { tcp: 0, ..*flow });
    let missing = if standing.is_none() {
        Some(Insert::New)
    } else if packet.is_syn() && other.tcp != 0 {
        // The client has forgotten the connection: a SYN-ACK must be able to answer again.
        Some(Insert::Replace)
    } else {
        None
    };
    let state = backend_state::<F, C>(cx, flow);
    if opens_anew(cx, packet, flow, &other, state) {
        // If the packet opens none, what follows it must not find the old one.
        cx.delete_flow(&packet.key);
        cx.count(Counter::FlowReopened);
        return Ok(false);
    }
    if state == BackendState::Free as u8 {
        cx.count_service(flow.service, ServiceEvent::Dropped);
        return Err(Stop::Drop(DropReason::BackendGone));
    }
    refresh(cx, packet, flow, missing);
    Ok(true)
}

/// In post: replies are translated as long as they come, whatever has become of the backend.
#[inline(never)]
pub fn post<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    match cx.flow(&packet.key) {
        Some(entry) => *flow = entry,
        None => return Err(Stop::Pass),
    }
    let is_there = cx.flow(&reverse::key::<F>(&packet.key, flow)).is_some();
    refresh(cx, packet, flow, (!is_there).then_some(Insert::New));
    Ok(())
}

/// What a packet adds to what is known of its direction. A later packet takes a reset back, for resets are not
/// verified.
#[inline(always)]
pub fn next_state<F: Wire>(known: u8, packet: &Headers<F>) -> u8 {
    if packet.is_syn() {
        return 0;
    }
    if !packet.is_tcp() || packet.is_syn_ack() {
        return known;
    }
    let mut state = (known & !TcpState::RST) | TcpState::ESTABLISHED;
    if packet.tcp_flags & tcp_flag::FIN != 0 {
        state |= TcpState::FIN;
    }
    if packet.tcp_flags & tcp_flag::RST != 0 {
        state |= TcpState::RST;
    }
    state
}

#[inline(always)]
fn opens_anew<F: Wire, C: Ctx<F>>(
    cx: &C,
    packet: &Headers<F>,
    flow: &Flow<F::Addr>,
    other: &Flow<F::Addr>,
    backend: u8,
) -> bool {
    let idle = reverse::is_idle::<F, C>(cx, packet.key.protocol, flow.last_seen, other.last_seen);
    if !packet.is_tcp() {
        return idle || backend == BackendState::Removed as u8 || backend == BackendState::Free as u8;
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

/// Writes down what the packet has shown, and makes the other entry again if it was evicted: a pair must not die in
/// halves. A full table is no reason to stop a flow that is known.
#[inline(always)]
fn refresh<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
    missing: Option<Insert>,
) {
    let (now, state) = (cx.now(), next_state(flow.tcp, packet));
    if state != flow.tcp || now.wrapping_sub(flow.last_seen) >= cx.settings().jiffies_per_second {
        flow.tcp = state;
        flow.last_seen = now;
        let _kept_as_it_was = cx.insert_flow(&packet.key, flow, Insert::Replace);
    }
    if let Some(how) = missing {
        restore(cx, &packet.key, flow, how);
    }
}

#[inline(always)]
fn restore<F: Wire, C: Ctx<F>>(cx: &mut C, key: &FlowKey<F::Addr>, flow: &Flow<F::Addr>, how: Insert) {
    let other = reverse::entry::<F>(key, flow);
    let done = cx.insert_flow(&reverse::key::<F>(key, flow), &other, how);
    if done.is_ok() && how == Insert::New {
        cx.count(Counter::FlowRestored);
    }
}
