//! What answers look like in either family (RFC 792, RFC 4443).

use lb_common::{Family, Ip4, Ip6, V4, V6};

use crate::checksum;
use crate::ctx::Packet;
use crate::verdict::Stop;
use crate::wire::{HOPS, Wire as _};

/// The ends of an answer, and what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a, A> {
    /// Source address.
    pub src: &'a A,
    /// Destination address.
    pub dst: &'a A,
    /// IP protocol number.
    pub protocol: u8,
    /// Length of what follows the header, in bytes; so many that they fit in a header's 16 bits.
    pub length: u32,
}

/// A family's answers.
pub trait Message: Family {
    /// Type and code of the ICMP error "port unreachable".
    const PORT_UNREACHABLE: [u8; 2];
    /// Those of "fragmentation needed", or "packet too big".
    const TOO_BIG: [u8; 2];
    /// Those of "time exceeded in transit".
    const TIME_EXCEEDED: [u8; 2];
    /// The type of an echo reply; its code is 0.
    const ECHO_REPLY: u8;

    /// Writes a header without options at `l3`. To be fragmented it is not, so it needs no identification (RFC 6864).
    fn write_header<P: Packet>(packet: &mut P, l3: u32, header: Header<'_, Self::Addr>) -> Result<(), Stop>;

    /// Gives the header at `l3` the hops of an answer.
    fn renew<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop>;
}

impl Message for V4 {
    const PORT_UNREACHABLE: [u8; 2] = [3, 3];
    const TOO_BIG: [u8; 2] = [3, 4];
    const TIME_EXCEEDED: [u8; 2] = [11, 0];
    const ECHO_REPLY: u8 = 0;

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, l3: u32, header: Header<'_, Ip4>) -> Result<(), Stop> {
        const DONT_FRAGMENT: u8 = 0x40;
        let [_, _, high, low] = (header.length + Self::LENGTH).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, 0, high, low]);
        let second = u32::from_ne_bytes([0, 0, DONT_FRAGMENT, 0]);
        let third = u32::from_ne_bytes([HOPS, header.protocol, 0, 0]);
        let (src, dst) = (header.src.word(), header.dst.word());
        let words = [first, second, third, src, dst];
        let sum = words.into_iter().fold(0, |sum, word| sum + u64::from(word));
        let [a, b] = (!checksum::fold16(checksum::fold32(sum))).to_ne_bytes();
        let third = u32::from_ne_bytes([HOPS, header.protocol, a, b]);
        packet.write(l3, [first, second, third, src, dst])
    }

    #[inline(always)]
    fn renew<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop> {
        let old = packet.read_u16(l3 + 8)?;
        let [_, protocol] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([HOPS, protocol]);
        packet.write_u16(l3 + 8, new)?;
        Self::patch_header(packet, l3, checksum::change(old, new))
    }
}

impl Message for V6 {
    const PORT_UNREACHABLE: [u8; 2] = [1, 4];
    const TOO_BIG: [u8; 2] = [2, 0];
    const TIME_EXCEEDED: [u8; 2] = [3, 0];
    const ECHO_REPLY: u8 = 129;

    #[inline(always)]
    fn write_header<P: Packet>(packet: &mut P, l3: u32, header: Header<'_, Ip6>) -> Result<(), Stop> {
        let [_, _, high, low] = header.length.to_be_bytes();
        let words = [[0x60, 0, 0, 0], [high, low, header.protocol, HOPS]];
        packet.write(l3, words.map(u32::from_ne_bytes))?;
        Self::write_both(packet, l3, *header.src, *header.dst)
    }

    #[inline(always)]
    fn renew<P: Packet>(packet: &mut P, l3: u32) -> Result<(), Stop> {
        let old = packet.read_u16(l3 + 6)?;
        let [next, _] = old.to_ne_bytes();
        let new = u16::from_ne_bytes([next, HOPS]);
        packet.write_u16(l3 + 6, new)?;
        packet.unbalanced(checksum::change(old, new));
        Ok(())
    }
}
