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
    /// Offset of the quoted TCP or UDP checksum; 0 when it is not quoted, or when there is none.
    pub checksum: u32,
    /// 1 in a redirect.
    pub is_redirect: u32,
}

/// What an ICMP packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// It asks for an echo.
    Echo,
    /// An error, or a redirect, about a TCP or UDP packet.
    Transport,
    /// An error about a packet with another one inside, of the same family.
    Wrapped,
}

/// Reads the ICMP packet `work.packet`, and what it quotes into `work.quoted`. [`Stop::Pass`] for one that is no error,
/// whose quoted packet was not sent by the error's receiver, or quotes too little.
#[inline(never)]
pub(super) fn read<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>, stage: Stage) -> Result<About, Stop> {
    cx.linearize(MAX_HEADERS)?;
    let Work { packet, quoted, .. } = work;
    let [kind, _code] = cx.read_u16(packet.l4)?.to_ne_bytes();
    if kind == F::ECHO {
        return Ok(About::Echo);
    }
    quoted.is_redirect = u32::from(kind == F::REDIRECT);
    let at = if kind == F::REDIRECT {
        F::redirected(cx, packet.l4)?
    } else if is_error::<F>(kind) {
        packet.l4 + HEADER
    } else {
        return Err(Stop::Pass);
    };
    let mut network = Network::default();
    F::network(cx, at, &mut network)?;
    let transport = network.transport;
    let is_too_far = transport.at >= MAX_HEADERS;
    if is_too_far || transport.fragment == Fragment::LATER {
        return Err(Stop::Pass);
    }
    if F::difference(network.src, packet.key.dst) != 0 {
        return Err(Stop::Pass);
    }
    quoted.key.src = network.dst;
    quoted.key.dst = network.src;
    quoted.key.protocol = transport.protocol;
    quoted.key.stage = stage as u8;
    quoted.key.pad = [0; 2];
    quoted.sender = packet.key.src;
    quoted.l3 = at;
    quoted.l4 = transport.at;
    transport_of(cx, work)
}

/// Reads as much of the quoted transport header as there is.
///
/// A real call, which reads the offsets back from memory: otherwise the verifier follows each way of finding a header
/// through all that comes after.
#[inline(never)]
fn transport_of<F: Wire, C: Ctx<F>>(cx: &mut C, work: &mut Work<F>) -> Result<About, Stop> {
    let Work { packet, quoted, .. } = black_box(work);
    let end = F::end(cx, packet.l3)?;
    let is_udp = quoted.key.protocol == protocol::UDP;
    let checksum = quoted.l4
        + match quoted.key.protocol {
            protocol::TCP => TCP_CHECKSUM,
            protocol::UDP => UDP_CHECKSUM,
            kind if kind == F::IN_ITSELF => return Ok(About::Wrapped),
            _ => return Err(Stop::Pass),
        };
    if quoted.l4 + PORTS > end {
        return Err(Stop::Pass);
    }
    let [ports] = cx.read::<1>(quoted.l4)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    quoted.key.dst_port = Port { octets: [a, b] };
    quoted.key.src_port = Port { octets: [c, d] };
    quoted.checksum = 0;
    if checksum + 2 <= end {
        let old = cx.read_u16(checksum)?;
        if old != 0 || !is_udp {
            quoted.checksum = checksum;
        }
    }
    Ok(About::Transport)
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
