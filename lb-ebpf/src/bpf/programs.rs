//! The programs: what the kernel calls.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_jiffies64;
use lb_common::{V4, V6};
use lb_ebpf::link::{self, Network};
use lb_ebpf::stage;
use lb_ebpf::verdict::Stop;

use super::env::Cx;
use super::lookup::KernelFamily;
use super::tc::{self, Tc};

/// Stage pre at TC ingress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre(skb: *mut __sk_buff) -> i32 {
    tc::action(with_ethernet(skb).and_then(|(mut cx, network, l3)| pre(&mut cx, network, l3)))
}

/// Stage post at TC egress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post(skb: *mut __sk_buff) -> i32 {
    tc::action(with_ethernet(skb).and_then(|(mut cx, network, l3)| post(&mut cx, network, l3)))
}

/// Stage pre at TC ingress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre_l3(skb: *mut __sk_buff) -> i32 {
    tc::action(without_link_layer(skb).and_then(|(mut cx, network)| pre(&mut cx, network, 0)))
}

/// Stage post at TC egress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post_l3(skb: *mut __sk_buff) -> i32 {
    tc::action(without_link_layer(skb).and_then(|(mut cx, network)| post(&mut cx, network, 0)))
}

/// The kernel's clock, for the agent, which runs it by `BPF_PROG_TEST_RUN`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_jiffies(_skb: *mut __sk_buff) -> i32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_jiffies64() } & 0x7fff_ffff) as i32
}

#[inline(always)]
fn with_ethernet(skb: *mut __sk_buff) -> Result<(Cx<Tc>, Network, u32), Stop> {
    let mut cx = Cx(Tc { skb });
    cx.0.prepare()?;
    let (network, l3) = link::ethernet(&cx)?;
    Ok((cx, network, l3))
}

#[inline(always)]
fn without_link_layer(skb: *mut __sk_buff) -> Result<(Cx<Tc>, Network), Stop> {
    let mut cx = Cx(Tc { skb });
    cx.0.prepare()?;
    let network = link::network(cx.0.ether_type())?;
    Ok((cx, network))
}

#[inline(always)]
fn pre(cx: &mut Cx<Tc>, network: Network, l3: u32) -> Result<(), Stop> {
    match network {
        Network::V4 => pre_of::<V4>(cx, l3),
        Network::V6 => pre_of::<V6>(cx, l3),
    }
}

#[inline(always)]
fn post(cx: &mut Cx<Tc>, network: Network, l3: u32) -> Result<(), Stop> {
    match network {
        Network::V4 => post_of::<V4>(cx, l3),
        Network::V6 => post_of::<V6>(cx, l3),
    }
}

/// A real call for each family: the stack holds what one of them needs, not both.
#[inline(never)]
fn pre_of<F: KernelFamily>(cx: &mut Cx<Tc>, l3: u32) -> Result<(), Stop> {
    stage::pre::<F, _>(cx, l3)
}

/// As [`pre_of`].
#[inline(never)]
fn post_of<F: KernelFamily>(cx: &mut Cx<Tc>, l3: u32) -> Result<(), Stop> {
    stage::post::<F, _>(cx, l3)
}
