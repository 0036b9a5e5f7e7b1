//! After the writes: what is in use no more, what failed, what to tell, and when to go on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lb_common::Settings;

use super::{Pass, Pipe, RETRY, Report, chain};
use crate::desired::node::{prefix_problems, service_prefixes};
use crate::model::{ObjectName, Origin, PortName, Problem, Reason};
use crate::reconcile::apply::Outcome;
use crate::reconcile::plan::NODE;
use crate::reconcile::problems;
use crate::store::StoreError;

// === impl Pipe ===

impl Pipe {
    /// Draws the conclusions from what was written: what is in use no more, what failed, what to tell.
    pub(super) fn finish(&mut self, mut pass: Pass, now: Instant) -> Report {
        for (id, name) in &pass.ports {
            self.image.settle(*id, name.as_ref(), &self.rows, now);
        }
        let Outcome {
            written,
            deleted,
            failed,
            held_up,
            unwritten,
            took: writing,
        } = std::mem::take(&mut pass.outcome);
        let mut node: BTreeSet<_> = self.node_problems().collect();
        let mut node_failed = false;
        for (id, error) in &failed {
            match pass.ports.get(id) {
                Some(Some(name)) => {
                    let text = format!("{}; its last good state stays", chain(error));
                    let problem = self.problem(name, &text);
                    pass.problems
                        .entry(name.service.clone())
                        .or_default()
                        .insert(problem);
                }
                Some(None) => self.strays.push(*id),
                None if *id == NODE => node_failed |= node.insert(node_failure(error)),
                // Nobody's row: it is tried again in every pass.
                None => {}
            }
        }
        let unfinished = failed
            .keys()
            .chain(&held_up)
            .filter_map(|id| pass.ports.get(id)?.as_ref());
        pass.failing.extend(unfinished.map(|name| name.service.clone()));
        let made_room = written + deleted > 0 && pass.has_finished();
        self.problems.update(&ObjectName::new("", ""), node);
        for (service, problems) in pass.problems {
            self.failing.remove(&service);
            self.problems.update(&service, problems);
        }
        self.failing.extend(pass.failing);
        let retry_after = self.retry_after(node_failed, made_room);
        Report {
            written,
            deleted,
            writing,
            problems: self.problems.take(),
            health_checks: self.standing.take_changed(),
            unwritten,
            retry_after,
            expire_after: self.expire_after(now),
        }
    }

    fn expire_after(&self, now: Instant) -> Option<Duration> {
        let first = self.image.first_removed()?;
        let at = first.checked_add(self.config.removed_grace)?;
        // A moment later, so that it has surely come.
        Some(at.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn retry_after(&mut self, node_failed: bool, made_room: bool) -> Option<Duration> {
        if self.failing.is_empty() && self.strays.is_empty() && !node_failed {
            self.retries = 0;
            return None;
        }
        // Each such pass finishes a Service that others waited for, so this comes to an end.
        if made_room && !self.failing.is_empty() {
            return Some(Duration::ZERO);
        }
        let (first, longest) = RETRY;
        Some(first.saturating_mul(1 << self.retries.min(16)).min(longest))
    }

    /// What is the matter with the node as it is set up.
    fn node_problems(&self) -> impl Iterator<Item = Problem> {
        let Settings {
            snat_port_min: min,
            snat_port_max: max,
            ..
        } = self.config.settings;
        let overlap = self
            .node_ports()
            .filter(|(low, high)| *low <= max && min <= *high);
        let overlap = overlap.map(|(low, high)| {
            format!(
                "NodePorts {low}-{high} overlap --snat-ports {min}-{max}: replies to the node may be taken for \
                 connections to services; choose other source ports"
            )
        });
        let service_prefixes = service_prefixes(&self.world, &self.config.prefixes);
        let texts = prefix_problems(&service_prefixes).into_iter().chain(overlap);
        texts.map(|text| Problem {
            object: None,
            origin: Origin::default(),
            reason: Reason::NodeSetup,
            text,
        })
    }

    pub(super) fn problem(&self, port: &PortName, what: &dyn std::fmt::Display) -> Problem {
        let origin = self
            .world
            .service(&port.service)
            .map(|known| known.origin.clone());
        Problem {
            object: Some(problems::reference(&port.service)),
            origin: origin.unwrap_or_default(),
            reason: Reason::NotProgrammed,
            text: format!("port {}/{}: {what}", port.port, port.protocol.as_str()),
        }
    }
}

/// What belongs to no object stands under the empty name.
fn node_failure(error: &StoreError) -> Problem {
    let text = format!("The node's own rows: {}; tried again soon", chain(error));
    Problem {
        object: None,
        origin: Origin::default(),
        reason: Reason::NotProgrammed,
        text,
    }
}
