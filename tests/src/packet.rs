//! Packets for tests: built, and their checksums computed and verified, without any code of the data plane.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what cannot be set up fails the test"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, NetSlice, SlicedPacket,
    TcpHeader, TransportSlice, UdpHeader,
};

/// TCP flags, as in byte 13 of the header.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Opens.
    pub const SYN: u8 = 0x02;
    /// Resets.
    pub const RST: u8 = 0x04;
    /// Deliver at once.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// A VLAN tag's `EtherType` (IEEE 802.1Q).
const VLAN: u16 = 0x8100;
/// The `EtherType` of an outer tag (IEEE 802.1ad).
const SERVICE_VLAN: u16 = 0x88a8;

/// An IPv6 extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options, filled with padding up to this many units of 8 bytes.
    HopByHop(u8),
    /// A routing header with so many segments left.
    Routing(u8),
    /// A fragment header: offset in units of 8 bytes, and whether more follow.
    Fragment(u16, bool),
    /// An authentication header (its integrity value is not right).
    Authentication,
    /// Destination options, as [`Extension::HopByHop`].
    DestinationOptions(u8),
    /// An extension header that nobody knows (RFC 3692, experiments).
    Unknown,
}

impl Extension {
    fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing(_) => 43,
            Self::Fragment(..) => 44,
            Self::Authentication => 51,
            Self::DestinationOptions(_) => 60,
            Self::Unknown => 253,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(units) | Self::DestinationOptions(units) => {
                let mut bytes = vec![0; usize::from(units) * 8];
                bytes[0] = next;
                bytes[1] = units - 1;
                bytes
            }
            // Type 253, for experiments, which has no contents of its own.
            Self::Routing(left) => vec![next, 0, 253, left, 0, 0, 0, 0],
            Self::Fragment(offset, more) => {
                let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 7]
            }
            // Length in units of 4 bytes, minus 2: 16 bytes.
            Self::Authentication => vec![next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4],
            Self::Unknown => vec![next, 0, 0, 0, 0, 0, 0, 0],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp { flags: u8 },
    Udp { checksum: bool },
    Icmp,
}

/// A packet to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketBuilder {
    ethernet: bool,
    tags: Vec<u16>,
    source: SocketAddr,
    destination: SocketAddr,
    options: Vec<u8>,
    fragment: Option<(u16, bool)>,
    extensions: Vec<Extension>,
    transport: Transport,
    payload: Vec<u8>,
}

impl PacketBuilder {
    /// A TCP segment with ACK set and some data.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Tcp { flags: flag::ACK })
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Udp { checksum: true })
    }

    /// An ICMP or `ICMPv6` echo request; the ports are not used.
    pub fn icmp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self::new(source, destination, Transport::Icmp)
    }

    fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            ethernet: true,
            tags: Vec::new(),
            source,
            destination,
            options: Vec::new(),
            fragment: None,
            extensions: Vec::new(),
            transport,
            payload: b"some data of an odd length.".to_vec(),
        }
    }

    /// With these TCP flags, and for a SYN without data.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.transport = Transport::Tcp { flags };
        if flags & flag::SYN != 0 {
            self.payload.clear();
        }
        self
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// From this address and port.
    #[must_use]
    pub fn from(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }

    /// To this address and port.
    #[must_use]
    pub fn to(mut self, destination: SocketAddr) -> Self {
        self.destination = destination;
        self
    }

    /// The other way round.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        (self.source, self.destination) = (self.destination, self.source);
        self
    }

    /// One more VLAN tag, outer first.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.tags.push(id);
        self
    }

    /// Without Ethernet header.
    #[must_use]
    pub fn without_link(mut self) -> Self {
        self.ethernet = false;
        self
    }

    /// With this many bytes of IPv4 options: a multiple of 4, up to 40.
    #[must_use]
    pub fn options(mut self, length: usize) -> Self {
        // No-operation options.
        self.options = vec![1; length];
        self
    }

    /// As a fragment: offset in units of 8 bytes, and whether more follow.
    #[must_use]
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        if self.source.is_ipv4() {
            self.fragment = Some((offset, more));
        } else {
            self.extensions.push(Extension::Fragment(offset, more));
        }
        self
    }

    /// With one more IPv6 extension header.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// UDP without checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        self.transport = Transport::Udp { checksum: false };
        self
    }

    /// Bytes from the network header on.
    pub fn network_length(&self) -> u64 {
        self.clone().without_link().build().len() as u64
    }

    /// The packet's bytes.
    ///
    /// # Panics
    /// When source and destination are not of one family, or it becomes too long.
    pub fn build(&self) -> Vec<u8> {
        let (number, transport) = self.transport();
        let mut bytes = Vec::new();
        if self.ethernet {
            bytes.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
            for (place, id) in self.tags.iter().enumerate() {
                let is_outer = place + 1 < self.tags.len();
                bytes.extend((if is_outer { SERVICE_VLAN } else { VLAN }).to_be_bytes());
                bytes.extend(id.to_be_bytes());
            }
            let kind: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
            bytes.extend(kind.to_be_bytes());
        }
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                bytes.extend(self.ipv4(source, destination, number, transport.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                bytes.extend(self.ipv6(source, destination, number, transport.len()));
            }
            (source, destination) => panic!("{source} and {destination} are of two families"),
        }
        bytes.extend(transport);
        bytes
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, number: IpNumber, length: usize) -> Vec<u8> {
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut header = Ipv4Header {
            options: Ipv4Options::try_from(self.options.as_slice()).unwrap(),
            fragment_offset: IpFragOffset::try_new(offset).unwrap(),
            more_fragments: more,
            dont_fragment: self.fragment.is_none(),
            identification: 0x1234,
            ..Ipv4Header::new(0, 64, number, source.octets(), destination.octets()).unwrap()
        };
        header.set_payload_len(length).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, number: IpNumber, length: usize) -> Vec<u8> {
        let mut next = number.0;
        let mut extensions = Vec::new();
        for extension in self.extensions.iter().rev() {
            extensions.splice(0..0, extension.bytes(next));
            next = extension.number();
        }
        let header = Ipv6Header {
            flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
            payload_length: u16::try_from(extensions.len() + length).unwrap(),
            next_header: IpNumber(next),
            hop_limit: 64,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(extensions);
        bytes
    }

    /// Transport header and payload, with the right checksum.
    fn transport(&self) -> (IpNumber, Vec<u8>) {
        let (from, to) = (self.source.port(), self.destination.port());
        let ends = (self.source.ip(), self.destination.ip());
        let (number, mut bytes) = match self.transport {
            Transport::Tcp { flags } => {
                let mut header = TcpHeader::new(from, to, 0x0102_0304, 0xffff);
                header.syn = flags & flag::SYN != 0;
                header.ack = flags & flag::ACK != 0;
                header.fin = flags & flag::FIN != 0;
                header.rst = flags & flag::RST != 0;
                header.psh = flags & flag::PSH != 0;
                header.checksum = tcp_checksum(&header, ends, &self.payload);
                (IpNumber::TCP, header.to_bytes().to_vec())
            }
            Transport::Udp { checksum } => {
                let mut header = UdpHeader {
                    source_port: from,
                    destination_port: to,
                    length: u16::try_from(8 + self.payload.len()).unwrap(),
                    checksum: 0,
                };
                if checksum {
                    header.checksum = udp_checksum(&header, ends, &self.payload);
                }
                (IpNumber::UDP, header.to_bytes().to_vec())
            }
            Transport::Icmp if self.source.is_ipv4() => (IpNumber::ICMP, vec![8, 0, 0, 0, 0, 1, 0, 1]),
            Transport::Icmp => (IpNumber::IPV6_ICMP, vec![128, 0, 0, 0, 0, 1, 0, 1]),
        };
        bytes.extend(&self.payload);
        (number, bytes)
    }
}

fn tcp_checksum(header: &TcpHeader, ends: (IpAddr, IpAddr), payload: &[u8]) -> u16 {
    match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
        }
        _ => panic!("{ends:?} are of two families"),
    }
    .unwrap()
}

fn udp_checksum(header: &UdpHeader, ends: (IpAddr, IpAddr), payload: &[u8]) -> u16 {
    match ends {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)
        }
        _ => panic!("{ends:?} are of two families"),
    }
    .unwrap()
}

/// Whether every checksum of an Ethernet packet is right; `None` for a packet that is no whole TCP or UDP packet.
pub fn checksums_are_right(bytes: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(bytes).ok()?;
    let (ends, header_is_right) = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            (
                (header.source.into(), header.destination.into()),
                header.header_checksum == header.calc_header_checksum(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            ((header.source.into(), header.destination.into()), true)
        }
        NetSlice::Arp(_) => return None,
    };
    let transport_is_right = match packet.transport? {
        TransportSlice::Tcp(tcp) => tcp.checksum() == tcp_checksum(&tcp.to_header(), ends, tcp.payload()),
        TransportSlice::Udp(udp) => {
            udp.checksum() == 0 || udp.checksum() == udp_checksum(&udp.to_header(), ends, udp.payload())
        }
        _ => return None,
    };
    Some(header_is_right && transport_is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> [(SocketAddr, SocketAddr); 2] {
        [
            (([192, 0, 2, 1], 4000).into(), ([192, 0, 2, 2], 80).into()),
            (
                "[2001:db8::1]:4000".parse().unwrap(),
                "[2001:db8::2]:80".parse().unwrap(),
            ),
        ]
    }

    #[test]
    fn what_is_built_has_right_checksums_and_a_flipped_bit_is_seen() {
        for (from, to) in ends() {
            for packet in [
                PacketBuilder::tcp(from, to),
                PacketBuilder::udp(from, to).vlan(7).vlan(8),
                PacketBuilder::udp(from, to).options(12),
                PacketBuilder::tcp(from, to).extension(Extension::Authentication),
            ] {
                if from.is_ipv4() && !packet.extensions.is_empty() {
                    continue;
                }
                let mut bytes = packet.build();
                assert_eq!(checksums_are_right(&bytes), Some(true), "{packet:?}");
                *bytes.last_mut().unwrap() ^= 1;
                assert_eq!(checksums_are_right(&bytes), Some(false), "{packet:?}");
            }
        }
    }

    #[test]
    fn udp_without_checksum_is_right() {
        for (from, to) in ends() {
            let bytes = PacketBuilder::udp(from, to).without_checksum().build();
            assert_eq!(checksums_are_right(&bytes), Some(true));
        }
    }
}
