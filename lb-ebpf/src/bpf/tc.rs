//! A packet at a TC hook.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_csum_update, bpf_l4_csum_replace, bpf_skb_pull_data};
use lb_common::DropReason;
use lb_ebpf::ctx::{ChecksumPatch, Packet};
use lb_ebpf::verdict::Stop;

use super::access::{self, Bounds};
use super::env::Hook;

/// Go on with the next program, and then with the packet's way: never `TC_ACT_OK`, which would hide the packet from
/// the programs that come after this one.
const NEXT: i32 = -1;
/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;

/// Enough of the packet for the headers of most: Ethernet with two tags, IPv6, TCP.
const COMMON_HEADERS: u32 = 14 + 8 + 40 + 20;

/// The hook's context.
pub(super) struct Tc {
    pub(super) skb: *mut __sk_buff,
}

macro_rules! field {
    ($self:ident.$field:ident) => {
        // SAFETY: the kernel gives each run of the program a valid context.
        unsafe { (*$self.skb).$field }
    };
}

impl Tc {
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

impl Tc {
    /// Adds a change that no checksum balances to the sum of its bytes that came with the packet.
    #[inline(always)]
    fn update_sum(&self, change: u32) {
        // SAFETY: the context is valid. It fails when there is no such sum, and then there is nothing to do.
        let _no_sum = unsafe { bpf_csum_update(self.skb, change) };
    }
}

impl Hook for Tc {
    #[inline(always)]
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        field!(self.ifindex)
    }
}

impl Bounds for Tc {
    #[inline(always)]
    fn data(&self) -> usize {
        field!(self.data) as usize
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        field!(self.data_end) as usize
    }
}

impl Packet for Tc {
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
            _ => Err(Stop::Pass),
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
    fn write_u32(&mut self, at: u32, word: u32) -> Result<(), Stop> {
        access::write_u32(self, at, word)
    }

    /// By way of the control block, which is put back as it was.
    #[inline(always)]
    fn forget(&mut self, word: u32) -> u32 {
        // SAFETY: the context is valid; the volatile accesses keep the way there and back.
        unsafe {
            let cell = (&raw mut (*self.skb).cb).cast::<u32>();
            let other = cell.read_volatile();
            cell.write_volatile(word);
            let forgotten = cell.read_volatile();
            cell.write_volatile(other);
            forgotten
        }
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
            return Err(Stop::Drop(DropReason::RewriteFailed));
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
                return Err(Stop::Drop(DropReason::RewriteFailed));
            }
        }
        Ok(())
    }
}

/// What TC is told.
#[inline(always)]
pub(super) fn action(stopped: Result<(), Stop>) -> i32 {
    match stopped {
        Ok(()) | Err(Stop::Pass) => NEXT,
        Err(Stop::Drop(reason)) => {
            super::env::count_drop(reason);
            SHOT
        }
    }
}
