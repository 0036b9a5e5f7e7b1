//! Addresses and ports as they stand in packets and maps: network byte order.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::filter::FilterBit;
use crate::flow::FlowKey;
use crate::flow_table::{self, FlowHash, Place};

/// An IPv4 address in network order, aligned so that the programs handle it as one word.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Ip4 {
    /// The four octets, first octet first.
    pub octets: [u8; 4],
}

/// An IPv6 address in network order, aligned so that the programs handle it as four words.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Ip6 {
    /// The sixteen octets, first octet first.
    pub octets: [u8; 16],
}

/// A TCP, UDP or SCTP port in network order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(2))]
pub struct Port {
    /// The two octets, high octet first.
    pub octets: [u8; 2],
}

impl Port {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self {
            octets: number.to_be_bytes(),
        }
    }

    /// From the word as it stands in memory: network order, not swapped.
    #[inline(always)]
    pub const fn from_word(word: u16) -> Self {
        Self {
            octets: word.to_ne_bytes(),
        }
    }

    /// The two that stand one after the other in a word of memory.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the halves of the word")]
    pub const fn pair(word: u32) -> [Self; 2] {
        let (low, high) = (Self::from_word(word as u16), Self::from_word((word >> 16) as u16));
        if cfg!(target_endian = "little") {
            [low, high]
        } else {
            [high, low]
        }
    }

    /// The word of memory in which two stand one after the other. From halves: byte by byte would take twice as long.
    #[inline(always)]
    pub const fn joined([first, second]: [Self; 2]) -> u32 {
        let (first, second) = (first.word() as u32, second.word() as u32);
        if cfg!(target_endian = "little") {
            first | second << 16
        } else {
            first << 16 | second
        }
    }

    /// As it stands in memory: network order, not swapped.
    #[inline(always)]
    pub const fn word(self) -> u16 {
        u16::from_ne_bytes(self.octets)
    }

    /// The number, in host order.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.octets)
    }
}

/// An address of either family: what generic code needs to know of it.
pub trait Address: Copy + Default + Eq + Ord + fmt::Debug + fmt::Display + 'static {
    /// The same address for the standard library.
    fn ip(self) -> IpAddr;

    /// From the standard library's address; `None` when it is of the other family.
    fn from_ip(ip: IpAddr) -> Option<Self>;

    /// Its place in the filter in front of the services.
    fn filter_bit(self) -> FilterBit;

    /// Where a flow belongs that has this key.
    fn place(key: &FlowKey<Self>, hash: &FlowHash) -> Place;
}

impl Ip4 {
    /// From its octets.
    pub const fn new(octets: [u8; 4]) -> Self {
        Self { octets }
    }

    /// From the word as it stands in memory: network order, not swapped.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self {
            octets: word.to_ne_bytes(),
        }
    }

    /// As it stands in memory: network order, not swapped.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        u32::from_ne_bytes(self.octets)
    }
}

impl Ip6 {
    /// From its octets.
    pub const fn new(octets: [u8; 16]) -> Self {
        Self { octets }
    }

    /// From the four words as they stand in memory: network order, not swapped.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        let mut octets = [0; 16];
        // By chunks: octet by octet the compiler would take the stack of a whole program.
        if let ([a, b, c, d], []) = octets.as_chunks_mut::<4>() {
            [*a, *b, *c, *d] = [
                words[0].to_ne_bytes(),
                words[1].to_ne_bytes(),
                words[2].to_ne_bytes(),
                words[3].to_ne_bytes(),
            ];
        }
        Self { octets }
    }

    /// The four words as they stand in memory: network order, not swapped.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        match self.octets.as_chunks::<4>() {
            ([a, b, c, d], _) => [
                u32::from_ne_bytes(*a),
                u32::from_ne_bytes(*b),
                u32::from_ne_bytes(*c),
                u32::from_ne_bytes(*d),
            ],
            // Sixteen octets are four chunks.
            _ => [0; 4],
        }
    }
}

impl Address for Ip4 {
    fn ip(self) -> IpAddr {
        IpAddr::V4(self.octets.into())
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(ip) => Some(ip.into()),
            IpAddr::V6(_) => None,
        }
    }

    #[inline(always)]
    fn filter_bit(self) -> FilterBit {
        FilterBit::of4(self)
    }

    #[inline(always)]
    fn place(key: &FlowKey<Self>, hash: &FlowHash) -> Place {
        flow_table::place4(key, hash)
    }
}

impl Address for Ip6 {
    fn ip(self) -> IpAddr {
        IpAddr::V6(self.octets.into())
    }

    fn from_ip(ip: IpAddr) -> Option<Self> {
        match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => Some(ip.into()),
        }
    }

    #[inline(always)]
    fn filter_bit(self) -> FilterBit {
        FilterBit::of6(self)
    }

    #[inline(always)]
    fn place(key: &FlowKey<Self>, hash: &FlowHash) -> Place {
        flow_table::place6(key, hash)
    }
}

impl From<Ipv4Addr> for Ip4 {
    fn from(ip: Ipv4Addr) -> Self {
        Self { octets: ip.octets() }
    }
}

impl From<Ipv6Addr> for Ip6 {
    fn from(ip: Ipv6Addr) -> Self {
        Self { octets: ip.octets() }
    }
}

impl fmt::Debug for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Ip6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Ip4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Display for Ip6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.number(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_network_order_in_memory() {
        assert_eq!(Port::new(80).octets, [0, 80]);
        assert_eq!(Port::new(8080).number(), 8080);
        assert_eq!(Port::from_word(Port::new(443).word()), Port::new(443));
    }

    #[test]
    fn words_and_octets_are_the_same_memory() {
        let ip = Ip6::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 2, 3, 4, 5));
        assert_eq!(Ip6::from_words(ip.words()), ip);
        assert_eq!(ip.words()[0].to_ne_bytes(), [0x20, 0x01, 0x0d, 0xb8]);
        let ip = Ip4::new([10, 0, 0, 1]);
        assert_eq!(Ip4::from_word(ip.word()), ip);
    }

    #[test]
    fn an_address_of_the_other_family_is_refused() {
        assert_eq!(Ip4::from_ip(Ipv6Addr::LOCALHOST.into()), None);
        assert_eq!(Ip6::from_ip(Ipv4Addr::LOCALHOST.into()), None);
        assert_eq!(
            Ip4::from_ip(Ipv4Addr::LOCALHOST.into()),
            Some(Ip4::new([127, 0, 0, 1]))
        );
    }
}
