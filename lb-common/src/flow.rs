//! The flow table: every translation that is remembered.

use crate::addr::Port;

/// Where in the packet's way an entry applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Pre-routing: rewrites the destination.
    Pre = 1,
    /// Post-routing: rewrites the source.
    Post = 2,
}

/// What a flow is found by ([`crate::flow_table`]): the packet as this stage meets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(4))]
pub struct FlowKey<A> {
    /// Source address of the packet.
    pub src: A,
    /// Destination address of the packet.
    pub dst: A,
    /// Source port of the packet.
    pub src_port: Port,
    /// Destination port of the packet.
    pub dst_port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// [`Stage`].
    pub stage: u8,
    /// Always 0.
    pub pad: [u8; 2],
}

/// What is remembered of a flow in one direction and at one stage. Replaced as a whole, never edited in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Flow<A> {
    /// The address that this stage puts in: the destination in pre, the source in post.
    pub addr: A,
    /// The address that the *other* endpoint of the packet is to have, where this entry rewrites both
    /// ([`FlowFlags::BOTH`]); elsewhere all zero.
    pub peer_addr: A,
    /// The port that goes with [`Flow::addr`].
    pub port: Port,
    /// The port that the *other* endpoint of the packet is to have. It differs from the packet's where both endpoints
    /// are rewritten, or where two connections would share one reverse key: pre then replaces the client's port, post
    /// puts it back.
    pub peer_port: Port,
    /// The service port; 0 for a flow that is no service's ([`FlowFlags::DIRECT`]).
    pub service: u32,
    /// Index into `lb_backends4`, `lb_backends6`.
    pub backend: u32,
    /// Low 32 bits of the kernel's jiffies (host order); advances at most once a second.
    pub last_seen: u32,
    /// The backend's epoch when it was chosen.
    pub epoch: u16,
    /// [`TcpState`]: what this direction has shown.
    pub tcp: u8,
    /// [`FlowFlags`].
    pub flags: u8,
    /// The device that the client's packets arrive on, or that the node's own were about to leave by; 0 where it does not
    /// matter.
    pub arrival: u32,
    /// How the last packet left, where the programs themselves send it, or may.
    pub hop: Hop,
}

/// The next hop of a flow that the programs send on by themselves. Good while the settings' epoch of routes is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Hop {
    /// The device to leave by; 0: not known.
    pub ifindex: u32,
    /// [`crate::Settings::route_epoch`] when it was found.
    pub epoch: u32,
    /// The largest network packet on this way, in bytes; at most 65535.
    pub mtu: u16,
    /// The hardware address of the next hop.
    pub dst: [u8; 6],
}

/// Bits of [`Flow::tcp`]. Each entry knows its own direction alone.
#[derive(Clone, Copy, Debug)]
pub struct TcpState;

impl TcpState {
    /// Something other than SYN or SYN-ACK went by: the handshake is over. Of other protocols: seen for longer than a second.
    pub const ESTABLISHED: u8 = 1;
    /// FIN went by.
    pub const FIN: u8 = 2;
    /// RST went by.
    pub const RST: u8 = 4;
}

/// Bits of [`Flow::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FlowFlags;

impl FlowFlags {
    /// A connection straight to a pod, tracked only because it had to be given another source port.
    pub const DIRECT: u8 = 1;
    /// Both endpoints are rewritten at once, in pre, where the other entry stands as well. The programs send such
    /// packets on by themselves: their new source is an address of the node, which must not come in from a device.
    pub const BOTH: u8 = 1 << 1;
    /// The entry of the way back.
    pub const REPLY: u8 = 1 << 2;
    /// In pre: the packet goes wrapped to the backend's node, and nothing in it is rewritten (direct server return).
    pub const WRAPPED: u8 = 1 << 3;
    /// In pre: post has to replace the source, too (masquerade on the way through the stack). In post, in the entry of the
    /// way there: its source has still to be found. With [`FlowFlags::REPLY`]: the flow is masqueraded so.
    pub const MASQUERADE: u8 = 1 << 4;
    /// The client is the node itself.
    pub const NODE: u8 = 1 << 5;
    /// The client's packets came in by an uplink.
    pub const OUTSIDE: u8 = 1 << 6;
    /// In the entry of the way there: the flow is counted among the open connections of its backend.
    pub const COUNTED: u8 = 1 << 7;
}
