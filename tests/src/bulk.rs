//! Bulk data whose every part is different, so that lost, doubled or moved parts change its hash.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use sha2::{Digest as _, Sha256};

const PART: usize = 64 * 1024;

/// A known sequence of bytes, in parts; also a body for HTTP.
#[derive(Clone, Debug)]
pub struct Bulk {
    noise: Vec<u8>,
    next: u64,
    left: u64,
}

impl Bulk {
    /// The sequence's first `len` bytes.
    pub fn new(len: u64) -> Self {
        let mut word = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = (0..PART / 8).flat_map(|_| {
            // xorshift64 (Marsaglia).
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            word.to_ne_bytes()
        });
        Self {
            noise: noise.collect(),
            next: 0,
            left: len,
        }
    }

    /// The hash of the sequence's first `len` bytes.
    pub fn sha256(len: u64) -> String {
        let mut hash = Hash::default();
        Self::new(len).for_each(|part| hash.add(&part));
        hash.finish()
    }
}

impl Iterator for Bulk {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let len = usize::try_from(self.left).unwrap_or(PART).min(PART);
        let mut part = self.noise[..len].to_vec();
        for (place, byte) in part.iter_mut().zip(self.next.to_be_bytes()) {
            *place = byte;
        }
        self.left -= len as u64;
        self.next += 1;
        Some(part.into())
    }
}

impl Body for Bulk {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|part| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// SHA-256 of what is added.
#[derive(Debug, Default)]
pub struct Hash(Sha256);

impl Hash {
    /// Goes on with more bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash in hexadecimal.
    pub fn finish(self) -> String {
        self.0.finalize().iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _written = write!(text, "{byte:02x}");
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_differ_and_add_up() {
        let parts: Vec<_> = Bulk::new(PART as u64 * 2 + 3).collect();
        assert_eq!(parts.iter().map(Bytes::len).collect::<Vec<_>>(), [PART, PART, 3]);
        assert_ne!(parts[0], parts[1]);
    }

    #[test]
    fn the_hash_is_of_all_bytes() {
        assert_eq!(
            Bulk::sha256(0),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_ne!(Bulk::sha256(100_000), Bulk::sha256(100_001));
    }
}
