//! Which endpoints the slices of a Service hold for one of its ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::addr::Address as _;
use lb_common::{Family, Port};

use super::{Target, ip_family};
use crate::model::{Conditions, EndpointSlice, Hints, ServicePort, Uid};

/// What the rules know of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Its conditions.
    pub(super) conditions: Conditions,
    /// Whether it is on this node.
    pub(super) local: bool,
    /// Its weight.
    pub(super) weight: u32,
    /// The UID of the pod, when known.
    pub(super) pod: Option<Uid>,
    /// Whether it is meant for this node's clients.
    pub(super) for_node: Hint,
    /// Whether it is meant for this zone's clients.
    pub(super) for_zone: Hint,
}

/// Whether an endpoint is meant for clients of some place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Nothing is said.
    Absent,
    /// For those of other places.
    Elsewhere,
    /// For those of this place.
    Here,
}

/// Where this node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Its name.
    pub(super) node: &'a str,
    /// Its zone, when known.
    pub(super) zone: Option<&'a str>,
}

/// Endpoints, each with what the rules know of it.
pub(super) type Candidates<A> = BTreeMap<Target<A>, Candidate>;

/// The endpoints of `port` in one family, from every slice port of the same name and protocol, which also gives
/// the target port. An address and port that is there twice: see [`add`].
pub(super) fn endpoints<'a, F: Family>(
    port: &ServicePort,
    slices: impl Iterator<Item = &'a EndpointSlice>,
    here: Place<'_>,
) -> Candidates<F::Addr> {
    let mut found = BTreeMap::<_, Candidate>::new();
    for slice in slices.filter(|slice| slice.family == ip_family::<F>()) {
        let ours = |other: &&_| same_port(port, other);
        for slice_port in slice.ports.iter().filter(ours) {
            for endpoint in &slice.endpoints {
                let Some(addr) = F::Addr::from_ip(endpoint.address) else {
                    continue;
                };
                let target = Target {
                    addr,
                    port: Port::new(slice_port.port),
                };
                let hints = endpoint.hints.as_deref();
                let [nodes, zones] =
                    hints.map_or([&[][..]; 2], |Hints { nodes, zones }| [nodes.as_slice(), zones]);
                let candidate = Candidate {
                    conditions: endpoint.conditions,
                    local: endpoint.node.as_deref() == Some(here.node),
                    weight: slice.weight,
                    pod: endpoint.pod.clone(),
                    for_node: hint(nodes, Some(here.node)),
                    for_zone: hint(zones, here.zone),
                };
                add(&mut found, target, candidate);
            }
        }
    }
    found
}

/// Adds an endpoint to those of other slices. One that is there already: the entry that is not terminating wins, else the
/// last.
pub(super) fn add<A: Ord>(found: &mut Candidates<A>, target: Target<A>, candidate: Candidate) {
    let better = found
        .get(&target)
        .is_none_or(|other| other.conditions.terminating || !candidate.conditions.terminating);
    if better {
        found.insert(target, candidate);
    }
}

/// What hints for some places mean here.
pub(super) fn hint(places: &[Arc<str>], here: Option<&str>) -> Hint {
    match here {
        _ if places.is_empty() => Hint::Absent,
        Some(here) if places.iter().any(|place| **place == *here) => Hint::Here,
        _ => Hint::Elsewhere,
    }
}

fn same_port(port: &ServicePort, other: &crate::model::SlicePort) -> bool {
    port.name == other.name && port.protocol == other.protocol
}
