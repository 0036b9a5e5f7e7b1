//! What a person should mend about Services, told once while it stays the same.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use crate::desired::{Claims, split_problems};
use crate::model::{EndpointSlice, Kind, Known, ObjectName, ObjectRef, Problem, Reason, World};

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Problems {
    told: BTreeMap<ObjectName, BTreeSet<Problem>>,
    new: Vec<Problem>,
}

impl Problems {
    /// Adds what is told in any case.
    pub(super) fn add(&mut self, problem: Problem) {
        self.new.push(problem);
    }

    /// Makes `now` the problems about a Service; those that are not known yet will be told.
    pub(super) fn update(&mut self, service: &ObjectName, now: BTreeSet<Problem>) {
        let told = self.told.remove(service).unwrap_or_default();
        self.new.extend(now.difference(&told).cloned());
        if !now.is_empty() {
            self.told.insert(service.clone(), now);
        }
    }

    /// How many there are of each kind.
    pub(super) fn counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        for problem in self.told.values().flatten() {
            *counts.entry(problem.reason).or_default() += 1;
        }
        counts
    }

    /// What is to be told now.
    pub(super) fn take(&mut self) -> Vec<Problem> {
        mem::take(&mut self.new)
    }
}

/// What is the matter with a Service and its slices as objects.
pub(super) fn of_objects(
    service: &ObjectName,
    world: &World,
    claims: &Claims,
    tell_orphans: bool,
) -> BTreeSet<Problem> {
    let Some(known) = world.service(service) else {
        return slices_without(service, world).filter(|_| tell_orphans).collect();
    };
    let lost = claims.lost_by(service).map(|(claim, holder)| {
        let text = format!(
            "{claim} is also a front end of Service {holder}, which comes first by name and keeps it; \
             remove it from one of them"
        );
        Problem {
            object: Some(reference(service)),
            origin: known.origin.clone(),
            reason: Reason::FrontendConflict,
            text,
        }
    });
    let has_ports = !known.object.ports.is_empty();
    let foreign = world
        .slices(service)
        .filter(|slice| has_ports && !known.object.has_family(slice.object.family));
    let foreign = foreign.map(|slice| {
        let family = slice.object.family;
        let text = format!(
            "left out: Service {service} has no {family} ClusterIP, so {family} endpoints are not used"
        );
        of_slice(slice, text)
    });
    let split = split_problems(&known.object, world)
        .into_iter()
        .map(|text| Problem {
            object: Some(reference(service)),
            origin: known.origin.clone(),
            reason: Reason::SplitIncomplete,
            text,
        });
    lost.chain(foreign).chain(split).collect()
}

/// How a Service is referred to.
pub(super) fn reference(service: &ObjectName) -> ObjectRef {
    ObjectRef {
        kind: Kind::Service,
        name: service.clone(),
    }
}

fn slices_without(service: &ObjectName, world: &World) -> impl Iterator<Item = Problem> {
    world.slices(service).map(move |slice| {
        let text = format!(
            "left out: there is no Service {service}; add it, or mend the label kubernetes.io/service-name"
        );
        of_slice(slice, text)
    })
}

fn of_slice(slice: &Known<EndpointSlice>, text: String) -> Problem {
    let object = ObjectRef {
        kind: Kind::EndpointSlice,
        name: slice.object.name.clone(),
    };
    Problem {
        object: Some(object),
        origin: slice.origin.clone(),
        reason: Reason::EndpointsIgnored,
        text,
    }
}
