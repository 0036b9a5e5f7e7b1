//! Outer headers: one packet inside another of the same family (RFC 2003, RFC 2473).

use lb_common::{Family, Ip4, Ip6, V4, V6, protocol};

use crate::checksum;
use crate::ctx::{Packet, Room, Segments};
use crate::verdict::Stop;
use crate::wire::{HOPS, Wire};

/// A family's header around another.
pub trait Outer: Family {
    /// The least size of a way that a router is believed to have: what every way takes in IPv6, what Linux believes
    /// in IPv4 (`net.ipv4.route.min_pmtu`).
    const LEAST_MTU: u32;

    /// Room for it.
    fn room(segments: Segments) -> Room;

    /// The words of the header at `l3` that are taken over: traffic class, length, identification or flow label.
    #[inline(always)]
    fn begin<P: Packet>(packet: &P, l3: u32) -> Result<[u32; 2], Stop> {
        packet.read::<2>(l3)
    }

    /// Writes the outer header at `l3` around a packet whose header begins so.
    fn put<P: Packet>(
        packet: &mut P,
        l3: u32,
        inner: [u32; 2],
        ends: (Self::Addr, Self::Addr),
    ) -> Result<(), Stop>;

    /// Whether a router has marked the header at `l3`: congestion experienced (RFC 3168).
    fn is_marked<P: Packet>(packet: &P, l3: u32) -> Result<bool, Stop>;

    /// Marks it, if its sender understands that (RFC 6040).
    fn mark<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop>;

    /// The size in the ICMP message at `l4`, if that is "fragmentation needed" or "packet too big"; otherwise 0.
    fn told_mtu<P: Packet>(packet: &P, l4: u32) -> Result<u32, Stop>;

    /// Whether an address can be nobody's outside: this host, loopback, multicast or broadcast.
    fn is_martian(addr: Self::Addr) -> bool;
}

/// In the two bits for explicit congestion notification.
const CONGESTED: u8 = 3;

impl Outer for V4 {
    const LEAST_MTU: u32 = 552;

    #[inline(always)]
    fn room(segments: Segments) -> Room {
        Room::Ip4(segments)
    }

    #[inline(always)]
    fn put<P: Packet>(
        packet: &mut P,
        l3: u32,
        [first, second]: [u32; 2],
        (src, dst): (Ip4, Ip4),
    ) -> Result<(), Stop> {
        const LENGTH: u16 = 20;
        const DONT_FRAGMENT: u8 = 0x40;
        let [_, class, high, low] = first.to_ne_bytes();
        // 0: too long for the field. The kernel knows what that means in a packet that it is going to cut.
        let length = match u16::from_be_bytes([high, low]) {
            0 => 0,
            length => length.checked_add(LENGTH).unwrap_or(0),
        };
        let [high, low] = length.to_be_bytes();
        let first = u32::from_ne_bytes([0x45, class, high, low]);
        // Nobody on the way puts fragments of an outer packet together again.
        let [a, b, ..] = second.to_ne_bytes();
        let second = u32::from_ne_bytes([a, b, DONT_FRAGMENT, 0]);
        let third = u32::from_ne_bytes([HOPS, protocol::IPIP, 0, 0]);
        let words = [first, second, third, src.word(), dst.word()];
        let sum = words.into_iter().fold(0, |sum, word| sum + u64::from(word));
        let [c, d] = (!checksum::fold16(checksum::fold32(sum))).to_ne_bytes();
        let third = u32::from_ne_bytes([HOPS, protocol::IPIP, c, d]);
        packet.write(l3, [first, second, third, src.word(), dst.word()])
    }

    #[inline(always)]
    fn is_marked<P: Packet>(packet: &P, l3: u32) -> Result<bool, Stop> {
        let [_, class] = packet.read_u16(l3)?.to_ne_bytes();
        Ok(class & CONGESTED == CONGESTED)
    }

    #[inline(always)]
    fn mark<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop> {
        let old = packet.read_u16(l3)?;
        let [version, class] = old.to_ne_bytes();
        if class & CONGESTED == 0 {
            return Ok(());
        }
        let new = u16::from_ne_bytes([version, class | CONGESTED]);
        packet.write_u16(l3, new)?;
        Self::patch_header(packet, l3, checksum::change(old, new))
    }

    #[inline(always)]
    fn told_mtu<P: Packet>(packet: &P, l4: u32) -> Result<u32, Stop> {
        const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
        let [first, second] = packet.read::<2>(l4)?;
        let ([kind, code, ..], [_, _, high, low]) = (first.to_ne_bytes(), second.to_ne_bytes());
        Ok(if [kind, code] == FRAGMENTATION_NEEDED {
            u16::from_be_bytes([high, low]).into()
        } else {
            0
        })
    }

    /// Multicast addresses, and those behind them, begin with 224 (RFC 1122, section 3.2.1.3).
    #[inline(always)]
    fn is_martian(addr: Ip4) -> bool {
        let [first, ..] = addr.octets;
        matches!(first, 0 | 127 | 224..)
    }
}

impl Outer for V6 {
    const LEAST_MTU: u32 = 1280;

    #[inline(always)]
    fn room(segments: Segments) -> Room {
        Room::Ip6(segments)
    }

    #[inline(always)]
    fn put<P: Packet>(
        packet: &mut P,
        l3: u32,
        [first, second]: [u32; 2],
        (src, dst): (Ip6, Ip6),
    ) -> Result<(), Stop> {
        let [high, low, ..] = second.to_ne_bytes();
        // 0: as in IPv4.
        let length = match u16::from_be_bytes([high, low]) {
            0 => 0,
            length => length.checked_add(40).unwrap_or(0),
        };
        let [high, low] = length.to_be_bytes();
        let second = u32::from_ne_bytes([high, low, protocol::IPV6, HOPS]);
        packet.write(l3, [first, second])?;
        Self::write_both(packet, l3, src, dst)?;
        let words = src.words().into_iter().chain(dst.words());
        let sum = words.fold(0, |sum, word| sum + u64::from(word));
        packet.unbalanced(checksum::fold32(sum + u64::from(first) + u64::from(second)));
        Ok(())
    }

    #[inline(always)]
    fn is_marked<P: Packet>(packet: &P, l3: u32) -> Result<bool, Stop> {
        let [_, class] = packet.read_u16(l3)?.to_ne_bytes();
        Ok(class >> 4 & CONGESTED == CONGESTED)
    }

    #[inline(always)]
    fn mark<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop> {
        let old = packet.read_u16(l3)?;
        let [version, class] = old.to_ne_bytes();
        if class >> 4 & CONGESTED == 0 {
            return Ok(());
        }
        let new = u16::from_ne_bytes([version, class | CONGESTED << 4]);
        packet.write_u16(l3, new)?;
        packet.unbalanced(checksum::change(old, new));
        Ok(())
    }

    #[inline(always)]
    fn told_mtu<P: Packet>(packet: &P, l4: u32) -> Result<u32, Stop> {
        const PACKET_TOO_BIG: u8 = 2;
        let [first, second] = packet.read::<2>(l4)?;
        let [kind, ..] = first.to_ne_bytes();
        Ok(if kind == PACKET_TOO_BIG {
            u32::from_be(second)
        } else {
            0
        })
    }

    #[inline(always)]
    fn is_martian(addr: Ip6) -> bool {
        let [a, b, c, d] = addr.words();
        let is_local = a | b | c == 0 && matches!(u32::from_be(d), 0 | 1);
        let [first, ..] = addr.octets;
        is_local || first == 0xff
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn martians_are_nobody_outside() {
        for addr in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(V4::is_martian(addr.parse::<Ipv4Addr>().unwrap().into()), "{addr}");
        }
        for addr in ["1.0.0.0", "126.255.255.255", "128.0.0.1", "223.255.255.255"] {
            assert!(
                !V4::is_martian(addr.parse::<Ipv4Addr>().unwrap().into()),
                "{addr}"
            );
        }
        for addr in ["::", "::1", "ff02::1"] {
            assert!(V6::is_martian(addr.parse::<Ipv6Addr>().unwrap().into()), "{addr}");
        }
        for addr in ["::2", "::1:0:0", "1::1", "fe80::1", "2001:db8::1"] {
            assert!(
                !V6::is_martian(addr.parse::<Ipv6Addr>().unwrap().into()),
                "{addr}"
            );
        }
    }
}
