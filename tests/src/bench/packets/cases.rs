//! What is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::bench::Plan;
use lb_common::layout::program;

use super::frame;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const FIRST_PORT: u16 = 20_000;

/// An address family, as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// Which path a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    PreHit,
    PostHit,
    NewFlow,
    NotAServicePre,
    NotAServicePost,
    NatForward,
    NatReply,
    NatNewFlow,
    DsrForward,
    DsrNewFlow,
    LocalDnat,
    XdpNotAService,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) path: Path,
    pub(super) family: Family,
    pub(super) flows: u16,
}

/// Every case, in the order of the report.
pub(super) fn all() -> Vec<Case> {
    const PATHS: [(&str, Path); 12] = [
        ("tc-pre-hit", Path::PreHit),
        ("tc-post-hit", Path::PostHit),
        ("tc-new-flow", Path::NewFlow),
        ("tc-not-a-service-pre", Path::NotAServicePre),
        ("tc-not-a-service-post", Path::NotAServicePost),
        ("xdp-nat-forward", Path::NatForward),
        ("xdp-nat-reply", Path::NatReply),
        ("xdp-nat-new-flow", Path::NatNewFlow),
        ("xdp-dsr-forward", Path::DsrForward),
        ("xdp-dsr-new-flow", Path::DsrNewFlow),
        ("xdp-local-dnat", Path::LocalDnat),
        ("xdp-not-a-service", Path::XdpNotAService),
    ];
    let mut cases = Vec::new();
    for (name, path) in PATHS {
        for family in [Family::V4, Family::V6] {
            for flows in [1, 4096] {
                cases.push(Case {
                    name,
                    path,
                    family,
                    flows,
                });
            }
        }
    }
    cases
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    fn endpoint(self, network: u8, host: u8, port: u16) -> SocketAddr {
        let ip = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, network, host, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, host.into(), 1)),
        };
        SocketAddr::new(ip, port)
    }

    /// Length of its header, which an outer header adds.
    const fn header(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

impl Path {
    pub(super) const fn is_xdp(self) -> bool {
        matches!(
            self,
            Self::NatForward
                | Self::NatReply
                | Self::NatNewFlow
                | Self::DsrForward
                | Self::DsrNewFlow
                | Self::LocalDnat
                | Self::XdpNotAService
        )
    }

    /// Each packet opens a flow.
    pub(super) const fn opens(self) -> bool {
        matches!(self, Self::NewFlow | Self::NatNewFlow | Self::DsrNewFlow)
    }

    /// The packet is wrapped for another node.
    pub(super) const fn wraps(self) -> bool {
        matches!(self, Self::DsrForward | Self::DsrNewFlow)
    }

    /// The programs send the packet on by themselves.
    pub(super) const fn is_sent(self) -> bool {
        self.wraps() || matches!(self, Self::NatForward | Self::NatReply | Self::NatNewFlow)
    }

    const fn is_backward(self) -> bool {
        matches!(self, Self::PostHit | Self::NotAServicePost | Self::NatReply)
    }
}

impl Case {
    /// For people.
    pub(super) fn title(&self) -> String {
        format!("{} {} {}", self.name, self.family.name(), self.flows)
    }

    pub(super) fn program(&self) -> &'static str {
        match self.path {
            Path::PreHit | Path::NewFlow | Path::NotAServicePre => program::PRE,
            Path::PostHit | Path::NotAServicePost => program::POST,
            _ => program::XDP,
        }
    }

    pub(super) fn service(&self) -> SocketAddr {
        self.family.endpoint(96, 0, 80)
    }

    /// A backend by number.
    pub(super) fn backend(&self, number: u8) -> SocketAddr {
        self.family.endpoint(244, number, 8080)
    }

    /// How many backends the service has: where masqueraded flows are opened, so many that their ports suffice.
    pub(super) const fn backends(&self) -> u8 {
        match self.path {
            Path::NatNewFlow => 128,
            _ => 1,
        }
    }

    /// The node's address, with the source port of a masqueraded flow.
    pub(super) fn node(&self, flow: u16) -> SocketAddr {
        self.family.endpoint(9, 0, FIRST_PORT + flow)
    }

    fn stranger(&self) -> SocketAddr {
        self.family.endpoint(7, 0, 80)
    }

    /// The client of a flow.
    pub(super) fn client(&self, flow: u16) -> SocketAddr {
        self.family.endpoint(1, 0, FIRST_PORT + flow)
    }

    /// The first packet.
    pub(super) fn frame(&self) -> Vec<u8> {
        let client = self.client(0);
        match self.path {
            Path::PreHit | Path::NatForward | Path::DsrForward | Path::LocalDnat => {
                frame::tcp(client, self.service(), ACK)
            }
            path if path.opens() => frame::tcp(client, self.service(), SYN),
            Path::PostHit => frame::tcp(self.backend(0), client, ACK),
            Path::NatReply => frame::tcp(self.backend(0), self.node(0), ACK),
            Path::NotAServicePost => frame::tcp(self.stranger(), client, ACK),
            _ => frame::tcp(client, self.stranger(), ACK),
        }
    }

    /// How the packets after the first differ from it.
    pub(super) fn plan(&self) -> Plan {
        let is_new = self.path.opens();
        let frame = self.frame();
        Plan {
            words: frame::words(&frame),
            mask: if is_new {
                u32::MAX
            } else {
                u32::from(self.flows) - 1
            },
            run: 0,
            first_port: if is_new { 0 } else { FIRST_PORT.into() },
            clients_first: u32::from(is_new && self.flows > 1),
            client_is_destination: u32::from(self.path.is_backward()),
            hardware: frame::hardware(&frame),
            growth: if self.path.wraps() {
                self.family.header()
            } else {
                0
            },
        }
    }

    /// The name of the same case with a flow table that is not full.
    pub(super) fn name_with_room(&self) -> Option<&'static str> {
        match self.path {
            Path::NewFlow => Some("tc-new-flow-room"),
            Path::NatNewFlow => Some("xdp-nat-new-flow-room"),
            Path::DsrNewFlow => Some("xdp-dsr-new-flow-room"),
            _ => None,
        }
    }

    /// New flows are measured with a full flow table, too: that is how a node is found after a while, for entries go only
    /// to make room.
    pub(super) fn warm_up_rounds(&self) -> usize {
        if self.path.opens() { 2 } else { 1 }
    }
}
