//! Kubernetes' rules: which front ends a Service has, and which endpoints each of them leads to.
//!
//! Plain functions over plain data, one rule a file; nothing is remembered.

pub mod claims;
mod eligible;
mod endpoints;
mod frontends;
pub mod node;

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::addr::Address as _;
use lb_common::{Family, Port, ServiceKey, V4, V6};

use crate::model::{EndpointSlice, IpFamily, PortName, Service, ServicePort, TrafficPolicy};

pub use claims::{Claim, Claims};
use endpoints::Candidate;
pub use frontends::claims_of;

/// An address and port that packets are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target<A> {
    /// The pod's address.
    pub addr: A,
    /// The target port.
    pub port: Port,
}

/// What the maps should say about one port of a Service.
#[derive(Clone, Debug)]
pub struct DesiredPort {
    /// What it is called.
    pub name: PortName,
    /// Its half of IPv4.
    pub v4: Half<V4>,
    /// Its half of IPv6.
    pub v6: Half<V6>,
}

/// One family's half of a port of a Service.
#[derive(Clone, Debug)]
pub struct Half<F: Family> {
    /// Its front ends.
    pub frontends: BTreeMap<ServiceKey<F::Addr>, Frontend>,
    /// Every endpoint in the slices.
    pub backends: BTreeMap<Target<F::Addr>, Member>,
    /// The endpoints that the policy Cluster leads to, in order of address: the same on all nodes.
    pub cluster: Vec<Target<F::Addr>>,
    /// The endpoints that the policy Local leads to.
    pub local: Vec<Target<F::Addr>>,
}

/// An endpoint in the slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether any front end sends new flows to it.
    pub active: bool,
    /// Whether it is on this node.
    pub local: bool,
    /// The UID of the pod that it is, when known.
    pub pod: Option<Arc<str>>,
}

/// A front end: where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// [`lb_common::ServiceFlags`].
    pub flags: u32,
    /// Which of the two sets of endpoints it leads clients from outside the cluster to.
    pub outside: TrafficPolicy,
    /// Which of them it leads pods and the node itself to.
    pub inside: TrafficPolicy,
}

/// What the rules look at beside the Service itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The name of this node.
    pub node_name: &'a str,
    /// Who claims which front end.
    pub claims: &'a Claims,
    /// Whether IPv4 is on.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

/// What the maps should say about each port of `service`, whose slices are `slices`.
pub fn desired<'a>(
    service: &Service,
    slices: &(impl Iterator<Item = &'a EndpointSlice> + Clone),
    around: Surroundings<'_>,
) -> Vec<DesiredPort> {
    let port = |port| DesiredPort {
        name: service.port_name(port),
        v4: if around.ipv4 {
            desired_half(service, port, slices.clone(), around)
        } else {
            Half::default()
        },
        v6: if around.ipv6 {
            desired_half(service, port, slices.clone(), around)
        } else {
            Half::default()
        },
    };
    service.ports.iter().map(port).collect()
}

fn desired_half<'a, F: Family>(
    service: &Service,
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    around: Surroundings<'_>,
) -> Half<F> {
    let frontends: BTreeMap<_, _> = frontends::frontends::<F>(service, port)
        .into_iter()
        .filter(|(key, _)| around.claims.holds(&Claim::of(key), &service.name))
        .collect();
    if frontends.is_empty() {
        return Half::default();
    }
    let endpoints = endpoints::endpoints::<F>(port, slices, around.node_name);
    let uses = |policy| {
        frontends
            .values()
            .any(|frontend| frontend.outside == policy || frontend.inside == policy)
    };
    let cluster = if uses(TrafficPolicy::Cluster) {
        eligible::cluster(&endpoints)
    } else {
        Vec::new()
    };
    let local = if uses(TrafficPolicy::Local) {
        eligible::local(&endpoints)
    } else {
        Vec::new()
    };
    let member = |(target, candidate): (_, Candidate)| {
        let active = [&cluster, &local]
            .iter()
            .any(|set| set.binary_search(&target).is_ok());
        let Candidate {
            local,
            pod,
            conditions: _,
        } = candidate;
        (target, Member { active, local, pod })
    };
    let backends = endpoints.into_iter().map(member).collect();
    Half {
        frontends,
        backends,
        cluster,
        local,
    }
}

impl<F: Family> Default for Half<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            cluster: Vec::new(),
            local: Vec::new(),
        }
    }
}

/// The family that `F` is, at run time.
fn ip_family<F: Family>() -> IpFamily {
    IpFamily::of(F::Addr::default().ip())
}

#[cfg(test)]
mod tests;
