//! EndpointSlices.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{ObjectName, Protocol, Uid};

/// An EndpointSlice: some endpoints of one Service, of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service that it belongs to.
    pub service: ObjectName,
    /// The family of all its addresses.
    pub family: IpFamily,
    /// The weight of each of its endpoints; those of weight 0 get no new flows.
    pub weight: u32,
    /// Its ports: each endpoint has all of them.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
    /// When the change happened in the cluster that made it what it is, when known.
    pub changed_at: Option<SystemTime>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// Its name; it belongs to the Service's port of the same name.
    pub name: Arc<str>,
    /// The target port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// One endpoint of a slice. There may be hundreds of thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its first address; the others mean nothing.
    pub address: IpAddr,
    /// What it is fit for.
    pub conditions: Conditions,
    /// The node that it is on, when known.
    pub node: Option<Arc<str>>,
    /// The UID of the pod that it is, when known.
    pub pod: Option<Uid>,
    /// What that pod is called, for people, where anybody asks for it: the source of a running agent leaves it out.
    pub pod_name: Option<Box<ObjectName>>,
    /// Whose clients should use it, when anything is said of that.
    pub hints: Option<Arc<Hints>>,
}

/// Whose clients should use an endpoint, as far as that can be (KEP-2433, KEP-3015).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hints {
    /// Those of these nodes; empty: nothing is said.
    pub nodes: Vec<Arc<str>>,
    /// Those of these zones; empty: nothing is said.
    pub zones: Vec<Arc<str>>,
}

/// Conditions of an endpoint, with Kubernetes' meaning of absent ones filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// It takes new connections.
    pub ready: bool,
    /// It answers, whether terminating or not.
    pub serving: bool,
    /// It is going away.
    pub terminating: bool,
}

/// An address family, at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            ready: true,
            serving: true,
            terminating: false,
        }
    }
}

impl IpFamily {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Kubernetes' word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
