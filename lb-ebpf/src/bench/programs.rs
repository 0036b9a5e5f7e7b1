//! The wrappers and the floors.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, bpf_fib_lookup, xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::{bpf_fib_lookup as fib_lookup, bpf_tail_call, bpf_xdp_adjust_head};
use aya_ebpf::macros::btf_map;
use lb_common::bench::Plan;
use lb_common::{Flow, FlowKey, Ip4};

/// The packet to restore.
#[btf_map(name = "bench_plan")]
static PLAN: Array<Plan, 1> = Array::new();

/// The program under test at index 0.
#[btf_map(name = "bench_target")]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// The same for XDP: a map holds programs of one kind.
#[btf_map(name = "bench_target_xdp")]
static TARGET_XDP: ProgramArray<1> = ProgramArray::new();

/// Live frames that have arrived.
#[btf_map(name = "bench_received")]
static RECEIVED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// One entry, for the floor of a look-up.
#[btf_map(name = "bench_flows")]
static FLOWS: LruHashMap<FlowKey<Ip4>, Flow<Ip4>, 262_145> = LruHashMap::new();

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

const NEXT: i32 = -1;
const BROKEN: i32 = 99;

/// Where things stand in the packet of a family, from the network header on.
struct Places {
    ports: usize,
    /// The last two bytes of the addresses.
    source: usize,
    destination: usize,
}

const IPV4: Places = Places {
    ports: 20,
    source: 12 + 2,
    destination: 16 + 2,
};
const IPV6: Places = Places {
    ports: 40,
    source: 8 + 14,
    destination: 24 + 14,
};
const WORDS4: usize = 10;
const WORDS6: usize = 15;

/// Restores an IPv4 TCP packet, then runs the target.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_wrap4(skb: *mut __sk_buff) -> i32 {
    wrap::<WORDS4>(skb, &IPV4)
}

/// Restores an IPv6 TCP packet, then runs the target.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_wrap6(skb: *mut __sk_buff) -> i32 {
    wrap::<WORDS6>(skb, &IPV6)
}

/// Restores an IPv4 TCP packet, then runs the target at XDP.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_xdp4(context: *mut xdp_md) -> u32 {
    wrap_xdp::<WORDS4>(context, &IPV4)
}

/// Restores an IPv6 TCP packet, then runs the target at XDP.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_xdp6(context: *mut xdp_md) -> u32 {
    wrap_xdp::<WORDS6>(context, &IPV6)
}

/// What the wrapper runs when it is measured alone.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn bench_empty(_skb: *mut __sk_buff) -> i32 {
    NEXT
}

/// The same for XDP. It sends back, as a bare `XDP_TX` does: the wrapper with it is what live frames are compared with.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_empty_xdp(_context: *mut xdp_md) -> u32 {
    xdp_action::XDP_TX
}

/// One hit in the flow table, and back: the least that any program costs which remembers flows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_lookup_xdp(_context: *mut xdp_md) -> u32 {
    match FLOWS.get_ptr(flow_key()) {
        Some(_) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn wrap<const WORDS: usize>(skb: *mut __sk_buff, places: &Places) -> i32 {
    let Some(plan) = PLAN.get_ptr_mut(0) else {
        return BROKEN;
    };
    // SAFETY: the kernel gives a valid context; the row is the bench's alone; `restore` compares the pointers.
    unsafe {
        let (data, end) = ((*skb).data as usize, (*skb).data_end as usize);
        if restore::<WORDS>(plan, data + Plan::START, end, places) {
            bpf_tail_call(skb.cast(), (&raw const TARGET).cast_mut().cast(), 0);
        }
    }
    BROKEN
}

#[inline(always)]
fn wrap_xdp<const WORDS: usize>(context: *mut xdp_md, places: &Places) -> u32 {
    let Some(plan) = PLAN.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: as in `wrap`.
    unsafe {
        if (*plan).growth > 0 && ((*context).data_end - (*context).data) > PADDED {
            // What the run before has put in front.
            if bpf_xdp_adjust_head(context, (*plan).growth as i32) != 0 {
                return xdp_action::XDP_ABORTED;
            }
        }
        let (data, end) = ((*context).data as usize, (*context).data_end as usize);
        if data + Plan::START > end {
            return xdp_action::XDP_ABORTED;
        }
        let [a, b, c] = (*plan).hardware;
        store32(data, a);
        store32(data + 4, b);
        store32(data + 8, c);
        store16(
            data + 12,
            if WORDS == WORDS4 {
                0x0800u16.to_be()
            } else {
                0x86ddu16.to_be()
            },
        );
        if restore::<WORDS>(plan, data + Plan::START, end, places) {
            bpf_tail_call(context.cast(), (&raw const TARGET_XDP).cast_mut().cast(), 0);
        }
    }
    xdp_action::XDP_ABORTED
}

/// Length of the packets that are measured.
const PADDED: u32 = 80;

/// Restores what stands from `data` on, and chooses the flow. False when the packet ends before.
///
/// # Safety
/// `plan` is the row of the map; `data` and `end` are those of the packet.
#[inline(always)]
unsafe fn restore<const WORDS: usize>(plan: *mut Plan, data: usize, end: usize, places: &Places) -> bool {
    if data + WORDS * 4 > end {
        return false;
    }
    // SAFETY: the caller's promise, and the comparison just made.
    unsafe {
        for word in 0..WORDS {
            if let Some(value) = (*plan).words.get(word) {
                store32(data + word * 4, *value);
            }
        }
        let run = (*plan).run & (*plan).mask;
        (*plan).run = (*plan).run.wrapping_add(1);
        let (client, port) = if (*plan).clients_first == 0 {
            (run >> 16, run)
        } else {
            (run & 0xfff, run >> 12)
        };
        let port = ((*plan).first_port + (port & 0xffff)) as u16;
        let (address_at, is_source) = if (*plan).client_is_destination == 0 {
            (places.source, true)
        } else {
            (places.destination, false)
        };
        // Whole words: a processor cannot hand on what was written in two pieces, and would wait for all that was written
        // before, as it never has to for a packet from a device.
        let (ports, address) = (places.ports / 4, address_at / 4);
        if let (Some(old), Some(old_address)) = ((*plan).words.get(ports), (*plan).words.get(address)) {
            let new = with_half(*old, is_source, port.to_be());
            store32(data + ports * 4, new);
            // The first client's address ends with 1.
            let new = with_half(*old_address, false, (client as u16).wrapping_add(1).to_be());
            store32(data + address * 4, new);
        }
    }
    true
}

/// A word of which the half that stands first in memory, or the other, is a new one.
#[inline(always)]
const fn with_half(word: u32, is_first: bool, half: u16) -> u32 {
    let [a, b, c, d] = word.to_ne_bytes();
    let [e, f] = half.to_ne_bytes();
    u32::from_ne_bytes(if is_first { [e, f, c, d] } else { [a, b, e, f] })
}

/// # Safety
/// Four bytes at `at` must be in the packet.
#[inline(always)]
unsafe fn store32(at: usize, word: u32) {
    // SAFETY: the caller's promise.
    unsafe { asm!("*(u32 *)({0} + 0) = {1}", in(reg) at, in(reg) u64::from(word), options(nostack)) };
}

/// # Safety
/// Two bytes at `at` must be in the packet.
#[inline(always)]
unsafe fn store16(at: usize, word: u16) {
    // SAFETY: the caller's promise.
    unsafe { asm!("*(u16 *)({0} + 0) = {1}", in(reg) at, in(reg) u64::from(word), options(nostack)) };
}

/// Floor: nothing at all.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_pass(_ctx: *mut xdp_md) -> u32 {
    xdp_action::XDP_PASS
}

/// Floor: swap the MAC addresses and send back.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_tx(ctx: *mut xdp_md) -> u32 {
    // SAFETY: the kernel gives a valid context; the pointers are compared before use.
    unsafe {
        let data = (*ctx).data as usize;
        if data + 12 > (*ctx).data_end as usize {
            return xdp_action::XDP_ABORTED;
        }
        let words = data as *mut [u16; 6];
        let [a, b, c, d, e, f] = *words;
        *words = [d, e, f, a, b, c];
    }
    xdp_action::XDP_TX
}

/// Takes live frames at the other end of the wire, and counts them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn bench_sink(_ctx: *mut xdp_md) -> u32 {
    if let Some(count) = RECEIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element, which lives as long as the map.
        unsafe { *count = (*count).wrapping_add(1) };
    }
    xdp_action::XDP_DROP
}

/// Floor: a header's room made at the front, and given back.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_adjust_head(ctx: *mut xdp_md) -> u32 {
    const ROOM: i32 = 20;
    // SAFETY: the kernel gives a valid context.
    let done = unsafe { bpf_xdp_adjust_head(ctx, -ROOM) | bpf_xdp_adjust_head(ctx, ROOM) };
    if done == 0 {
        xdp_action::XDP_PASS
    } else {
        xdp_action::XDP_ABORTED
    }
}

/// Floor: one hit in an LRU map of the flow table's size.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_lru_hit(_ctx: *mut xdp_md) -> u32 {
    match FLOWS.get_ptr(flow_key()) {
        Some(_) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Floor: a new entry in an LRU map of the flow table's size, which is full after the warm-up.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_lru_insert(_ctx: *mut xdp_md) -> u32 {
    let Some(plan) = PLAN.get_ptr_mut(0) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: the row is the bench's alone.
    let run = unsafe {
        (*plan).run = (*plan).run.wrapping_add(1);
        (*plan).run
    };
    let mut key = flow_key();
    key.src = Ip4::from_word(run);
    match FLOWS.insert(key, Flow::default(), BPF_NOEXIST.into()) {
        Ok(()) => xdp_action::XDP_PASS,
        Err(_) => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn flow_key() -> FlowKey<Ip4> {
    FlowKey {
        src: Ip4::new([10, 0, 0, 1]),
        dst: Ip4::new([10, 96, 0, 1]),
        src_port: lb_common::Port::new(1),
        dst_port: lb_common::Port::new(80),
        protocol: 6,
        stage: 1,
        pad: [0; 2],
    }
}

/// Floor: one FIB look-up, IPv4, of the packet's destination.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_fib4(ctx: *mut xdp_md) -> u32 {
    const AF_INET: u8 = 2;
    fib(ctx, AF_INET, Plan::START + 12)
}

/// Floor: one FIB look-up, IPv6, of the packet's destination.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn floor_fib6(ctx: *mut xdp_md) -> u32 {
    const AF_INET6: u8 = 10;
    fib(ctx, AF_INET6, Plan::START + 8)
}

#[inline(always)]
fn fib(ctx: *mut xdp_md, family: u8, addresses: usize) -> u32 {
    const SIZE: usize = size_of::<bpf_fib_lookup>();
    let mut params = MaybeUninit::<[u64; SIZE / 8]>::uninit();
    let words = params.as_mut_ptr().cast::<u64>();
    for word in 0..SIZE / 8 {
        // SAFETY: within the array; volatile, so that it does not become a call to memset.
        unsafe { words.add(word).write_volatile(0) };
    }
    let params = words.cast::<bpf_fib_lookup>();
    // SAFETY: all zero is a valid value; the context is valid; packet pointers are compared before use.
    unsafe {
        let data = (*ctx).data as usize + addresses;
        if data + 32 > (*ctx).data_end as usize {
            return xdp_action::XDP_ABORTED;
        }
        (*params).family = family;
        (*params).ifindex = (*ctx).ingress_ifindex;
        let at = data as *const [u16; 16];
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *at;
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        if family == 2 {
            (*params).__bindgen_anon_3.ipv4_src = pair(a, b);
            (*params).__bindgen_anon_4.ipv4_dst = pair(c, d);
        } else {
            (*params).__bindgen_anon_3.ipv6_src = [pair(a, b), pair(c, d), pair(e, f), pair(g, h)];
            (*params).__bindgen_anon_4.ipv6_dst = [pair(i, j), pair(k, l), pair(m, n), pair(o, p)];
        }
        match fib_lookup(ctx.cast(), params, SIZE as i32, 0) {
            0 => xdp_action::XDP_PASS,
            _ => xdp_action::XDP_ABORTED,
        }
    }
}
