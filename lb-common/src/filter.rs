//! The filter in front of the services: whether an address may be a front end's, at the price of one bit.
//!
//! Most packets are for no service. A bit is set before the first front end of its addresses is written, and is never
//! taken back: a bit that is set means "look", one that is not means "no service".

use crate::addr::{Ip4, Ip6};

/// Rows of `lb_filter4`, `lb_filter6` (arrays of `u64`): 131 072 bits for each family. With 20 000 addresses one in
/// seven strangers is looked up in vain.
pub const ROWS: u32 = 2048;

/// Bits of a number below [`ROWS`] times 64.
const BITS: u32 = (ROWS * 64).ilog2();

/// Where an address's bit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterBit {
    /// Index of the row.
    pub row: u32,
    /// The bit in the row.
    pub mask: u64,
}

impl FilterBit {
    /// The bit of an IPv4 address.
    #[inline(always)]
    pub const fn of4(addr: Ip4) -> Self {
        Self::of_hash(spread(addr.word()))
    }

    /// The bit of an IPv6 address.
    #[inline(always)]
    pub const fn of6(addr: Ip6) -> Self {
        let [a, b, c, d] = addr.words();
        Self::of_hash(spread(spread(spread(spread(a) ^ b) ^ c) ^ d))
    }

    #[inline(always)]
    const fn of_hash(hash: u32) -> Self {
        let number = hash >> (u32::BITS - BITS);
        Self {
            row: number / 64,
            mask: 1 << (number % 64),
        }
    }
}

/// Multiplicative hashing: the high bits of the product depend on every bit of the word.
#[inline(always)]
const fn spread(word: u32) -> u32 {
    word.wrapping_mul(0x9e37_79b1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    extern crate std;

    #[test]
    fn neighbours_have_bits_of_their_own() {
        let four: BTreeSet<_> = (0..=u16::MAX)
            .map(|low| {
                let [a, b] = low.to_be_bytes();
                FilterBit::of4(Ip4::new([10, 96, a, b]))
            })
            .collect();
        assert!(four.len() > 40_000, "{}", four.len());
        let six: BTreeSet<_> = (0..=u16::MAX)
            .map(|low| {
                let [a, b] = low.to_be_bytes();
                FilterBit::of6(Ip6::new([0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]))
            })
            .collect();
        assert!(six.len() > 40_000, "{}", six.len());
    }

    #[test]
    fn every_bit_is_in_the_map() {
        for word in [0, 1, u32::MAX, 0x8000_0000, 0x1234_5678] {
            let bit = FilterBit::of4(Ip4::from_word(word));
            assert!(bit.row < ROWS, "{bit:?}");
            assert_eq!(bit.mask.count_ones(), 1);
        }
    }
}
