//! What the kernel itself is asked: its routes and its sockets.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup, bpf_sock, bpf_sock_tuple,
};
use aya_ebpf::helpers::{bpf_fib_lookup as fib_lookup, bpf_sk_lookup_udp, bpf_sk_release};
use lb_common::{FlowKey, Ip4, Ip6, V4, V6};
use lb_ebpf::wire::Wire;

use super::maps::FamilyMaps;

/// A family as the kernel's look-ups know it.
pub(super) trait KernelFamily: Wire + FamilyMaps {
    /// `AF_INET` or `AF_INET6`.
    const NUMBER: u8;

    /// Fills in the destination of a route look-up.
    fn destination(addr: Self::Addr) -> [u32; 4];

    /// Whether a UDP socket of the node is connected with the sender of this packet. A real call, for
    /// the sake of the stack.
    fn connected_socket(context: *mut c_void, packet: &FlowKey<Self::Addr>) -> bool;
}

/// Whether the route to `addr` leads out of `wanted`. True when the node does not forward at all.
///
/// A real call, for the sake of the stack.
#[inline(never)]
pub(super) fn routed_by<F: KernelFamily>(
    context: *mut c_void,
    arrival: u32,
    addr: &F::Addr,
    wanted: u32,
) -> bool {
    const SIZE: usize = size_of::<bpf_fib_lookup>();
    const _: () = assert!(SIZE == 64);
    // By words of eight bytes: a call to memset is not to be had here.
    let mut params = MaybeUninit::<[u64; SIZE / 8]>::uninit();
    let words = params.as_mut_ptr().cast::<u64>();
    for word in 0..SIZE / 8 {
        // SAFETY: within the array. Volatile, so that it does not become a call to memset.
        unsafe { words.add(word).write_volatile(0) };
    }
    let params = words.cast::<bpf_fib_lookup>();
    // SAFETY: all zero is a valid value; the context is valid; the helper writes within the size given.
    let (answer, found) = unsafe {
        (*params).family = F::NUMBER;
        (*params).ifindex = arrival;
        (*params).__bindgen_anon_4.ipv6_dst = F::destination(*addr);
        let answer = fib_lookup(context, params, SIZE as i32, 0);
        (answer, (*params).ifindex)
    };
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => found == wanted,
        BPF_FIB_LKUP_RET_FWD_DISABLED => true,
        _ => false,
    }
}

impl KernelFamily for V4 {
    const NUMBER: u8 = 2;

    #[inline(always)]
    fn destination(addr: Ip4) -> [u32; 4] {
        [addr.word(), 0, 0, 0]
    }

    #[inline(never)]
    fn connected_socket(context: *mut c_void, packet: &FlowKey<Ip4>) -> bool {
        let (peer, peer_port) = (packet.src.word(), packet.src_port.word());
        let mut tuple = (peer, packet.dst.word(), peer_port, packet.dst_port.word());
        connected(context, (&raw mut tuple).cast(), 12, |socket| {
            // SAFETY: the kernel gave the socket, and it is not released yet.
            unsafe { (*socket).dst_ip4 == peer && (*socket).dst_port == peer_port }
        })
    }
}

impl KernelFamily for V6 {
    const NUMBER: u8 = 10;

    #[inline(always)]
    fn destination(addr: Ip6) -> [u32; 4] {
        addr.words()
    }

    #[inline(never)]
    fn connected_socket(context: *mut c_void, packet: &FlowKey<Ip6>) -> bool {
        let (peer, peer_port) = (packet.src.words(), packet.src_port.word());
        let mut tuple = (peer, packet.dst.words(), peer_port, packet.dst_port.word());
        connected(context, (&raw mut tuple).cast(), 36, |socket| {
            let [a, b, c, d] = peer;
            // SAFETY: the kernel gave the socket, and it is not released yet. Word by word: the compiler would make
            // one wide access of it, which the kernel refuses on a socket.
            unsafe {
                let words = (&raw const (*socket).dst_ip6).cast::<u32>();
                words.read_volatile() == a
                    && words.add(1).read_volatile() == b
                    && words.add(2).read_volatile() == c
                    && words.add(3).read_volatile() == d
                    && (*socket).dst_port == peer_port
            }
        })
    }
}

#[inline(always)]
fn connected(
    context: *mut c_void,
    tuple: *mut bpf_sock_tuple,
    size: u32,
    is_peer: impl Fn(*mut bpf_sock) -> bool,
) -> bool {
    // SAFETY: the tuple has the given size, and the context is valid.
    let socket = unsafe { bpf_sk_lookup_udp(context, tuple, size, BPF_F_CURRENT_NETNS as u64, 0) };
    if socket.is_null() {
        return false;
    }
    let connected = is_peer(socket);
    // SAFETY: it was found just above, and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    connected
}
