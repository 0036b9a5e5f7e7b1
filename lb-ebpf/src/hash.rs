//! The flow hash: the choice of a backend is a function of the flow, so that a flow whose entry was evicted, or that
//! lands on another node, finds the same backend again.
//!
//! The mixing steps are those of `MurmurHash3` (x86, 32 bit).

/// Mixes one word in.
#[inline(always)]
pub const fn mix(hash: u32, word: u32) -> u32 {
    let word = word
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593);
    (hash ^ word)
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}

/// Spreads every input bit over the whole word.
#[inline(always)]
pub const fn finish(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// A number below `count`, evenly spread over the values of `hash`; 0 when `count` is 0.
#[inline(always)]
pub const fn below(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_stays_below() {
        assert_eq!(below(u32::MAX, 3), 2);
        assert_eq!(below(0, 3), 0);
        assert_eq!(below(u32::MAX, 0), 0);
    }
}
