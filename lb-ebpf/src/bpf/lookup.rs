//! What the kernel itself is asked: its routes and its sockets.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::{
    BPF_F_CURRENT_NETNS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED,
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, bpf_fib_lookup, bpf_sock,
    bpf_sock_tuple,
};
use aya_ebpf::helpers::{
    bpf_fib_lookup as fib_lookup, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
};
use lb_common::{FlowKey, Hop, Ip4, Ip6, V4, V6, protocol};
use lb_ebpf::ctx::Route;
use lb_ebpf::wire::Wire;

use super::flows::FlowTable;

/// A family as the kernel's look-ups know it.
pub(super) trait KernelFamily: Wire + FlowTable {
    /// `AF_INET` or `AF_INET6`.
    const NUMBER: u8;

    /// Whether a look-up of the way out by a device sees the rules for sources: only then does it say what
    /// `bpf_redirect_neigh` does.
    const FINDS_WAYS_OUT: bool;

    /// An address as a route look-up takes it.
    fn words(addr: Self::Addr) -> [u32; 4];

    /// Whether a UDP socket of the node is connected with the sender of this packet. A real call, for
    /// the sake of the stack.
    fn connected_socket(context: *mut c_void, packet: &FlowKey<Self::Addr>) -> bool;

    /// Whether the packet would find a socket of the node. A real call, for the sake of the stack.
    fn any_socket(context: *mut c_void, packet: &FlowKey<Self::Addr>) -> bool;
}

/// The parameters of a route look-up (`struct bpf_fib_lookup`) as words.
type Parameters = [u32; size_of::<bpf_fib_lookup>() / 4];

/// Parameters of which all but the family is zero.
#[inline(always)]
fn parameters<F: KernelFamily>() -> MaybeUninit<Parameters> {
    let mut params = MaybeUninit::<Parameters>::uninit();
    let words = params.as_mut_ptr().cast::<u64>();
    for word in 0..size_of::<Parameters>() / 8 {
        // SAFETY: within the array. Volatile, so that it does not become a call to memset.
        unsafe { words.add(word).write_volatile(0) };
    }
    // SAFETY: the first word.
    unsafe { params.as_mut_ptr().cast::<u8>().write_volatile(F::NUMBER) };
    params
}

/// Where things stand in the parameters, in words.
mod word {
    /// Address family, protocol, source port.
    pub(super) const FIRST: usize = 0;
    /// Destination port, length; later the way's size.
    pub(super) const PORT_AND_LENGTH: usize = 1;
    pub(super) const IFINDEX: usize = 2;
    pub(super) const SOURCE: usize = 4;
    pub(super) const DESTINATION: usize = 8;
    /// The next hop's hardware address, two bytes further: the device's ends there.
    pub(super) const NEIGHBOUR: usize = 14;
}

/// The way of a packet; `arrival` is the device that it came in by. A real call, for the sake of the stack.
#[inline(never)]
pub(super) fn route<F: KernelFamily>(
    context: *mut c_void,
    key: &FlowKey<F::Addr>,
    (arrival, length): (u32, u32),
    hop: &mut Hop,
) -> Route {
    let mut params = parameters::<F>();
    let words = params.as_mut_ptr().cast::<u32>();
    // Without a length the kernel does not tell the way's size.
    let length = if length == 0 { 1 } else { length.min(0xffff) };
    let [a, b] = key.src_port.octets;
    let first = u32::from_ne_bytes([F::NUMBER, key.protocol, a, b]);
    // SAFETY: all offsets are within the array; the context is valid; the helper writes within the size given.
    let answer = unsafe {
        words.add(word::FIRST).write(first);
        words
            .add(word::PORT_AND_LENGTH)
            .write(u32::from(key.dst_port.word()) | length << 16);
        words.add(word::IFINDEX).write(arrival);
        put(words.add(word::SOURCE), F::words(key.src));
        put(words.add(word::DESTINATION), F::words(key.dst));
        fib_lookup(context, words.cast(), size_of::<Parameters>() as i32, 0)
    };
    // SAFETY: as above.
    let [size, ifindex, a, b] = unsafe {
        [
            words.add(word::PORT_AND_LENGTH).read_volatile() >> 16,
            words.add(word::IFINDEX).read_volatile(),
            words.add(word::NEIGHBOUR).read_volatile(),
            words.add(word::NEIGHBOUR + 1).read_volatile(),
        ]
    };
    hop.ifindex = ifindex;
    hop.mtu = size as u16;
    let ([_, _, a, b], [c, d, e, f]) = (a.to_ne_bytes(), b.to_ne_bytes());
    hop.dst = [a, b, c, d, e, f];
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Route::Neighbour,
        BPF_FIB_LKUP_RET_NO_NEIGH => Route::NoNeighbour,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => Route::TooLong,
        _ => Route::None,
    }
}

/// The size of the way out by the device `wanted` of a packet that leaves by `here`; 0: there is none. A real call, for the
/// sake of the stack.
///
/// First as the rules say for the packet's source, then by any route out of that device.
#[inline(never)]
pub(super) fn way_by<F: KernelFamily>(
    context: *mut c_void,
    key: &FlowKey<F::Addr>,
    here: u32,
    wanted: u32,
) -> u32 {
    match way_out::<F>(context, key, here, wanted) {
        0 if F::FINDS_WAYS_OUT => way_out::<F>(context, key, wanted, wanted),
        size => size,
    }
}

/// As [`way_by`], by one look-up: of a packet that has come in by `device`, or of one that is to leave by it if that is the
/// one which is wanted.
#[inline(never)]
fn way_out<F: KernelFamily>(context: *mut c_void, key: &FlowKey<F::Addr>, device: u32, wanted: u32) -> u32 {
    let mut params = parameters::<F>();
    let words = params.as_mut_ptr().cast::<u32>();
    let [a, b] = key.src_port.octets;
    let first = u32::from_ne_bytes([F::NUMBER, key.protocol, a, b]);
    let flags = if device == wanted {
        BPF_FIB_LOOKUP_OUTPUT
    } else {
        0
    };
    // SAFETY: all offsets are within the array; the context is valid; the helper writes within the size given.
    let (answer, size, found) = unsafe {
        words.add(word::FIRST).write(first);
        words
            .add(word::PORT_AND_LENGTH)
            .write(u32::from(key.dst_port.word()) | 1 << 16);
        words.add(word::IFINDEX).write(device);
        put(words.add(word::SOURCE), F::words(key.src));
        put(words.add(word::DESTINATION), F::words(key.dst));
        let answer = fib_lookup(context, words.cast(), size_of::<Parameters>() as i32, flags);
        (
            answer,
            words.add(word::PORT_AND_LENGTH).read_volatile() >> 16,
            words.add(word::IFINDEX).read_volatile(),
        )
    };
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS if found == wanted => size,
        BPF_FIB_LKUP_RET_NO_NEIGH if found == wanted => u32::from(u16::MAX),
        _ => 0,
    }
}

/// # Safety
/// There is room for four words.
#[inline(always)]
unsafe fn put(at: *mut u32, [a, b, c, d]: [u32; 4]) {
    // SAFETY: the caller's.
    unsafe {
        at.write(a);
        at.add(1).write(b);
        at.add(2).write(c);
        at.add(3).write(d);
    }
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
    let mut params = parameters::<F>();
    let words = params.as_mut_ptr().cast::<u32>();
    // SAFETY: all offsets are within the array; the context is valid; the helper writes within the size given.
    let (answer, found) = unsafe {
        words.add(word::IFINDEX).write(arrival);
        put(words.add(word::DESTINATION), F::words(*addr));
        let answer = fib_lookup(context, words.cast(), size_of::<Parameters>() as i32, 0);
        (answer, words.add(word::IFINDEX).read_volatile())
    };
    match answer as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => found == wanted,
        BPF_FIB_LKUP_RET_FWD_DISABLED => true,
        _ => false,
    }
}

impl KernelFamily for V4 {
    const NUMBER: u8 = 2;
    const FINDS_WAYS_OUT: bool = true;

    #[inline(always)]
    fn words(addr: Ip4) -> [u32; 4] {
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

    #[inline(never)]
    fn any_socket(context: *mut c_void, packet: &FlowKey<Ip4>) -> bool {
        let ports = (packet.src_port.word(), packet.dst_port.word());
        let mut tuple = (packet.src.word(), packet.dst.word(), ports.0, ports.1);
        any(context, (&raw mut tuple).cast(), 12, packet.protocol)
    }
}

impl KernelFamily for V6 {
    const NUMBER: u8 = 10;
    /// `bpf_ipv6_fib_lookup` sets `RT6_LOOKUP_F_HAS_SADDR` only for what has come in.
    const FINDS_WAYS_OUT: bool = false;

    #[inline(always)]
    fn words(addr: Ip6) -> [u32; 4] {
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

    #[inline(never)]
    fn any_socket(context: *mut c_void, packet: &FlowKey<Ip6>) -> bool {
        let ports = (packet.src_port.word(), packet.dst_port.word());
        let mut tuple = (packet.src.words(), packet.dst.words(), ports.0, ports.1);
        any(context, (&raw mut tuple).cast(), 36, packet.protocol)
    }
}

#[inline(always)]
fn any(context: *mut c_void, tuple: *mut bpf_sock_tuple, size: u32, protocol: u8) -> bool {
    // SAFETY: the tuple has the given size, and the context is valid.
    let socket = unsafe {
        if protocol == protocol::TCP {
            bpf_skc_lookup_tcp(context, tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
        } else {
            bpf_sk_lookup_udp(context, tuple, size, BPF_F_CURRENT_NETNS as u64, 0)
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: it was found just above, and is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
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
