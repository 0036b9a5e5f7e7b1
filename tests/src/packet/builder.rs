//! A packet to be, and its bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{
    IpDscp, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader,
};

use super::checksum::{self, Ends};
use super::{Extension, flag};

/// The header of an SCTP DATA chunk (RFC 9260, section 3.3.1) with 27 bytes of data.
const DATA_CHUNK: [u8; 16] = [0, 3, 0, 43, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];

/// A VLAN tag's `EtherType` (IEEE 802.1Q).
const VLAN: u16 = 0x8100;
/// The `EtherType` of an outer tag (IEEE 802.1ad).
const SERVICE_VLAN: u16 = 0x88a8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp {
        flags: u8,
    },
    Udp {
        checksum: bool,
    },
    Sctp {
        checksum: bool,
    },
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// The payload is all that follows the IP header, and this is its protocol.
    Raw(u8),
}

/// A packet to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketBuilder {
    ethernet: bool,
    macs: [[u8; 6]; 2],
    tags: Vec<u16>,
    source: SocketAddr,
    destination: SocketAddr,
    hop_limit: u8,
    traffic_class: u8,
    identification: u32,
    dont_fragment: bool,
    options: Vec<u8>,
    fragment: Option<(u16, bool)>,
    extensions: Vec<Extension>,
    transport: Transport,
    sequence: [u32; 2],
    payload: Vec<u8>,
    cut: Option<usize>,
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

    /// An SCTP packet with some data; the payload is its chunks.
    pub fn sctp(source: SocketAddr, destination: SocketAddr) -> Self {
        let packet = Self::new(source, destination, Transport::Sctp { checksum: true });
        let data = [DATA_CHUNK.as_slice(), &packet.payload, &[0]].concat();
        packet.payload(&data)
    }

    /// An SCTP packet that opens an association: with an INIT chunk (RFC 9260, section 3.3.2).
    #[must_use]
    pub fn init(self) -> Self {
        let chunk = [
            &[1, 0, 0, 20],
            [7; 4].as_slice(),
            &[0, 1, 0, 0, 0, 1, 0, 1],
            &[9; 4],
        ]
        .concat();
        self.payload(&chunk)
    }

    /// An ICMP or `ICMPv6` echo request; the ports are not used.
    pub fn icmp(source: SocketAddr, destination: SocketAddr) -> Self {
        let kind = if source.is_ipv4() { 8 } else { 128 };
        let transport = Transport::Icmp {
            kind,
            code: 0,
            rest: [0, 1, 0, 1],
        };
        Self::new(source, destination, transport)
    }

    /// A packet of another protocol: all that follows the IP header is the payload.
    pub fn other(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Self {
        Self::new(source, destination, Transport::Raw(protocol))
    }

    pub(super) fn new(source: SocketAddr, destination: SocketAddr, transport: Transport) -> Self {
        Self {
            ethernet: true,
            macs: [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]],
            tags: Vec::new(),
            source,
            destination,
            hop_limit: 64,
            traffic_class: 0,
            identification: 0x1234,
            dont_fragment: true,
            options: Vec::new(),
            fragment: None,
            extensions: Vec::new(),
            transport,
            sequence: [0x0102_0304, 0],
            payload: b"some data of an odd length.".to_vec(),
            cut: None,
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

    /// With this TCP sequence number, and this acknowledgment.
    #[must_use]
    pub fn sequence(mut self, sequence: u32, acknowledgment: u32) -> Self {
        self.sequence = [sequence, acknowledgment];
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

    /// The other way round: source and destination, and echo request and reply.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        (self.source, self.destination) = (self.destination, self.source);
        if let Transport::Icmp { kind, .. } = &mut self.transport {
            *kind = match *kind {
                0 => 8,
                8 => 0,
                128 => 129,
                129 => 128,
                other => other,
            };
        }
        self
    }

    /// With the hardware addresses the other way round.
    #[must_use]
    pub fn swapped_macs(mut self) -> Self {
        self.macs.reverse();
        self
    }

    /// With these hardware addresses.
    #[must_use]
    pub fn macs(mut self, destination: [u8; 6], source: [u8; 6]) -> Self {
        self.macs = [destination, source];
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

    /// With this time to live, or hop limit.
    #[must_use]
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = hops;
        self
    }

    /// With this type of service, or traffic class.
    #[must_use]
    pub fn traffic_class(mut self, class: u8) -> Self {
        self.traffic_class = class;
        self
    }

    /// With this identification, which tells the fragments of one packet from those of another.
    #[must_use]
    pub fn identification(mut self, identification: u32) -> Self {
        self.identification = identification;
        self
    }

    /// A packet that routers may fragment (IPv4).
    #[must_use]
    pub fn may_be_fragmented(mut self) -> Self {
        self.dont_fragment = false;
        self
    }

    /// With this many bytes of IPv4 options: a multiple of 4, up to 40.
    #[must_use]
    pub fn options(self, length: usize) -> Self {
        // No-operation options.
        self.option_bytes(&vec![1; length])
    }

    /// With these bytes as IPv4 options.
    #[must_use]
    pub fn option_bytes(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }

    /// As a fragment: offset in units of 8 bytes, and whether more follow. The payload is not cut; see
    /// [`PacketBuilder::fragments`].
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

    /// UDP or SCTP without checksum.
    #[must_use]
    pub fn without_checksum(mut self) -> Self {
        if let Transport::Udp { checksum } | Transport::Sctp { checksum } = &mut self.transport {
            *checksum = false;
        }
        self
    }

    /// An ICMP packet with these four bytes after its checksum; in an echo, identifier and sequence number.
    #[must_use]
    pub fn icmp_rest(mut self, bytes: [u8; 4]) -> Self {
        if let Transport::Icmp { rest, .. } = &mut self.transport {
            *rest = bytes;
        }
        self
    }

    /// The packet in an ICMP error ends after so many bytes: the payload is cut.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Self {
        self.payload.truncate(length);
        self
    }

    /// The packet's bytes end after so many from the network header on, whatever its headers say.
    #[must_use]
    pub fn cut_off(mut self, length: usize) -> Self {
        self.cut = Some(length);
        self
    }

    pub(super) fn with(mut self, transport: Transport, payload: &[u8]) -> Self {
        self.transport = transport;
        self.payload = payload.to_vec();
        self
    }

    /// `other`, with the link-layer header of this packet.
    pub(super) fn on_same_link(&self, other: Self) -> Self {
        Self {
            ethernet: self.ethernet,
            macs: self.macs,
            tags: self.tags.clone(),
            ..other
        }
    }

    pub(super) fn source_ip(&self) -> IpAddr {
        self.source.ip()
    }

    pub(super) fn tcp_parts(&self) -> Option<(u8, [u32; 2], usize)> {
        match self.transport {
            Transport::Tcp { flags } => Some((flags, self.sequence, self.payload.len())),
            _ => None,
        }
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
        let mut bytes = self.link();
        let link = bytes.len();
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
        if let Some(length) = self.cut {
            bytes.truncate(link + length);
        }
        bytes
    }

    fn link(&self) -> Vec<u8> {
        if !self.ethernet {
            return Vec::new();
        }
        let mut bytes = self.macs.as_flattened().to_vec();
        for (place, id) in self.tags.iter().enumerate() {
            let is_outer = place + 1 < self.tags.len();
            bytes.extend((if is_outer { SERVICE_VLAN } else { VLAN }).to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        let kind: u16 = if self.source.is_ipv4() { 0x0800 } else { 0x86dd };
        bytes.extend(kind.to_be_bytes());
        bytes
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, number: IpNumber, length: usize) -> Vec<u8> {
        let (offset, more) = self.fragment.unwrap_or_default();
        let mut header = Ipv4Header {
            dscp: IpDscp::try_new(self.traffic_class >> 2).unwrap(),
            ecn: (self.traffic_class & 3).try_into().unwrap(),
            options: Ipv4Options::try_from(self.options.as_slice()).unwrap(),
            fragment_offset: IpFragOffset::try_new(offset).unwrap(),
            more_fragments: more,
            dont_fragment: self.fragment.is_none() && self.dont_fragment,
            #[expect(clippy::cast_possible_truncation, reason = "IPv4 has 16 bits of it")]
            identification: self.identification as u16,
            ..Ipv4Header::new(0, self.hop_limit, number, source.octets(), destination.octets()).unwrap()
        };
        header.set_payload_len(length).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, number: IpNumber, length: usize) -> Vec<u8> {
        let mut next = number.0;
        let mut extensions = Vec::new();
        for extension in self.extensions.iter().rev() {
            extensions.splice(0..0, extension.bytes(next, self.identification));
            next = extension.number();
        }
        let header = Ipv6Header {
            traffic_class: self.traffic_class,
            flow_label: Ipv6FlowLabel::try_new(0x12345).unwrap(),
            payload_length: u16::try_from(extensions.len() + length).unwrap(),
            next_header: IpNumber(next),
            hop_limit: self.hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(extensions);
        bytes
    }

    /// Transport header and payload, with the right checksum.
    pub(super) fn transport(&self) -> (IpNumber, Vec<u8>) {
        let (from, to) = (self.source.port(), self.destination.port());
        let ends = Ends {
            source: self.source.ip(),
            destination: self.destination.ip(),
        };
        let (number, mut bytes) = match self.transport {
            Transport::Tcp { flags } => {
                let mut header = TcpHeader::new(from, to, self.sequence[0], 0xffff);
                header.acknowledgment_number = self.sequence[1];
                header.syn = flags & flag::SYN != 0;
                header.ack = flags & flag::ACK != 0;
                header.fin = flags & flag::FIN != 0;
                header.rst = flags & flag::RST != 0;
                header.psh = flags & flag::PSH != 0;
                header.checksum = checksum::tcp(&header, ends, &self.payload);
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
                    header.checksum = checksum::udp(&header, ends, &self.payload);
                }
                (IpNumber::UDP, header.to_bytes().to_vec())
            }
            Transport::Sctp { checksum } => {
                let ports = [from, to].map(u16::to_be_bytes);
                // The ports, a verification tag, and the checksum.
                let mut header = [ports.as_flattened(), &[1, 2, 3, 4], &[0; 4]].concat();
                if checksum {
                    let sum = checksum::sctp(&header, &self.payload);
                    header[8..].copy_from_slice(&sum.to_le_bytes());
                }
                (IpNumber::SCTP, header)
            }
            Transport::Icmp { kind, code, rest } => self.icmp_header(kind, code, rest, ends),
            Transport::Raw(number) => (IpNumber(number), Vec::new()),
        };
        bytes.extend(&self.payload);
        (number, bytes)
    }

    fn icmp_header(&self, kind: u8, code: u8, rest: [u8; 4], ends: Ends) -> (IpNumber, Vec<u8>) {
        let number = if self.source.is_ipv4() {
            IpNumber::ICMP
        } else {
            IpNumber::IPV6_ICMP
        };
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest);
        let whole = [bytes.as_slice(), &self.payload].concat();
        let checksum = checksum::icmp(&whole, ends);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        (number, bytes)
    }
}
