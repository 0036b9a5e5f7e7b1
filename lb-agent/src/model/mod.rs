//! Our words for Kubernetes' objects and for the node: plain data, no Kubernetes types, no maps, no I/O.

mod endpoint;
mod host;
mod name;
mod option;
mod prefix;
mod reason;
mod service;
mod uid;
mod world;

pub use endpoint::{Conditions, Endpoint, EndpointSlice, Hints, IpFamily, SlicePort};
pub use host::{HostAddress, HostDevice, HostState, Namespace, Node, ServiceCidr};
pub use name::{Kind, ObjectName, ObjectRef, Origin, Problem};
pub use option::{Algorithm, Forwarding, ServiceOptions, Share};
pub use prefix::{IpPrefix, NoPrefix};
pub use reason::Reason;
pub use service::{PortName, Protocol, Service, ServicePort, TrafficPolicy};
pub use uid::Uid;
pub use world::{Known, World};

/// Anything that a source yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Node.
    Node(Node),
    /// A Namespace.
    Namespace(Namespace),
    /// A ServiceCIDR.
    ServiceCidr(ServiceCidr),
}

impl Object {
    /// What it is called.
    pub fn reference(&self) -> ObjectRef {
        match self {
            Self::Service(service) => ObjectRef {
                kind: Kind::Service,
                name: service.name.clone(),
            },
            Self::EndpointSlice(slice) => ObjectRef {
                kind: Kind::EndpointSlice,
                name: slice.name.clone(),
            },
            Self::Node(node) => ObjectRef {
                kind: Kind::Node,
                name: ObjectName::new("", &node.name),
            },
            Self::Namespace(namespace) => ObjectRef {
                kind: Kind::Namespace,
                name: ObjectName::new("", &namespace.name),
            },
            Self::ServiceCidr(cidr) => ObjectRef {
                kind: Kind::ServiceCidr,
                name: ObjectName::new("", &cidr.name),
            },
        }
    }

    /// Whether it is a Service with addresses of its own.
    pub fn has_front_ends(&self) -> bool {
        matches!(self, Self::Service(service) if !service.cluster_ips.is_empty())
    }
}
