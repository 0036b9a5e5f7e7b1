//! A packet in several, and a packet in a packet.

use std::net::{IpAddr, SocketAddr};

use etherparse::IpNumber;

use super::PacketBuilder;
use super::builder::Transport;

impl PacketBuilder {
    /// The packet in fragments of `size` bytes each (a multiple of 8), but the last, which has the rest. What is changed
    /// in the packet is changed before it is cut.
    ///
    /// # Panics
    /// When `size` is no multiple of 8.
    pub fn fragments(&self, size: usize) -> Vec<Self> {
        assert!(size > 0 && size.is_multiple_of(8), "{size} is no multiple of 8");
        let (number, bytes) = self.transport();
        let last = bytes.len().div_ceil(size) - 1;
        bytes
            .chunks(size)
            .enumerate()
            .map(|(place, part)| {
                let offset = u16::try_from(place * size / 8).unwrap();
                self.part(number, part).fragment(offset, place < last)
            })
            .collect()
    }

    /// A fragment of this packet that holds the transport bytes from `offset` (in units of 8 bytes) on, up to `length`
    /// of them: also one that overlaps others, or is tiny.
    #[must_use]
    pub fn fragment_of(&self, offset: u16, length: usize, more: bool) -> Self {
        let (number, bytes) = self.transport();
        let begin = usize::from(offset) * 8;
        let end = bytes.len().min(begin + length);
        self.part(number, bytes.get(begin..end).unwrap_or_default())
            .fragment(offset, more)
    }

    fn part(&self, number: IpNumber, part: &[u8]) -> Self {
        self.clone().with(Transport::Raw(number.0), part)
    }

    /// This packet in another IP header (RFC 2003, RFC 2473), as direct server return sends it to another node.
    #[must_use]
    pub fn wrapped(&self, from: IpAddr, to: IpAddr) -> Self {
        let inner = self.clone().without_link().build();
        let number = if self.source_ip().is_ipv4() {
            IpNumber::IPV4
        } else {
            IpNumber::IPV6
        };
        let (from, to) = (SocketAddr::new(from, 0), SocketAddr::new(to, 0));
        self.on_same_link(Self::new(from, to, Transport::Raw(number.0)).payload(&inner))
    }
}
