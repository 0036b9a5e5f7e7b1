//! Where things stand in the bytes of a packet, even of one that is cut off or wrong.

use std::net::IpAddr;

/// Link-layer header and VLAN tags taken off.
pub(super) struct Link<'a> {
    pub(super) macs: [[u8; 6]; 2],
    pub(super) tags: Vec<u16>,
    pub(super) network: &'a [u8],
}

/// An IP header, extension headers included, and what follows it.
pub(super) struct Network<'a> {
    /// The fixed header and the options, without IPv6 extension headers.
    pub(super) header: &'a [u8],
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// 0 in an IPv6 packet without fragment header.
    pub(super) identification: u32,
    /// Offset in units of 8 bytes, and whether more follow; `None` for a whole packet.
    pub(super) fragment: Option<(u16, bool)>,
    pub(super) protocol: u8,
    /// As much as there is, and no more than the header says.
    pub(super) payload: &'a [u8],
    /// All that the header announces is there.
    pub(super) is_whole: bool,
}

/// Takes an Ethernet header off.
pub(super) fn link(frame: &[u8]) -> Option<Link<'_>> {
    let macs = [frame.first_chunk()?, frame.get(6..)?.first_chunk()?].map(|mac: &[u8; 6]| *mac);
    let mut tags = Vec::new();
    let mut rest = frame.get(12..)?;
    loop {
        let (kind, after) = rest.split_first_chunk::<2>()?;
        match u16::from_be_bytes(*kind) {
            0x8100 | 0x88a8 => {
                let (tag, after) = after.split_first_chunk::<2>()?;
                tags.push(u16::from_be_bytes(*tag));
                rest = after;
            }
            0x0800 | 0x86dd => {
                return Some(Link {
                    macs,
                    tags,
                    network: after,
                });
            }
            _ => return None,
        }
    }
}

/// How long the Ethernet header of a packet is, tags included; `None` when there is no IP packet behind it.
pub fn link_length(frame: &[u8]) -> Option<usize> {
    link(frame).map(|link| 14 + 4 * link.tags.len())
}

/// Source, destination and protocol of a packet without Ethernet header, as far as the headers that are there say; `None`
/// when there is no IP header.
pub fn ends(bytes: &[u8]) -> Option<([IpAddr; 2], u8)> {
    if let Some(network) = network(bytes) {
        return Some(([network.source, network.destination], network.protocol));
    }
    // Extension headers that the packet has no room for.
    let header = bytes.get(..40).filter(|header| header[0] >> 4 == 6)?;
    let (source, rest) = header[8..].split_first_chunk::<16>()?;
    let destination = rest.first_chunk::<16>()?;
    Some(([(*source).into(), (*destination).into()], header[6]))
}

/// Whether a packet without Ethernet header is a fragment after the first one: it has no ports.
pub fn is_later_fragment(bytes: &[u8]) -> bool {
    network(bytes).is_some_and(|network| !network.is_first())
}

/// The packet that an ICMP error without Ethernet header quotes; `None` when it is no such error. Redirects of IPv6 quote
/// elsewhere and are none here.
pub fn quoted(bytes: &[u8]) -> Option<&[u8]> {
    let network = network(bytes)?;
    let kind = *network.payload.first()?;
    let is_error = match network.protocol {
        1 => [3, 4, 5, 11, 12].contains(&kind),
        58 => kind < 128,
        _ => false,
    };
    is_error.then(|| network.payload.get(8..)).flatten()
}

/// Whether packets of this protocol begin with two ports: TCP, UDP or SCTP.
pub fn has_ports(protocol: u8) -> bool {
    [6, 17, 132].contains(&protocol)
}

/// Takes an IP header off; `None` when it is not all there.
pub(super) fn network(bytes: &[u8]) -> Option<Network<'_>> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes),
        6 => ipv6(bytes),
        _ => None,
    }
}

impl Network<'_> {
    pub(super) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// It holds the transport header: a whole packet, or the first fragment.
    pub(super) fn is_first(&self) -> bool {
        self.fragment.is_none_or(|(offset, _)| offset == 0)
    }
}

fn ipv4(bytes: &[u8]) -> Option<Network<'_>> {
    let length = usize::from(bytes[0] & 15) * 4;
    if length < 20 {
        return None;
    }
    let header = bytes.get(..length)?;
    let total = usize::from(word(header, 2)?);
    let frag = word(header, 6)?;
    let (offset, more) = (frag & 0x1fff, frag & 0x2000 != 0);
    let (source, rest) = header.get(12..)?.split_first_chunk::<4>()?;
    Some(Network {
        header,
        source: (*source).into(),
        destination: (*rest.first_chunk::<4>()?).into(),
        identification: word(header, 4)?.into(),
        fragment: (offset > 0 || more).then_some((offset, more)),
        protocol: header[9],
        payload: bytes.get(length..bytes.len().min(total.max(length)))?,
        is_whole: total >= length && bytes.len() >= total,
    })
}

fn ipv6(bytes: &[u8]) -> Option<Network<'_>> {
    let (header, after) = bytes.split_at_checked(40)?;
    let length = usize::from(word(header, 4)?);
    let (source, rest) = header.get(8..)?.split_first_chunk::<16>()?;
    let mut network = Network {
        header,
        source: (*source).into(),
        destination: (*rest.first_chunk::<16>()?).into(),
        identification: 0,
        fragment: None,
        protocol: header[6],
        payload: after.get(..after.len().min(length))?,
        is_whole: after.len() >= length,
    };
    loop {
        let payload = network.payload;
        let size = match network.protocol {
            0 | 43 | 60 => (usize::from(*payload.get(1)?) + 1) * 8,
            44 => 8,
            51 => (usize::from(*payload.get(1)?) + 2) * 4,
            _ => return Some(network),
        };
        let extension = payload.get(..size)?;
        if network.protocol == 44 {
            let frag = word(extension, 2)?;
            network.identification = u32::from_be_bytes(*extension.get(4..)?.first_chunk()?);
            if frag & !6 != 0 {
                network.fragment = Some((frag >> 3, frag & 1 != 0));
            }
        }
        network.protocol = extension[0];
        network.payload = payload.get(size..)?;
        if !network.is_first() {
            return Some(network);
        }
    }
}

/// Two bytes in host order.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Four bytes in host order.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
