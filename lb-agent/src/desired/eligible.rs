//! Which endpoints get new flows: the ready ones, or, when there is none, those that serve while they terminate. Those of
//! weight 0 get none.

use super::Weighted;
use super::endpoints::{Candidate, Candidates, Hint};

/// Those that the policy Cluster leads to, with their weights: of the ready ones, those that hints prefer for this node.
pub(super) fn cluster<A: Copy>(endpoints: &Candidates<A>) -> Weighted<A> {
    let prefers = preference(endpoints);
    first_of(
        endpoints,
        |candidate| is_ready(candidate) && prefers(candidate),
        is_draining,
    )
}

/// Those that the policy Local leads to, decided without regard to other nodes' endpoints and to hints.
pub(super) fn local<A: Copy>(endpoints: &Candidates<A>) -> Weighted<A> {
    first_of(
        endpoints,
        |candidate| candidate.local && is_ready(candidate),
        |candidate| candidate.local && is_draining(candidate),
    )
}

/// Whether there is an endpoint anywhere that could get new flows.
pub(super) fn any<A>(endpoints: &Candidates<A>) -> bool {
    endpoints
        .values()
        .any(|candidate| candidate.weight > 0 && (is_ready(candidate) || is_draining(candidate)))
}

/// Those that fit, or when there is none, those that are the `next` best.
fn first_of<A: Copy>(
    endpoints: &Candidates<A>,
    fits: impl Fn(&Candidate) -> bool,
    next: impl Fn(&Candidate) -> bool,
) -> Weighted<A> {
    let first = those(endpoints, fits);
    if first.is_empty() {
        those(endpoints, next)
    } else {
        first
    }
}

fn those<A: Copy>(endpoints: &Candidates<A>, fits: impl Fn(&Candidate) -> bool) -> Weighted<A> {
    let found = endpoints
        .iter()
        .filter(|(_, candidate)| candidate.weight > 0 && fits(candidate));
    found
        .map(|(target, candidate)| (*target, candidate.weight))
        .collect()
}

/// Which ready endpoints are preferred: those for this node, else those for this zone, else all. Hints count only when
/// every ready endpoint has one of the kind, so that none is left without clients while the hints are being written; and
/// nothing else is looked at, neither `trafficDistribution` nor annotations (KEP-2433, KEP-3015).
fn preference<A>(endpoints: &Candidates<A>) -> fn(&Candidate) -> bool {
    let ready: Vec<_> = endpoints
        .values()
        .filter(|candidate| candidate.weight > 0 && is_ready(candidate))
        .collect();
    let counts = |hint: fn(&Candidate) -> Hint| {
        let mut hints = ready.iter().map(|candidate| hint(candidate));
        hints.clone().all(|hint| hint != Hint::Absent) && hints.any(|hint| hint == Hint::Here)
    };
    if counts(|candidate| candidate.for_node) {
        |candidate| candidate.for_node == Hint::Here
    } else if counts(|candidate| candidate.for_zone) {
        |candidate| candidate.for_zone == Hint::Here
    } else {
        |_| true
    }
}

fn is_ready(candidate: &Candidate) -> bool {
    candidate.conditions.ready
}

fn is_draining(candidate: &Candidate) -> bool {
    candidate.conditions.serving && candidate.conditions.terminating
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lb_common::{Ip4, Port};

    use super::*;
    use crate::desired::Target;
    use crate::desired::endpoints::{Place, hint};
    use crate::model::Conditions;

    /// Endpoints of the hosts 1, 2, …, written as marks: `n` not ready, `t` terminating, `l` on this node, `0` of no weight,
    /// `@x` a hint for the node x, `#x` one for the zone x.
    fn endpoints(texts: &[&str], here: Place<'_>) -> Candidates<Ip4> {
        let endpoint = |(host, text): (u8, &&str)| {
            let hints = |mark: char| -> Vec<Arc<str>> {
                let found = text.split(' ').filter_map(|word| word.strip_prefix(mark));
                found.map(Into::into).collect()
            };
            let marks = text.split(' ').next().unwrap_or_default();
            let [not_ready, terminating, local, weightless] =
                ['n', 't', 'l', '0'].map(|mark| marks.contains(mark));
            let target = Target {
                addr: Ip4::new([10, 0, 0, host]),
                port: Port::new(80),
            };
            let candidate = Candidate {
                conditions: Conditions {
                    ready: !not_ready && !terminating,
                    serving: !not_ready,
                    terminating,
                },
                local,
                weight: u32::from(!weightless),
                pod: None,
                for_node: hint(&hints('@'), Some(here.node)),
                for_zone: hint(&hints('#'), here.zone),
            };
            (target, candidate)
        };
        (1..).zip(texts).map(endpoint).collect()
    }

    fn hosts(found: &Weighted<Ip4>) -> Vec<u8> {
        found.iter().map(|(target, _)| target.addr.octets[3]).collect()
    }

    /// Compares the hosts that the policies Cluster and Local lead to, on node `me` in zone `z`.
    #[track_caller]
    fn check(texts: &[&str], clustered: &[u8], locals: &[u8]) {
        let here = Place {
            node: "me",
            zone: Some("z"),
        };
        let endpoints = endpoints(texts, here);
        assert_eq!(hosts(&cluster(&endpoints)), clustered);
        assert_eq!(hosts(&local(&endpoints)), locals);
    }

    #[test]
    fn hints_prefer_endpoints_for_this_node_then_for_this_zone() {
        check(&["- @me #z", "- @other #z", "- @other #y"], &[1], &[]);
        check(&["- #z", "- #y #z", "- #y"], &[1, 2], &[]);
        // None for this node: its zone counts.
        check(&["- @a #z", "- @b #y"], &[1], &[]);
        // None for its zone either: all.
        check(&["- @a #x", "- @b #y"], &[1, 2], &[]);
    }

    #[test]
    fn one_ready_endpoint_without_hint_switches_them_off() {
        check(&["- #z", "- #y", "-"], &[1, 2, 3], &[]);
        check(&["- @me #z", "- #z", "- @other #y"], &[1, 2], &[]);
        // Others than ready ones, and those that get nothing, do not matter.
        check(&["- #z", "- #y", "n", "t", "0"], &[1], &[]);
        check(&["n #z", "- #y", "- #x"], &[2, 3], &[]);
    }

    #[test]
    fn hints_are_nothing_to_the_policy_local_and_to_terminating_endpoints() {
        check(&["l #y", "- #z"], &[2], &[1]);
        check(&["t #y", "tl #z"], &[1, 2], &[2]);
    }

    #[test]
    fn a_node_without_zone_prefers_no_zone() {
        let here = Place {
            node: "me",
            zone: None,
        };
        let found = cluster(&endpoints(&["- #z", "- #y"], here));
        assert_eq!(hosts(&found), [1, 2]);
    }
}
