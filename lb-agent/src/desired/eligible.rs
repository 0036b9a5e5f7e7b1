//! Which endpoints get new flows: the ready ones, or, when there is none, those that serve while they terminate. Those of
//! weight 0 get none.

use super::Weighted;
use super::endpoints::{Candidate, Candidates};
use crate::model::TrafficPolicy;

/// Whether an endpoint gets new flows under a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does: it is ready.
    Ready,
    /// It does, for want of ready ones: it still serves while it terminates.
    Fallback,
    /// It does not.
    LeftOut(LeftOut),
}

/// Why an endpoint gets no new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// It is not ready.
    NotReady,
    /// It terminates, and there are ready ones.
    Terminating,
    /// It terminates and does not serve any more.
    NotServing,
    /// Its weight is 0.
    NoWeight,
    /// The policy Local is in force, and it is on another node.
    OtherNode,
}

/// Those that a policy leads to, with their weights. The policy Local is decided without regard to other nodes' endpoints.
pub(super) fn members<A: Copy>(endpoints: &Candidates<A>, policy: TrafficPolicy) -> Weighted<A> {
    let standing = standing(endpoints, policy);
    let found = endpoints
        .iter()
        .filter(|(_, candidate)| !matches!(standing(candidate), Standing::LeftOut(_)));
    found
        .map(|(target, candidate)| (*target, candidate.weight))
        .collect()
}

/// Whether there is an endpoint anywhere that could get new flows.
pub(super) fn any<A>(endpoints: &Candidates<A>) -> bool {
    let standing = standing(endpoints, TrafficPolicy::Cluster);
    endpoints
        .values()
        .any(|candidate| !matches!(standing(candidate), Standing::LeftOut(_)))
}

/// THE RULE: how each of these endpoints stands under a policy.
pub(super) fn standing<A>(
    endpoints: &Candidates<A>,
    policy: TrafficPolicy,
) -> impl Fn(&Candidate) -> Standing + use<A> {
    let is_out = move |candidate: &Candidate| {
        if candidate.weight == 0 {
            Some(LeftOut::NoWeight)
        } else if policy == TrafficPolicy::Local && !candidate.local {
            Some(LeftOut::OtherNode)
        } else {
            None
        }
    };
    let some_ready = endpoints
        .values()
        .any(|candidate| is_out(candidate).is_none() && candidate.conditions.ready);
    move |candidate| {
        let conditions = candidate.conditions;
        if let Some(why) = is_out(candidate) {
            Standing::LeftOut(why)
        } else if conditions.ready {
            Standing::Ready
        } else if !conditions.terminating {
            Standing::LeftOut(LeftOut::NotReady)
        } else if !conditions.serving {
            Standing::LeftOut(LeftOut::NotServing)
        } else if some_ready {
            Standing::LeftOut(LeftOut::Terminating)
        } else {
            Standing::Fallback
        }
    }
}

impl LeftOut {
    /// For people, after "left out: ".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating, while others are ready",
            Self::NotServing => "terminating, and serves no more",
            Self::NoWeight => "its slice has weight 0",
            Self::OtherNode => "on another node, and the policy is Local",
        }
    }

    /// For programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotReady => "not-ready",
            Self::Terminating => "terminating",
            Self::NotServing => "not-serving",
            Self::NoWeight => "no-weight",
            Self::OtherNode => "other-node",
        }
    }
}
