//! Does the backend see the client, or this node?
//!
//! Where it has to see the node, packets that came in by an uplink and go on to another node are masqueraded and sent
//! on at once ([`FlowFlags::BOTH`]). All others go through the stack, so that the policy of the CNI sees them, and are
//! masqueraded when they leave ([`FlowFlags::MASQUERADE`]).

use lb_common::{BackendFlags, FlowFlags, ServiceFlags, SettingsFlags};

use crate::admit;
use crate::ctx::{Ctx, Hook};
use crate::hop;
use crate::node;
use crate::snat;
use crate::split;
use crate::verdict::{Answer, Stop};
use crate::wire::Wire;
use crate::work::{Origin, Work};
use crate::wrap;

/// Decides how a new flow's packets, whose backend is chosen, go on.
#[inline(always)]
pub fn decide<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<(), Stop> {
    if cx.hook() == Hook::Egress {
        return node::open(cx, work);
    }
    if work.given != 0 {
        // The node that has wrapped the packet wants the backend to see the client.
        return Ok(());
    }
    let is_remote = work.backend.flags & BackendFlags::LOCAL == 0;
    let is_hairpin = F::difference(work.packet.key.src, work.flow.addr) == 0;
    let is_forwarded = is_remote && !admit::is_from_pod_device(work);
    if is_forwarded {
        work.flow.flags |= FlowFlags::OUTSIDE;
    }
    if is_forwarded && work.front_end.flags & ServiceFlags::DSR != 0 {
        return wrap::open(cx, work);
    }
    if !is_hairpin && !is_wanted(cx, work, is_forwarded) {
        return Ok(());
    }
    if is_hairpin || is_forwarded {
        work.flow.flags |= FlowFlags::BOTH;
        hop::look(cx, work)?;
        return snat::address(cx, work);
    }
    work.flow.flags |= FlowFlags::MASQUERADE;
    if work.packet.opens() || split::stands(cx, work) {
        Ok(())
    } else {
        Err(Stop::answer(Answer::Reject))
    }
}

/// Whether the flow is masqueraded, hairpin aside. `is_forwarded`: the packet came in from outside of the node, and the
/// backend is on another node, so that its reply would not pass here.
#[inline(always)]
pub fn is_wanted<F: Wire, C: Ctx<F>>(cx: &C, work: &Work<F>, is_forwarded: bool) -> bool {
    let (settings, front_end) = (cx.settings().flags, work.front_end.flags);
    let all = settings & SettingsFlags::MASQUERADE_ALL != 0;
    // The policy Local does not count for the node, whose address is one that the backends reach in any case.
    let keeps = front_end & ServiceFlags::OUTSIDE_LOCAL != 0 && !work.is_from(Origin::Node);
    if settings & SettingsFlags::SNAT_ALWAYS == 0 {
        return is_forwarded || (all && !keeps);
    }
    // As kube-proxy does it (its nftables mode).
    if front_end & ServiceFlags::CLUSTER_IP != 0 {
        let detects = settings & SettingsFlags::DETECTS_PODS != 0;
        return all || (detects && !admit::is_pod(cx, work));
    }
    !keeps
}
