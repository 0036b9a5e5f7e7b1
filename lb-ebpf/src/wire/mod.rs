//! The two network headers on the wire (RFC 791, RFC 8200): where things stand, read and written in words.

mod extension;
mod v4;
mod v6;

use lb_common::Family;

use crate::answer::Message;
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
