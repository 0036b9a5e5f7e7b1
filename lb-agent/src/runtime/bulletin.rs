//! What the servers are told of the loop: what waits since when, what was written, and how Services stand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use crate::dataplane::attach;
use crate::dataplane::xdp::XdpState;
use crate::events::Events;
use crate::model::{IpFamily, Object, Problem};
use crate::reconcile::{Pipe, Report};
use crate::serve::Publisher;
use crate::source::SourceEvent;

/// Tells the servers.
#[derive(Debug)]
pub(super) struct Bulletin {
    publisher: Publisher,
    events: Events,
    /// The families that are on.
    families: Vec<IpFamily>,
    /// Whether the node's object must be there.
    node_required: bool,
    /// Changes from before are no measure of this agent.
    started: SystemTime,
    /// When the first change came that is not written yet.
    since: Option<Instant>,
    waiting: BTreeSet<IpFamily>,
    /// When changes of endpoints happened that are not written yet.
    programming: Vec<(IpFamily, SystemTime)>,
    synced_before: bool,
}

/// What matters of an event of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Service,
    Endpoints(IpFamily, Option<SystemTime>),
    /// Anything else that may have to be written.
    Other,
    Nothing,
}

impl Seen {
    pub(super) fn of(event: &SourceEvent) -> Self {
        match event {
            SourceEvent::Apply { object, .. } => match object {
                Object::Service(_) => Self::Service,
                Object::EndpointSlice(slice) => Self::Endpoints(slice.family, slice.changed_at),
                Object::Node(_) | Object::Namespace(_) | Object::ServiceCidr(_) => Self::Other,
            },
            SourceEvent::Delete(_) | SourceEvent::Synced => Self::Other,
            SourceEvent::Problem(_) => Self::Nothing,
        }
    }
}

impl Bulletin {
    pub(super) fn new(
        publisher: Publisher,
        events: Events,
        families: Vec<IpFamily>,
        node_required: bool,
    ) -> Self {
        Self {
            publisher,
            events,
            families,
            node_required,
            started: SystemTime::now(),
            since: None,
            waiting: BTreeSet::new(),
            programming: Vec::new(),
            synced_before: false,
        }
    }

    /// Takes note of a change of an object.
    pub(super) fn changed(&mut self, seen: Seen) {
        let proxy = &self.publisher.metrics.proxy;
        match seen {
            Seen::Nothing => return,
            Seen::Service => proxy.service_changed(),
            Seen::Endpoints(family, at) => {
                proxy.endpoints_changed();
                let at = at.filter(|at| *at > self.started);
                self.programming.extend(at.map(|at| (family, at)));
                self.queued(&[family]);
                return;
            }
            Seen::Other => {}
        }
        self.anything_changed();
    }

    /// Takes note of a change that may concern both families.
    pub(super) fn anything_changed(&mut self) {
        self.queued(&self.families.clone());
    }

    fn queued(&mut self, families: &[IpFamily]) {
        let now = Instant::now();
        self.since.get_or_insert(now);
        for family in families.iter().filter(|family| self.families.contains(family)) {
            self.publisher.metrics.proxy.queued(*family);
            if self.waiting.insert(*family) {
                self.publisher
                    .health
                    .send_modify(|health| health.queued(*family, now));
            }
        }
    }

    /// Takes note of a pass over the maps: what it wrote, and in which time.
    pub(super) fn synced(&mut self, pipe: &Pipe, report: &mut Report, took: Duration) {
        for problem in &report.problems {
            self.tell(problem);
        }
        let changed = self.since.take();
        let Publisher {
            health,
            checks,
            metrics,
        } = &self.publisher;
        let since = changed.map(|since| since.elapsed());
        metrics.agent.synced(since, report.written, report.deleted);
        let written = |family: &&IpFamily| !report.unwritten.contains(family);
        if since.is_some() {
            for family in &self.families {
                metrics.proxy.synced(*family, took, !self.synced_before);
            }
            for (family, at) in self.programming.extract_if(.., |(family, _)| written(&&*family)) {
                metrics.proxy.programmed(family, at);
            }
            self.synced_before |= pipe.is_synced();
        }
        health.send_modify(|health| {
            for family in self.families.iter().filter(written) {
                health.updated(*family, SystemTime::now());
            }
            health.set_node_eligible(pipe.node_is_eligible(self.node_required));
        });
        for family in self.families.iter().filter(written) {
            if pipe.is_synced() {
                metrics.proxy.updated(*family);
            }
            metrics
                .proxy
                .set_without_local(*family, pipe.without_local(*family));
        }
        self.waiting.retain(|family| report.unwritten.contains(family));
        let checked = std::mem::take(&mut report.health_checks);
        let at = pipe.health_check_ips();
        checks.send_if_modified(|checks| {
            let modified = !checked.is_empty() || checks.at != at;
            checks.at = at;
            for (service, check) in checked {
                match check {
                    Some(check) => _ = checks.services.insert(service, check),
                    None => _ = checks.services.remove(&service),
                }
            }
            modified
        });
        metrics.agent.set_objects(&pipe.object_counts());
        let problems = pipe.problem_counts();
        metrics
            .agent
            .set_problems(|reason| problems.get(&reason).copied().unwrap_or_default());
    }

    /// Tells a problem.
    pub(super) fn tell(&self, problem: &Problem) {
        self.events.tell(problem);
    }

    /// Takes note of how programs are attached.
    pub(super) fn attached(&self, report: &attach::Report) {
        if report.complete {
            self.publisher.metrics.agent.set_programs(report);
        }
    }

    /// Takes note of how XDP is attached at each uplink.
    pub(super) fn xdp_attached(&self, uplinks: &[(&str, XdpState)]) {
        self.publisher.metrics.agent.set_xdp(uplinks);
    }
}
