//! The agent's own metrics: all but those that the programs count.

use std::time::Duration;

use lb_common::layout::VERSION;
use prometheus::{Histogram, IntCounterVec, IntGaugeVec};

use super::Register;
use crate::dataplane::attach::{Hook, Report, Way};
use crate::dataplane::xdp::{XdpMode, XdpState};
use crate::model::{Kind, Problem, Reason};

/// The agent's own metrics.
#[derive(Clone, Debug)]
pub struct AgentMetrics {
    objects: IntGaugeVec,
    problems: IntGaugeVec,
    problems_told: IntCounterVec,
    events: IntCounterVec,
    event_to_maps: Histogram,
    rows: IntCounterVec,
    programs: IntGaugeVec,
    missing: IntGaugeVec,
    uplinks: IntGaugeVec,
    health_check_ports: IntGaugeVec,
}

/// What became of a Kubernetes Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// The API has it.
    Published,
    /// The same was told a short time ago.
    Repeated,
    /// There were too many about the object, or altogether.
    Limited,
    /// The API refused it, or could not be reached.
    Failed,
    /// There is no API, or the problem is with no Service.
    LoggedOnly,
}

impl EventOutcome {
    const ALL: [Self; 5] = [
        Self::Published,
        Self::Repeated,
        Self::Limited,
        Self::Failed,
        Self::LoggedOnly,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Repeated => "repeated",
            Self::Limited => "limited",
            Self::Failed => "failed",
            Self::LoggedOnly => "logged-only",
        }
    }
}

/// The word for the hook before the network stack.
const XDP: &str = "xdp";

impl AgentMetrics {
    pub(super) fn new(add: Register<'_>) -> prometheus::Result<Self> {
        let metrics = Self {
            objects: add.gauges("sluice_objects", "Objects that the source has told of", &["kind"])?,
            problems: add.gauges(
                "sluice_problems",
                "Problems with objects that could be read, and with the node, as of now",
                &["reason"],
            )?,
            problems_told: add.counters(
                "sluice_problems_told_total",
                "Problems that were logged",
                &["reason"],
            )?,
            events: add.counters(
                "sluice_events_total",
                "Kubernetes Events by what became of them",
                &["outcome"],
            )?,
            event_to_maps: add.histogram(
                "sluice_event_to_maps_seconds",
                "From the first change of a burst until the maps have all of it",
                (0..15).map(|power| 0.0005 * f64::from(1 << power)).collect(),
            )?,
            rows: add.counters(
                "sluice_map_rows_total",
                "Rows of maps that the agent has written or deleted",
                &["operation"],
            )?,
            programs: add.gauges("sluice_programs", "Programs that are attached", &["hook", "way"])?,
            missing: add.gauges(
                "sluice_programs_missing",
                "Programs that could not be attached",
                &["hook"],
            )?,
            uplinks: add.gauges(
                "sluice_uplink_xdp",
                "How XDP is attached at each uplink (native, generic, or why it is not); always 1",
                &["device", "xdp"],
            )?,
            health_check_ports: add.gauges(
                "sluice_health_check_ports",
                "Health-check NodePorts, for each family",
                &["state"],
            )?,
        };
        let build = add.gauges(
            "sluice_build_info",
            "What this agent is; always 1",
            &["version", "layout"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), &VERSION.to_string()])
            .set(1);
        metrics.make_all();
        Ok(metrics)
    }

    fn make_all(&self) {
        for reason in Reason::ALL {
            self.problems.with_label_values(&[reason.as_str()]);
            self.problems_told.with_label_values(&[reason.as_str()]);
        }
        for outcome in EventOutcome::ALL {
            self.events.with_label_values(&[outcome.as_str()]);
        }
        for operation in ["write", "delete"] {
            self.rows.with_label_values(&[operation]);
        }
        self.set_programs(&Report::default());
        self.set_health_check_ports(0, 0);
    }

    /// How many objects of each kind there are.
    pub fn set_objects(&self, counts: &[(Kind, usize)]) {
        for (kind, count) in counts {
            self.objects
                .with_label_values(&[kind.as_str()])
                .set(signed(*count));
        }
    }

    /// How many problems of each kind there are.
    pub fn set_problems(&self, count: impl Fn(Reason) -> usize) {
        for reason in Reason::ALL {
            self.problems
                .with_label_values(&[reason.as_str()])
                .set(signed(count(reason)));
        }
    }

    /// Takes note of a problem that is told.
    pub fn told(&self, problem: &Problem) {
        self.problems_told
            .with_label_values(&[problem.reason.as_str()])
            .inc();
    }

    /// Takes note of what became of an Event.
    pub fn event(&self, outcome: EventOutcome) {
        self.events.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Takes note of a pass.
    pub fn synced(&self, since_event: Option<Duration>, written: usize, deleted: usize) {
        for (operation, rows) in [("write", written), ("delete", deleted)] {
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            self.rows.with_label_values(&[operation]).inc_by(rows);
        }
        if let Some(time) = since_event {
            self.event_to_maps.observe(time.as_secs_f64());
        }
    }

    /// How programs are attached, but for XDP.
    pub fn set_programs(&self, report: &Report) {
        for hook in [Hook::Ingress, Hook::Egress] {
            for way in [Way::Tcx, Way::Clsact] {
                let count = report
                    .ways
                    .iter()
                    .filter(|((_, at), by)| (*at, **by) == (hook, way))
                    .count();
                self.programs
                    .with_label_values(&[hook.as_str(), way.as_str()])
                    .set(signed(count));
            }
        }
        for hook in [Hook::Ingress.as_str(), Hook::Egress.as_str(), XDP] {
            let count = report.failed.keys().filter(|(_, at)| *at == hook).count();
            self.missing.with_label_values(&[hook]).set(signed(count));
        }
    }

    /// How XDP is attached at each uplink, by its name.
    pub fn set_xdp(&self, uplinks: &[(&str, XdpState)]) {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let count = uplinks.iter().filter(|(_, state)| *state == Ok(mode)).count();
            self.programs
                .with_label_values(&[XDP, mode.as_str()])
                .set(signed(count));
        }
        self.uplinks.reset();
        for (device, state) in uplinks {
            let how = match state {
                Ok(mode) => mode.as_str().to_owned(),
                Err(reason) => reason.code(),
            };
            self.uplinks.with_label_values(&[*device, &how]).set(1);
        }
    }

    /// How many health-check ports are open, and how many could not be opened.
    pub fn set_health_check_ports(&self, open: usize, failing: usize) {
        for (state, count) in [("open", open), ("failing", failing)] {
            self.health_check_ports
                .with_label_values(&[state])
                .set(signed(count));
        }
    }
}

#[cfg(test)]
impl AgentMetrics {
    /// How many health-check ports are open, and how many could not be opened.
    pub(crate) fn health_check_ports(&self) -> (i64, i64) {
        let count = |state| self.health_check_ports.with_label_values(&[state]).get();
        (count("open"), count("failing"))
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
