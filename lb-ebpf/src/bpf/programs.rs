//! The programs: what the kernel calls.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_jiffies64;
use lb_common::{V4, V6};
use lb_ebpf::link::{self, Version};
use lb_ebpf::stage;
use lb_ebpf::verdict::Stop;

use super::env::Cx;
use super::lookup::KernelFamily;
use super::tc::{self, Tc};

/// Stage pre at TC ingress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre(skb: *mut __sk_buff) -> i32 {
    tc::action(after_ethernet(skb).and_then(|(version, l3)| pre(skb, version, l3)))
}

/// Stage post at TC egress.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post(skb: *mut __sk_buff) -> i32 {
    tc::action(after_ethernet(skb).and_then(|(version, l3)| post(skb, version, l3)))
}

/// Stage pre at TC ingress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_pre_l3(skb: *mut __sk_buff) -> i32 {
    tc::action(without_link_layer(skb).and_then(|version| pre(skb, version, 0)))
}

/// Stage post at TC egress of a device without link-layer header.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn lb_post_l3(skb: *mut __sk_buff) -> i32 {
    tc::action(without_link_layer(skb).and_then(|version| post(skb, version, 0)))
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
    let mut packet = Tc { skb };
    packet.prepare()?;
    link::ethernet(&packet)
}

/// The network header's kind; it begins with the packet.
#[inline(always)]
fn without_link_layer(skb: *mut __sk_buff) -> Result<Version, Stop> {
    let mut packet = Tc { skb };
    packet.prepare()?;
    link::network(packet.ether_type())
}

#[inline(always)]
fn pre(skb: *mut __sk_buff, version: Version, l3: u32) -> Result<(), Stop> {
    match version {
        Version::V4 => pre_of::<V4>(skb, l3),
        Version::V6 => pre_of::<V6>(skb, l3),
    }
}

#[inline(always)]
fn post(skb: *mut __sk_buff, version: Version, l3: u32) -> Result<(), Stop> {
    match version {
        Version::V4 => post_of::<V4>(skb, l3),
        Version::V6 => post_of::<V6>(skb, l3),
    }
}

/// A real call for each family: the stack holds what one of them needs, not both.
#[inline(never)]
fn pre_of<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> Result<(), Stop> {
    stage::pre::<F, _>(&mut Cx(Tc { skb }), l3)
}

/// As [`pre_of`].
#[inline(never)]
fn post_of<F: KernelFamily>(skb: *mut __sk_buff, l3: u32) -> Result<(), Stop> {
    stage::post::<F, _>(&mut Cx(Tc { skb }), l3)
}
