//! What is measured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use lb_common::bench::Plan;

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
    const PATHS: [(&str, Path); 5] = [
        ("tc-pre-hit", Path::PreHit),
        ("tc-post-hit", Path::PostHit),
        ("tc-new-flow", Path::NewFlow),
        ("tc-not-a-service-pre", Path::NotAServicePre),
        ("tc-not-a-service-post", Path::NotAServicePost),
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

    fn endpoint(self, network: u8, port: u16) -> SocketAddr {
        let ip = match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, network, 0, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd00, network.into(), 0, 0, 0, 0, 0, 1)),
        };
        SocketAddr::new(ip, port)
    }
}

impl Case {
    pub(super) fn program(&self) -> &'static str {
        match self.path {
            Path::PreHit | Path::NewFlow | Path::NotAServicePre => lb_common::layout::program::PRE,
            Path::PostHit | Path::NotAServicePost => lb_common::layout::program::POST,
        }
    }

    pub(super) fn service(&self) -> SocketAddr {
        self.family.endpoint(96, 80)
    }

    pub(super) fn backend(&self) -> SocketAddr {
        self.family.endpoint(244, 8080)
    }

    fn stranger(&self) -> SocketAddr {
        self.family.endpoint(7, 80)
    }

    /// The client of a flow.
    pub(super) fn client(&self, flow: u16) -> SocketAddr {
        self.family.endpoint(1, FIRST_PORT + flow)
    }

    /// The first packet.
    pub(super) fn frame(&self) -> Vec<u8> {
        let client = self.client(0);
        match self.path {
            Path::PreHit => frame::tcp(client, self.service(), ACK),
            Path::NewFlow => frame::tcp(client, self.service(), SYN),
            Path::NotAServicePre => frame::tcp(client, self.stranger(), ACK),
            Path::PostHit => frame::tcp(self.backend(), client, ACK),
            Path::NotAServicePost => frame::tcp(self.stranger(), client, ACK),
        }
    }

    /// How the packets after the first differ from it.
    pub(super) fn plan(&self) -> Plan {
        let is_new = self.path == Path::NewFlow;
        Plan {
            words: frame::words(&self.frame()),
            mask: if is_new {
                u32::MAX
            } else {
                u32::from(self.flows) - 1
            },
            run: 0,
            first_port: if is_new { 0 } else { FIRST_PORT.into() },
            clients_first: u32::from(is_new && self.flows > 1),
            client_is_destination: u32::from(matches!(self.path, Path::PostHit | Path::NotAServicePost)),
        }
    }

    /// New flows are measured with a full flow table: that is how a node is found after a while.
    pub(super) fn warm_up_rounds(&self) -> usize {
        if self.path == Path::NewFlow { 2 } else { 1 }
    }
}
