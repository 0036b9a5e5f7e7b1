//! The programs: what the kernel calls.

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::bpf_jiffies64;
use lb_common::{V4, V6};
use lb_ebpf::answer;
use lb_ebpf::link::{self, Version};
use lb_ebpf::stage;
use lb_ebpf::uplink;
use lb_ebpf::verdict::{Next, Stop};
use lb_ebpf::work::Work;

use super::env::Cx;
use super::lookup::KernelFamily;
use super::tc::{self, Tc};
use super::xdp::{self, Xdp};

/// Stage pre at TC ingress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre(skb: *mut __sk_buff) -> i32 {
    pre(skb, after_ethernet(skb))
}

/// Stage post at TC egress, also of the loopback device: what the node sends to its own addresses may be for a NodePort.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post(skb: *mut __sk_buff) -> i32 {
    post(skb, after_ethernet(skb))
}

/// Stage pre at TC ingress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre_l3(skb: *mut __sk_buff) -> i32 {
    pre(skb, without_link_layer(skb))
}

/// Stage post at TC egress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post_l3(skb: *mut __sk_buff) -> i32 {
    post(skb, without_link_layer(skb))
}

/// Stage pre at the XDP hook of an uplink, and the rest of the way of packets that leave again.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn lb_xdp(context: *mut xdp_md) -> u32 {
    match link::ethernet(&Xdp { context }) {
        Ok((Version::V4, l3)) => xdp::<V4>(context, l3),
        Ok((Version::V6, l3)) => xdp::<V6>(context, l3),
        Err(_) => XDP_PASS,
    }
}

/// The kernel's clock, for the agent, which runs it by `BPF_PROG_TEST_RUN`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_jiffies(_skb: *mut __sk_buff) -> i32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_jiffies64() } & 0x7fff_ffff) as i32
}

/// The network header's kind and offset.
#[inline(always)]
fn after_ethernet(skb: *mut __sk_buff) -> Result<(Version, u32), Stop> {
    let mut packet = Tc::<false> { skb };
    packet.prepare()?;
    link::ethernet(&packet)
}

/// The network header's kind; it begins with the packet.
#[inline(always)]
fn without_link_layer(skb: *mut __sk_buff) -> Result<(Version, u32), Stop> {
    let mut packet = Tc::<false> { skb };
    packet.prepare()?;
    Ok((link::network(packet.ether_type())?, 0))
}

#[inline(always)]
fn pre(skb: *mut __sk_buff, network: Result<(Version, u32), Stop>) -> i32 {
    match network {
        Ok((Version::V4, l3)) => ingress::<V4>(skb, l3),
        Ok((Version::V6, l3)) => ingress::<V6>(skb, l3),
        Err(_) => tc::untouched(),
    }
}

#[inline(always)]
fn post(skb: *mut __sk_buff, network: Result<(Version, u32), Stop>) -> i32 {
    match network {
        Ok((Version::V4, l3)) => egress::<V4>(skb, l3),
        Ok((Version::V6, l3)) => egress::<V6>(skb, l3),
        Err(_) => tc::untouched(),
    }
}

/// One step after the other.
#[inline(always)]
fn ingress<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> i32 {
    let mut action = pre_of::<F>(skb, l3);
    if action == tc::MORE {
        action = more_of_pre::<F>(skb);
    }
    if action == tc::ANSWER {
        action = answer_of::<F, false>(skb);
    }
    action
}

/// One step after the other.
#[inline(always)]
fn egress<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> i32 {
    let mut action = post_of::<F>(skb, l3);
    if action == tc::MORE {
        action = more_of_post::<F>(skb);
    }
    if action == tc::OWN {
        action = own_of::<F>(skb);
    }
    if action == tc::RETURN {
        action = return_of::<F>(skb);
    }
    if action == tc::ANSWER {
        action = answer_of::<F, true>(skb);
    }
    action
}

/// One step after the other.
#[inline(always)]
fn xdp<F: KernelFamily>(context: *mut xdp_md, l3: u32) -> u32 {
    let mut action = xdp_of::<F>(context, l3);
    if action == xdp::MORE {
        action = more_of_xdp::<F>(context);
    }
    action
}

// The steps: real calls, whose stacks do not add up, and which the verifier follows one after the other. Each goes on with
// the work area as the one before has left it.

#[inline(never)]
fn pre_of<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> i32 {
    at_tc::<F, false>(skb, |cx, work| stage::pre(cx, work, l3))
}

#[inline(never)]
fn more_of_pre<F: KernelFamily>(skb: *mut __sk_buff) -> i32 {
    at_tc::<F, false>(skb, |cx, work| stage::more_of_pre(cx, work))
}

#[inline(never)]
fn post_of<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> i32 {
    at_tc::<F, true>(skb, |cx, work| stage::post(cx, work, l3))
}

#[inline(never)]
fn more_of_post<F: KernelFamily>(skb: *mut __sk_buff) -> i32 {
    at_tc::<F, true>(skb, |cx, work| stage::more_of_post(cx, work))
}

#[inline(never)]
fn own_of<F: KernelFamily>(skb: *mut __sk_buff) -> i32 {
    at_tc::<F, true>(skb, |cx, work| stage::own(cx, work))
}

#[inline(never)]
fn return_of<F: KernelFamily>(skb: *mut __sk_buff) -> i32 {
    at_tc::<F, true>(skb, |cx, work| uplink::leave(cx, work))
}

#[inline(never)]
fn answer_of<F: KernelFamily, const EGRESS: bool>(skb: *mut __sk_buff) -> i32 {
    at_tc::<F, EGRESS>(skb, |cx, work| answer::give(cx, work))
}

#[inline(never)]
fn xdp_of<F: KernelFamily>(context: *mut xdp_md, l3: u32) -> u32 {
    at_xdp::<F>(context, |cx, work| stage::pre(cx, work, l3))
}

#[inline(never)]
fn more_of_xdp<F: KernelFamily>(context: *mut xdp_md) -> u32 {
    at_xdp::<F>(context, |cx, work| stage::more_of_pre(cx, work))
}

#[inline(always)]
fn at_tc<F: KernelFamily, const EGRESS: bool>(
    skb: *mut __sk_buff,
    step: impl FnOnce(&mut Cx<Tc<EGRESS>>, &mut Work<F>) -> Result<Next, Stop>,
) -> i32 {
    let Some(work) = work::<F>() else {
        return tc::untouched();
    };
    let mut cx = Cx(Tc::<EGRESS> { skb });
    let done = step(&mut cx, work);
    let done = answer::due(&mut cx, work, done);
    tc::action(&cx.0, work, done)
}

#[inline(always)]
fn at_xdp<F: KernelFamily>(
    context: *mut xdp_md,
    step: impl FnOnce(&mut Cx<Xdp>, &mut Work<F>) -> Result<Next, Stop>,
) -> u32 {
    let Some(work) = work::<F>() else {
        return XDP_PASS;
    };
    let mut cx = Cx(Xdp { context });
    let done = step(&mut cx, work);
    let done = answer::due(&mut cx, work, done);
    xdp::action(&mut cx.0, work, done)
}

/// This CPU's work area.
#[inline(always)]
fn work<F: KernelFamily>() -> Option<&'static mut Work<F>> {
    // SAFETY: the element lives as long as the map. Programs run one after the other on a CPU, so this is the only
    // reference; it is made of integers, and any bits are valid.
    F::work().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}
