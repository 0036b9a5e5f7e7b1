//! The flow hash: the choice of a backend is a function of the flow, so that a flow whose entry was evicted, or that
//! lands on another node, finds the same backend again.
//!
//! It is SipHash-1-3 (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF"), as hash tables use it, under a key of 64
//! bits that all nodes share, twice. A client can choose its ports, and with IPv6 half of its
//! address: of a hash without a key inside, such as Murmur, it could compute inputs that collide under every seed, and
//! it could try all seeds of 32 bits at home, with the backends that answered as witnesses. Here it can do neither; what
//! remains is to try 2^64 keys, or to connect until it has found ports that lead to one backend, which no choice by hash
//! prevents. It is no cryptographic hash: nothing secret is derived from it.

/// The key of the flow hash, low half first.
pub type Key = [u32; 2];

/// A hash in the making.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
}

impl Hash {
    /// Of nothing yet.
    #[inline(always)]
    pub const fn new([low, high]: Key) -> Self {
        let key = low as u64 | (high as u64) << 32;
        Self::keyed(key, key)
    }

    #[inline(always)]
    const fn keyed(low: u64, high: u64) -> Self {
        Self {
            a: 0x736f_6d65_7073_6575 ^ low,
            b: 0x646f_7261_6e64_6f6d ^ high,
            c: 0x6c79_6765_6e65_7261 ^ low,
            d: 0x7465_6462_7974_6573 ^ high,
        }
    }

    /// Takes two words more in.
    #[inline(always)]
    #[must_use]
    pub const fn words(self, first: u32, second: u32) -> Self {
        self.block(first as u64 | (second as u64) << 32)
    }

    #[inline(always)]
    const fn block(mut self, block: u64) -> Self {
        self.d ^= block;
        self = self.round();
        self.a ^= block;
        self
    }

    /// The hash of `length` bytes, of which up to seven do not fill two words: `rest`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash")]
    pub const fn finish(self, length: u32, rest: u64) -> u32 {
        self.whole(length, rest) as u32
    }

    #[inline(always)]
    const fn whole(self, length: u32, rest: u64) -> u64 {
        let mut last = self.block((length as u64) << 56 | rest);
        last.c ^= 0xff;
        last = last.round().round().round();
        last.a ^ last.b ^ last.c ^ last.d
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self {
            mut a,
            mut b,
            mut c,
            mut d,
        } = self;
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        Self { a, b, c, d }
    }
}

/// Another hash from one: the steps of a search. The mixing is that of `MurmurHash3` (32 bit).
#[inline(always)]
pub const fn next(hash: u32) -> u32 {
    let hash = hash.wrapping_add(0x9e37_79b9);
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

    /// The bytes 0, 1, 2, … under the key 0, 1, … 15, as by a plain implementation that gives the vectors of `SipHash`-2-4
    /// when it is told to make as many rounds.
    #[test]
    fn it_is_siphash() {
        let of = |length: u32| {
            let whole = length / 8 * 8;
            let bytes =
                |from: u32, to: u32| (from..to).rev().fold(0, |word, byte| word << 8 | u64::from(byte));
            let blocks = (0..whole).step_by(8).map(|at| bytes(at, at + 8));
            blocks
                .fold(Hash::keyed(bytes(0, 8), bytes(8, 16)), Hash::block)
                .whole(length, bytes(whole, length))
        };
        for (length, hash) in [
            (0, 0xabac_0158_050f_c4dc),
            (6, 0xc50d_2b50_c59f_22a7),
            (13, 0x306f_760c_1229_ffa7),
            (18, 0x8ffc_389c_b473_e63e),
            (37, 0xb610_1c2d_a3c3_3057),
        ] {
            assert_eq!(of(length), hash, "{length} bytes");
        }
    }
}
