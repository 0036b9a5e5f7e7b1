//! A packet's bytes as something that can be compared and read.

use std::net::{IpAddr, SocketAddr};

use super::icmp::IcmpError;
use super::layers::{self, Network, long, word};
use super::{checksum, flag};

/// What a packet is. Made only of a packet whose lengths and checksums are right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Destination and source hardware address; `None` without Ethernet header.
    pub macs: Option<[[u8; 6]; 2]>,
    /// VLAN tags, outer first.
    pub tags: Vec<u16>,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Type of service, or traffic class.
    pub traffic_class: u8,
    /// Identification; 0 in an IPv6 packet without fragment header.
    pub identification: u32,
    /// Routers may not fragment it. Always so in IPv6.
    pub dont_fragment: bool,
    /// Offset in units of 8 bytes, and whether more follow; `None` for a whole packet.
    pub fragment: Option<(u16, bool)>,
    /// What it carries.
    pub content: Content,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A TCP segment.
    Tcp {
        /// Source and destination port.
        ports: [u16; 2],
        /// The flags, see [`flag`].
        flags: u8,
        /// Sequence number and acknowledgment.
        numbers: [u32; 2],
        /// The options.
        options: Vec<u8>,
        /// The data.
        data: Vec<u8>,
    },
    /// A UDP datagram.
    Udp {
        /// Source and destination port.
        ports: [u16; 2],
        /// There is a checksum.
        has_checksum: bool,
        /// The data.
        data: Vec<u8>,
    },
    /// An SCTP packet.
    Sctp {
        /// Source and destination port.
        ports: [u16; 2],
        /// The verification tag.
        tag: u32,
        /// There is a checksum.
        has_checksum: bool,
        /// The chunks.
        data: Vec<u8>,
    },
    /// An echo request or reply.
    Echo(Echo),
    /// An ICMP error.
    Error {
        /// What it says.
        error: IcmpError,
        /// Whom the quoted packet was from and to, with ports where it has them; `None` when it cannot be read.
        about: Option<[SocketAddr; 2]>,
        /// The quoted packet.
        quoted: Vec<u8>,
    },
    /// Another packet.
    Wrapped(Box<View>),
    /// Another protocol, or a fragment.
    Other {
        /// IP protocol number.
        protocol: u8,
        /// All that follows the IP header.
        data: Vec<u8>,
    },
}

/// An echo request or reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Echo {
    /// It is a reply.
    pub is_reply: bool,
    /// Identifier and sequence number.
    pub numbers: [u16; 2],
    /// The data.
    pub data: Vec<u8>,
}

impl View {
    /// Of an Ethernet packet; an error says what is wrong about it.
    pub fn of(frame: &[u8]) -> Result<Self, String> {
        let link = layers::link(frame).ok_or("no IP packet behind Ethernet")?;
        let mut view = Self::of_network(link.network)?;
        view.macs = Some(link.macs);
        view.tags = link.tags;
        Ok(view)
    }

    /// Of a packet without Ethernet header.
    pub fn of_network(bytes: &[u8]) -> Result<Self, String> {
        let network = layers::network(bytes).ok_or("no IP header")?;
        if !network.is_whole {
            return Err("cut off".to_owned());
        }
        for residue in checksum::network_residues(bytes) {
            if residue.is_whole && residue.off != 0 {
                return Err(format!("wrong checksum: {residue:?}"));
            }
        }
        let header = network.header;
        let is_v4 = network.is_v4();
        Ok(Self {
            macs: None,
            tags: Vec::new(),
            source: network.source,
            destination: network.destination,
            hop_limit: header[if is_v4 { 8 } else { 7 }],
            traffic_class: if is_v4 {
                header[1]
            } else {
                header[0] << 4 | header[1] >> 4
            },
            identification: network.identification,
            dont_fragment: !is_v4 || header[6] & 0x40 != 0,
            fragment: network.fragment,
            content: content(&network)?,
        })
    }

    /// Source and destination port, where there are any.
    pub fn ports(&self) -> Option<[u16; 2]> {
        match &self.content {
            Content::Tcp { ports, .. } | Content::Udp { ports, .. } | Content::Sctp { ports, .. } => {
                Some(*ports)
            }
            _ => None,
        }
    }

    /// Source and destination, with ports where there are any.
    pub fn ends(&self) -> [SocketAddr; 2] {
        let [from, to] = self.ports().unwrap_or_default();
        [
            SocketAddr::new(self.source, from),
            SocketAddr::new(self.destination, to),
        ]
    }

    /// The packet inside, if it is a wrapped one.
    pub fn inner(&self) -> Option<&Self> {
        match &self.content {
            Content::Wrapped(inner) => Some(inner),
            _ => None,
        }
    }

    /// It is a TCP reset.
    pub fn is_reset(&self) -> bool {
        matches!(self.content, Content::Tcp { flags, .. } if flags & flag::RST != 0)
    }

    /// What it says, and about which packet's ends, if it is an ICMP error.
    pub fn error(&self) -> Option<(IcmpError, Option<[SocketAddr; 2]>)> {
        match &self.content {
            Content::Error { error, about, .. } => Some((*error, *about)),
            _ => None,
        }
    }
}

fn content(network: &Network<'_>) -> Result<Content, String> {
    let bytes = network.payload;
    let other = || Content::Other {
        protocol: network.protocol,
        data: bytes.to_vec(),
    };
    if network.fragment.is_some() {
        return Ok(other());
    }
    let content = match network.protocol {
        6 => tcp(bytes).ok_or("a TCP header cut off")?,
        17 => udp(bytes).ok_or("a UDP header cut off, or of another length")?,
        132 => sctp(bytes).ok_or("an SCTP header cut off")?,
        1 | 58 => icmp(network).unwrap_or_else(other),
        4 | 41 => Content::Wrapped(Box::new(View::of_network(bytes)?)),
        _ => other(),
    };
    Ok(content)
}

fn tcp(bytes: &[u8]) -> Option<Content> {
    let length = usize::from(bytes.get(12)? >> 4) * 4;
    Some(Content::Tcp {
        ports: [word(bytes, 0)?, word(bytes, 2)?],
        flags: *bytes.get(13)?,
        numbers: [long(bytes, 4)?, long(bytes, 8)?],
        options: bytes.get(20..length)?.to_vec(),
        data: bytes.get(length..)?.to_vec(),
    })
}

fn udp(bytes: &[u8]) -> Option<Content> {
    let data = bytes.get(8..)?.to_vec();
    (usize::from(word(bytes, 4)?) == bytes.len()).then_some(Content::Udp {
        ports: [word(bytes, 0)?, word(bytes, 2)?],
        has_checksum: word(bytes, 6)? != 0,
        data,
    })
}

fn sctp(bytes: &[u8]) -> Option<Content> {
    Some(Content::Sctp {
        ports: [word(bytes, 0)?, word(bytes, 2)?],
        tag: long(bytes, 4)?,
        has_checksum: long(bytes, 8)? != 0,
        data: bytes.get(12..)?.to_vec(),
    })
}

fn icmp(network: &Network<'_>) -> Option<Content> {
    let (header, data) = network.payload.split_first_chunk::<8>()?;
    let [kind, code, _, _, rest @ ..] = *header;
    if [0, 8, 128, 129].contains(&kind) {
        return Some(Content::Echo(Echo {
            is_reply: kind == 0 || kind == 129,
            numbers: [word(&rest, 0)?, word(&rest, 2)?],
            data: data.to_vec(),
        }));
    }
    if !network.is_v4() && kind == 137 {
        let target: [u8; 16] = *data.first_chunk()?;
        let quoted = data.get(40..)?;
        return Some(error(IcmpError::Redirect(target.into()), quoted));
    }
    Some(error(IcmpError::read(network.is_v4(), kind, code, rest)?, data))
}

fn error(error: IcmpError, quoted: &[u8]) -> Content {
    let about = layers::network(quoted).map(|about| {
        let has_ports = about.is_first() && layers::has_ports(about.protocol);
        let port = |at| {
            has_ports
                .then(|| word(about.payload, at))
                .flatten()
                .unwrap_or_default()
        };
        [
            SocketAddr::new(about.source, port(0)),
            SocketAddr::new(about.destination, port(2)),
        ]
    });
    Content::Error {
        error,
        about,
        quoted: quoted.to_vec(),
    }
}
