//! Every endpoint that a port of a Service could lead to, and whether it does: for people.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use lb_common::addr::Address as _;
use lb_common::{Family, V4, V6};

use super::eligible::{self, Standing};
use super::split;
use crate::model::{Endpoint, IpFamily, ObjectName, PortName, Service, ServicePort, TrafficPolicy, World};

/// An endpoint, and whether it gets new flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The pod's address, and the target port.
    pub target: SocketAddr,
    /// The Service that it is an endpoint of: another one where traffic is split.
    pub service: ObjectName,
    /// Whether it is on this node.
    pub local: bool,
    /// The node that it is on, when known.
    pub node: Option<Arc<str>>,
    /// The pod that it is, when known.
    pub pod: Option<ObjectName>,
    /// Whether it gets new flows.
    pub standing: Standing,
}

/// The endpoints of a port in one family, and how they stand under a policy for the node of this name: by the rule that
/// fills the maps. None, when there is no such port.
pub fn considered(
    name: &PortName,
    (policy, family): (TrafficPolicy, IpFamily),
    here: (&str, &World),
) -> Option<Vec<Considered>> {
    let (_, world) = here;
    let service = &world.service(&name.service)?.object;
    let port = service
        .ports
        .iter()
        .find(|port| service.port_name(port) == *name)?;
    Some(match family {
        IpFamily::V4 => of_family::<V4>(service, port, policy, here),
        IpFamily::V6 => of_family::<V6>(service, port, policy, here),
    })
}

fn of_family<F: Family>(
    service: &Service,
    port: &ServicePort,
    policy: TrafficPolicy,
    (node_name, world): (&str, &World),
) -> Vec<Considered> {
    let mut found = Vec::new();
    for pool in split::pools::<F>(service, port, (node_name, world)) {
        let standing = eligible::standing(&pool.endpoints, policy);
        found.extend(pool.endpoints.iter().map(|(target, candidate)| {
            let ip = target.addr.ip();
            let endpoint = endpoint(world, &pool.service, ip);
            Considered {
                target: SocketAddr::new(ip, target.port.number()),
                service: pool.service.clone(),
                local: candidate.local,
                node: endpoint.and_then(|endpoint| endpoint.node.clone()),
                pod: endpoint.and_then(|endpoint| endpoint.pod_name.as_deref().cloned()),
                standing: standing(candidate),
            }
        }));
    }
    found
}

/// What a Service's slices say of an address.
fn endpoint<'a>(world: &'a World, service: &ObjectName, ip: IpAddr) -> Option<&'a Endpoint> {
    let mut endpoints = world.slices(service).flat_map(|slice| &slice.object.endpoints);
    endpoints.find(|endpoint| endpoint.address == ip)
}
