//! A small world that changes at random.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{
    Algorithm, Conditions, Endpoint, EndpointSlice, Forwarding, IpFamily, Object, ObjectName, ObjectRef,
    Origin, Protocol, Service, ServiceOptions, ServicePort, Share, SlicePort, TrafficPolicy,
};
use crate::source::SourceEvent;
use crate::testkit::Random;

/// Objects as they are now.
pub(super) struct SmallWorld {
    random: Random,
    objects: BTreeMap<ObjectRef, Object>,
}

impl SmallWorld {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            objects: BTreeMap::new(),
        }
    }

    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.random.below(end)
    }

    /// All that a source would tell when it begins.
    pub(super) fn events(&self) -> Vec<SourceEvent> {
        self.objects.values().cloned().map(applied).collect()
    }

    /// Changes one object.
    pub(super) fn change(&mut self) -> SourceEvent {
        let (service, part) = (self.below(4), self.below(3));
        let object = if part == 0 {
            self.service(service)
        } else {
            self.slice(service, part)
        };
        let reference = object.reference();
        if self.below(4) == 0 {
            self.objects.remove(&reference);
            return SourceEvent::Delete(reference);
        }
        self.objects.insert(reference, object.clone());
        applied(object)
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) -> Vec<SourceEvent> {
        std::mem::take(&mut self.objects)
            .into_keys()
            .map(SourceEvent::Delete)
            .collect()
    }

    fn service(&mut self, number: u32) -> Object {
        let vip = self.byte(6);
        let mut service = service(&format!("s{number}"), &[Ipv4Addr::new(10, 96, 0, vip).into()]);
        if self.below(2) == 0 {
            service
                .cluster_ips
                .push(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, vip.into()).into());
        }
        service.ports.truncate(1 + self.below(2) as usize);
        for port in &mut service.ports {
            port.node_port =
                (self.random.below(2) == 0).then_some(30_000 + u16::from(self.random.below(2) == 0));
        }
        service.internal_policy = self.policy();
        service.external_policy = self.policy();
        self.add_options(&mut service);
        Object::Service(service)
    }

    fn add_options(&mut self, service: &mut Service) {
        if self.below(3) == 0 {
            service
                .load_balancer_ips
                .push(Ipv4Addr::new(192, 0, 2, self.byte(3)).into());
            let ranges = ["198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"];
            let ranges = ranges.into_iter().filter(|_| self.random.below(3) == 0);
            service.source_ranges = ranges.map(|range| range.parse().unwrap()).collect();
        }
        service.affinity_seconds = (self.below(3) == 0).then(|| 60 + self.below(2));
        let limits = [(); 2].map(|()| (self.below(4) == 0).then(|| 1 + self.below(2)));
        let algorithms = Algorithm::ALL.map(|(_, algorithm)| algorithm);
        service.options = ServiceOptions {
            algorithm: algorithms.get(self.below(6) as usize).copied(),
            forwarding: (self.below(3) == 0).then_some(Forwarding::Dsr),
            split: Vec::new(),
            limit: limits[0],
            source_limit: limits[1],
        };
        if self.below(6) == 0 {
            let share = |number| Share {
                service: format!("s{number}").into(),
                weight: number,
            };
            service.options.split = (1..4).map(share).collect();
        }
    }

    fn slice(&mut self, number: u32, part: u32) -> Object {
        let family = if self.below(3) == 0 {
            IpFamily::V6
        } else {
            IpFamily::V4
        };
        let mut slice = slice(&format!("s{number}"), &format!("s{number}-{part}"), &[]);
        slice.family = family;
        slice.weight = [1, 1, 1, 2, 0][self.below(5) as usize];
        for _ in 0..self.below(6) {
            let host = self.byte(8);
            let address = match family {
                IpFamily::V4 => IpAddr::from(Ipv4Addr::new(10, 244, 0, host)),
                IpFamily::V6 => Ipv6Addr::new(0xfd00, 0x244, 0, 0, 0, 0, 0, host.into()).into(),
            };
            let [ready, serving, terminating, here] = [(); 4].map(|()| self.below(3) > 0);
            let conditions = Conditions {
                ready: ready && !terminating,
                serving,
                terminating,
            };
            slice.endpoints.push(Endpoint {
                address,
                conditions,
                node: here.then(|| "node-a".into()),
                pod: None,
                pod_name: None,
                hints: None,
            });
        }
        Object::EndpointSlice(slice)
    }

    fn byte(&mut self, end: u8) -> u8 {
        u8::try_from(self.below(end.into())).unwrap_or_default()
    }

    fn policy(&mut self) -> TrafficPolicy {
        if self.below(2) == 0 {
            TrafficPolicy::Cluster
        } else {
            TrafficPolicy::Local
        }
    }
}

/// The event for an object.
pub(super) fn applied(object: Object) -> SourceEvent {
    SourceEvent::Apply {
        object,
        origin: Origin::default(),
    }
}

/// A Service with the ports 80/tcp (a) and 53/udp (b).
pub(super) fn service(name: &str, cluster_ips: &[IpAddr]) -> Service {
    let port = |name: &str, port, protocol| ServicePort {
        name: name.into(),
        port,
        node_port: None,
        protocol,
    };
    Service {
        name: ObjectName::new("default", name),
        cluster_ips: cluster_ips.to_vec(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port("a", 80, Protocol::Tcp), port("b", 53, Protocol::Udp)],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        health_check_port: None,
        options: ServiceOptions::default(),
    }
}

/// A slice of both ports with these endpoints, all ready.
pub(super) fn slice(service: &str, name: &str, endpoints: &[Ipv4Addr]) -> EndpointSlice {
    let endpoint = |address: &Ipv4Addr| {
        let (address, conditions) = ((*address).into(), Conditions::default());
        Endpoint {
            address,
            conditions,
            node: None,
            pod: None,
            pod_name: None,
            hints: None,
        }
    };
    let port = |name: &str, port, protocol| SlicePort {
        name: name.into(),
        port,
        protocol,
    };
    EndpointSlice {
        name: ObjectName::new("default", name),
        service: ObjectName::new("default", service),
        family: IpFamily::V4,
        weight: 1,
        ports: vec![port("a", 8080, Protocol::Tcp), port("b", 5353, Protocol::Udp)],
        endpoints: endpoints.iter().map(endpoint).collect(),
        changed_at: None,
    }
}
