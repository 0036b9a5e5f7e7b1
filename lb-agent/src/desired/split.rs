//! Whose endpoints a Service's traffic goes to: its own, or those of the Services that it is split over, in proportion.

use std::collections::BTreeMap;

use lb_common::Family;

use super::endpoints::{self, Candidates, Place};
use super::{Target, Weighted, eligible};
use crate::model::{ObjectName, Service, ServicePort, TrafficPolicy, World};

/// The endpoints of one Service, and its share.
#[derive(Debug)]
pub(super) struct Pool<A> {
    pub(super) service: ObjectName,
    share: u32,
    pub(super) endpoints: Candidates<A>,
}

/// Weights above this are brought down: their ratios are what counts.
const MAX_MULTIPLE: u64 = 1 << 32;

/// The endpoints that `port` leads to, by the Service that they are of.
pub(super) fn pools<F: Family>(
    service: &Service,
    port: &ServicePort,
    (node_name, world): (&str, &World),
) -> Vec<Pool<F::Addr>> {
    let node = world.node(node_name);
    let here = Place {
        node: node_name,
        zone: node.and_then(|node| node.zone.as_deref()),
    };
    let pool = |name: &ObjectName, port: &ServicePort, share| {
        let slices = world.slices(name).map(|slice| &slice.object);
        Pool {
            service: name.clone(),
            share,
            endpoints: endpoints::endpoints::<F>(port, slices, here),
        }
    };
    if service.options.split.is_empty() {
        return vec![pool(&service.name, port, 1)];
    }
    let shares = service.options.split.iter().zip(service.split_targets());
    shares
        .filter_map(|(share, name)| {
            let target = world.service(&name)?;
            Some(pool(&name, same_port(port, &target.object)?, share.weight))
        })
        .collect()
}

/// Why a port of a Service gets nothing of some that it is split over.
pub fn split_problems(service: &Service, world: &World) -> Vec<String> {
    let mut problems = Vec::new();
    for name in service.split_targets() {
        let Some(target) = world.service(&name) else {
            problems.push(format!("there is no Service {name}"));
            continue;
        };
        let missing = service
            .ports
            .iter()
            .filter(|port| same_port(port, &target.object).is_none());
        problems.extend(missing.map(|port| {
            let port = service.port_name(port);
            format!(
                "Service {name} has no port {}/{}",
                port.port,
                port.protocol.as_str()
            )
        }));
    }
    let told = |problem| format!("sluice.dev/split: {problem}; the others get its share");
    problems.into_iter().map(told).collect()
}

/// The port of `target` that stands for `port`: of the same name and protocol, or else of the same number.
fn same_port<'a>(port: &ServicePort, target: &'a Service) -> Option<&'a ServicePort> {
    let find = |fits: fn(&ServicePort, &ServicePort) -> bool| {
        let mut ports = target.ports.iter();
        ports.find(|other| other.protocol == port.protocol && fits(port, other))
    };
    find(|port, other| port.name == other.name).or_else(|| find(|port, other| port.port == other.port))
}

/// The weights of all `members` together, such that each pool gets its share of the whole, whatever it has of endpoints.
/// A pool without any gives its share to the others.
pub(super) fn combine<A: Copy + Ord>(members: &[(u32, Weighted<A>)]) -> Weighted<A> {
    let sum = |pool: &[(Target<A>, u32)]| pool.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>();
    let used: Vec<_> = members
        .iter()
        .filter(|(share, pool)| *share > 0 && !pool.is_empty())
        .collect();
    let multiple = used.iter().try_fold(1, |multiple: u64, (_, pool)| {
        let sum = sum(pool);
        let multiple = multiple.checked_mul(sum / gcd(multiple, sum))?;
        (multiple <= MAX_MULTIPLE).then_some(multiple)
    });
    let mut weights = BTreeMap::<Target<A>, u64>::new();
    for (share, pool) in used {
        let sum = sum(pool);
        for (target, weight) in pool {
            // Exact where the multiple is one of all sums.
            let scaled = u64::from(*share) * u64::from(*weight) * multiple.unwrap_or(MAX_MULTIPLE) / sum;
            *weights.entry(*target).or_default() += scaled.max(1);
        }
    }
    reduced(weights)
}

/// The same ratios in the smallest numbers.
fn reduced<A>(weights: BTreeMap<Target<A>, u64>) -> Weighted<A> {
    let divisor = weights.values().copied().reduce(gcd).unwrap_or(1);
    let largest = weights.values().max().map_or(0, |weight| weight / divisor);
    let shift = u64::BITS.saturating_sub(largest.leading_zeros() + u32::BITS);
    let small = |weight: u64| {
        u32::try_from((weight / divisor) >> shift)
            .unwrap_or(u32::MAX)
            .max(1)
    };
    weights
        .into_iter()
        .map(|(target, weight)| (target, small(weight)))
        .collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl<A: Copy> Pool<A> {
    /// Those of its endpoints that a policy leads to, under its share.
    pub(super) fn members(&self, policy: TrafficPolicy) -> (u32, Weighted<A>) {
        (self.share, eligible::members(&self.endpoints, policy))
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, Port};

    use super::*;

    /// Combines pools of endpoints `(host, weight)` and compares the weights.
    #[track_caller]
    fn check(pools: &[(u32, &[(u8, u32)])], expected: &[(u8, u32)]) {
        let target = |host| Target {
            addr: Ip4::new([10, 0, 0, host]),
            port: Port::new(80),
        };
        let pools: Vec<_> = pools
            .iter()
            .map(|(share, pool)| {
                let members = pool.iter().map(|(host, weight)| (target(*host), *weight));
                (*share, members.collect())
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(host, weight)| (target(*host), *weight))
            .collect();
        assert_eq!(combine(&pools), expected);
    }

    #[test]
    fn shares_do_not_depend_on_how_many_endpoints_there_are() {
        check(
            &[(90, &[(1, 1), (2, 1), (3, 1)]), (10, &[(4, 1)])],
            &[(1, 3), (2, 3), (3, 3), (4, 1)],
        );
        check(
            &[(90, &[(1, 1)]), (10, &[(4, 1), (5, 1), (6, 1)])],
            &[(1, 27), (4, 1), (5, 1), (6, 1)],
        );
        check(
            &[(1, &[(1, 1), (2, 3)]), (1, &[(3, 7)])],
            &[(1, 1), (2, 3), (3, 4)],
        );
    }

    #[test]
    fn without_endpoints_the_others_get_the_share() {
        check(&[(90, &[]), (10, &[(4, 1), (5, 2)])], &[(4, 1), (5, 2)]);
        check(&[(0, &[(1, 1)]), (10, &[(4, 5)])], &[(4, 1)]);
        check(&[(90, &[]), (10, &[])], &[]);
    }

    #[test]
    fn an_endpoint_of_two_services_gets_both_shares() {
        check(&[(60, &[(1, 1), (2, 1)]), (40, &[(2, 1)])], &[(1, 3), (2, 7)]);
    }

    #[test]
    fn ratios_that_have_no_small_numbers_are_close() {
        let primes = [997, 991, 983, 977, 971, 967];
        let pools: Vec<_> = primes.iter().map(|prime| [(1, *prime), (2, 1), (3, 1)]).collect();
        let pools: Vec<(u32, &[(u8, u32)])> = pools.iter().map(|pool| (1, &pool[..])).collect();
        let target = |host| Target {
            addr: Ip4::new([10, 0, 0, host]),
            port: Port::new(80),
        };
        let members = |pool: &[(u8, u32)]| {
            pool.iter()
                .map(|(host, weight)| (target(*host), *weight))
                .collect()
        };
        let pools: Vec<_> = pools
            .iter()
            .map(|(share, pool)| (*share, members(pool)))
            .collect();
        let weights = combine(&pools);
        let exact: f64 = primes.iter().map(|prime| f64::from(*prime)).sum();
        let ratio = f64::from(weights[0].1) / f64::from(weights[1].1);
        assert!((ratio / (exact / 6.0) - 1.0).abs() < 0.01, "{weights:?}");
    }
}
