//! What is told: the verdict, and how it came about.

use std::net::SocketAddr;

use serde::Serialize;

use super::endpoint::EndpointView;

/// What becomes of the packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Of a drop: its reason as in `lb-agent status`, or `not-routed`. Of a reject: `tcp-reset` or `port-unreachable`.
    pub reason: Option<&'static str>,
    /// What can be done about it.
    pub hint: Option<String>,
    /// The packet.
    pub packet: PacketView,
    /// The Service that it is for.
    pub service: Option<ServiceView>,
    /// The endpoints that it may be given.
    pub eligible: Vec<EndpointView>,
    /// The other endpoints, each with why.
    pub left_out: Vec<EndpointView>,
    /// The endpoint that it goes to.
    pub backend: Option<BackendView>,
    /// What the endpoint sees instead of the client; null when it sees the client.
    pub masquerade: Option<MasqueradeView>,
    /// How it came about, step by step.
    pub steps: Vec<String>,
    /// What a person should mend in the objects.
    pub warnings: Vec<String>,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It goes to an endpoint.
    Forward,
    /// It is answered: a TCP reset, or ICMP port unreachable.
    Reject,
    /// It disappears.
    Drop,
    /// It is for no service, and goes by untouched.
    Pass,
}

/// The packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketView {
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Who sends it: `pod`, `node` or `outside`.
    pub sender: &'static str,
    /// The pod, as `namespace/name`, where that was said.
    pub pod: Option<String>,
    /// The device that it comes in by; of the node's own packets, the one that the kernel picks for them.
    pub device: String,
}

/// A Service's port, and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceView {
    /// `namespace/name:port/protocol`.
    pub name: String,
    /// `cluster-ip`, `node-port` or `external` (a load balancer's address or an external IP).
    pub front_end: &'static str,
    /// The traffic policy in force for this sender: `Cluster` or `Local`.
    pub policy: &'static str,
}

/// The endpoint that was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendView {
    /// Address and port.
    pub address: SocketAddr,
    /// By what: `existing-flow`, `affinity`, `affinity-hash`, `maglev`, `hash`, `round-robin`, `least-connections`.
    pub by: &'static str,
    /// How the packet gets there: `stack` (rewritten, and routed by the kernel), `direct` (sent on by the programs) or
    /// `wrapped` (direct server return).
    pub way: &'static str,
    /// The device that it leaves by; null when that is not known.
    pub device: Option<String>,
}

/// A source that was put in the client's place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MasqueradeView {
    /// What the endpoint sees.
    pub source: SocketAddr,
    /// Why, in one word: `remote-backend`, `hairpin`, `node` or `always`.
    pub reason: &'static str,
}

impl Verdict {
    /// The word of the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Pass => "pass",
        }
    }
}
