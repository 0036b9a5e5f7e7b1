//! Checksums: computed for what is built, and judged in what came out.

use std::net::IpAddr;

use etherparse::checksum::Sum16BitWords;
use etherparse::{TcpHeader, UdpHeader};

use super::layers::{self, Network};

/// The addresses of a pseudo-header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

macro_rules! transport {
    ($(#[$doc:meta])* $name:ident, $header:ty) => {
        $(#[$doc])*
        pub(super) fn $name(header: &$header, ends: Ends, payload: &[u8]) -> u16 {
            match (ends.source, ends.destination) {
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
    };
}

transport!(
    /// A TCP checksum.
    tcp,
    TcpHeader
);
transport!(
    /// A UDP checksum, which is never 0.
    udp,
    UdpHeader
);

/// An SCTP checksum: that of a header, whose own is 0 yet, and chunks.
pub(super) fn sctp(header: &[u8], chunks: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header), chunks)
}

/// The checksum of an ICMP or `ICMPv6` message, whose own is 0 yet.
pub(super) fn icmp(message: &[u8], ends: Ends) -> u16 {
    match (ends.source, ends.destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => Sum16BitWords::new(),
        _ => pseudo(ends, message.len(), 58),
    }
    .add_slice(message)
    .ones_complement()
    .to_be()
}

/// An Ethernet packet with its TCP or UDP checksum filled in, which its sender has left to the device; any other packet as
/// it is.
pub fn with_checksum(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let Some(network) = layers::link(frame).and_then(|link| layers::network(link.network)) else {
        return bytes;
    };
    let payload = network.payload;
    let place = match network.protocol {
        6 => 16,
        17 => 6,
        _ => return bytes,
    };
    // Ethernet may have filled a short packet up: what is behind the IP packet is not the payload's.
    let Some(begin) = payload
        .as_ptr()
        .addr()
        .checked_sub(frame.as_ptr().addr())
        .filter(|begin| payload.len() >= place + 2 && begin + place + 2 <= bytes.len())
    else {
        return bytes;
    };
    bytes[begin + place..begin + place + 2].fill(0);
    let ends = Ends {
        source: network.source,
        destination: network.destination,
    };
    let sum = pseudo(ends, payload.len(), network.protocol).add_slice(&bytes[begin..begin + payload.len()]);
    let checksum = sum.to_ones_complement_with_no_zero().to_ne_bytes();
    bytes[begin + place..begin + place + 2].copy_from_slice(&checksum);
    bytes
}

/// How far one checksum of a packet is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Residue {
    /// Which one: `"ip"`, `"tcp"`, `"udp"`, `"sctp"` or `"icmp"`.
    pub what: &'static str,
    /// In how many other packets this one is, wrapped or quoted.
    pub depth: u8,
    /// All that it covers is there, so that 0 means right.
    pub is_whole: bool,
    /// 0, or what is wrong about it. A translation never changes it: a wrong checksum must stay as wrong as it was, and
    /// so must that of a packet of which only the first bytes are quoted.
    pub off: u32,
}

impl Residue {
    fn new(what: &'static str, depth: u8, is_whole: bool, sum: &Sum16BitWords) -> Self {
        // Zero has two forms in ones' complement.
        let off = match sum.ones_complement() {
            0xffff => 0,
            off => off.into(),
        };
        Self {
            what,
            depth,
            is_whole,
            off,
        }
    }
}

/// How far each checksum of an Ethernet packet is off, from outside in. Those that are not there are left out: of UDP
/// without checksum, of later fragments, of a quoted packet that ends before.
pub fn residues(frame: &[u8]) -> Vec<Residue> {
    layers::link(frame).map_or_else(Vec::new, |link| network_residues(link.network))
}

/// As [`residues`], of a packet without Ethernet header.
pub fn network_residues(bytes: &[u8]) -> Vec<Residue> {
    let mut found = Vec::new();
    collect(bytes, 0, &mut found);
    found
}

/// Whether every checksum of an Ethernet packet is right that can be judged; `None` for a packet that is no whole TCP, UDP,
/// SCTP or ICMP packet.
pub fn checksums_are_right(frame: &[u8]) -> Option<bool> {
    let link = layers::link(frame)?;
    network_checksums_are_right(link.network)
}

/// As [`checksums_are_right`], of a packet without Ethernet header.
pub fn network_checksums_are_right(bytes: &[u8]) -> Option<bool> {
    let network = layers::network(bytes)?;
    let is_whole = network.is_whole && network.fragment.is_none() && header_is_whole(&network);
    is_whole.then(|| {
        let residues = network_residues(bytes);
        residues
            .iter()
            .all(|residue| !residue.is_whole || residue.off == 0)
    })
}

/// The transport header, as long as its kind is at least, and as long as it says it is; also that of a wrapped packet.
fn header_is_whole(network: &Network<'_>) -> bool {
    let payload = network.payload;
    match network.protocol {
        6 => payload.len() >= 20 && payload.len() >= usize::from(payload[12] >> 4) * 4,
        17 => payload.len() >= 8 && layers::word(payload, 4).map(usize::from) == Some(payload.len()),
        132 => payload.len() >= 12,
        1 | 58 => payload.len() >= 8,
        4 | 41 => layers::network(payload)
            .is_some_and(|inner| inner.is_whole && inner.fragment.is_none() && header_is_whole(&inner)),
        _ => false,
    }
}

fn collect(bytes: &[u8], depth: u8, found: &mut Vec<Residue>) {
    let Some(network) = layers::network(bytes) else {
        return;
    };
    if network.is_v4() {
        let sum = Sum16BitWords::new().add_slice(network.header);
        found.push(Residue::new("ip", depth, true, &sum));
    }
    if !network.is_first() {
        return;
    }
    let payload = network.payload;
    let is_whole = network.is_whole && network.fragment.is_none();
    let ends = Ends {
        source: network.source,
        destination: network.destination,
    };
    let with_pseudo = || pseudo(ends, payload.len(), network.protocol).add_slice(payload);
    match network.protocol {
        6 if payload.len() >= 18 => found.push(Residue::new("tcp", depth, is_whole, &with_pseudo())),
        17 if layers::word(payload, 6).is_some_and(|checksum| checksum != 0) => {
            found.push(Residue::new("udp", depth, is_whole, &with_pseudo()));
        }
        132 if is_whole => found.extend(sctp_residue(payload, depth)),
        1 if payload.len() >= 4 => {
            let sum = Sum16BitWords::new().add_slice(payload);
            found.push(Residue::new("icmp", depth, is_whole, &sum));
            quoted(bytes, depth, found);
        }
        58 if payload.len() >= 4 => {
            found.push(Residue::new("icmp", depth, is_whole, &with_pseudo()));
            quoted(bytes, depth, found);
        }
        // A packet in a packet in a packet is nobody's business.
        4 | 41 if depth < 3 => collect(payload, depth + 1, found),
        _ => {}
    }
}

/// Of a whole SCTP packet with a checksum.
fn sctp_residue(packet: &[u8], depth: u8) -> Option<Residue> {
    let (header, chunks) = packet.split_first_chunk::<12>()?;
    let [ports @ .., a, b, c, d] = *header;
    let checksum = u32::from_le_bytes([a, b, c, d]);
    let ports: [u8; 8] = ports;
    let right = sctp(&[ports.as_slice(), &[0; 4]].concat(), chunks);
    (checksum != 0).then_some(Residue {
        what: "sctp",
        depth,
        is_whole: true,
        off: checksum ^ right,
    })
}

/// An error may quote an error only by mistake, so the depth ends this, too.
fn quoted(bytes: &[u8], depth: u8, found: &mut Vec<Residue>) {
    if let Some(quoted) = layers::quoted(bytes)
        && depth < 3
    {
        let before = found.len();
        collect(quoted, depth + 1, found);
        for residue in &mut found[before..] {
            // What is quoted may always be cut, and some devices have changed it; the header is there or it is not.
            residue.is_whole &= residue.what == "ip";
        }
    }
}

/// The sum of a pseudo-header (RFC 9293, RFC 768, RFC 8200 section 8.1).
fn pseudo(ends: Ends, length: usize, protocol: u8) -> Sum16BitWords {
    let mut sum = Sum16BitWords::new();
    for ip in [ends.source, ends.destination] {
        sum = match ip {
            IpAddr::V4(ip) => sum.add_4bytes(ip.octets()),
            IpAddr::V6(ip) => sum.add_16bytes(ip.octets()),
        };
    }
    let length = u32::try_from(length).unwrap();
    sum.add_4bytes(length.to_be_bytes()).add_2bytes([0, protocol])
}
