//! A packet at a TC hook.

use aya_ebpf::bindings::{
    __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
    BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
};
use aya_ebpf::helpers::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_pull_data, bpf_skb_vlan_pop,
};
use lb_common::DropReason;
use lb_ebpf::ctx::{ChecksumPatch, Hook, Packet, Room, Segments};
use lb_ebpf::hop::LOOPBACK;
use lb_ebpf::link::ETHERNET;
use lb_ebpf::verdict::{Next, Reason, Stop};
use lb_ebpf::wire::Wire;
use lb_ebpf::work::Work;

use super::access::{self, Bounds};
use super::env::Context;

/// Go on with the next program, and then with the packet's way: never `TC_ACT_OK`, which would hide the packet from
/// the programs that come after this one.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

/// Enough of the packet for the headers of most: Ethernet with two tags, IPv6, TCP.
const COMMON_HEADERS: u32 = 14 + 8 + 40 + 20;

/// No actions, but the steps that a packet is still to take ([`stage`](lb_ebpf::stage)).
pub(super) const MORE: i32 = i32::MIN;
pub(super) const OWN: i32 = i32::MIN + 1;
pub(super) const RETURN: i32 = i32::MIN + 2;
pub(super) const ANSWER: i32 = i32::MIN + 3;

/// `BPF_ADJ_ROOM_MAC`: between the link-layer header and the network header.
const AFTER_LINK_LAYER: u32 = 1;
/// `PACKET_HOST`: the frame is for this node, and for nobody else.
const FOR_NODE: u32 = 0;
/// In a packet's `tc_index`: sent on by one of our programs. Nothing in the kernel looks at it any more, and what others
/// put there stays.
const SENT_ON: u32 = 1 << 14;
/// The kernel's `GSO_BY_FRAGS`: the size of packets that are of any sizes.
const BY_FRAGMENTS: u32 = 0xffff;
/// The context of the ingress hook, or of the egress one.
pub(super) struct Tc<const EGRESS: bool> {
    pub(super) skb: *mut __sk_buff,
}

macro_rules! field {
    ($self:ident.$field:ident) => {
        // SAFETY: the kernel gives each run of the program a valid context.
        unsafe { (*$self.skb).$field }
    };
}

impl<const EGRESS: bool> Tc<EGRESS> {
    /// Makes the headers of most packets readable; a rare packet has less in its linear part.
    #[inline(always)]
    pub(super) fn prepare(&mut self) -> Result<(), Stop> {
        let wanted = if self.length() < COMMON_HEADERS {
            self.length()
        } else {
            COMMON_HEADERS
        };
        if self.data() + wanted as usize > self.data_end() {
            return self.linearize(COMMON_HEADERS);
        }
        Ok(())
    }

    /// The `EtherType` that the stack has found, as it stands in memory.
    #[inline(always)]
    pub(super) fn ether_type(&self) -> u16 {
        field!(self.protocol) as u16
    }
}

impl<const EGRESS: bool> Tc<EGRESS> {
    /// Adds a change that no checksum balances to the sum of its bytes that came with the packet.
    #[inline(always)]
    fn update_sum(&self, change: u32) {
        // SAFETY: the context is valid. It fails when there is no such sum, and then there is nothing to do.
        let _no_sum = unsafe { bpf_csum_update(self.skb, change) };
    }
}

impl<const EGRESS: bool> Context for Tc<EGRESS> {
    #[inline(always)]
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self.ifindex)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        // A packet that was sent on to another device meets the program there as well.
        EGRESS && field!(self.ingress_ifindex) | (field!(self.tc_index) & SENT_ON) == 0
    }
}

impl<const EGRESS: bool> Bounds for Tc<EGRESS> {
    #[inline(always)]
    fn data(&self) -> usize {
        field!(self.data) as usize
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        field!(self.data_end) as usize
    }
}

impl<const EGRESS: bool> Packet for Tc<EGRESS> {
    #[inline(always)]
    fn length(&self) -> u32 {
        field!(self.len)
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        match field!(self.gso_segs) {
            0 => 1,
            segments => segments,
        }
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        match field!(self.gso_size) {
            // SCTP's packets are each as long as its sender has made them, for the way that it knows.
            BY_FRAGMENTS => 1,
            size => size,
        }
    }

    #[inline(always)]
    fn linearize(&mut self, bytes: u32) -> Result<(), Stop> {
        let wanted = if self.length() < bytes {
            self.length()
        } else {
            bytes
        };
        if self.data() + wanted as usize <= self.data_end() {
            return Ok(());
        }
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_pull_data(self.skb, wanted) } {
            0 => Ok(()),
            _ => Err(Stop::PASS),
        }
    }

    #[inline(always)]
    fn read_u16(&self, at: u32) -> Result<u16, Stop> {
        access::read_u16(self, at)
    }

    #[inline(always)]
    fn read<const WORDS: usize>(&self, at: u32) -> Result<[u32; WORDS], Stop> {
        access::read(self, at)
    }

    #[inline(always)]
    fn write_u16(&mut self, at: u32, word: u16) -> Result<(), Stop> {
        access::write_u16(self, at, word)
    }

    #[inline(always)]
    fn write<const WORDS: usize>(&mut self, at: u32, words: [u32; WORDS]) -> Result<(), Stop> {
        access::write(self, at, words)
    }

    #[inline(always)]
    fn unbalanced(&mut self, change: u32) {
        self.update_sum(change);
    }

    /// Whether a checksum is yet to be computed nobody tells, but the helper then leaves what is written there.
    #[inline(always)]
    fn put_checksum(&mut self, at: u32, whole: u16, offloaded: u16) -> Result<(), Stop> {
        self.write_u16(at, offloaded)?;
        let change = u32::from(!whole) + u32::from(offloaded);
        // SAFETY: the context is valid; the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, at, 0, change.into(), 0) })
    }

    /// The helper forgets the sum that came with the packet when it changes its length.
    #[inline(always)]
    fn trim(&mut self, length: u32) -> Result<(), Stop> {
        if length == self.length() {
            // SAFETY: the context is valid.
            done(unsafe { bpf_skb_change_tail(self.skb, length + 1, 0) })?;
        }
        // SAFETY: the context is valid.
        done(unsafe { bpf_skb_change_tail(self.skb, length, 0) })
    }

    #[inline(always)]
    fn make_room(&mut self, _l3: u32, bytes: u32, what: Room) -> Result<(), Stop> {
        let (header, segments) = match what {
            Room::Ip4(segments) => (BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, segments),
            Room::Ip6(segments) => (BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, segments),
            Room::Answer => (0, Segments::Smaller),
        };
        let flags = header
            | match segments {
                Segments::Kept => BPF_F_ADJ_ROOM_FIXED_GSO,
                Segments::Smaller => 0,
            };
        // SAFETY: the context is valid.
        done(unsafe { bpf_skb_adjust_room(self.skb, bytes as i32, AFTER_LINK_LAYER, flags.into()) })
    }

    #[inline(always)]
    fn take_away(&mut self, _l3: u32, bytes: u32, what: Room) -> Result<(), Stop> {
        let flags = match what {
            // Longer segments than came might not fit on their way.
            Room::Ip4(_) | Room::Ip6(_) => BPF_F_ADJ_ROOM_FIXED_GSO,
            Room::Answer => 0,
        };
        // SAFETY: the context is valid.
        done(unsafe { bpf_skb_adjust_room(self.skb, -(bytes as i32), AFTER_LINK_LAYER, flags.into()) })
    }

    #[inline(always)]
    fn readdress(&mut self, l3: u32, [a, b, c, d, e, f]: [u8; 6]) -> Result<(), Stop> {
        for _tag in 0..2 {
            if field!(self.vlan_present) != 0 {
                // SAFETY: the context is valid.
                done(unsafe { bpf_skb_vlan_pop(self.skb) })?;
            }
        }
        if l3 == 0 {
            make_link_layer(self.skb)?;
            self.write_u16(12, self.ether_type())?;
        }
        self.write(0, [u32::from_ne_bytes([a, b, c, d])])
            .and_then(|()| self.write_u16(4, u16::from_ne_bytes([e, f])))
            .map_err(|_| Stop::drop(DropReason::RewriteFailed))
    }

    #[inline(always)]
    fn hook(&self) -> Hook {
        if EGRESS { Hook::Egress } else { Hook::Ingress }
    }

    /// The driver has looked.
    #[inline(always)]
    fn is_for(&self, _mac: [u8; 6]) -> bool {
        field!(self.pkt_type) == FOR_NODE
    }

    /// By the kernel's helpers: only they know whether the checksum is complete, is yet to be computed by the device
    /// (then it covers the pseudo-header alone), or came with the packet's sum from the device.
    #[inline(always)]
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        if patch.zero_is_none && self.read_u16(patch.at)? == 0 {
            self.update_sum(patch.ports);
            if !patch.balanced_in_header {
                self.update_sum(patch.addresses);
            }
            return Ok(());
        }
        let zero_is_none = if patch.zero_is_none {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        let pseudo = zero_is_none | u64::from(BPF_F_PSEUDO_HDR);
        // SAFETY: the context is valid; the helper checks the offset.
        let done = unsafe { bpf_l4_csum_replace(self.skb, patch.at, 0, patch.addresses.into(), pseudo) };
        if done != 0 {
            return Err(Stop::drop(DropReason::RewriteFailed));
        }
        if !patch.balanced_in_header {
            // The helper has taken the change out of the sum that the device gave, as if a header checksum balanced it.
            self.update_sum(patch.addresses);
        }
        if patch.ports != 0 {
            // SAFETY: as above.
            let done =
                unsafe { bpf_l4_csum_replace(self.skb, patch.at, 0, patch.ports.into(), zero_is_none) };
            if done != 0 {
                return Err(Stop::drop(DropReason::RewriteFailed));
            }
        }
        Ok(())
    }
}

/// What a helper that changes the packet's length says.
#[inline(always)]
fn done(result: i64) -> Result<(), Stop> {
    if result == 0 {
        Ok(())
    } else {
        Err(Stop::drop(DropReason::RewriteFailed))
    }
}

/// What TC is told.
#[inline(always)]
pub(super) fn action<F: Wire, const EGRESS: bool>(
    tc: &Tc<EGRESS>,
    work: &Work<F>,
    done: Result<Next, Stop>,
) -> i32 {
    match done {
        Ok(Next::Stack) => NEXT,
        Err(stop) => match stop.reason() {
            Reason::Pass | Reason::Answer(_) => NEXT,
            Reason::Drop(number) => drop(number),
        },
        Ok(Next::More) => MORE,
        Ok(Next::Out) => out(tc, work.packet.l3, work.flow.hop.ifindex),
        // What leaves by the loopback device comes in there by itself; sent round, it would have to be routed, and its
        // source is an address of the node.
        Ok(Next::Back) if tc.ifindex() == LOOPBACK => NEXT,
        Ok(Next::Back) => redirect(tc.ifindex(), EGRESS),
        Ok(Next::Own) => OWN,
        Ok(Next::Return) => RETURN,
        Ok(Next::Answer) => ANSWER,
        Ok(Next::Arrive) => redirect(work.flow.arrival, true),
    }
}

/// Sends the packet out by a device, to the next hop that the routes tell.
#[inline(always)]
fn out<const EGRESS: bool>(tc: &Tc<EGRESS>, l3: u32, ifindex: u32) -> i32 {
    if EGRESS {
        // SAFETY: the context is valid. Volatile: the kernel takes no access of less than the whole field.
        unsafe {
            let tc_index = &raw mut (*tc.skb).tc_index;
            tc_index.write_volatile(tc_index.read_volatile() | SENT_ON);
        }
    }
    // The helper takes only what has a link-layer header.
    if l3 == 0 && make_link_layer(tc.skb).is_err() {
        return drop(DropReason::RewriteFailed as u32);
    }
    // SAFETY: the helper takes any index, and no parameters for the neighbour: it asks the routes.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

/// Puts an Ethernet header of zeros in front of a packet that has none.
#[inline(always)]
fn make_link_layer(skb: *mut __sk_buff) -> Result<(), Stop> {
    // SAFETY: the context is valid.
    done(unsafe { bpf_skb_change_head(skb, ETHERNET, 0) })
}

/// Sends the packet out by a device, or lets it come in there.
#[inline(always)]
fn redirect(ifindex: u32, ingress: bool) -> i32 {
    let flags = if ingress { u64::from(BPF_F_INGRESS) } else { 0 };
    // SAFETY: the helper takes any numbers.
    unsafe { bpf_redirect(ifindex, flags) as i32 }
}

/// Counts a packet that is dropped; says so to TC.
#[inline(always)]
fn drop(reason: u32) -> i32 {
    super::env::count_drop(reason);
    SHOT
}

/// What TC is told of a packet whose family is not known.
#[inline(always)]
pub(super) const fn untouched() -> i32 {
    NEXT
}
