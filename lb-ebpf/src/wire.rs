//! The two network headers on the wire (RFC 791, RFC 8200): where things stand, read and written in words.

use lb_common::{Family, Ip4, Ip6, V4, V6};

use crate::checksum;
use crate::ctx::Packet;
use crate::hash;
use crate::verdict::Stop;

/// The most bytes of headers that are ever looked at, link layer included.
///
/// Offsets fit in a byte.
pub const MAX_HEADERS: u32 = 256;

/// IPv6 extension headers that are skipped at most.
const MAX_EXTENSIONS: u32 = 6;

/// What follows the network header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of the transport header from the start of the packet.
    pub at: u32,
    /// The packet is a part of another.
    pub fragment: bool,
}

/// A network header.
#[derive(Clone, Copy, Debug)]
pub struct Network<F: Family> {
    /// Source address.
    pub src: F::Addr,
    /// Destination address.
    pub dst: F::Addr,
    /// What follows.
    pub transport: Transport,
}

impl<F: Family> Default for Network<F> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            src: F::Addr::default(),
            dst: F::Addr::default(),
            transport: Transport::default(),
        }
    }
}

impl Transport {
    /// The same, and the offset of the network header, as numbers that the verifier has not seen before.
    #[inline(always)]
    pub fn forgotten<P: Packet>(self, packet: &mut P, l3: u32) -> (Self, u32) {
        let word = l3 << 24 | self.at << 16 | u32::from(self.fragment) << 8 | u32::from(self.protocol);
        let [protocol, fragment, at, l3] = packet.forget(word).to_le_bytes();
        (
            Self {
                protocol,
                at: at.into(),
                fragment: fragment != 0,
            },
            l3.into(),
        )
    }
}

/// A family's header on the wire.
pub trait Wire: Family {
    /// Offset of the source address in the header.
    const SOURCE: u32;
    /// Offset of the destination address in the header.
    const DESTINATION: u32;
    /// The header has a checksum of its own.
    const HEADER_CHECKSUM: bool;

    /// Reads the network header that begins at `l3`: its source and destination, and what follows it.
    ///
    /// By an out parameter: of a result the compiler makes use before it knows that there is one, and the verifier
    /// says "R7 `!read_ok`".
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop>;

    /// Writes an address.
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Self::Addr) -> Result<(), Stop>;

    /// Makes the header's own checksum right after a change (one's complement sum of new - old).
    fn patch_header<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop>;

    /// The one's complement sum of `new` - `old`.
    fn change(old: Self::Addr, new: Self::Addr) -> u32;

    /// 0 when both are the same. A number, to be joined with others and compared once: each branch is one more way
    /// for the verifier to follow.
    fn difference(one: Self::Addr, other: Self::Addr) -> u32;

    /// Mixes an address into a hash.
    fn mix(hash: u32, addr: Self::Addr) -> u32;
}

impl Wire for V4 {
    const SOURCE: u32 = 12;
    const DESTINATION: u32 = 16;
    const HEADER_CHECKSUM: bool = true;

    #[inline(always)]
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop> {
        const MORE_OR_OFFSET: u16 = 0x3fff;
        let [first, second, third, src, dst] = packet.read::<5>(l3)?;
        let [version_and_length, ..] = first.to_ne_bytes();
        let length = u32::from(version_and_length & 0x0f) * 4;
        if version_and_length >> 4 != 4 || length < 20 {
            return Err(Stop::Pass);
        }
        let [_, _, high, low] = second.to_ne_bytes();
        let fragment = u16::from_be_bytes([high, low]) & MORE_OR_OFFSET != 0;
        let [_, protocol, ..] = third.to_ne_bytes();
        if length > 20 {
            packet.linearize(MAX_HEADERS)?;
        }
        found.src = Ip4::from_word(src);
        found.dst = Ip4::from_word(dst);
        found.transport = Transport {
            protocol,
            at: l3 + length,
            fragment,
        };
        Ok(())
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Ip4) -> Result<(), Stop> {
        packet.write_u32(at, addr.word())
    }

    #[inline(always)]
    fn patch_header<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop> {
        const CHECKSUM: u32 = 10;
        let old = packet.read_u16(l3 + CHECKSUM)?;
        packet.write_u16(l3 + CHECKSUM, checksum::patched(old, change))
    }

    #[inline(always)]
    fn change(old: Ip4, new: Ip4) -> u32 {
        checksum::fold32(checksum::step(0, old.word(), new.word()))
    }

    #[inline(always)]
    fn difference(one: Ip4, other: Ip4) -> u32 {
        one.word() ^ other.word()
    }

    #[inline(always)]
    fn mix(hash: u32, addr: Ip4) -> u32 {
        hash::mix(hash, addr.word())
    }
}

impl Wire for V6 {
    const SOURCE: u32 = 8;
    const DESTINATION: u32 = 24;
    const HEADER_CHECKSUM: bool = false;

    #[inline(always)]
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop> {
        const LENGTH: u32 = 40;
        let [_, second, addresses @ ..] = packet.read::<10>(l3)?;
        let [_, _, next, _] = second.to_ne_bytes();
        if let ([src, dst], _) = addresses.as_chunks::<4>() {
            found.src = Ip6::from_words(*src);
            found.dst = Ip6::from_words(*dst);
        }
        found.transport = Transport {
            protocol: next,
            at: l3 + LENGTH,
            fragment: false,
        };
        if extension::is(next) {
            return extension::skip(packet, &mut found.transport);
        }
        Ok(())
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Ip6) -> Result<(), Stop> {
        let [a, b, c, d] = addr.words();
        packet.write_u32(at, a)?;
        packet.write_u32(at + 4, b)?;
        packet.write_u32(at + 8, c)?;
        packet.write_u32(at + 12, d)
    }

    #[inline(always)]
    fn patch_header<P: Packet>(_packet: &mut P, _l3: u32, _change: u32) -> Result<(), Stop> {
        Ok(())
    }

    #[inline(always)]
    fn change(old: Ip6, new: Ip6) -> u32 {
        let words = old.words().into_iter().zip(new.words());
        checksum::fold32(words.fold(0, |sum, (old, new)| checksum::step(sum, old, new)))
    }

    #[inline(always)]
    fn difference(one: Ip6, other: Ip6) -> u32 {
        let words = one.words().into_iter().zip(other.words());
        words.fold(0, |difference, (one, other)| difference | (one ^ other))
    }

    #[inline(always)]
    fn mix(hash: u32, addr: Ip6) -> u32 {
        let [a, b, c, d] = addr.words();
        hash::mix(hash::mix(hash::mix(hash::mix(hash, a), b), c), d)
    }
}

/// IPv6 extension headers (RFC 8200, section 4).
mod extension {
    use super::{MAX_EXTENSIONS, MAX_HEADERS, Packet, Stop, Transport};

    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;

    #[inline(always)]
    pub(super) fn is(next: u8) -> bool {
        matches!(
            next,
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
        )
    }

    /// A real call: branches of a loop times branches of the rest are too many for the verifier.
    #[inline(never)]
    pub(super) fn skip<P: Packet>(packet: &mut P, transport: &mut Transport) -> Result<(), Stop> {
        packet.linearize(MAX_HEADERS)?;
        let Transport {
            protocol: mut next,
            mut at,
            mut fragment,
        } = *transport;
        for _header in 0..MAX_EXTENSIONS {
            if !is(next) {
                break;
            }
            let [following, length] = packet.read_u16(at)?.to_ne_bytes();
            let [_, segments_left] = packet.read_u16(at + 2)?.to_ne_bytes();
            if next == ROUTING && segments_left != 0 {
                // The checksum is made for the last destination, which is not the one in the header.
                return Err(Stop::Pass);
            }
            at += match next {
                FRAGMENT => {
                    // Neither offset nor more to come: an atomic fragment (RFC 6946), which is the whole packet.
                    fragment |= packet.read_u16(at + 2)? & 0xfff9u16.to_be() != 0;
                    8
                }
                // In units of 4 bytes, minus 2 (RFC 4302).
                AUTHENTICATION => (u32::from(length) + 2) * 4,
                // In units of 8 bytes, the first not counted.
                _ => (u32::from(length) + 1) * 8,
            };
            if at >= MAX_HEADERS {
                return Err(Stop::Pass);
            }
            next = following;
        }
        *transport = Transport {
            protocol: next,
            at,
            fragment,
        };
        Ok(())
    }
}
