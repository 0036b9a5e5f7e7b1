//! Which endpoints get new flows: the ready ones, or, when there is none, those that serve while they terminate.

use std::collections::BTreeMap;

use super::Target;
use super::endpoints::Candidate;

/// Those that the policy Cluster leads to.
pub(super) fn cluster<A: Copy>(endpoints: &BTreeMap<Target<A>, Candidate>) -> Vec<Target<A>> {
    eligible(endpoints, |_| true)
}

/// Those that the policy Local leads to, decided without regard to other nodes' endpoints.
pub(super) fn local<A: Copy>(endpoints: &BTreeMap<Target<A>, Candidate>) -> Vec<Target<A>> {
    eligible(endpoints, |candidate| candidate.local)
}

fn eligible<A: Copy>(
    endpoints: &BTreeMap<Target<A>, Candidate>,
    counts: impl Fn(&Candidate) -> bool,
) -> Vec<Target<A>> {
    let those = |fit: fn(&Candidate) -> bool| -> Vec<_> {
        let found = endpoints
            .iter()
            .filter(|(_, candidate)| counts(candidate) && fit(candidate));
        found.map(|(target, _)| *target).collect()
    };
    let ready = those(|candidate| candidate.conditions.ready);
    if ready.is_empty() {
        return those(|candidate| candidate.conditions.serving && candidate.conditions.terminating);
    }
    ready
}
