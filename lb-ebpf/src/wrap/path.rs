//! How much fits on the way to a backend's node. A router there that says "too big" says it to this node, whose address
//! the outer header has, and about that header: the client has to be told in words of its own.

use lb_common::{Flow, FlowFlags, PathMtu, Stage};

use crate::answer;
use crate::ctx::{Ctx, Hook, Insert, Segments};
use crate::hop;
use crate::verdict::{Answer, Next, Stop};
use crate::wire::{Network, Wire};
use crate::work::Work;

/// Seconds for which a size that a router has said is believed, as the kernel does it.
const BELIEVED: u32 = 600;

/// An ICMP error about a packet that this node has wrapped, [`crate::icmp::Quoted`] in the work area.
///
/// The size is remembered for the backend: flows learn it when they look up their next hop again, within a second. If
/// the packet inside is quoted, too, it takes the error's place, and is answered as if the client had sent it just now.
#[inline(always)]
pub fn too_big<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<Next, Stop> {
    match learn(cx, work) {
        Learned::Nothing | Learned::Alone => Err(Stop::PASS),
        Learned::LeftToTc => Err(hop::pass(cx)),
        Learned::ForClient => Err(Stop::answer(Answer::TooBig)),
    }
}

/// What an error has led to. One byte, as in [`super::unwrap`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Learned {
    /// It is about something else.
    Nothing,
    /// XDP leaves it to TC.
    LeftToTc,
    /// The client cannot be told: too little is quoted.
    Alone,
    /// The client is to be told; `work` is about its packet.
    ForClient,
}

#[inline(never)]
fn learn<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Learned {
    let is_ours = F::difference(work.packet.key.dst, cx.node_addr()) == 0;
    let mtu = F::told_mtu(cx, work.packet.l4).unwrap_or(0);
    // What only passes by must stay as it is, and would not be answered.
    if !is_ours || mtu == 0 || !answer::is_for_node(cx) {
        return Learned::Nothing;
    }
    if cx.hook() == Hook::Xdp {
        return Learned::LeftToTc;
    }
    let mtu = if mtu < F::LEAST_MTU { F::LEAST_MTU } else { mtu };
    let learned = cx.now();
    cx.set_path_mtu(work.quoted.key.src, &PathMtu { mtu, learned });
    match client_of(cx, work, mtu) {
        Ok(()) => Learned::ForClient,
        Err(_) => Learned::Alone,
    }
}

/// Makes the packet inside the quoted one the packet, if its flow is known.
#[inline(always)]
fn client_of<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, mtu: u32) -> Result<(), Stop> {
    let (l3, inner) = (work.packet.l3, work.quoted.l4);
    let mut network = Network::<F>::default();
    F::network(cx, inner, &mut network)?;
    let [ports] = cx.read::<1>(network.transport.at)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    let key = &mut work.packet.key;
    (key.src, key.src_port.octets) = (network.src, [a, b]);
    (key.dst, key.dst_port.octets) = (network.dst, [c, d]);
    key.protocol = network.transport.protocol;
    key.stage = Stage::Pre as u8;
    let is_known = cx.flow(&work.packet.key, &mut work.flow)
        && work.flow.flags & FlowFlags::WRAPPED != 0
        && F::difference(work.flow.addr, work.quoted.key.src) == 0;
    if !is_known {
        return Err(Stop::PASS);
    }
    shrink(&mut work.flow, mtu);
    let _kept_as_it_was = cx.insert_flow(&work.packet.key, &work.flow, Insert::Replace);
    let length = inner.wrapping_sub(l3);
    work.packet.l4 = network.transport.at.wrapping_sub(length);
    work.packet.fragment = network.transport.fragment;
    cx.take_away(l3, length, F::room(Segments::Kept))
}

/// Makes the way of a flow that is wrapped as narrow as routers have said.
#[inline(always)]
pub fn narrow<F: Wire, C: Ctx<F>>(cx: &C, flow: &mut Flow<F::Addr>) {
    if flow.flags & FlowFlags::WRAPPED == 0 {
        return;
    }
    let Some(path) = cx.path_mtu(flow.addr) else {
        return;
    };
    let believed = cx.settings().jiffies_per_second.wrapping_mul(BELIEVED);
    if cx.now().wrapping_sub(path.learned) <= believed {
        shrink(flow, path.mtu);
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "below the size that stands there")]
const fn shrink<A>(flow: &mut Flow<A>, mtu: u32) {
    if mtu < flow.hop.mtu as u32 {
        flow.hop.mtu = mtu as u16;
    }
}
