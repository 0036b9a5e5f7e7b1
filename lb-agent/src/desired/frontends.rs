//! Which front ends a port of a Service has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address;
use lb_common::{Family, Port, ServiceFlags, ServiceKey, V4, V6};

use super::{Claim, Frontend, ip_family};
use crate::model::{Service, ServicePort, TrafficPolicy};

/// The front ends of `port` in one family: none when the Service has no ClusterIP of it.
///
/// The ClusterIP obeys the internal traffic policy, everything else the external one.
pub(super) fn frontends<F: Family>(
    service: &Service,
    port: &ServicePort,
) -> BTreeMap<ServiceKey<F::Addr>, Frontend> {
    let mut found = BTreeMap::new();
    if !service.has_family(ip_family::<F>()) {
        return found;
    }
    let key = |addr, number| ServiceKey::new(addr, Port::new(number), port.protocol.number());
    let external = Frontend {
        flags: 0,
        outside: service.external_policy,
        inside: TrafficPolicy::Cluster,
    };
    if let Some(node_port) = port.node_port {
        let frontend = Frontend {
            flags: ServiceFlags::NODE_PORT,
            ..external
        };
        found.insert(key(F::Addr::default(), node_port), frontend);
    }
    for addr in of_family::<F>(&service.external_ips).chain(of_family::<F>(&service.load_balancer_ips)) {
        found.insert(key(addr, port.port), external);
    }
    for addr in of_family::<F>(&service.cluster_ips) {
        found.insert(
            key(addr, port.port),
            Frontend {
                flags: 0,
                outside: service.internal_policy,
                inside: service.internal_policy,
            },
        );
    }
    found
}

/// Every front end that `service` asks for.
pub fn claims_of(service: &Service) -> BTreeSet<Claim> {
    let ports = service.ports.iter();
    ports
        .flat_map(|port| {
            let v4 = frontends::<V4>(service, port)
                .into_keys()
                .map(|key| Claim::of(&key));
            let v6 = frontends::<V6>(service, port)
                .into_keys()
                .map(|key| Claim::of(&key));
            v4.chain(v6)
        })
        .collect()
}

fn of_family<F: Family>(ips: &[IpAddr]) -> impl Iterator<Item = F::Addr> {
    ips.iter().filter_map(|ip| F::Addr::from_ip(*ip))
}
