//! THE WAY OF A PACKET: the two stages.
//!
//! Each looks the packet up in the flow table and rewrites one endpoint. A packet that `pre` does not know may be for a
//! service: then it opens a flow.

use lb_common::{BackendState, Counter, Flow, FlowFlags, Stage, TcpState};

use crate::ctx::{Ctx, ServiceEvent};
use crate::headers::Headers;
use crate::verdict::Stop;
use crate::wire::Wire;
use crate::{direct, known, open, rewrite, service};

/// Pre-routing: rewrites the destination.
#[inline(always)]
pub fn pre<F: Wire, C: Ctx<F>>(cx: &mut C, l3: u32) -> Result<(), Stop> {
    let packet = Headers::<F>::parse(cx, l3, Stage::Pre)?;
    let mut flow = Flow::default();
    let is_known = match cx.flow(&packet.key) {
        Some(entry) => {
            flow = entry;
            is_steady(cx, &packet, &flow, flow.addr) || known::pre(cx, &packet, &mut flow)?
        }
        None => false,
    };
    if !is_known {
        open_flow(cx, &packet, &mut flow)?;
    }
    rewrite::destination(cx, &packet, &flow)?;
    count(cx, &packet, &flow, true);
    Ok(())
}

/// Post-routing: rewrites the source.
#[inline(always)]
pub fn post<F: Wire, C: Ctx<F>>(cx: &mut C, l3: u32) -> Result<(), Stop> {
    let packet = Headers::<F>::parse(cx, l3, Stage::Post)?;
    let Some(mut flow) = cx.flow(&packet.key) else {
        return Err(Stop::Pass);
    };
    if packet.is_syn_ack() && flow.tcp & TcpState::ESTABLISHED != 0 {
        // The translated SYN was answered long ago: this one answers a SYN that went straight to the pod.
        cx.count(Counter::ForeignSynAck);
        return Err(Stop::Pass);
    }
    if !is_steady(cx, &packet, &flow, packet.key.src) {
        known::post(cx, &packet, &mut flow)?;
    }
    rewrite::source(cx, &packet, &flow)?;
    count(cx, &packet, &flow, false);
    Ok(())
}

/// A packet that no flow is known for: it may be for a service, or straight to a pod.
#[inline(always)]
fn open_flow<F: Wire, C: Ctx<F>>(
    cx: &mut C,
    packet: &Headers<F>,
    flow: &mut Flow<F::Addr>,
) -> Result<(), Stop> {
    if let Some(front_end) = service::find(cx, &packet.key) {
        open::admit(cx, packet, &front_end)?;
        open::entry(cx, packet, &front_end, flow)?;
    } else if direct::may_collide(packet) {
        direct::check(cx, packet, flow)?;
        if open::has_forged_source(cx, packet) {
            return Err(Stop::Pass);
        }
    } else {
        return Err(Stop::Pass);
    }
    open::remember(cx, packet, flow)
}

/// Nothing about the flow has to be written down or thought over: translate and go.
///
/// `endpoint` is the packet's backend, as the flow has it.
#[inline(always)]
fn is_steady<F: Wire, C: Ctx<F>>(
    cx: &C,
    packet: &Headers<F>,
    flow: &Flow<F::Addr>,
    endpoint: F::Addr,
) -> bool {
    if packet.is_tcp() && (packet.changes_state() || flow.tcp & SETTLED != TcpState::ESTABLISHED) {
        return false;
    }
    if cx.now().wrapping_sub(flow.last_seen) >= cx.settings().jiffies_per_second {
        return false;
    }
    if flow.flags & FlowFlags::DIRECT != 0 {
        return true;
    }
    let Some(backend) = cx.backend(flow.backend) else {
        return false;
    };
    // The address also proves that the copy of the entry is whole: its element may have been reused meanwhile.
    let difference = u32::from(backend.epoch ^ flow.epoch)
        | (backend.service ^ flow.service)
        | F::difference(backend.addr, endpoint)
        | u32::from(backend.state == BackendState::Free as u8);
    difference == 0 && (backend.state != BackendState::Removed as u8 || packet.is_tcp())
}

/// The connection is open, and nobody has reset it.
const SETTLED: u8 = TcpState::ESTABLISHED | TcpState::RST;

#[inline(always)]
fn count<F: Wire, C: Ctx<F>>(cx: &mut C, packet: &Headers<F>, flow: &Flow<F::Addr>, forward: bool) {
    let (packets, bytes) = (cx.segments(), cx.length().wrapping_sub(packet.l3));
    let what = if forward {
        ServiceEvent::Forward { packets, bytes }
    } else {
        ServiceEvent::Reply { packets, bytes }
    };
    cx.count_service(flow.service, what);
}
