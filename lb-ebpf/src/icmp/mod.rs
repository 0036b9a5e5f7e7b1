//! ICMP: errors about translated packets are translated, echo requests to services' addresses are answered.
//!
//! An error quotes a packet as it was when it had left us, translated, and travels to that packet's source. So it is
//! looked up as a packet of the opposite direction would be, in the stage that such a packet meets: the quoted packet
//! becomes what it was before it was translated, and the error goes where the flow's packets go.
//!
//! | an error about | meets | becomes an error about |
//! |---|---|---|
//! | V → C, a reply | `pre (C→V) ⇒ dst B` | B → C, to B |
//! | C → B, a request | `post (B→C) ⇒ src V` | C → V |
//! | N → B, masqueraded | `pre (B→N) ⇒ dst C, src V` | C → V, to C |
//! | V → C, a reply | `pre (C→V) ⇒ dst B, src N` | B → N, to B |
//!
//! What is masqueraded in two steps is translated in two steps. An error that the other endpoint itself has sent gets
//! the address that the endpoint is known by; one of a router in between keeps the router's on its way to the stack.
//! What is sent on gets the endpoint's in any case, as netfilter does it: it may leave by way of that very router, which
//! takes no packets from itself, and whoever checks sources expects the flow's.
//!
//! A client's error about what a backend has answered directly (direct server return) may reach any node: it is sent on
//! to the backend's node as the client's packets are, wrapped and unchanged, and translated there.

mod quoted;
mod rewrite;

use lb_common::{BackendFlags, Counter, DeviceRole, DropReason, FlowFlags, ServiceFlags, Stage};

pub use self::quoted::Quoted;
use self::quoted::{About, read};
use crate::ctx::{Ctx, Hook};
use crate::split;
use crate::verdict::{Answer, Done, Next, Reason, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};
use crate::{choose, hop, node, open, reverse, send, service, uplink, vip, wrap};

/// In pre.
#[inline(always)]
pub fn pre<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    rare(cx, work).result()
}

/// A real call: what is rare is not looked at together with what is not.
#[inline(never)]
fn rare<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Done {
    Done::of(meet(cx, work))
}

#[inline(always)]
fn meet<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    match read(cx, work, Stage::Pre) {
        About::Nothing => return Err(Stop::PASS),
        About::Echo if vip::wants_echo(cx, work) => return Err(hop::leave(cx, Answer::Echo)),
        About::Echo => {
            vip::check(cx, work)?;
            return Err(Stop::PASS);
        }
        About::Wrapped if work.quoted.is_redirect != 0 => return Err(Stop::PASS),
        About::Wrapped => return wrap::too_big(cx, work),
        About::Transport => {}
    }
    not_answered(if is_known(cx, work) {
        go_on(cx, work)
    } else {
        to_chosen(cx, work)
    })
}

/// Whether there is an entry for packets of the opposite direction, into `work.flow`. One that leads to a backend
/// counts as long as the backend is what it was.
#[inline(never)]
fn is_known<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> bool {
    cx.flow(&work.quoted.key, &mut work.flow)
        && (work.flow.flags & FlowFlags::REPLY != 0 || reverse::has_backend::<F, C>(cx, &work.flow))
}

/// In post.
#[inline(always)]
pub fn post<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if read(cx, work, Stage::Post) != About::Transport || !is_known(cx, work) {
        return if cx.is_own() {
            Ok(Next::Own)
        } else {
            Err(Stop::PASS)
        };
    }
    if split::is_due::<F>(&work.flow) {
        // No packet has left yet.
        return Err(Stop::PASS);
    }
    refuse_redirect(work)?;
    work.packet.key = work.quoted.key;
    translate(cx, work, false)?;
    Ok(uplink::after_post(cx, work))
}

/// A router's advice about a translated packet is good for nobody: the sender would go round us.
#[inline(always)]
fn refuse_redirect<F: Wire>(work: &Work<F>) -> Result<(), Stop> {
    if work.quoted.is_redirect != 0 {
        Err(Stop::drop(DropReason::IcmpRedirect))
    } else {
        Ok(())
    }
}

/// The way of an error in pre about a packet whose opposite direction has the entry `work.flow`.
#[inline(always)]
fn go_on<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    refuse_redirect(work)?;
    work.packet.key = work.quoted.key;
    let flags = work.flow.flags;
    if flags & FlowFlags::WRAPPED != 0 {
        send::ready(cx, work)?;
        return send_wrapped(cx, work);
    }
    if flags & FlowFlags::BOTH == 0 {
        if cx.hook() == Hook::Egress {
            // The node itself has made it, and it is on its way already.
            return Err(Stop::PASS);
        }
        translate(cx, work, false)?;
        return Ok(Next::Stack);
    }
    if flags & (FlowFlags::NODE | FlowFlags::REPLY) == FlowFlags::NODE | FlowFlags::REPLY {
        if cx.hook() == Hook::Xdp {
            return Err(hop::pass(cx));
        }
        translate(cx, work, false)?;
        return node::arrive(cx, work);
    }
    send::ready(cx, work)?;
    translate(cx, work, cx.hook() != Hook::Egress)?;
    send::sent(cx, work)
}

/// No error is sent about an error (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
#[inline(always)]
fn not_answered(done: Result<Next, Stop>) -> Result<Next, Stop> {
    done.map_err(|stop| {
        if stop == Stop::answer(Answer::TimeExceeded) {
            Stop::drop(DropReason::TimeExceeded)
        } else if let Reason::Answer(_) = stop.reason() {
            Stop::drop(DropReason::NotAnswerable)
        } else {
            stop
        }
    })
}

/// Makes the error one about the packet as it was; with `hop`, it is sent on, one hop further.
#[inline(never)]
fn translate<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, hop: bool) -> Result<(), Stop> {
    // What the flow's packets become, the other way round.
    reverse::key::<F>(&work.packet.key, &work.flow, &mut work.other_key);
    rewrite::error(cx, work, hop).map_err(|_| Stop::drop(DropReason::RewriteFailed))?;
    cx.count(Counter::IcmpTranslated);
    Ok(())
}

/// An error about a packet that no flow is known for: if a service with direct server return may have sent it, another
/// node has wrapped the client's packets. Its backend is found as for them, by hash, and nothing is remembered.
#[inline(always)]
fn to_chosen<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    if !is_chosen(cx, work) {
        return Err(Stop::PASS);
    }
    refuse_redirect(work)?;
    wrap::open(cx, work)?;
    send::may_leave(cx, work)?;
    send_wrapped(cx, work)
}

/// Finds the backend, on another node, that has sent the packet in question, and puts its flow into `work.flow`.
#[inline(never)]
fn is_chosen<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> bool {
    const NOT_BY_HASH: u32 = ServiceFlags::ROUND_ROBIN | ServiceFlags::LEAST_CONNECTIONS;
    let is_direct = service::find(cx, &work.quoted.key, &mut work.front_end)
        && work.front_end.flags & (ServiceFlags::DSR | NOT_BY_HASH) == ServiceFlags::DSR;
    if !is_direct || !is_from_outside(cx) || work.given != 0 {
        return false;
    }
    work.packet.key = work.quoted.key;
    work.origin = Origin::Outside as u32;
    if choose::backend(cx, work).is_err() || work.backend.flags & BackendFlags::LOCAL != 0 {
        return false;
    }
    open::entry(cx, work);
    work.flow.flags |= FlowFlags::OUTSIDE;
    true
}

/// Whether the packet did not come from a pod or from the node.
#[inline(always)]
fn is_from_outside<F: Wire, C: Ctx<F>>(cx: &C) -> bool {
    let role = cx.device(cx.ifindex()).map_or(0, |device| device.role);
    cx.hook() != Hook::Egress && role != DeviceRole::Pod as u8
}

/// Sends the error, as it is, to the node of the flow's backend.
#[inline(always)]
fn send_wrapped<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    wrap::wrap(cx, work)?;
    send::sent(cx, work)
}
