//! The one bounds-checked way to a packet's bytes.

use core::arch::asm;

use lb_ebpf::verdict::Stop;
use lb_ebpf::wire::MAX_HEADERS;

/// Where packet data begins and ends, read anew at each access: pointers die with many helper calls.
pub(super) trait Bounds {
    /// First byte of the packet.
    fn data(&self) -> usize;
    /// One past the last byte that can be read.
    fn data_end(&self) -> usize;
}

/// A pointer to `size` bytes at `at`, or [`Stop::PASS`] when the packet ends before.
///
/// The verifier follows a comparison of pointers (not of lengths), and an offset that is bounded. The bound is a mask,
/// and by hand: a comparison is turned into one of something that the offset is made of, from which the verifier
/// learns nothing ("R0 offset is outside of the packet"). Offsets are below it: see [`MAX_HEADERS`].
#[inline(always)]
fn pointer<B: Bounds>(packet: &B, at: u32, size: usize) -> Result<usize, Stop> {
    const _: () = assert!(MAX_HEADERS + 64 < 0x1ff);
    let mut at = at as usize;
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} &= 0x1ff", inout(reg) at, options(pure, nomem, nostack)) };
    let start = packet.data() + at;
    if start + size > packet.data_end() {
        return Err(Stop::PASS);
    }
    Ok(start)
}

#[inline(always)]
pub(super) fn read_u16<B: Bounds>(packet: &B, at: u32) -> Result<u16, Stop> {
    let from = pointer(packet, at, 2)?;
    let word: u64;
    // SAFETY: `pointer` has checked that the two bytes are in the packet.
    unsafe { asm!("{0} = *(u16 *)({1} + 0)", out(reg) word, in(reg) from, options(readonly, nostack)) };
    Ok(word as u16)
}

/// By hand, for a packet's words are aligned to two bytes only, and the compiler would load them byte by byte.
#[inline(always)]
pub(super) fn read<B: Bounds, const WORDS: usize>(packet: &B, at: u32) -> Result<[u32; WORDS], Stop> {
    let from = pointer(packet, at, WORDS * 4)?;
    Ok(core::array::from_fn(|word| {
        let (at, value): (usize, u64);
        at = from + word * 4;
        // SAFETY: `pointer` has checked that all words are in the packet.
        unsafe { asm!("{0} = *(u32 *)({1} + 0)", out(reg) value, in(reg) at, options(readonly, nostack)) };
        value as u32
    }))
}

#[inline(always)]
pub(super) fn write_u16<B: Bounds>(packet: &B, at: u32, word: u16) -> Result<(), Stop> {
    let to = pointer(packet, at, 2)?;
    // SAFETY: `pointer` has checked that the two bytes are in the packet.
    unsafe { asm!("*(u16 *)({0} + 0) = {1}", in(reg) to, in(reg) u64::from(word), options(nostack)) };
    Ok(())
}

#[inline(always)]
pub(super) fn write<B: Bounds, const WORDS: usize>(
    packet: &B,
    at: u32,
    words: [u32; WORDS],
) -> Result<(), Stop> {
    let to = pointer(packet, at, WORDS * 4)?;
    for (number, word) in words.into_iter().enumerate() {
        let at = to + number * 4;
        // SAFETY: `pointer` has checked that all words are in the packet.
        unsafe { asm!("*(u32 *)({0} + 0) = {1}", in(reg) at, in(reg) u64::from(word), options(nostack)) };
    }
    Ok(())
}
