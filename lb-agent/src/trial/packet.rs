//! The packet that is tried: made, and read again after a program has changed it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use etherparse::{IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use super::sctp;
use crate::model::Protocol;

/// The first packet of a connection: a SYN, a datagram, or an INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It has these ends now.
    Ends {
        /// Where it comes from.
        source: SocketAddr,
        /// Where it goes.
        destination: SocketAddr,
    },
    /// Something without ports: an ICMP error, or a packet in a packet.
    Other,
}

/// Hops that a fresh packet may take.
const TIME_TO_LIVE: u8 = 64;
const WINDOW: u16 = 64_240;
/// Of a host that nobody asks for.
const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

impl Packet {
    /// Its bytes, in an Ethernet frame for the device with that address.
    pub(super) fn frame(&self, device: [u8; 6]) -> anyhow::Result<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2(SENDER_MAC, device);
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ethernet.ipv4(source.octets(), destination.octets(), TIME_TO_LIVE)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ethernet.ipv6(source.octets(), destination.octets(), TIME_TO_LIVE)
            }
            (source, destination) => bail!("{source} and {destination} are of different families"),
        };
        let (from, to) = (self.source.port(), self.destination.port());
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Tcp => ip.tcp(from, to, 1, WINDOW).syn().write(&mut bytes, &[]),
            Protocol::Udp => ip.udp(from, to).write(&mut bytes, b"lb-agent"),
            Protocol::Sctp => ip.write(&mut bytes, IpNumber::SCTP, &sctp::init(from, to)),
        }
        .context("the packet cannot be made")?;
        Ok(bytes)
    }
}

impl After {
    /// Reads a frame.
    pub(super) fn of(frame: &[u8]) -> Self {
        let Ok(sliced) = SlicedPacket::from_ethernet(frame) else {
            return Self::Other;
        };
        let addresses: (IpAddr, IpAddr) = match &sliced.net {
            Some(NetSlice::Ipv4(ip)) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into())
            }
            Some(NetSlice::Ipv6(ip)) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into())
            }
            _ => return Self::Other,
        };
        let Some(ports) = ports(&sliced) else {
            return Self::Other;
        };
        Self::Ends {
            source: SocketAddr::new(addresses.0, ports.0),
            destination: SocketAddr::new(addresses.1, ports.1),
        }
    }
}

fn ports(sliced: &SlicedPacket<'_>) -> Option<(u16, u16)> {
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => Some((udp.source_port(), udp.destination_port())),
        Some(_) => None,
        None => {
            let packet = sliced.net.as_ref()?.ip_payload_ref()?;
            let is_sctp = packet.ip_number == IpNumber::SCTP && !packet.fragmented;
            is_sctp.then(|| sctp::ports(packet.payload)).flatten()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_as_it_was_made() {
        for (protocol, source, destination) in [
            (Protocol::Tcp, "192.0.2.1:40000", "10.96.0.1:443"),
            (Protocol::Udp, "[2001:db8::1]:40000", "[fd00:96::1]:53"),
            (Protocol::Sctp, "192.0.2.1:40000", "10.96.0.1:38412"),
            (Protocol::Sctp, "[2001:db8::1]:40000", "[fd00:96::1]:38412"),
        ] {
            let packet = Packet {
                protocol,
                source: source.parse().unwrap(),
                destination: destination.parse().unwrap(),
            };
            let frame = packet.frame([2, 0, 0, 0, 0, 9]).unwrap();
            let ends = After::Ends {
                source: packet.source,
                destination: packet.destination,
            };
            assert_eq!(After::of(&frame), ends);
            assert_eq!(frame.get(..6), Some(&[2, 0, 0, 0, 0, 9][..]));
        }
        assert_eq!(After::of(&[]), After::Other);
    }

    #[test]
    fn families_are_not_mixed() {
        let packet = Packet {
            protocol: Protocol::Tcp,
            source: "192.0.2.1:1".parse().unwrap(),
            destination: "[2001:db8::1]:1".parse().unwrap(),
        };
        assert!(packet.frame([0; 6]).is_err());
    }
}
