//! Which endpoints get new flows: the ready ones, or, when there is none, those that serve while they terminate. Those of
//! weight 0 get none.

use super::Weighted;
use super::endpoints::{Candidate, Candidates, Hint};
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
    /// Its hints are for other nodes, and there are endpoints with one for this node.
    HintedElsewhere,
    /// Its hints are for other zones, and there are endpoints with one for this zone.
    OtherZone,
}

/// Those that a policy leads to, with their weights. The policy Local is decided without regard to other nodes' endpoints
/// and to hints.
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
    let ready = endpoints
        .values()
        .filter(|candidate| is_out(candidate).is_none() && candidate.conditions.ready);
    let ready: Vec<_> = ready.collect();
    let some_ready = !ready.is_empty();
    let passed_over = match policy {
        TrafficPolicy::Cluster => preference(&ready),
        TrafficPolicy::Local => |_: &Candidate| None,
    };
    move |candidate| {
        let conditions = candidate.conditions;
        if let Some(why) = is_out(candidate) {
            Standing::LeftOut(why)
        } else if conditions.ready {
            passed_over(candidate).map_or(Standing::Ready, Standing::LeftOut)
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

/// Which ready endpoints are preferred: those for this node, else those for this zone, else all; why another is passed over.
/// Hints count only when every ready endpoint has one of the kind, so that none is left without clients while the hints are
/// being written; and nothing else is looked at, neither `trafficDistribution` nor annotations (KEP-2433, KEP-3015).
fn preference(ready: &[&Candidate]) -> fn(&Candidate) -> Option<LeftOut> {
    let counts = |hint: fn(&Candidate) -> Hint| {
        let mut hints = ready.iter().map(|candidate| hint(candidate));
        hints.clone().all(|hint| hint != Hint::Absent) && hints.any(|hint| hint == Hint::Here)
    };
    if counts(|candidate| candidate.for_node) {
        |candidate| (candidate.for_node != Hint::Here).then_some(LeftOut::HintedElsewhere)
    } else if counts(|candidate| candidate.for_zone) {
        |candidate| (candidate.for_zone != Hint::Here).then_some(LeftOut::OtherZone)
    } else {
        |_| None
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
            Self::HintedElsewhere => "its hints are for other nodes, and others are hinted for this one",
            Self::OtherZone => "its hints are for other zones, and others are hinted for this one",
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
            Self::HintedElsewhere => "hinted-elsewhere",
            Self::OtherZone => "other-zone",
        }
    }
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
        assert_eq!(hosts(&members(&endpoints, TrafficPolicy::Cluster)), clustered);
        assert_eq!(hosts(&members(&endpoints, TrafficPolicy::Local)), locals);
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
        let found = members(&endpoints(&["- #z", "- #y"], here), TrafficPolicy::Cluster);
        assert_eq!(hosts(&found), [1, 2]);
    }
}
