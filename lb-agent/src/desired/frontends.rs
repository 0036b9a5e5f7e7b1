//! Which front ends a port of a Service has, and what is special about each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address;
use lb_common::{Family, Port, ServiceFlags, ServiceKey, V4, V6};

use super::{Claim, Frontend, Spread, Surroundings, Way, ip_family};
use crate::model::{Algorithm, Forwarding, Service, ServicePort, TrafficPolicy};

/// What kind of front end an address and port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A port at the addresses of the node.
    NodePort,
    /// An address of others that is routed here.
    ExternalIp,
    /// An address of the load balancer.
    LoadBalancer,
    /// The Service's own address.
    ClusterIp,
}

/// The front ends of `port` in one family: none when the Service has no ClusterIP of it. An address that is of two kinds
/// is of the last one.
pub(super) fn frontends<F: Family>(
    service: &Service,
    port: &ServicePort,
) -> BTreeMap<ServiceKey<F::Addr>, Kind> {
    let mut found = BTreeMap::new();
    if !service.has_family(ip_family::<F>()) {
        return found;
    }
    let key = |addr, number| ServiceKey::new(addr, Port::new(number), port.protocol.number());
    if let Some(node_port) = port.node_port {
        found.insert(key(F::Addr::default(), node_port), Kind::NodePort);
    }
    let kinds = [
        (&service.external_ips, Kind::ExternalIp),
        (&service.load_balancer_ips, Kind::LoadBalancer),
        (&service.cluster_ips, Kind::ClusterIp),
    ];
    for (ips, kind) in kinds {
        found.extend(of_family::<F>(ips).map(|addr| (key(addr, port.port), kind)));
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

impl Kind {
    /// The front end at `addr`, without the flags that its endpoints decide. `ranged`: there are source ranges of its
    /// family.
    ///
    /// The ClusterIP obeys the internal traffic policy. All else obeys the external one for clients from outside alone:
    /// pods and the node itself reach every endpoint, as if they had asked the ClusterIP.
    pub(super) fn frontend(
        self,
        addr: IpAddr,
        service: &Service,
        ranged: bool,
        around: Surroundings<'_>,
    ) -> Frontend {
        let (outside, inside) = match self {
            Self::ClusterIp => (service.internal_policy, service.internal_policy),
            Self::NodePort | Self::ExternalIp | Self::LoadBalancer => {
                (service.external_policy, TrafficPolicy::Cluster)
            }
        };
        Frontend {
            flags: self.flags(service, ranged, around),
            outside: Way {
                policy: outside,
                spread: spread(service.options.algorithm, self != Self::ClusterIp),
            },
            inside: Way {
                policy: inside,
                spread: spread(service.options.algorithm, false),
            },
            address_flags: self.address_flags(addr, around),
        }
    }

    fn flags(self, service: &Service, ranged: bool, around: Surroundings<'_>) -> u32 {
        let options = &service.options;
        let cluster_ip = self == Self::ClusterIp;
        let forwarding = options.forwarding.unwrap_or(around.forwarding);
        let limited = options.limit.is_some() || options.source_limit.is_some();
        let flags = [
            (ServiceFlags::NODE_PORT, self == Self::NodePort),
            (ServiceFlags::CLUSTER_IP, cluster_ip),
            (
                ServiceFlags::OUTSIDE_LOCAL,
                !cluster_ip && service.external_policy == TrafficPolicy::Local,
            ),
            (
                ServiceFlags::INSIDE_LOCAL,
                cluster_ip && service.internal_policy == TrafficPolicy::Local,
            ),
            (ServiceFlags::AFFINITY, service.affinity_seconds.is_some()),
            (ServiceFlags::SOURCE_RANGES, self == Self::LoadBalancer && ranged),
            (ServiceFlags::LIMITED, limited),
            (ServiceFlags::DSR, !cluster_ip && forwarding == Forwarding::Dsr),
            (
                ServiceFlags::ROUND_ROBIN,
                options.algorithm == Some(Algorithm::RoundRobin),
            ),
            (
                ServiceFlags::LEAST_CONNECTIONS,
                options.algorithm == Some(Algorithm::LeastConnections),
            ),
        ];
        let set = flags.into_iter().filter(|(_, set)| *set);
        set.fold(0, |flags, (flag, _)| flags | flag)
    }

    /// What is said of the address as such; 0: nothing. On an address of the node's own others than Services may listen.
    fn address_flags(self, addr: IpAddr, around: Surroundings<'_>) -> u32 {
        let like_a_host = ServiceFlags::ADDRESS | ServiceFlags::REJECT | ServiceFlags::ECHO;
        match self {
            _ if around.own_addresses.contains(&addr) => 0,
            Self::NodePort | Self::ExternalIp => 0,
            Self::ClusterIp => like_a_host,
            Self::LoadBalancer => like_a_host | ServiceFlags::FROM_UPLINK,
        }
    }
}

/// Where nothing is asked for, clients from outside get a Maglev table: they may come by any node, or by another one
/// from now on.
fn spread(algorithm: Option<Algorithm>, from_outside: bool) -> Spread {
    match algorithm {
        Some(Algorithm::Maglev) => Spread::Maglev,
        None if from_outside => Spread::Maglev,
        None | Some(Algorithm::Hash | Algorithm::RoundRobin | Algorithm::LeastConnections) => Spread::Slots,
    }
}

fn of_family<F: Family>(ips: &[IpAddr]) -> impl Iterator<Item = F::Addr> {
    ips.iter().filter_map(|ip| F::Addr::from_ip(*ip))
}
