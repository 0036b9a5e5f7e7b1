//! A packet's headers, as far as the core needs them.

use core::hint::black_box;

use lb_common::{FlowKey, Port, Stage, TcpState, protocol};

use crate::ctx::{Ctx, Packet};
use crate::hash::{Hash, Key};
use crate::verdict::Stop;
use crate::wire::{NOTHING, Network, Transport, Wire};

/// TCP flags (RFC 9293, section 3.1), as they stand in byte 13 of the header.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// There is data, to be delivered at once.
    pub const PSH: u8 = 0x08;
    /// Acknowledges.
    pub const ACK: u8 = 0x10;
}

/// The parsed packet: offsets and the tuple, which is at once the key of the flow table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Headers<F: Wire> {
    /// The tuple, with the stage that looks it up.
    pub key: FlowKey<F::Addr>,
    /// Offset of the network header.
    pub l3: u32,
    /// Offset of the TCP, UDP or SCTP header.
    pub l4: u32,
    /// TCP flags; 0 for others.
    pub tcp_flags: u8,
    /// [`Fragment`].
    pub fragment: u8,
    /// Always 0.
    pub pad: [u8; 2],
    /// Where the offsets are kept for a moment.
    offsets: u32,
}

/// Whether a packet is a part of another.
#[derive(Clone, Copy, Debug)]
pub struct Fragment;

impl Fragment {
    /// It is whole.
    pub const NONE: u8 = 0;
    /// The first part, with the transport header.
    pub const FIRST: u8 = 1;
    /// A later part, without ports.
    pub const LATER: u8 = 2;
    /// The first part, which ends before its transport header does.
    pub const TINY: u8 = 3;
}

/// What a packet is, as far as its headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// TCP, UDP or SCTP, whole.
    Transport,
    /// A part of a TCP, UDP or SCTP packet. Ports and flags are those of the first part; a later one has none.
    Fragment,
    /// ICMP of this family, whole; `l4` is its header's offset, and there are no ports.
    Icmp,
    /// A packet of the same family in this one; `l4` is the inner header's offset, and there are no ports.
    Wrapped,
    /// Of another protocol, whole; there are no ports.
    Other,
}

impl<F: Wire> Headers<F> {
    /// Reads the headers of the packet whose network header begins at `l3`. [`Stop::PASS`] for what is cut short, and
    /// for fragments of other protocols.
    #[inline(always)]
    pub fn parse<C: Ctx<F>>(&mut self, cx: &mut C, l3: u32, stage: Stage) -> Result<Kind, Stop> {
        let mut network = Network::default();
        F::network(cx, l3, &mut network)?;
        let (transport, l3) = self.forgotten(network.transport, l3);
        self.key.src = network.src;
        self.key.dst = network.dst;
        self.key.protocol = transport.protocol;
        self.key.stage = stage as u8;
        self.key.pad = [0; 2];
        self.l3 = l3;
        self.l4 = transport.at;
        self.fragment = transport.fragment;
        let tcp = transport.protocol == protocol::TCP;
        if !has_ports(transport.protocol) || transport.fragment == Fragment::LATER {
            return self.without_ports();
        }
        let start = if tcp {
            tcp_start(cx, self.l4)
        } else {
            datagram_start(cx, self.l4, transport.protocol)
        };
        let (ports, tcp_flags) = match start {
            Ok(start) => start,
            Err(_) if transport.fragment == Fragment::FIRST => {
                self.fragment = Fragment::TINY;
                return self.without_ports();
            }
            Err(stop) => return Err(stop),
        };
        [self.key.src_port, self.key.dst_port] = Port::pair(ports);
        self.tcp_flags = tcp_flags;
        if transport.fragment == Fragment::NONE {
            Ok(Kind::Transport)
        } else {
            Ok(Kind::Fragment)
        }
    }

    /// The same, and the offset of the network header, as numbers that the verifier has not seen before: otherwise it
    /// follows each way of finding a header through all that comes after.
    #[inline(always)]
    fn forgotten(&mut self, transport: Transport, l3: u32) -> (Transport, u32) {
        let Transport {
            protocol,
            at,
            fragment,
            part,
        } = transport;
        self.offsets = l3 << 24 | at << 16 | u32::from(fragment) << 8 | u32::from(protocol);
        let [protocol, fragment, at, l3] = black_box(&mut self.offsets).to_le_bytes();
        let at = at.into();
        (
            Transport {
                protocol,
                at,
                fragment,
                part,
            },
            l3.into(),
        )
    }

    #[inline(always)]
    fn without_ports(&mut self) -> Result<Kind, Stop> {
        self.key.src_port = Port::default();
        self.key.dst_port = Port::default();
        self.tcp_flags = 0;
        match self.key.protocol {
            kind if has_ports(kind) => Ok(Kind::Fragment),
            _ if self.fragment != Fragment::NONE => Err(Stop::PASS),
            kind if kind == F::ICMP => Ok(Kind::Icmp),
            kind if kind == F::IN_ITSELF => Ok(Kind::Wrapped),
            NOTHING => Err(Stop::PASS),
            _ => Ok(Kind::Other),
        }
    }

    /// The flow's hash.
    #[cfg(test)]
    fn hash(&self, seed: Key) -> u32 {
        flow_hash::<F>(&self.key, seed)
    }

    /// The hash of the client's address alone, and of a number.
    #[inline(never)]
    pub fn client_hash(&self, seed: Key, number: u16) -> u32 {
        F::hash_one(Hash::new(seed), self.key.src, number)
    }

    /// TCP, not UDP or SCTP.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.key.protocol == protocol::TCP
    }

    /// Without state, a packet that opens a connection: a SYN, or any datagram.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.is_syn() || !self.is_tcp()
    }

    /// The first packet of a TCP handshake.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// The second packet of a TCP handshake.
    #[inline(always)]
    pub fn is_syn_ack(&self) -> bool {
        self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN | tcp_flag::ACK
    }

    /// A TCP packet that changes what is known of the connection. Data does if the connection has shown its end.
    #[inline(always)]
    pub fn changes_state(&self, known: u8) -> bool {
        let data = if known & TcpState::FIN != 0 {
            tcp_flag::PSH
        } else {
            0
        };
        self.tcp_flags & (tcp_flag::SYN | tcp_flag::FIN | tcp_flag::RST | data) != 0
    }
}

/// Ports and flags, of a header that is whole.
#[inline(always)]
fn tcp_start<P: Packet>(packet: &P, l4: u32) -> Result<(u32, u8), Stop> {
    let [ports, _sequence, _acknowledgement, fourth, _checksum] = packet.read::<5>(l4)?;
    let [_offset, flags, ..] = fourth.to_ne_bytes();
    Ok((ports, flags))
}

/// Ports and no flags, of a header that is whole.
#[inline(always)]
fn datagram_start<P: Packet>(packet: &P, l4: u32, protocol: u8) -> Result<(u32, u8), Stop> {
    if protocol == protocol::SCTP {
        let _the_end_of_the_checksum = packet.read_u16(l4 + 10)?;
    }
    let [ports, _more] = packet.read::<2>(l4)?;
    Ok((ports, 0))
}

/// Whether services have ports of this protocol: TCP, UDP or SCTP. All of them begin with the two ports.
///
/// By one comparison: each is one more way for the verifier to follow.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    let difference = |other: u8| u32::from(protocol ^ other);
    difference(protocol::TCP) * difference(protocol::UDP) * difference(protocol::SCTP) == 0
}

/// The hash of addresses, ports and protocol.
#[inline(always)]
pub fn flow_hash<F: Wire>(key: &FlowKey<F::Addr>, seed: Key) -> u32 {
    let ports = u64::from(key.src_port.word()) | u64::from(key.dst_port.word()) << 16;
    let length = 2 * F::ADDRESS + 5;
    F::hash(Hash::new(seed), key.src, key.dst).finish(length, ports | u64::from(key.protocol) << 32)
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, V4};

    use super::*;
    use crate::hash;

    #[test]
    fn clients_that_differ_in_the_port_alone_spread_evenly() {
        const BACKENDS: u32 = 7;
        const FLOWS: u16 = 28_000;
        let mut shares = [0u32; BACKENDS as usize];
        for port in 0..FLOWS {
            let key = FlowKey {
                src: Ip4::new([10, 0, 0, 1]),
                dst: Ip4::new([10, 96, 0, 1]),
                src_port: Port::new(32768 + port),
                dst_port: Port::new(80),
                protocol: protocol::TCP,
                stage: 1,
                pad: [0; 2],
            };
            let packet = Headers::<V4> {
                key,
                l3: 14,
                l4: 34,
                tcp_flags: tcp_flag::SYN,
                ..Headers::default()
            };
            shares[hash::below(packet.hash([0; 2]), BACKENDS) as usize] += 1;
        }
        // Mean 4000, standard deviation 58.6: five of them.
        for share in shares {
            assert!((3707..=4293).contains(&share), "{shares:?}");
        }
    }
}
