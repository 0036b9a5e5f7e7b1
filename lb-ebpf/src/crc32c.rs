//! `CRC32c`, the checksum of SCTP (RFC 9260, appendix A), made right again after a change.
//!
//! It is linear: a change of the bytes changes it by the CRC, begun at zero, of the difference (exclusive or). Where only
//! the first four bytes differ, that is a product of two polynomials, whatever all the other bytes are.
//!
//! Polynomials are over GF(2), modulo Castagnoli's; bit 31 is the coefficient of 1, as in the checksum itself.

/// Castagnoli's polynomial without its highest power.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x^8, by which one more byte multiplies.
const BYTE: u32 = 1 << 23;

/// By bits of a length: x^8, to the power of each bit's value.
const POWERS: [u32; 16] = {
    let mut powers = [BYTE; 16];
    let mut bit = 1;
    while bit < powers.len() {
        powers[bit] = product(powers[bit - 1], powers[bit - 1]);
        bit += 1;
    }
    powers
};

/// How the checksum of `length` bytes, less than 65536, changes (exclusive or) when the first four do by `difference`
/// (exclusive or). Both are as they stand in the packet. `product` is [`product`].
#[inline(always)]
pub fn change(difference: u32, length: u32, product: impl Fn(u32, u32) -> u32) -> u32 {
    let mut change = u32::from_le(difference);
    for (bit, power) in POWERS.into_iter().enumerate() {
        if length >> bit & 1 != 0 {
            change = product(change, power);
        }
    }
    change.to_le()
}

/// The product of two polynomials.
///
/// In registers of 64 bits, and without branches, each of which would be one more way for the verifier to follow.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "no power is above 31")]
pub const fn product(one: u32, other: u32) -> u32 {
    let (mut coefficients, mut shifted, mut product) = ((one as u64) << 32, other as u64, 0);
    let mut power = 0;
    while power < u32::BITS {
        product ^= shifted & (coefficients.cast_signed() >> 63).cast_unsigned();
        coefficients <<= 1;
        shifted = shifted >> 1 ^ POLYNOMIAL as u64 & (shifted & 1).wrapping_neg();
        power += 1;
    }
    product as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain way (RFC 9260, appendix A), bit by bit.
    fn whole(bytes: &[u8]) -> u32 {
        let register = bytes.iter().fold(u32::MAX, |register, byte| {
            (0..8).fold(register ^ u32::from(*byte), |register, _bit| {
                register >> 1 ^ if register & 1 == 0 { 0 } else { POLYNOMIAL }
            })
        });
        !register
    }

    #[test]
    fn the_plain_way_gives_the_check_value() {
        assert_eq!(whole(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_changed_checksum_equals_a_new_one() {
        let mut state = 1u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        for length in (4..600).chain([1500, 9000, 32_767, 32_768, 65_515, 65_535]) {
            let mut bytes: Vec<u8> = (0..length).map(|_| byte()).collect();
            let before = whole(&bytes);
            let old: [u8; 4] = *bytes.first_chunk().unwrap();
            let new = [byte(), byte(), byte(), byte()];
            bytes[..4].copy_from_slice(&new);
            let difference = u32::from_ne_bytes(old) ^ u32::from_ne_bytes(new);
            assert_eq!(
                before.to_le() ^ change(difference, length, product),
                whole(&bytes).to_le(),
                "{length}"
            );
        }
    }

    #[test]
    fn no_change_is_none() {
        assert_eq!(change(0, 1500, product), 0);
    }
}
