//! Who has a front end that several Services claim: the first by namespace and name.
//!
//! Manifests have no age, so age cannot decide; every node must decide alike.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::ServiceKey;
use lb_common::addr::Address;

use crate::model::{ObjectName, Protocol};

/// A front end, of either family. A NodePort has the unspecified address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    ip: IpAddr,
    port: u16,
    protocol: u8,
}

/// Every front end with the Services that claim it.
#[derive(Debug, Default)]
pub struct Claims {
    by_claim: BTreeMap<Claim, BTreeSet<ObjectName>>,
    by_service: BTreeMap<ObjectName, BTreeSet<Claim>>,
}

impl Claim {
    /// The front end of a row.
    pub fn of<A: Address>(key: &ServiceKey<A>) -> Self {
        Self {
            ip: key.addr.ip(),
            port: key.port.number(),
            protocol: key.protocol,
        }
    }
}

impl Claims {
    /// Makes `wanted` what `service` claims. Returns the other Services whose front ends change by that.
    pub fn update(&mut self, service: &ObjectName, wanted: BTreeSet<Claim>) -> BTreeSet<ObjectName> {
        let before = self.by_service.remove(service).unwrap_or_default();
        let mut touched = BTreeSet::new();
        for claim in before.difference(&wanted) {
            if let Some(claimants) = self.by_claim.get_mut(claim) {
                let held = claimants.first() == Some(service);
                claimants.remove(service);
                touched.extend(claimants.first().filter(|_| held).cloned());
                if claimants.is_empty() {
                    self.by_claim.remove(claim);
                }
            }
        }
        for claim in wanted.difference(&before) {
            let claimants = self.by_claim.entry(*claim).or_default();
            let holder = claimants.first().cloned();
            claimants.insert(service.clone());
            touched.extend(holder.filter(|_| claimants.first() == Some(service)));
        }
        if !wanted.is_empty() {
            self.by_service.insert(service.clone(), wanted);
        }
        touched
    }

    /// Whether `service` is the one that has the front end.
    pub fn holds(&self, claim: &Claim, service: &ObjectName) -> bool {
        self.holder(claim) == Some(service)
    }

    /// The front ends that `service` claims and another has, with that other.
    pub fn lost_by(&self, service: &ObjectName) -> impl Iterator<Item = (&Claim, &ObjectName)> {
        let claims = self.by_service.get(service).into_iter().flatten();
        claims
            .filter_map(|claim| Some((claim, self.holder(claim)?)))
            .filter(move |(_, holder)| *holder != service)
    }

    /// The lowest and the highest NodePort that is claimed.
    pub fn node_ports(&self) -> Option<(u16, u16)> {
        let unspecified = [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ];
        let ranges = unspecified.map(|ip| {
            let all = Claim {
                ip,
                port: 0,
                protocol: 0,
            }..=Claim {
                ip,
                port: u16::MAX,
                protocol: u8::MAX,
            };
            let mut claims = self.by_claim.range(all).map(|(claim, _)| claim.port);
            let first = claims.next()?;
            Some((first, claims.next_back().unwrap_or(first)))
        });
        ranges
            .into_iter()
            .flatten()
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn holder(&self, claim: &Claim) -> Option<&ObjectName> {
        self.by_claim.get(claim)?.first()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = Protocol::name_of(self.protocol);
        match self.ip {
            ip if ip.is_unspecified() => write!(f, "NodePort {}/{protocol}", self.port),
            IpAddr::V4(ip) => write!(f, "{ip}:{}/{protocol}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}/{protocol}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::protocol;

    use super::*;

    fn claim(ip: [u8; 4], port: u16) -> Claim {
        Claim {
            ip: ip.into(),
            port,
            protocol: protocol::TCP,
        }
    }

    /// Makes a Service claim ports of one VIP; compares whose front ends change by that, and who has the first port.
    #[track_caller]
    fn check(claims: &mut Claims, service: &str, ports: &[u16], touched: &[&str], holder: Option<&str>) {
        let wanted = ports.iter().map(|port| claim([10, 96, 0, 1], *port)).collect();
        let others = claims.update(&ObjectName::new("default", service), wanted);
        assert_eq!(others.iter().map(|name| &*name.name).collect::<Vec<_>>(), touched);
        assert_eq!(
            claims.holder(&claim([10, 96, 0, 1], 1)).map(|name| &*name.name),
            holder
        );
    }

    #[test]
    fn the_first_by_name_has_it() {
        let mut claims = Claims::default();
        check(&mut claims, "b", &[1, 2], &[], Some("b"));
        check(&mut claims, "c", &[1], &[], Some("b"));
        check(&mut claims, "a", &[1], &["b"], Some("a"));
        check(&mut claims, "b", &[2], &[], Some("a"));
        check(&mut claims, "a", &[], &["c"], Some("c"));
        check(&mut claims, "c", &[], &[], None);
    }

    #[test]
    fn one_port_of_several_protocols_is_several_front_ends() {
        let mut claims = Claims::default();
        let owners = [
            (Protocol::Sctp, "sctp", "NodePort 30000/sctp"),
            (Protocol::Udp, "udp", "NodePort 30000/udp"),
            (Protocol::Tcp, "tcp", "NodePort 30000/tcp"),
        ];
        for (protocol, owner, text) in owners {
            let claim = Claim {
                protocol: protocol.number(),
                ..claim([0; 4], 30_000)
            };
            let owner = ObjectName::new("default", owner);
            assert!(claims.update(&owner, [claim].into()).is_empty());
            assert!(claims.holds(&claim, &owner));
            assert_eq!(claim.to_string(), text);
        }
    }

    #[test]
    fn the_range_of_node_ports_spans_both_families() {
        let mut claims = Claims::default();
        assert_eq!(claims.node_ports(), None);
        let six = Claim {
            ip: Ipv6Addr::UNSPECIFIED.into(),
            port: 30_002,
            protocol: protocol::UDP,
        };
        let all = [
            claim([0; 4], 30_000),
            claim([0; 4], 30_001),
            six,
            claim([10, 96, 0, 1], 80),
        ];
        claims.update(&ObjectName::new("default", "a"), all.into());
        assert_eq!(claims.node_ports(), Some((30_000, 30_002)));
    }
}
