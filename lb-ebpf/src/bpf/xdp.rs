//! A packet at the XDP hook of an uplink.

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use lb_common::DropReason;
use lb_ebpf::ctx::{ChecksumPatch, Hook, Packet, Room};
use lb_ebpf::link::ETHERNET;
use lb_ebpf::verdict::{Next, Reason, Stop};
use lb_ebpf::wire::Wire;
use lb_ebpf::work::Work;

use super::access::{self, Bounds};
use super::devices;
use super::env::Context;

/// No action, but the step that a packet is still to take ([`stage`](lb_ebpf::stage)).
pub(super) const MORE: u32 = u32::MAX;

/// The hook's context.
pub(super) struct Xdp {
    pub(super) context: *mut xdp_md,
}

macro_rules! field {
    ($self:ident.$field:ident) => {
        // SAFETY: the kernel gives each run of the program a valid context.
        unsafe { (*$self.context).$field }
    };
}

impl Context for Xdp {
    #[inline(always)]
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.context.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self.ingress_ifindex)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        false
    }
}

impl Bounds for Xdp {
    #[inline(always)]
    fn data(&self) -> usize {
        field!(self.data) as usize
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        field!(self.data_end) as usize
    }
}

impl Packet for Xdp {
    #[inline(always)]
    fn length(&self) -> u32 {
        let mut length = self.data_end() - self.data();
        // The compiler would move what is added to it to before the difference, where it would be added to a pointer.
        // SAFETY: a register is copied to itself: lines of debug information must not share an instruction.
        unsafe { asm!("{0} = {0}", inout(reg) length, options(pure, nomem, nostack)) };
        length as u32
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }

    /// What is not in the linear part is left to TC.
    #[inline(always)]
    fn linearize(&mut self, _bytes: u32) -> Result<(), Stop> {
        Ok(())
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

    /// By hand (RFC 1624): here every checksum is complete.
    #[inline(always)]
    fn patch_checksum(&mut self, patch: ChecksumPatch) -> Result<(), Stop> {
        patch.by_hand(self)
    }

    /// No sum has come with the packet.
    #[inline(always)]
    fn unbalanced(&mut self, _change: u32) {}

    #[inline(always)]
    fn put_checksum(&mut self, at: u32, whole: u16, _offloaded: u16) -> Result<(), Stop> {
        self.write_u16(at, whole)
    }

    #[inline(always)]
    fn trim(&mut self, length: u32) -> Result<(), Stop> {
        let change = length as i32 - self.length() as i32;
        // SAFETY: the context is valid.
        done(unsafe { bpf_xdp_adjust_tail(self.context, change) })
    }

    /// The link-layer header moves to the front.
    #[inline(always)]
    fn make_room(&mut self, l3: u32, bytes: u32, _what: Room) -> Result<(), Stop> {
        if l3 != ETHERNET {
            return Err(Stop::drop(DropReason::RewriteFailed));
        }
        let link = Link::read(self, 0)?;
        // SAFETY: the context is valid.
        done(unsafe { bpf_xdp_adjust_head(self.context, -(bytes as i32)) })?;
        link.write(self)
    }

    /// The link-layer header moves to the new front.
    #[inline(always)]
    fn take_away(&mut self, l3: u32, bytes: u32, _what: Room) -> Result<(), Stop> {
        if l3 != ETHERNET {
            return Err(Stop::drop(DropReason::RewriteFailed));
        }
        let link = Link::read(self, 0)?;
        // SAFETY: the context is valid.
        done(unsafe { bpf_xdp_adjust_head(self.context, bytes as i32) })?;
        link.write(self)
    }

    /// Nothing comes in by another device from here.
    #[inline(always)]
    fn readdress(&mut self, _l3: u32, _mac: [u8; 6]) -> Result<(), Stop> {
        Err(Stop::PASS)
    }

    #[inline(always)]
    fn hook(&self) -> Hook {
        Hook::Xdp
    }

    #[inline(always)]
    fn is_for(&self, [a, b, c, d, e, f]: [u8; 6]) -> bool {
        let (Ok([first]), Ok(last)) = (self.read::<1>(0), self.read_u16(4)) else {
            return false;
        };
        let difference =
            (first ^ u32::from_ne_bytes([a, b, c, d])) | u32::from(last ^ u16::from_ne_bytes([e, f]));
        difference == 0
    }
}

/// An Ethernet header without tags.
struct Link {
    addresses: [u32; 3],
    kind: u16,
}

impl Link {
    #[inline(always)]
    fn read(packet: &Xdp, at: u32) -> Result<Self, Stop> {
        Ok(Self {
            addresses: packet.read::<3>(at)?,
            kind: packet.read_u16(at + 12)?,
        })
    }

    #[inline(always)]
    fn write(&self, packet: &mut Xdp) -> Result<(), Stop> {
        packet
            .write(0, self.addresses)
            .and_then(|()| packet.write_u16(12, self.kind))
            .map_err(|_| Stop::drop(DropReason::RewriteFailed))
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

/// What the driver is told.
#[inline(always)]
pub(super) fn action<F: Wire>(packet: &mut Xdp, work: &Work<F>, done: Result<Next, Stop>) -> u32 {
    match done {
        Ok(Next::Stack | Next::Arrive | Next::Own | Next::Return | Next::Answer) => XDP_PASS,
        Err(stop) => match stop.reason() {
            Reason::Pass | Reason::Answer(_) => XDP_PASS,
            Reason::Drop(number) => drop(number),
        },
        Ok(Next::More) => MORE,
        Ok(Next::Back) => XDP_TX,
        Ok(Next::Out) => match address(packet, work) {
            Ok(()) if work.flow.hop.ifindex == packet.ifindex() => XDP_TX,
            // SAFETY: the helper takes any numbers.
            Ok(()) => unsafe { bpf_redirect(work.flow.hop.ifindex, 0) as u32 },
            Err(_) => drop(DropReason::RewriteFailed as u32),
        },
    }
}

/// Addresses the frame to the next hop.
#[inline(always)]
fn address<F: Wire>(packet: &mut Xdp, work: &Work<F>) -> Result<(), Stop> {
    let hop = &work.flow.hop;
    let from = if hop.ifindex == packet.ifindex() {
        // This device's: the core has seen that the frame is addressed to it.
        let ([first], last) = (packet.read::<1>(0)?, packet.read_u16(4)?);
        let ([a, b, c, d], [e, f]) = (first.to_ne_bytes(), last.to_ne_bytes());
        [a, b, c, d, e, f]
    } else {
        devices::known(hop.ifindex).ok_or(Stop::PASS)?.mac
    };
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (hop.dst, from);
    let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l]];
    packet.write(0, words.map(u32::from_ne_bytes))
}

/// Counts a packet that is dropped; says so to the driver.
#[inline(always)]
fn drop(reason: u32) -> u32 {
    super::env::count_drop(reason);
    XDP_DROP
}
