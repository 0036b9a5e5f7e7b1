//! Kubernetes' rules: which front ends a Service has, and which endpoints each of them leads to.
//!
//! Plain functions over plain data, one rule a file; nothing is remembered.

pub mod claims;
pub mod considered;
mod eligible;
mod endpoints;
mod frontends;
pub mod health_check;
pub mod node;
pub mod node_ports;
mod policy;
mod ranges;
mod seed;
mod split;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::addr::Address as _;
use lb_common::{BackendState, Family, Port, ServiceFlags, ServiceKey, ServicePolicy, V4, V6};

use crate::model::{
    Forwarding, IpFamily, IpPrefix, PortName, Service, ServicePort, TrafficPolicy, Uid, World,
};

pub use claims::{Claim, Claims};
pub use eligible::{LeftOut, Standing};
use endpoints::{Candidate, Candidates};
pub use frontends::claims_of;
pub use policy::interval;
pub use ranges::range_key;
pub use seed::{cluster_seed, seed_of, seed_of_words, seed_words};
use split::Pool;
pub use split::split_problems;

/// An address and port that packets are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target<A> {
    /// The pod's address.
    pub addr: A,
    /// The target port.
    pub port: Port,
}

/// Endpoints with their weights, in order of address.
pub type Weighted<A> = Vec<(Target<A>, u32)>;

/// What the maps should say about one port of a Service.
#[derive(Clone, Debug)]
pub struct DesiredPort {
    /// What it is called.
    pub name: PortName,
    /// Its times and limits.
    pub policy: ServicePolicy,
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
    /// The endpoints that the policy Cluster leads to, in order of address: the same on all nodes, unless hints say which
    /// endpoints are for which nodes.
    pub cluster: Weighted<F::Addr>,
    /// The endpoints that the policy Local leads to. Weights are in no common divisor.
    pub local: Weighted<F::Addr>,
    /// The sources that may use the load balancer's addresses; none: all.
    pub ranges: BTreeSet<IpPrefix>,
}

/// An endpoint in the slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Active when any front end sends new flows to it; else not serving when others of its service port serve and it does
    /// not.
    pub state: BackendState,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether of all policies only Local leads to it.
    pub local_only: bool,
    /// The UID of the pod that it is, when known.
    pub pod: Option<Uid>,
}

/// A front end: where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// [`lb_common::ServiceFlags`].
    pub flags: u32,
    /// Where it leads clients from outside the cluster.
    pub outside: Way,
    /// Where it leads pods and the node itself.
    pub inside: Way,
    /// [`lb_common::ServiceFlags`] of the row of its address as such; 0: there is none.
    pub address_flags: u32,
}

/// Which endpoints a front end leads to, and how they are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Way {
    /// Which of the two sets of endpoints.
    pub policy: TrafficPolicy,
    /// How their slots are laid out.
    pub spread: Spread,
}

/// How slots are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spread {
    /// As many for each endpoint as it weighs.
    Slots,
    /// A Maglev table.
    Maglev,
}

/// What the rules look at beside the Service itself.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The name of this node.
    pub node_name: &'a str,
    /// Every object.
    pub world: &'a World,
    /// Who claims which front end.
    pub claims: &'a Claims,
    /// The addresses that are the node's own.
    pub own_addresses: &'a BTreeSet<IpAddr>,
    /// How packets reach other nodes, where a Service does not say.
    pub forwarding: Forwarding,
    /// The kernel's clock.
    pub jiffies_per_second: u32,
    /// Whether IPv4 is on.
    pub ipv4: bool,
    /// Whether IPv6 is on.
    pub ipv6: bool,
}

/// What the maps should say about each port of `service`.
pub fn desired(service: &Service, around: Surroundings<'_>) -> Vec<DesiredPort> {
    let port = |port| DesiredPort {
        name: service.port_name(port),
        policy: policy::policy(service, around.jiffies_per_second),
        v4: if around.ipv4 {
            desired_half(service, port, around)
        } else {
            Half::default()
        },
        v6: if around.ipv6 {
            desired_half(service, port, around)
        } else {
            Half::default()
        },
    };
    service.ports.iter().map(port).collect()
}

fn desired_half<F: Family>(service: &Service, port: &ServicePort, around: Surroundings<'_>) -> Half<F> {
    let ranges = ranges::of_service::<F>(service, around);
    let mut frontends: BTreeMap<_, _> = frontends::frontends::<F>(service, port)
        .into_iter()
        .filter(|(key, _)| around.claims.holds(&Claim::of(key), &service.name))
        .map(|(key, kind)| {
            (
                key,
                kind.frontend(key.addr.ip(), service, !ranges.is_empty(), around),
            )
        })
        .collect();
    if frontends.is_empty() {
        return Half::default();
    }
    let pools = split::pools::<F>(service, port, (around.node_name, around.world));
    let uses = |policy| {
        let mut ways = frontends
            .values()
            .flat_map(|frontend| [frontend.outside, frontend.inside]);
        ways.any(|way| way.policy == policy)
    };
    let members = |policy| {
        let pools = pools.iter().filter(|_| uses(policy));
        split::combine(&pools.map(|pool| pool.members(policy)).collect::<Vec<_>>())
    };
    let cluster = members(TrafficPolicy::Cluster);
    let local = members(TrafficPolicy::Local);
    let elsewhere = local.is_empty() && pools.iter().any(|pool| eligible::any(&pool.endpoints));
    for frontend in frontends.values_mut() {
        frontend.flags |= drops(*frontend, elsewhere);
    }
    Half {
        frontends,
        backends: backends(pools, &cluster, &local),
        cluster,
        local,
        ranges,
    }
}

impl DesiredPort {
    /// Whether the internal and the external traffic policy Local leads nowhere in a family, although there are endpoints
    /// on other nodes.
    pub fn without_local(&self, family: IpFamily) -> [bool; 2] {
        match family {
            IpFamily::V4 => without_local(&self.v4),
            IpFamily::V6 => without_local(&self.v6),
        }
    }
}

fn without_local<F: Family>(half: &Half<F>) -> [bool; 2] {
    let any = |cluster_ip: bool, drops: u32| {
        half.frontends.values().any(|frontend| {
            (frontend.flags & ServiceFlags::CLUSTER_IP != 0) == cluster_ip && frontend.flags & drops != 0
        })
    };
    [
        any(true, ServiceFlags::INSIDE_DROPS),
        any(false, ServiceFlags::OUTSIDE_DROPS),
    ]
}

/// Where a policy Local is in force and the endpoints are elsewhere, packets are dropped and not rejected.
fn drops(frontend: Frontend, elsewhere: bool) -> u32 {
    let scopes = [
        (frontend.outside, ServiceFlags::OUTSIDE_DROPS),
        (frontend.inside, ServiceFlags::INSIDE_DROPS),
    ];
    let dropping = scopes
        .into_iter()
        .filter(|(way, _)| elsewhere && way.policy == TrafficPolicy::Local);
    dropping.fold(0, |flags, (_, flag)| flags | flag)
}

fn backends<A: Copy + Ord>(
    pools: Vec<Pool<A>>,
    cluster: &[(Target<A>, u32)],
    local_set: &[(Target<A>, u32)],
) -> BTreeMap<Target<A>, Member> {
    let mut found = Candidates::new();
    for (target, candidate) in pools.into_iter().flat_map(|pool| pool.endpoints) {
        endpoints::add(&mut found, target, candidate);
    }
    let any_serves = found.values().any(|candidate| candidate.conditions.serving);
    let member = |(target, candidate)| {
        let has = |set: &[(Target<A>, u32)]| set.binary_search_by_key(&target, |(other, _)| *other).is_ok();
        let Candidate {
            local,
            pod,
            conditions,
            weight: _,
            for_node: _,
            for_zone: _,
        } = candidate;
        let local_only = has(local_set) && !has(cluster);
        let member = Member {
            state: if local_only || has(cluster) {
                BackendState::Active
            } else if conditions.serving || !any_serves {
                BackendState::NoNew
            } else {
                BackendState::NotServing
            },
            local,
            local_only,
            pod,
        };
        (target, member)
    };
    found.into_iter().map(member).collect()
}

impl<F: Family> Half<F> {
    /// The endpoints that a policy leads to, with their weights.
    pub fn members(&self, policy: TrafficPolicy) -> &[(Target<F::Addr>, u32)] {
        match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        }
    }
}

impl<F: Family> Default for Half<F> {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            backends: BTreeMap::new(),
            cluster: Vec::new(),
            local: Vec::new(),
            ranges: BTreeSet::new(),
        }
    }
}

/// The family that `F` is, at run time.
fn ip_family<F: Family>() -> IpFamily {
    IpFamily::of(F::Addr::default().ip())
}

#[cfg(test)]
mod tests;
