//! THE WAY OF A PACKET: the two stages.
//!
//! Each looks the packet up in the flow table and rewrites one endpoint. A packet that `pre` does not know may be for a
//! service: then it opens a flow. Flows that the programs finish by themselves have both endpoints rewritten in `pre`.
//!
//! A program takes one step after the other, each a call of its own, so that their stacks do not add up: the first look
//! ([`pre`], [`post`]), what it was not enough for ([`more_of_pre`], [`more_of_post`], [`own`]), the way back by another
//! uplink ([`uplink::leave`]), and an answer ([`crate::answer::give`]).

use lb_common::{BackendState, Counter, FlowFlags, Stage, TcpState};

use crate::ctx::{Ctx, ServiceEvent};
use crate::headers::Kind;
use crate::verdict::{Next, Stop};
use crate::wire::Wire;
use crate::work::Work;
use crate::{
    admit, choose, direct, fragment, icmp, known, masquerade, open, rewrite, send, service, split, uplink,
    vip, wrap,
};

/// Pre-routing: rewrites the destination. Here is the way of a packet of a known flow about which nothing has to be
/// thought over; for all others it is [`Next::More`].
#[inline(always)]
pub fn pre<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, l3: u32) -> Result<Next, Stop> {
    (work.given, work.hash) = (0, 0);
    let kind = work.packet.parse(cx, l3, Stage::Pre)?;
    work.kind = kind as u32;
    if kind != Kind::Transport {
        return Ok(Next::More);
    }
    let stands = cx.flow(&work.packet.key, &mut work.flow);
    work.stands = stands.into();
    if stands && is_steady(cx, work) {
        finish(cx, work)
    } else if !stands && is_foreign(cx, work) {
        Err(Stop::PASS)
    } else {
        Ok(Next::More)
    }
}

/// Whether a packet without an entry is surely none of our business: a segment in mid-connection to an address that is no
/// front end's, and to no NodePort. What [`more_of_pre`] would find out, for most packets that are for no service.
#[inline(always)]
fn is_foreign<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    let key = &work.packet.key;
    !work.packet.opens() && !cx.may_be_front_end(key.dst) && !service::is_node_port::<F, C>(cx, key.dst_port)
}

/// The rest of pre-routing. The first look has read the headers.
#[inline(always)]
pub fn more_of_pre<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.is(Kind::Fragment) {
        fragment::meet(cx, work)?;
    } else if work.is(Kind::Wrapped) {
        wrap::unwrap(cx, work)?;
    } else if work.is(Kind::Other) {
        return pass(cx, work);
    }
    if work.packet.key.protocol == F::ICMP {
        return icmp::pre(cx, work);
    }
    // A whole packet's entry has been looked for.
    let stands = if work.is(Kind::Transport) {
        work.stands != 0
    } else {
        cx.flow(&work.packet.key, &mut work.flow)
    };
    translate(cx, work, stands)
}

/// Post-routing: rewrites the source. As in [`pre`], all but the packets of known flows are for [`more_of_post`].
#[inline(always)]
pub fn post<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, l3: u32) -> Result<Next, Stop> {
    (work.given, work.hash) = (0, 0);
    let kind = work.packet.parse(cx, l3, Stage::Post)?;
    work.kind = kind as u32;
    if kind != Kind::Transport {
        return Ok(Next::More);
    }
    if !cx.flow(&work.packet.key, &mut work.flow) {
        return own_or_foreign(cx);
    }
    if split::is_due::<F>(&work.flow) || !is_steady(cx, work) {
        return Ok(Next::More);
    }
    rewrite::source(cx, work)?;
    count(cx, work);
    Ok(uplink::after_post(cx, work))
}

/// The rest of post-routing. The first look has read the headers.
#[inline(always)]
pub fn more_of_post<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.is(Kind::Fragment) {
        fragment::meet(cx, work)?;
    } else if work.is(Kind::Icmp) {
        return icmp::post(cx, work);
    } else if work.is(Kind::Other) && cx.is_own() {
        return pass(cx, work);
    } else if !work.is(Kind::Transport) {
        return Err(Stop::PASS);
    }
    if !cx.flow(&work.packet.key, &mut work.flow) {
        return own_or_foreign(cx);
    }
    if work.packet.is_syn_ack() && work.flow.tcp & TcpState::ESTABLISHED != 0 {
        // The translated SYN was answered long ago: this one answers a SYN that went straight to the pod.
        cx.count(Counter::ForeignSynAck);
        return Err(Stop::PASS);
    }
    let is_known = !split::is_due::<F>(&work.flow) && (is_steady(cx, work) || known::look(cx, work)?);
    if !is_known {
        split::settle(cx, work)?;
    }
    rewrite::source(cx, work)?;
    count(cx, work);
    Ok(uplink::after_post(cx, work))
}

/// A packet in post that no flow is known for: only one that the node itself has made is looked at once more.
#[inline(always)]
fn own_or_foreign<F: Wire, C: Ctx<F>>(cx: &C) -> Result<Next, Stop> {
    if cx.is_own() {
        Ok(Next::Own)
    } else {
        Err(Stop::PASS)
    }
}

/// Pre-routing of what the node itself sends: such packets meet no ingress hook. [`post`] has read the headers.
#[inline(always)]
pub fn own<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.packet.key.protocol == F::ICMP {
        return icmp::pre(cx, work);
    }
    work.packet.key.stage = Stage::Pre as u8;
    let stands = cx.flow(&work.packet.key, &mut work.flow);
    translate(cx, work, stands)
}

/// The way of a TCP, UDP or SCTP packet whose key is that of stage pre, and has been looked up.
#[inline(always)]
fn translate<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, stands: bool) -> Result<Next, Stop> {
    let is_known = stands && wrap::agrees(work) && (is_steady(cx, work) || known::look(cx, work)?);
    if !is_known {
        open_flow(cx, work)?;
    }
    finish(cx, work)
}

/// The last step of stage pre for a packet whose flow is in `work.flow`.
#[inline(always)]
fn finish<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if work.flow.flags & (FlowFlags::BOTH | FlowFlags::WRAPPED) != 0 {
        return send::out(cx, work);
    }
    rewrite::destination(cx, work)?;
    count(cx, work);
    Ok(Next::Stack)
}

/// A packet of a protocol that has no ports: it goes by, if it may.
#[inline(always)]
fn pass<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    vip::check(cx, work)?;
    Err(Stop::PASS)
}

/// A packet that no flow is known for: it may be for a service, or straight to a pod.
///
/// A real call: or else the compiler moves on what an end of some kind does not have, and the verifier says
/// "R2 `!read_ok`".
#[inline(never)]
fn open_flow<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    let is_served = work.given != 0 || service::find(cx, &work.packet.key, &mut work.front_end);
    let found = if is_served {
        serve(cx, work)
    } else {
        straight(cx, work)
    };
    // Here for both, and whether there is a service asked of memory: the verifier follows what comes only once.
    let done = found.and_then(|()| open::remember(cx, work));
    if let Err(stop) = done
        && work.front_end.service != 0
    {
        admit::refused(cx, work.front_end.service, stop);
    }
    done
}

/// A new flow to a service.
#[inline(always)]
fn serve<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    admit::check(cx, work)?;
    choose::backend(cx, work)?;
    open::entry(cx, work);
    masquerade::decide(cx, work)?;
    admit::commit(cx, work)
}

/// A new flow to no service.
#[inline(always)]
fn straight<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    work.front_end.service = 0;
    vip::check(cx, work)?;
    if !direct::may_collide(&work.packet) {
        return Err(Stop::PASS);
    }
    direct::check(cx, work)
}

/// Nothing about the flow has to be written down or thought over: translate and go.
#[inline(always)]
fn is_steady<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>) -> bool {
    let Work { packet, flow, .. } = work;
    if packet.is_tcp() && (packet.changes_state(flow.tcp) || flow.tcp & SETTLED != TcpState::ESTABLISHED) {
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
    // The packet's backend, as the flow has it.
    let endpoint = if flow.flags & FlowFlags::REPLY != 0 {
        packet.key.src
    } else if packet.key.stage == Stage::Pre as u8 {
        flow.addr
    } else {
        packet.key.dst
    };
    // The address also proves that the copy of the entry is whole: its element may have been reused meanwhile.
    let difference = u32::from(backend.epoch ^ flow.epoch)
        | (backend.service ^ flow.service)
        | F::difference(backend.addr, endpoint)
        | u32::from(backend.state == BackendState::Free as u8);
    difference == 0 && (packet.is_tcp() || BackendState::keeps_datagrams(backend.state))
}

/// The connection is open, and nobody has reset it.
const SETTLED: u8 = TcpState::ESTABLISHED | TcpState::RST;

/// Counts a packet for its service: once, where the service's own address is put in or taken out.
#[inline(always)]
pub fn count<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) {
    let is_reply = work.flow.flags & FlowFlags::REPLY != 0;
    let is_pre = work.packet.key.stage == Stage::Pre as u8;
    if work.flow.flags & FlowFlags::BOTH == 0 && is_reply == is_pre {
        return;
    }
    let (packets, bytes) = (cx.segments(), cx.length().wrapping_sub(work.packet.l3));
    let what = if is_reply {
        ServiceEvent::Reply { packets, bytes }
    } else {
        ServiceEvent::Forward { packets, bytes }
    };
    cx.count_service(work.flow.service, what);
}
