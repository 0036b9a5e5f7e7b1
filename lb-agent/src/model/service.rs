//! Services.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::protocol;

use super::{IpFamily, IpPrefix, ObjectName, ServiceOptions};

/// A Service. One that is not for us (headless, ExternalName, another proxy's) has no ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// Its ClusterIPs, at most one per family: they say which families it has.
    pub cluster_ips: Vec<IpAddr>,
    /// Its external IPs.
    pub external_ips: Vec<IpAddr>,
    /// The ingress addresses of its load balancer that are VIPs.
    pub load_balancer_ips: Vec<IpAddr>,
    /// The sources that may use the load balancer's addresses; empty: all.
    pub source_ranges: Vec<IpPrefix>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Which endpoints the ClusterIPs lead to.
    pub internal_policy: TrafficPolicy,
    /// Which endpoints NodePorts, load-balancer addresses and external IPs lead to.
    pub external_policy: TrafficPolicy,
    /// Seconds for which a client stays with its endpoint (session affinity `ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// The port at which load balancers ask whether this node has endpoints of it: only of a Service of type LoadBalancer
    /// with the external policy Local.
    pub health_check_port: Option<u16>,
    /// What its annotations say.
    pub options: ServiceOptions,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when it has none. Ports of slices with this name belong to it.
    pub name: Arc<str>,
    /// Its number.
    pub port: u16,
    /// The port on every node, if there is one.
    pub node_port: Option<u16>,
    /// Its protocol.
    pub protocol: Protocol,
}

/// Transport protocols that Sluice balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Which endpoints traffic may go to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrafficPolicy {
    /// Any.
    #[default]
    Cluster,
    /// Those on this node.
    Local,
}

/// What people, and the map of names, call a port of a Service: `namespace/name:port/protocol`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortName {
    /// The Service.
    pub service: ObjectName,
    /// The port's name, or its number when it has none.
    pub port: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
}

impl Service {
    /// Whether it has a ClusterIP of this family, without which nothing of the family is done for it.
    pub fn has_family(&self, family: IpFamily) -> bool {
        self.cluster_ips.iter().any(|ip| IpFamily::of(*ip) == family)
    }

    /// The Services that its traffic is split over.
    pub fn split_targets(&self) -> impl Iterator<Item = ObjectName> {
        let shares = self.options.split.iter();
        shares.map(|share| ObjectName {
            namespace: Arc::clone(&self.name.namespace),
            name: Arc::clone(&share.service),
        })
    }

    /// What `port` is called.
    pub fn port_name(&self, port: &ServicePort) -> PortName {
        let text = if port.name.is_empty() {
            port.port.to_string().into()
        } else {
            Arc::clone(&port.name)
        };
        PortName {
            service: self.name.clone(),
            port: text,
            protocol: port.protocol,
        }
    }
}

impl Protocol {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in packets and maps.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
        }
    }

    /// The one with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    /// The name of the one with that number; `?` when there is none.
    pub fn name_of(number: u8) -> &'static str {
        Self::from_number(number).map_or("?", Self::as_str)
    }

    /// Its name in maps and in the CLI.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its name in Kubernetes' objects.
    pub const fn object_name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl PortName {
    /// What goes before every port of `service` in order.
    pub fn first_of(service: &ObjectName) -> Self {
        Self {
            service: service.clone(),
            port: "".into(),
            protocol: Protocol::Tcp,
        }
    }

    /// From the text of a row; `None` for text that no version wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (service, rest) = text.split_once(':')?;
        let (namespace, name) = service.split_once('/')?;
        let (port, protocol) = rest.split_once('/')?;
        let mut protocols = Protocol::ALL.into_iter();
        Some(Self {
            service: ObjectName::new(namespace, name),
            port: port.into(),
            protocol: protocols.find(|other| other.as_str() == protocol)?,
        })
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.service, self.port, self.protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_numbers_and_names() {
        let expected = [(6, "tcp", "TCP"), (17, "udp", "UDP"), (132, "sctp", "SCTP")];
        let found =
            Protocol::ALL.map(|protocol| (protocol.number(), protocol.as_str(), protocol.object_name()));
        assert_eq!(found, expected);
        for protocol in Protocol::ALL {
            assert_eq!(Protocol::from_number(protocol.number()), Some(protocol));
        }
        assert_eq!(Protocol::from_number(protocol::ICMP), None);
    }
}
