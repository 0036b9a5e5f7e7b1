//! The flow hash: the choice of a backend is a function of the flow, so that a flow whose entry was evicted, or that
//! lands on another node, finds the same backend again.
//!
//! It is HalfSipHash-1-3 (Aumasson and Bernstein, "`SipHash`: a fast short-input PRF"), as the kernel uses it for its
//! hash tables, under a key of 64 bits that all nodes share. A client can choose its ports, and with IPv6 half of its
//! address: of a hash without a key inside, such as Murmur, it could compute inputs that collide under every seed, and
//! it could try all seeds of 32 bits at home, with the backends that answered as witnesses. Here it can do neither; what
//! remains is to try 2^64 keys, or to connect until it has found ports that lead to one backend, which no choice by hash
//! prevents. It is no cryptographic hash: nothing secret is derived from it.

/// The key of the flow hash.
pub type Key = [u32; 2];

/// A hash in the making.
#[derive(Clone, Copy, Debug)]
pub struct Hash {
    a: u32,
    b: u32,
    c: u32,
    d: u32,
}

impl Hash {
    /// Of nothing yet.
    #[inline(always)]
    pub const fn new([low, high]: Key) -> Self {
        Self {
            a: low,
            b: high,
            c: 0x6c79_6765 ^ low,
            d: 0x7465_6462 ^ high,
        }
    }

    /// Takes one word more in.
    #[inline(always)]
    #[must_use]
    pub const fn word(mut self, word: u32) -> Self {
        self.d ^= word;
        self = self.round();
        self.a ^= word;
        self
    }

    /// The hash of `length` bytes, of which up to three do not fill a word: `rest`.
    #[inline(always)]
    pub const fn finish(self, length: u32, rest: u32) -> u32 {
        let mut last = self.word(length << 24 | rest);
        last.c ^= 0xff;
        last = last.round().round().round();
        last.b ^ last.d
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
        b = b.rotate_left(5) ^ a;
        a = a.rotate_left(16);
        c = c.wrapping_add(d);
        d = d.rotate_left(8) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(7) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(13) ^ c;
        c = c.rotate_left(16);
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

    /// The bytes 0, 1, 2, … under the key 0, 1, … 7: vectors of the reference implementation.
    #[test]
    fn it_is_half_siphash() {
        let of = |length: u32| {
            let whole = length / 4 * 4;
            let bytes = |from: u32, to: u32| (from..to).rev().fold(0, |word, byte| word << 8 | byte);
            let words = (0..whole).step_by(4).map(|at| bytes(at, at + 4));
            words
                .fold(Hash::new([0x0302_0100, 0x0706_0504]), Hash::word)
                .finish(length, bytes(whole, length))
        };
        for (length, hash) in [
            (0, 0x5814_c896),
            (4, 0x7e05_9ea6),
            (13, 0x66dd_9cd6),
            (16, 0x8b31_d501),
            (37, 0x732b_a8cb),
        ] {
            assert_eq!(of(length), hash, "{length} bytes");
        }
    }
}
