//! ICMP errors of both families (RFC 792, RFC 4443, RFC 4861), and packets about packets.

use std::net::{IpAddr, SocketAddr};

use super::PacketBuilder;
use super::builder::Transport;

/// What an ICMP error says; the same for both families as far as they agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Destination unreachable, with the family's own code.
    Unreachable(u8),
    /// Fragmentation needed, or packet too big: the path takes packets of so many bytes.
    TooBig(u32),
    /// Time exceeded: code 0 in transit, 1 in reassembly.
    TimeExceeded(u8),
    /// Parameter problem: code, and the offset of what is wrong.
    ParameterProblem(u8, u8),
    /// Redirect: this router is nearer.
    Redirect(IpAddr),
}

impl IcmpError {
    /// Port unreachable.
    pub const fn port_unreachable(is_v4: bool) -> Self {
        Self::Unreachable(if is_v4 { 3 } else { 4 })
    }

    /// Every error of a family, with all codes of "destination unreachable" that RFC 792 and RFC 1812, or RFC 4443,
    /// name and that are no [`IcmpError::TooBig`].
    pub fn all(gateway: IpAddr) -> Vec<Self> {
        let unreachable: Vec<u8> = match gateway {
            IpAddr::V4(_) => (0..=15).filter(|code| *code != 4).collect(),
            IpAddr::V6(_) => (0..=7).collect(),
        };
        let others = [
            Self::TooBig(1400),
            Self::TimeExceeded(0),
            Self::TimeExceeded(1),
            Self::ParameterProblem(0, 1),
            Self::ParameterProblem(1, 20),
            Self::Redirect(gateway),
        ];
        unreachable
            .into_iter()
            .map(Self::Unreachable)
            .chain(others)
            .collect()
    }

    /// Type, code and the rest of the header.
    pub(super) fn header(self, is_v4: bool) -> (u8, u8, [u8; 4]) {
        let of_family = |four, six| if is_v4 { four } else { six };
        match self {
            Self::Unreachable(code) => (of_family(3, 1), code, [0; 4]),
            Self::TooBig(mtu) => (of_family(3, 2), of_family(4, 0), mtu.to_be_bytes()),
            Self::TimeExceeded(code) => (of_family(11, 3), code, [0; 4]),
            Self::ParameterProblem(code, at) if is_v4 => (12, code, [at, 0, 0, 0]),
            Self::ParameterProblem(code, at) => (4, code, [0, 0, 0, at]),
            // Redirect for the host.
            Self::Redirect(IpAddr::V4(router)) => (5, 1, router.octets()),
            Self::Redirect(IpAddr::V6(_)) => (137, 0, [0; 4]),
        }
    }

    /// From type, code and the rest of the header; `None` when it is no error.
    pub(super) fn read(is_v4: bool, kind: u8, code: u8, rest: [u8; 4]) -> Option<Self> {
        let word = u32::from_be_bytes(rest);
        Some(match (is_v4, kind, code) {
            // The upper half is not used (RFC 1191).
            (true, 3, 4) => Self::TooBig(word & 0xffff),
            (true, 3, _) | (false, 1, _) => Self::Unreachable(code),
            (false, 2, _) => Self::TooBig(word),
            (true, 11, _) | (false, 3, _) => Self::TimeExceeded(code),
            (true, 12, _) => Self::ParameterProblem(code, rest[0]),
            (false, 4, _) => Self::ParameterProblem(code, rest[3]),
            (true, 5, _) => Self::Redirect(IpAddr::from(rest)),
            _ => return None,
        })
    }
}

/// Bytes of a quoted packet in an error: RFC 1812 (4.3.2.3) allows 576 in all, RFC 4443 (2.4) the least MTU.
const QUOTED4: usize = 576 - 20 - 8;
const QUOTED6: usize = 1280 - 40 - 8;

impl PacketBuilder {
    /// The ICMP error about this packet that `from` sends back to its source. It quotes as much as it may; see
    /// [`PacketBuilder::cut`].
    #[must_use]
    pub fn error(&self, from: IpAddr, error: IcmpError) -> Self {
        let mut quoted = self.clone().without_link().build();
        quoted.truncate(if from.is_ipv4() { QUOTED4 } else { QUOTED6 });
        self.error_quoting(from, error, &quoted)
    }

    /// As [`PacketBuilder::error`], with bytes of the caller's as the quoted packet.
    #[must_use]
    pub fn error_quoting(&self, from: IpAddr, error: IcmpError, quoted: &[u8]) -> Self {
        let (kind, code, rest) = error.header(from.is_ipv4());
        let body = match error {
            IcmpError::Redirect(IpAddr::V6(router)) => redirect6(router.octets(), quoted),
            _ => quoted.to_vec(),
        };
        let to = SocketAddr::new(self.source_ip(), 0);
        let error =
            Self::new(SocketAddr::new(from, 0), to, Transport::Icmp { kind, code, rest }).payload(&body);
        self.on_same_link(error)
    }
}

/// Target, destination, and the "redirected header" option with the packet (RFC 4861, sections 4.5 and 4.6.3).
fn redirect6(router: [u8; 16], quoted: &[u8]) -> Vec<u8> {
    let units = (8 + quoted.len()).div_ceil(8);
    let mut body = router.to_vec();
    body.extend(quoted.get(24..40).unwrap_or(&[0; 16]));
    body.extend([4, u8::try_from(units).unwrap_or(u8::MAX), 0, 0, 0, 0, 0, 0]);
    body.extend(quoted);
    body.resize(32 + units * 8, 0);
    body
}
