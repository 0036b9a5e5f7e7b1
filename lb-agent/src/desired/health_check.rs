//! What load balancers are told that ask a Service's health-check port: how many endpoints of it this node has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Surroundings;
use crate::model::{Conditions, EndpointSlice, IpFamily, Service, SlicePort};

/// A health-check port, and what is answered there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The port.
    pub port: u16,
    /// For each family that the Service has, the number of addresses of ready endpoints on this node.
    pub endpoints: BTreeMap<IpFamily, usize>,
}

/// A port of an endpoint; what it is in is what the slices say of it.
type Place<'a> = (&'a SlicePort, IpAddr);

/// The health check of a Service that has one.
///
/// As for kube-proxy, only ready endpoints count: a node that has but terminating ones should get no new clients, although
/// it would serve them.
pub fn health_check(service: &Service, around: Surroundings<'_>) -> Option<HealthCheck> {
    let port = service.health_check_port?;
    let families = [(IpFamily::V4, around.ipv4), (IpFamily::V6, around.ipv6)];
    let families = families
        .into_iter()
        .filter(|(family, on)| *on && service.has_family(*family));
    let ready = ready_here(service, around);
    let count = |family| ready.iter().filter(|ip| IpFamily::of(**ip) == family).count();
    Some(HealthCheck {
        port,
        endpoints: families.map(|(family, _)| (family, count(family))).collect(),
    })
}

/// The addresses of ready endpoints on this node, of this Service or of those that it is split over.
fn ready_here(service: &Service, around: Surroundings<'_>) -> BTreeSet<IpAddr> {
    let own = service.options.split.is_empty().then(|| service.name.clone());
    let of = own.into_iter().chain(service.split_targets());
    let mut found = BTreeSet::new();
    for name in of {
        let slices = around.world.slices(&name).map(|slice| &slice.object);
        let places = places_here(slices, around.node_name);
        let ready = places.into_iter().filter(|(_, conditions)| conditions.ready);
        found.extend(ready.map(|((_, ip), _)| ip));
    }
    found
}

/// The ports of endpoints on this node. One that is there twice: the entry that is not terminating wins, else the last.
fn places_here<'a>(
    slices: impl Iterator<Item = &'a EndpointSlice>,
    node_name: &str,
) -> BTreeMap<Place<'a>, Conditions> {
    let mut found = BTreeMap::<_, Conditions>::new();
    for slice in slices.filter(|slice| slice.weight > 0) {
        let here = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.node.as_deref() == Some(node_name));
        for endpoint in here {
            for port in &slice.ports {
                let place = (port, endpoint.address);
                let better = found
                    .get(&place)
                    .is_none_or(|other| other.terminating || !endpoint.conditions.terminating);
                if better {
                    found.insert(place, endpoint.conditions);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::desired::Claims;
    use crate::model::{
        Endpoint, Forwarding, Object, ObjectName, Origin, Protocol, ServiceOptions, Share, TrafficPolicy,
        World,
    };

    /// An endpoint by its address and marks: `l` is on this node, `n` not ready, `t` terminating (and so not ready).
    fn endpoint(text: &str) -> Endpoint {
        let (address, marks) = text.split_once(' ').unwrap_or((text, ""));
        let [local, not_ready, terminating] = ['l', 'n', 't'].map(|mark| marks.contains(mark));
        Endpoint {
            address: address.parse().unwrap(),
            conditions: Conditions {
                ready: !not_ready && !terminating,
                serving: true,
                terminating,
            },
            node: Some(if local { "node-a" } else { "node-b" }.into()),
            pod: None,
            pod_name: None,
            hints: None,
        }
    }

    fn slice(service: &str, number: usize, weight: u32, endpoints: &[&str]) -> EndpointSlice {
        let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
        let port = |name: &str, port| SlicePort {
            name: name.into(),
            port,
            protocol: Protocol::Tcp,
        };
        EndpointSlice {
            name: ObjectName::new("default", &format!("{service}-{number}")),
            service: ObjectName::new("default", service),
            family: IpFamily::of(endpoints[0].address),
            weight,
            ports: vec![port("http", 80), port("https", 443)],
            endpoints,
            changed_at: None,
        }
    }

    fn service(cluster_ips: &[&str], split: &[&str]) -> Service {
        let share = |name: &&str| Share {
            service: Arc::from(*name),
            weight: 1,
        };
        Service {
            name: ObjectName::new("default", "web"),
            cluster_ips: cluster_ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            ports: Vec::new(),
            internal_policy: TrafficPolicy::Cluster,
            external_policy: TrafficPolicy::Local,
            affinity_seconds: None,
            health_check_port: Some(30_200),
            options: ServiceOptions {
                split: split.iter().map(share).collect(),
                ..ServiceOptions::default()
            },
        }
    }

    fn on_node_a(service: &Service, world: &World) -> Option<HealthCheck> {
        let around = Surroundings {
            node_name: "node-a",
            world,
            claims: &Claims::default(),
            own_addresses: &BTreeSet::new(),
            forwarding: Forwarding::default(),
            jiffies_per_second: 1000,
            ipv4: true,
            ipv6: true,
        };
        health_check(service, around)
    }

    /// Compares the numbers of IPv4 and IPv6.
    #[track_caller]
    fn check(service: &Service, slices: Vec<EndpointSlice>, v4: Option<usize>, v6: Option<usize>) {
        let mut world = World::default();
        for slice in slices {
            world.apply(Object::EndpointSlice(slice), Origin::default());
        }
        let found = on_node_a(service, &world).unwrap();
        assert_eq!(found.port, 30_200);
        let count = |family| found.endpoints.get(&family).copied();
        assert_eq!((count(IpFamily::V4), count(IpFamily::V6)), (v4, v6));
    }

    #[test]
    fn ready_endpoints_of_this_node_count_once() {
        let web = service(&["10.96.0.1"], &[]);
        let of = |endpoints: &[&str]| vec![slice("web", 0, 1, endpoints)];
        check(&web, vec![], Some(0), None);
        check(&web, of(&["10.0.0.1"]), Some(0), None);
        check(&web, of(&["10.0.0.1 l", "10.0.0.2 l", "10.0.0.3"]), Some(2), None);
        check(&web, of(&["10.0.0.1 ln", "10.0.0.2 lt"]), Some(0), None);
        check(&web, of(&["10.0.0.1 l", "10.0.0.2 lt"]), Some(1), None);
    }

    #[test]
    fn an_endpoint_in_two_slices_is_what_it_is_without_terminating() {
        let web = service(&["10.96.0.1"], &[]);
        let two = |first, second| vec![slice("web", 0, 1, &[first]), slice("web", 1, 1, &[second])];
        check(&web, two("10.0.0.1 l", "10.0.0.1 lt"), Some(1), None);
        check(&web, two("10.0.0.1 lt", "10.0.0.1 l"), Some(1), None);
        check(&web, two("10.0.0.1 l", "10.0.0.1 ln"), Some(0), None);
    }

    #[test]
    fn each_family_of_the_service_has_its_number() {
        let slices = || {
            vec![
                slice("web", 0, 1, &["10.0.0.1 l", "10.0.0.2 l"]),
                slice("web", 1, 1, &["fd00::1 l"]),
            ]
        };
        check(
            &service(&["10.96.0.1", "fd00:96::1"], &[]),
            slices(),
            Some(2),
            Some(1),
        );
        check(&service(&["fd00:96::1"], &[]), slices(), None, Some(1));
    }

    #[test]
    fn endpoints_of_weight_0_do_not_count_and_those_of_a_split_do() {
        let slices = || {
            vec![
                slice("web", 0, 1, &["10.0.0.1 l", "10.0.0.2 l"]),
                slice("v1", 0, 0, &["10.0.0.3 l"]),
                slice("v2", 0, 1, &["10.0.0.4 l"]),
            ]
        };
        check(&service(&["10.96.0.1"], &["v1", "v2"]), slices(), Some(1), None);
        check(&service(&["10.96.0.1"], &["v1"]), slices(), Some(0), None);
    }

    #[test]
    fn a_service_without_the_port_has_no_health_check() {
        let world = World::default();
        let mut web = service(&["10.96.0.1"], &[]);
        web.health_check_port = None;
        assert_eq!(on_node_a(&web, &world), None);
    }
}
