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
