//! The two network headers on the wire (RFC 791, RFC 8200): where things stand, read and written in words.

use lb_common::{Family, Ip4, Ip6, V4, V6, protocol};

use crate::answer::Message;
use crate::checksum;
use crate::ctx::Packet;
use crate::hash::Hash;
use crate::headers::Fragment;
use crate::outer::Outer;
use crate::verdict::Stop;

/// The most bytes of headers that are ever looked at, link layer included.
///
/// Offsets fit in a byte.
pub const MAX_HEADERS: u32 = 256;

/// The recommended time to live, or hop limit (RFC 1700).
pub const HOPS: u8 = 64;

/// IPv6 extension headers that are skipped at most.
const MAX_EXTENSIONS: u32 = 6;

/// What follows the network header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: u8,
    /// Offset of the transport header from the start of the packet.
    pub at: u32,
    /// [`Fragment`].
    pub fragment: u8,
    /// Where a fragment's identification stands: see [`Wire::part`].
    pub part: u32,
}

/// Which part of which packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The packet's identification, as it stands in the fragment.
    pub id: u32,
    /// Where the part begins in the packet, in bytes.
    pub offset: u32,
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

/// A family's header on the wire.
pub trait Wire: Family + Message + Outer {
    /// Offset of the source address in the header.
    const SOURCE: u32;
    /// Offset of the destination address in the header.
    const DESTINATION: u32;
    /// The protocol number of this family's ICMP.
    const ICMP: u8;
    /// The protocol number of this family in itself (RFC 2003, RFC 2473).
    const IN_ITSELF: u8;
    /// Length of an address.
    const ADDRESS: u32;
    /// Length of the header without options.
    const LENGTH: u32;
    /// The header has a checksum of its own.
    const HEADER_CHECKSUM: bool;
    /// The type of an echo request in this family's ICMP.
    const ECHO: u8;
    /// The type of a redirect.
    const REDIRECT: u8;
    /// The types of errors, as bits: unreachable, packet too big, time exceeded, parameter problem. Source quench is
    /// obsolete (RFC 6633).
    const ERRORS: u32;

    /// Reads the network header that begins at `l3`: its source and destination, and what follows it.
    ///
    /// By an out parameter: of a result the compiler makes use before it knows that there is one, and the verifier
    /// says "R7 `!read_ok`".
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop>;

    /// Where the packet whose network header begins at `l3` ends, as that header says. What follows is padding of the
    /// link layer.
    fn end<P: Packet>(packet: &P, l3: u32) -> Result<u32, Stop>;

    /// Where a fragment belongs; `at` is [`Transport::part`].
    fn part<P: Packet>(packet: &P, at: u32) -> Result<Part, Stop>;

    /// Where, in a redirect whose header begins at `l4`, the packet stands that it is about.
    fn redirected<P: Packet>(packet: &P, l4: u32) -> Result<u32, Stop>;

    /// Writes an address.
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Self::Addr) -> Result<(), Stop>;

    /// Writes both addresses of the header that begins at `l3`.
    fn write_both<P: Packet>(
        packet: &mut P,
        l3: u32,
        source: Self::Addr,
        destination: Self::Addr,
    ) -> Result<(), Stop>;

    /// Makes the header's own checksum right after a change (one's complement sum of new - old).
    fn patch_header<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop>;

    /// The time to live, or hop limit, of the header that begins at `l3`.
    fn hops_left<P: Packet>(packet: &P, l3: u32) -> Result<u8, Stop>;

    /// One hop less, and the header's own checksum made right after that and a `change` of the addresses.
    fn forward<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop>;

    /// The address without the bits that `mask` does not have.
    fn masked(addr: Self::Addr, mask: Self::Addr) -> Self::Addr;

    /// The one's complement sum of `new` - `old`.
    fn change(old: Self::Addr, new: Self::Addr) -> u32;

    /// 0 when both are the same. A number, to be joined with others and compared once: each branch is one more way
    /// for the verifier to follow.
    fn difference(one: Self::Addr, other: Self::Addr) -> u32;

    /// Whether an address never leaves its node.
    fn is_loopback(addr: Self::Addr) -> bool;

    /// Takes two addresses into a hash.
    fn hash(hash: Hash, one: Self::Addr, other: Self::Addr) -> Hash;

    /// The hash of an address and of a number.
    fn hash_one(hash: Hash, addr: Self::Addr, number: u16) -> u32;
}

impl Wire for V4 {
    const SOURCE: u32 = 12;
    const DESTINATION: u32 = 16;
    const ICMP: u8 = protocol::ICMP;
    const IN_ITSELF: u8 = protocol::IPIP;
    const ADDRESS: u32 = 4;
    const LENGTH: u32 = 20;
    const HEADER_CHECKSUM: bool = true;
    const ECHO: u8 = 8;
    const REDIRECT: u8 = 5;
    const ERRORS: u32 = 1 << 3 | 1 << 11 | 1 << 12;

    #[inline(always)]
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop> {
        const MORE: u16 = 0x2000;
        const OFFSET: u16 = 0x1fff;
        let [first, second, third, src, dst] = packet.read::<5>(l3)?;
        let [version_and_length, ..] = first.to_ne_bytes();
        let length = u32::from(version_and_length & 0x0f) * 4;
        if version_and_length >> 4 != 4 || length < 20 {
            return Err(Stop::PASS);
        }
        let [_, _, high, low] = second.to_ne_bytes();
        let fragment = kind_of_fragment(u16::from_be_bytes([high, low]), OFFSET, MORE);
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
            part: l3 + 4,
        };
        Ok(())
    }

    #[inline(always)]
    fn end<P: Packet>(packet: &P, l3: u32) -> Result<u32, Stop> {
        Ok(l3 + u32::from(u16::from_be(packet.read_u16(l3 + 2)?)))
    }

    #[inline(always)]
    fn part<P: Packet>(packet: &P, at: u32) -> Result<Part, Stop> {
        let [word] = packet.read::<1>(at)?;
        let [a, b, high, low] = word.to_ne_bytes();
        let units = u16::from_be_bytes([high, low]) & 0x1fff;
        Ok(Part {
            id: u16::from_ne_bytes([a, b]).into(),
            offset: u32::from(units) * 8,
        })
    }

    #[inline(always)]
    fn redirected<P: Packet>(_packet: &P, l4: u32) -> Result<u32, Stop> {
        Ok(l4 + 8)
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Ip4) -> Result<(), Stop> {
        packet.write(at, [addr.word()])
    }

    #[inline(always)]
    fn write_both<P: Packet>(packet: &mut P, l3: u32, src: Ip4, dst: Ip4) -> Result<(), Stop> {
        packet.write(l3 + Self::SOURCE, [src.word(), dst.word()])
    }

    #[inline(always)]
    fn patch_header<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop> {
        const CHECKSUM: u32 = 10;
        let old = packet.read_u16(l3 + CHECKSUM)?;
        packet.write_u16(l3 + CHECKSUM, checksum::patched(old, change))
    }

    #[inline(always)]
    fn hops_left<P: Packet>(packet: &P, l3: u32) -> Result<u8, Stop> {
        let [hops, _protocol] = packet.read_u16(l3 + 8)?.to_ne_bytes();
        Ok(hops)
    }

    #[inline(always)]
    fn forward<P: Packet>(packet: &mut P, l3: u32, change: u32) -> Result<(), Stop> {
        let [old] = packet.read::<1>(l3 + 8)?;
        let [hops, protocol, high, low] = old.to_ne_bytes();
        let left = hops.wrapping_sub(1);
        let (before, after) = (
            u16::from_ne_bytes([hops, protocol]),
            u16::from_ne_bytes([left, protocol]),
        );
        let sum = checksum::step(change.into(), before.into(), after.into());
        let checksum = checksum::patched(u16::from_ne_bytes([high, low]), checksum::fold32(sum));
        let [high, low] = checksum.to_ne_bytes();
        packet.write(l3 + 8, [u32::from_ne_bytes([left, protocol, high, low])])
    }

    #[inline(always)]
    fn masked(addr: Ip4, mask: Ip4) -> Ip4 {
        Ip4::from_word(addr.word() & mask.word())
    }

    #[inline(always)]
    fn change(old: Ip4, new: Ip4) -> u32 {
        checksum::fold32(checksum::step(0, old.word(), new.word()))
    }

    #[inline(always)]
    fn difference(one: Ip4, other: Ip4) -> u32 {
        one.word() ^ other.word()
    }

    /// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
    #[inline(always)]
    fn is_loopback(addr: Ip4) -> bool {
        const PREFIX: u32 = u32::from_ne_bytes([127, 0, 0, 0]);
        const MASK: u32 = u32::from_ne_bytes([255, 0, 0, 0]);
        addr.word() & MASK == PREFIX
    }

    #[inline(always)]
    fn hash(hash: Hash, one: Ip4, other: Ip4) -> Hash {
        hash.words(one.word(), other.word())
    }

    #[inline(always)]
    fn hash_one(hash: Hash, addr: Ip4, number: u16) -> u32 {
        hash.finish(6, u64::from(addr.word()) | u64::from(number) << 32)
    }
}

impl Wire for V6 {
    const SOURCE: u32 = 8;
    const DESTINATION: u32 = 24;
    const ICMP: u8 = protocol::ICMPV6;
    const IN_ITSELF: u8 = protocol::IPV6;
    const ADDRESS: u32 = 16;
    const LENGTH: u32 = 40;
    const HEADER_CHECKSUM: bool = false;
    const ECHO: u8 = 128;
    const REDIRECT: u8 = 137;
    const ERRORS: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4;

    #[inline(always)]
    fn network<P: Packet>(packet: &mut P, l3: u32, found: &mut Network<Self>) -> Result<(), Stop> {
        let [first, second, addresses @ ..] = packet.read::<10>(l3)?;
        let [version_and_class, ..] = first.to_ne_bytes();
        let [_, _, next, _] = second.to_ne_bytes();
        // Another version's header leads nowhere.
        let next = if version_and_class >> 4 == 6 {
            next
        } else {
            NOTHING
        };
        if let ([src, dst], _) = addresses.as_chunks::<4>() {
            found.src = Ip6::from_words(*src);
            found.dst = Ip6::from_words(*dst);
        }
        found.transport = Transport {
            protocol: next,
            at: l3 + Self::LENGTH,
            fragment: Fragment::NONE,
            part: 0,
        };
        if extension::is(next) {
            return extension::skip(packet, &mut found.transport);
        }
        Ok(())
    }

    #[inline(always)]
    fn end<P: Packet>(packet: &P, l3: u32) -> Result<u32, Stop> {
        Ok(l3 + Self::LENGTH + u32::from(u16::from_be(packet.read_u16(l3 + 4)?)))
    }

    #[inline(always)]
    fn part<P: Packet>(packet: &P, at: u32) -> Result<Part, Stop> {
        let [first, id] = packet.read::<2>(at)?;
        let [_next, _reserved, high, low] = first.to_ne_bytes();
        Ok(Part {
            id,
            offset: u32::from(u16::from_be_bytes([high, low]) & 0xfff8),
        })
    }

    /// In an option (RFC 4861, section 4.5), behind that with the link-layer address of the better router.
    #[inline(always)]
    fn redirected<P: Packet>(packet: &P, l4: u32) -> Result<u32, Stop> {
        const LINK_LAYER_ADDRESS: u8 = 2;
        const REDIRECTED_HEADER: u8 = 4;
        const OPTIONS: u32 = 40;
        let mut at = l4 + OPTIONS;
        let [mut kind, units] = packet.read_u16(at)?.to_ne_bytes();
        if kind == LINK_LAYER_ADDRESS && units == 1 {
            at += 8;
            [kind, _] = packet.read_u16(at)?.to_ne_bytes();
        }
        if kind == REDIRECTED_HEADER {
            Ok(at + 8)
        } else {
            Err(Stop::PASS)
        }
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &mut P, at: u32, addr: Ip6) -> Result<(), Stop> {
        packet.write(at, addr.words())
    }

    #[inline(always)]
    #[expect(clippy::many_single_char_names, reason = "the words of two addresses")]
    fn write_both<P: Packet>(packet: &mut P, l3: u32, src: Ip6, dst: Ip6) -> Result<(), Stop> {
        let ([a, b, c, d], [e, f, g, h]) = (src.words(), dst.words());
        packet.write(l3 + Self::SOURCE, [a, b, c, d, e, f, g, h])
    }

    #[inline(always)]
    fn patch_header<P: Packet>(_packet: &mut P, _l3: u32, _change: u32) -> Result<(), Stop> {
        Ok(())
    }

    #[inline(always)]
    fn hops_left<P: Packet>(packet: &P, l3: u32) -> Result<u8, Stop> {
        let [_next, hops] = packet.read_u16(l3 + 6)?.to_ne_bytes();
        Ok(hops)
    }

    #[inline(always)]
    fn forward<P: Packet>(packet: &mut P, l3: u32, _change: u32) -> Result<(), Stop> {
        let old = packet.read_u16(l3 + 6)?;
        let [next, hops] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([next, hops.wrapping_sub(1)]);
        packet.write_u16(l3 + 6, new)?;
        packet.unbalanced(checksum::change(old, new));
        Ok(())
    }

    #[inline(always)]
    fn masked(addr: Ip6, mask: Ip6) -> Ip6 {
        let ([a, b, c, d], mask) = (addr.words(), mask.words());
        Ip6::from_words([a & mask[0], b & mask[1], c & mask[2], d & mask[3]])
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
    fn is_loopback(addr: Ip6) -> bool {
        const LOOPBACK: Ip6 = Ip6::from_words([0, 0, 0, 1u32.to_be()]);
        Self::difference(addr, LOOPBACK) == 0
    }

    #[inline(always)]
    #[expect(clippy::many_single_char_names, reason = "the words of two addresses")]
    fn hash(hash: Hash, one: Ip6, other: Ip6) -> Hash {
        let ([a, b, c, d], [e, f, g, h]) = (one.words(), other.words());
        hash.words(a, b).words(c, d).words(e, f).words(g, h)
    }

    #[inline(always)]
    fn hash_one(hash: Hash, addr: Ip6, number: u16) -> u32 {
        let [a, b, c, d] = addr.words();
        hash.words(a, b).words(c, d).finish(18, number.into())
    }
}

/// A protocol number that nobody has (IANA: reserved).
pub const NOTHING: u8 = u8::MAX;

/// What the word with a fragment's offset and the bit for more to come says.
#[inline(always)]
const fn kind_of_fragment(word: u16, offset: u16, more: u16) -> u8 {
    if word & offset != 0 {
        Fragment::LATER
    } else if word & more != 0 {
        Fragment::FIRST
    } else {
        Fragment::NONE
    }
}

/// IPv6 extension headers (RFC 8200, section 4).
mod extension {
    use super::{Fragment, MAX_EXTENSIONS, MAX_HEADERS, Packet, Stop, Transport, kind_of_fragment};

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
            mut part,
        } = *transport;
        for _header in 0..MAX_EXTENSIONS {
            if !is(next) {
                break;
            }
            let [following, length] = packet.read_u16(at)?.to_ne_bytes();
            let [_, segments_left] = packet.read_u16(at + 2)?.to_ne_bytes();
            if next == ROUTING && segments_left != 0 {
                // The checksum is made for the last destination, which is not the one in the header.
                return Err(Stop::PASS);
            }
            at += match next {
                FRAGMENT => {
                    // Neither offset nor more to come: an atomic fragment (RFC 6946), which is the whole packet.
                    fragment = kind_of_fragment(u16::from_be(packet.read_u16(at + 2)?), 0xfff8, 1);
                    part = at;
                    8
                }
                // In units of 4 bytes, minus 2 (RFC 4302).
                AUTHENTICATION => (u32::from(length) + 2) * 4,
                // In units of 8 bytes, the first not counted.
                _ => (u32::from(length) + 1) * 8,
            };
            if at >= MAX_HEADERS {
                return Err(Stop::PASS);
            }
            next = following;
            if fragment == Fragment::LATER {
                // What follows is no header.
                break;
            }
        }
        *transport = Transport {
            protocol: next,
            at,
            fragment,
            part,
        };
        Ok(())
    }
}
