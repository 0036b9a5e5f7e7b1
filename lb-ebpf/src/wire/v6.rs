//! IPv6 (RFC 8200).

use lb_common::{Ip6, V6, protocol};

use super::{NOTHING, Network, Part, Transport, Wire, extension};
use crate::checksum;
use crate::ctx::Packet;
use crate::hash::Hash;
use crate::headers::Fragment;
use crate::verdict::Stop;

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
