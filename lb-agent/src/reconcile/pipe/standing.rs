//! What others than the programs want to know about Services: load balancers that ask health-check ports, and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use lb_common::{V4, V6};

use super::{Config, Pipe};
use crate::desired::DesiredPort;
use crate::desired::health_check::{HealthCheck, health_check};
use crate::desired::node::listening_ips;
use crate::model::{IpFamily, Kind, ObjectName, Reason};

/// What is known of Services beside their rows.
#[derive(Debug, Default)]
pub(super) struct Standing {
    health_checks: BTreeMap<ObjectName, HealthCheck>,
    changed: BTreeMap<ObjectName, Option<HealthCheck>>,
    /// Services with ports that a policy Local leads nowhere.
    without_local: BTreeMap<ObjectName, [WithoutLocal; 2]>,
}

/// How many ports of Services a traffic policy Local leads nowhere, although there are endpoints on other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// By the internal traffic policy.
    pub internal: usize,
    /// By the external one.
    pub external: usize,
}

impl Standing {
    /// The health checks that are different since the last call; none is there any more of those without one.
    pub(super) fn take_changed(&mut self) -> BTreeMap<ObjectName, Option<HealthCheck>> {
        mem::take(&mut self.changed)
    }

    fn update(&mut self, service: &ObjectName, check: Option<HealthCheck>, ports: &[DesiredPort]) {
        if self.health_checks.get(service) != check.as_ref() {
            match &check {
                Some(check) => _ = self.health_checks.insert(service.clone(), check.clone()),
                None => _ = self.health_checks.remove(service),
            }
            self.changed.insert(service.clone(), check);
        }
        let without = [IpFamily::V4, IpFamily::V6].map(|family| without_local(ports, family));
        if without == [WithoutLocal::default(); 2] {
            self.without_local.remove(service);
        } else {
            self.without_local.insert(service.clone(), without);
        }
    }
}

fn without_local(ports: &[DesiredPort], family: IpFamily) -> WithoutLocal {
    let mut counts = WithoutLocal::default();
    for [internal, external] in ports.iter().map(|port| port.without_local(family)) {
        counts.internal += usize::from(internal);
        counts.external += usize::from(external);
    }
    counts
}

// === impl Pipe ===

impl Pipe {
    /// Takes note of how a Service stands, given what its ports should be.
    pub(super) fn note_standing(&mut self, service: &ObjectName, ports: &[DesiredPort]) {
        let known = self.world.service(service);
        let check = known.and_then(|known| health_check(&known.object, self.surroundings()));
        self.standing.update(service, check, ports);
    }

    /// How many ports of Services a policy Local leads nowhere in a family.
    pub fn without_local(&self, family: IpFamily) -> WithoutLocal {
        let mut sum = WithoutLocal::default();
        for [v4, v6] in self.standing.without_local.values() {
            let counts = match family {
                IpFamily::V4 => v4,
                IpFamily::V6 => v6,
            };
            sum.internal += counts.internal;
            sum.external += counts.external;
        }
        sum
    }

    /// Where health-check ports are opened: where NodePorts listen, as with kube-proxy. An unspecified address means every
    /// address of its family; nowhere until the source is synced and the node's addresses are known.
    pub fn health_check_ips(&self) -> BTreeSet<IpAddr> {
        let Config {
            node_name, prefixes, ..
        } = &self.config;
        let mut ips = BTreeSet::new();
        if let Some(host) = self.host.as_ref().filter(|_| self.synced) {
            ips.extend(listening_ips::<V4>(
                host,
                &self.world,
                node_name,
                &prefixes.node_ports,
            ));
            ips.extend(listening_ips::<V6>(
                host,
                &self.world,
                node_name,
                &prefixes.node_ports,
            ));
        }
        ips
    }

    /// How many objects of each kind there are.
    pub fn object_counts(&self) -> [(Kind, usize); 5] {
        self.world.counts()
    }

    /// How many problems of each kind there are with objects that could be read, and with the node.
    pub fn problem_counts(&self) -> BTreeMap<Reason, usize> {
        self.problems.counts()
    }

    /// Whether load balancers may send new connections to this node: its Node object is there, unless it need not be, and
    /// is not about to be removed. True before the source is synced.
    pub fn node_is_eligible(&self, must_be_there: bool) -> bool {
        let node = self.world.node(&self.config.node_name);
        !self.synced || node.map_or(!must_be_there, |node| !node.leaving)
    }
}
