//! Reads what an ICMP packet is about.

use core::hint::black_box;

use lb_common::{FlowKey, Port, Stage, protocol};

use crate::ctx::Ctx;
use crate::headers::Fragment;
use crate::verdict::Stop;
use crate::wire::{MAX_HEADERS, Network, Wire};
use crate::work::Work;

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Quoted<F: Wire> {
    /// The key of packets of the opposite direction.
    pub key: FlowKey<F::Addr>,
    /// Who has sent the error.
    pub sender: F::Addr,
    /// Offset of the quoted network header.
    pub l3: u32,
    /// Offset of what follows it: the ports, or the header of a packet inside.
    pub l4: u32,
    /// Offset of the quoted TCP, UDP or SCTP checksum; 0 when it is not quoted, or when there is none.
    pub checksum: u32,
    /// 1 in a redirect.
    pub is_redirect: u32,
}

/// What an ICMP packet is about.
///
/// A type of its own, not a result with a [`Stop`]: of that the compiler makes moves of what was never set, which the
/// verifier refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// Nothing that concerns us: it is no error, its quoted packet was not sent by the error's receiver, or it quotes
    /// too little.
    Nothing,
    /// It asks for an echo.
    Echo,
    /// An error, or a redirect, about a TCP, UDP or SCTP packet.
    Transport,
    /// An error about a packet with another one inside, of the same family.
    Wrapped,
}

/// Reads the ICMP packet `work.packet`, and what it quotes into `work.quoted`.
#[inline(never)]
pub(super) fn read<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, stage: Stage) -> About {
    let Ok(kind) = kind(cx, work) else {
        return About::Nothing;
    };
    if kind == F::ECHO {
        return About::Echo;
    }
    work.quoted.is_redirect = u32::from(kind == F::REDIRECT);
    let is_quoting = kind == F::REDIRECT || is_error::<F>(kind);
    if !is_quoting || network_of(cx, work, stage).is_err() {
        return About::Nothing;
    }
    transport_of(cx, work)
}

/// The ICMP packet's type.
#[inline(always)]
fn kind<F: Wire, C: Ctx<F>>(cx: &mut C, work: &Work<F>) -> Result<u8, Stop> {
    cx.linearize(MAX_HEADERS)?;
    let [kind, _code] = cx.read_u16(work.packet.l4)?.to_ne_bytes();
    Ok(kind)
}

/// Reads the quoted network header.
#[inline(always)]
fn network_of<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, stage: Stage) -> Result<(), Stop> {
    let Work { packet, quoted, .. } = work;
    let at = if quoted.is_redirect != 0 {
        F::redirected(cx, packet.l4)?
    } else {
        packet.l4 + HEADER
    };
    let mut network = Network::default();
    F::network(cx, at, &mut network)?;
    let transport = network.transport;
    let is_too_far = transport.at >= MAX_HEADERS;
    if is_too_far || transport.fragment == Fragment::LATER {
        return Err(Stop::PASS);
    }
    if F::difference(network.src, packet.key.dst) != 0 {
        return Err(Stop::PASS);
    }
    quoted.key.src = network.dst;
    quoted.key.dst = network.src;
    quoted.key.protocol = transport.protocol;
    quoted.key.stage = stage as u8;
    quoted.key.pad = [0; 2];
    quoted.sender = packet.key.src;
    quoted.l3 = at;
    quoted.l4 = transport.at;
    Ok(())
}

/// Reads as much of the quoted transport header as there is.
///
/// A real call, which reads the offsets back from memory: otherwise the verifier follows each way of finding a header
/// through all that comes after.
#[inline(never)]
fn transport_of<F: Wire, C: Ctx<F>>(cx: &C, work: &mut Work<F>) -> About {
    let Work { packet, quoted, .. } = black_box(work);
    let (checksum, length) = match quoted.key.protocol {
        protocol::TCP => (TCP_CHECKSUM, 2),
        protocol::UDP => (UDP_CHECKSUM, 2),
        protocol::SCTP => (SCTP_CHECKSUM, 4),
        kind if kind == F::IN_ITSELF => return About::Wrapped,
        _ => return About::Nothing,
    };
    let checksum = quoted.l4 + checksum;
    let is_udp = quoted.key.protocol == protocol::UDP;
    let (Ok(end), Ok([ports])) = (F::end(cx, packet.l3), cx.read::<1>(quoted.l4)) else {
        return About::Nothing;
    };
    if quoted.l4 + PORTS > end {
        return About::Nothing;
    }
    let [a, b, c, d] = ports.to_ne_bytes();
    quoted.key.dst_port = Port { octets: [a, b] };
    quoted.key.src_port = Port { octets: [c, d] };
    quoted.checksum = 0;
    if checksum + length <= end {
        match cx.read_u16(checksum + length - 2) {
            Ok(0) if is_udp => {}
            Ok(_) => quoted.checksum = checksum,
            // It should be there.
            Err(_) => return About::Nothing,
        }
    }
    About::Transport
}

#[inline(always)]
const fn is_error<F: Wire>(kind: u8) -> bool {
    kind < 32 && F::ERRORS >> kind & 1 != 0
}

/// Length of an ICMP header.
const HEADER: u32 = 8;
/// Length of both ports.
const PORTS: u32 = 4;
/// Where the checksum stands in a TCP header.
const TCP_CHECKSUM: u32 = 16;
/// Where it stands in a UDP header.
const UDP_CHECKSUM: u32 = 6;
/// Where it stands in an SCTP header.
const SCTP_CHECKSUM: u32 = 8;
