//! Which endpoints get new flows: the ready ones, or, when there is none, those that serve while they terminate. Those of
//! weight 0 get none.

use super::Weighted;
use super::endpoints::{Candidate, Candidates};

/// Those that the policy Cluster leads to, with their weights.
pub(super) fn cluster<A: Copy>(endpoints: &Candidates<A>) -> Weighted<A> {
    eligible(endpoints, |_| true)
}

/// Those that the policy Local leads to, decided without regard to other nodes' endpoints.
pub(super) fn local<A: Copy>(endpoints: &Candidates<A>) -> Weighted<A> {
    eligible(endpoints, |candidate| candidate.local)
}

/// Whether there is an endpoint anywhere that could get new flows.
pub(super) fn any<A>(endpoints: &Candidates<A>) -> bool {
    endpoints
        .values()
        .any(|candidate| candidate.weight > 0 && (is_ready(candidate) || is_draining(candidate)))
}

fn eligible<A: Copy>(endpoints: &Candidates<A>, counts: impl Fn(&Candidate) -> bool) -> Weighted<A> {
    let those = |fit: fn(&Candidate) -> bool| -> Vec<_> {
        let found = endpoints
            .iter()
            .filter(|(_, candidate)| candidate.weight > 0 && counts(candidate) && fit(candidate));
        found
            .map(|(target, candidate)| (*target, candidate.weight))
            .collect()
    };
    let ready = those(is_ready);
    if ready.is_empty() {
        those(is_draining)
    } else {
        ready
    }
}

fn is_ready(candidate: &Candidate) -> bool {
    candidate.conditions.ready
}

fn is_draining(candidate: &Candidate) -> bool {
    candidate.conditions.serving && candidate.conditions.terminating
}
