//! Whether the agent keeps up with what changes, and whether the node should get new connections: kube-proxy's health.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::model::IpFamily;

/// How long an update may wait before the agent counts as not healthy: twice kube-proxy's period of synchronisation.
pub(super) const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// What Go prints for a time that is none.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// How each family is doing, and the node.
#[derive(Clone, Debug)]
pub struct Health {
    families: BTreeMap<IpFamily, Progress>,
    node_eligible: bool,
}

/// How one family is doing. It has none before its first update came.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the maps were brought up to date last.
    updated: Option<SystemTime>,
    /// Since when the oldest update waits.
    waiting_since: Option<Instant>,
}

/// The body of `/healthz` and `/livez`, in the order of kube-proxy's fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyReport>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyReport {
    last_updated: String,
    healthy: bool,
}

/// A moment by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// For lengths of time.
    pub(super) instant: Instant,
    /// For people.
    pub(super) time: SystemTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self {
            families: BTreeMap::new(),
            node_eligible: true,
        }
    }
}

impl Health {
    /// Takes note that something of a family is to be written.
    pub fn queued(&mut self, family: IpFamily, at: Instant) {
        let progress = self.families.entry(family).or_default();
        progress.waiting_since.get_or_insert(at);
    }

    /// Takes note that everything of a family is written.
    pub fn updated(&mut self, family: IpFamily, at: SystemTime) {
        let updated = Progress {
            updated: Some(at),
            waiting_since: None,
        };
        self.families.insert(family, updated);
    }

    /// Takes note whether load balancers may send new connections to the node.
    pub fn set_node_eligible(&mut self, eligible: bool) {
        self.node_eligible = eligible;
    }

    /// Whether no update has waited for too long.
    pub(super) fn is_healthy(&self, now: Instant) -> bool {
        self.families.values().all(|progress| progress.is_healthy(now))
    }

    /// The body of `/healthz`, and whether it is a good one: the node counts, too.
    pub(super) fn healthz(&self, now: Moment) -> (bool, String) {
        let healthy = self.is_healthy(now.instant) && self.node_eligible;
        (healthy, self.report(now, healthy, Some(self.node_eligible)))
    }

    /// The body of `/livez`, and whether it is a good one: a restart does not help a node that is about to go.
    pub(super) fn livez(&self, now: Moment) -> (bool, String) {
        let healthy = self.is_healthy(now.instant);
        (healthy, self.report(now, healthy, None))
    }

    fn report(&self, now: Moment, good: bool, node_eligible: Option<bool>) -> String {
        let updated = self
            .families
            .values()
            .filter_map(|progress| progress.updated)
            .max();
        let status = self.families.iter().map(|(family, progress)| {
            let report = FamilyReport {
                last_updated: time(progress.updated),
                healthy: progress.is_healthy(now.instant),
            };
            (family.as_str(), report)
        });
        let report = Report {
            // Like kube-proxy's: who is well was never late.
            last_updated: time(if good { Some(now.time) } else { updated }),
            current_time: time(Some(now.time)),
            node_eligible,
            // Like kube-proxy's: of the agent alone, even where the node decides.
            healthy: self.is_healthy(now.instant),
            status: status.collect(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }
}

impl Progress {
    fn is_healthy(&self, now: Instant) -> bool {
        self.waiting_since
            .is_none_or(|since| now.saturating_duration_since(since) < LONGEST_WAIT)
    }
}

/// A time as Go's JSON has it.
fn time(time: Option<SystemTime>) -> String {
    let Some(time) = time else {
        return NO_TIME.to_owned();
    };
    let text = humantime::format_rfc3339_nanos(time).to_string();
    let digits = text
        .trim_end_matches('Z')
        .trim_end_matches('0')
        .trim_end_matches('.');
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(seconds: u64) -> Moment {
        let start = Moment::now();
        Moment {
            instant: start.instant,
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds),
        }
    }

    fn later(moment: Moment, seconds: u64) -> Moment {
        let time = Duration::from_secs(seconds);
        Moment {
            instant: moment.instant + time,
            time: moment.time + time,
        }
    }

    #[test]
    fn before_anything_came_it_is_well() {
        let health = Health::default();
        let (well, body) = health.healthz(moment(0));
        assert!(well);
        assert_eq!(
            body,
            r#"{"lastUpdated":"2027-01-15T08:00:00Z","currentTime":"2027-01-15T08:00:00Z","nodeEligible":true,"healthy":true}"#
        );
    }

    #[test]
    fn an_update_may_wait_for_a_minute() {
        let start = moment(0);
        let mut health = Health::default();
        health.updated(IpFamily::V4, start.time);
        health.updated(IpFamily::V6, start.time);
        health.queued(IpFamily::V6, later(start, 10).instant);
        // The oldest counts.
        health.queued(IpFamily::V6, later(start, 60).instant);
        assert!(health.livez(later(start, 69)).0);
        let (well, body) = health.livez(later(start, 70));
        assert!(!well);
        assert_eq!(
            body,
            r#"{"lastUpdated":"2027-01-15T08:00:00Z","currentTime":"2027-01-15T08:01:10Z","healthy":false,"status":{"IPv4":{"lastUpdated":"2027-01-15T08:00:00Z","healthy":true},"IPv6":{"lastUpdated":"2027-01-15T08:00:00Z","healthy":false}}}"#
        );
        health.updated(IpFamily::V6, later(start, 71).time);
        let (well, body) = health.livez(later(start, 80));
        assert!(
            well && body.starts_with(r#"{"lastUpdated":"2027-01-15T08:01:20Z""#),
            "{body}"
        );
    }

    #[test]
    fn a_first_update_that_is_never_written_is_not_well() {
        let start = moment(0);
        let mut health = Health::default();
        health.queued(IpFamily::V4, start.instant);
        let (well, body) = health.healthz(later(start, 60));
        assert!(!well);
        assert!(
            body.contains(r#""IPv4":{"lastUpdated":"0001-01-01T00:00:00Z","healthy":false}"#),
            "{body}"
        );
    }

    #[test]
    fn a_node_that_is_about_to_go_is_a_matter_of_healthz_alone() {
        let mut health = Health::default();
        health.set_node_eligible(false);
        let (well, body) = health.healthz(moment(0));
        assert!(
            !well && body.contains(r#""nodeEligible":false,"healthy":true"#),
            "{body}"
        );
        let (well, body) = health.livez(moment(0));
        assert!(well && !body.contains("nodeEligible"), "{body}");
        assert!(health.is_healthy(Instant::now()));
    }

    #[test]
    fn times_have_as_many_digits_as_go_gives_them() {
        let at = |nanos| time(Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)));
        assert_eq!(at(1_000_000_000), "1970-01-01T00:00:01Z");
        assert_eq!(at(10_500_000_000), "1970-01-01T00:00:10.5Z");
        assert_eq!(at(10_000_000_001), "1970-01-01T00:00:10.000000001Z");
    }
}
