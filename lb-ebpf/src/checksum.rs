//! Internet checksum arithmetic (RFC 1071, RFC 1624). Words may stand in any byte order, as long as all stand in the
//! same one.

#![expect(
    clippy::cast_possible_truncation,
    reason = "folding takes the low half and adds the high one"
)]

/// Adds `new` - `old` to a running sum.
#[inline(always)]
pub const fn step(sum: u64, old: u32, new: u32) -> u64 {
    sum + (!old) as u64 + new as u64
}

/// Folds a running sum into 32 bits.
#[inline(always)]
pub const fn fold32(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    (sum as u32).wrapping_add((sum >> 32) as u32)
}

/// The one's complement sum of `new` - `old`.
#[inline(always)]
pub const fn change(old: u16, new: u16) -> u32 {
    fold32(step(0, old as u32, new as u32))
}

/// Folds a 32-bit sum into 16 bits.
#[inline(always)]
pub const fn fold16(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum as u16).wrapping_add((sum >> 16) as u16)
}

/// The checksum after what it covers changed by `change` (one's complement sum of new - old).
#[inline(always)]
pub const fn patched(old: u16, change: u32) -> u16 {
    !fold16((!old) as u32 + fold16(change) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain way: the complement of the one's complement sum of all words (RFC 1071).
    fn whole(words: &[u16]) -> u16 {
        let mut sum: u32 = words.iter().map(|word| u32::from(*word)).sum();
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn a_patched_checksum_equals_a_new_one() {
        let mut state = 1u64;
        let mut word = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u32
        };
        for round in 0..100_000 {
            let (old, new) = match round % 4 {
                0 => (0, word()),
                1 => (word(), u32::MAX),
                _ => (word() << 8 | word(), word() << 8 | word()),
            };
            let rest = word() as u16 | 1;
            let split = |value: u32| [value as u16, (value >> 16) as u16];
            let [a, b] = split(old);
            let [c, d] = split(new);
            assert_eq!(
                patched(whole(&[rest, a, b]), fold32(step(0, old, new))),
                whole(&[rest, c, d]),
                "old {old:#x} new {new:#x} rest {rest:#x}"
            );
        }
    }

    #[test]
    fn folding_keeps_every_carry() {
        assert_eq!(fold32(0xffff_ffff_ffff_ffff), 0xffff_ffff);
        assert_eq!(fold32(0x1_ffff_ffff), 1);
        assert_eq!(fold16(0xffff_ffff), 0xffff);
        assert_eq!(fold16(0x1_ffff), 1);
    }
}
