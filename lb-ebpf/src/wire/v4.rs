//! IPv4 (RFC 791).

use lb_common::{Ip4, V4, protocol};

use super::{MAX_HEADERS, Network, Part, Transport, Wire, kind_of_fragment};
use crate::checksum;
use crate::ctx::Packet;
use crate::hash::Hash;
use crate::verdict::Stop;

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
