//! By what the endpoint was chosen.

use lb_common::{Counter, ServiceFlags};

use super::super::walk::Entry;
use super::Findings;

impl Findings {
    /// In one word.
    pub(super) fn chosen_by(&self, entry: &Entry) -> &'static str {
        let counters = &self.walk.counters;
        let same = |before: Entry| before.backend == entry.backend;
        if self.walk.before.is_some_and(same) && !counters.contains(&Counter::FlowOpened) {
            return "existing-flow";
        }
        let Some(met) = &self.front_end else {
            return "hash";
        };
        if counters.contains(&Counter::AffinityHit) {
            "affinity"
        } else if met.front_end.has(ServiceFlags::AFFINITY) {
            "affinity-hash"
        } else {
            met.algorithm
        }
    }

    pub(super) fn choice_step(&self, entry: &Entry, by: &str) -> String {
        let endpoints = self.front_end.iter().flat_map(|met| &met.endpoints);
        let pod = endpoints
            .filter(|endpoint| endpoint.address == entry.backend)
            .find_map(|endpoint| endpoint.pod.as_deref());
        let pod = pod.map(|pod| format!(" ({pod})")).unwrap_or_default();
        let seconds = self.front_end.as_ref().map_or(0, |met| met.affinity_seconds);
        let how = match by {
            "existing-flow" => "there is a connection with these addresses and ports already, and it is its endpoint".to_owned(),
            "affinity" => format!("the client was there within the last {seconds} seconds (sessionAffinity ClientIP)"),
            "affinity-hash" => format!(
                "by a hash of the client's address; it stays for {seconds} seconds after its last connection \
                 (sessionAffinity ClientIP)"
            ),
            "round-robin" => "in turn; the next connection gets another one".to_owned(),
            "least-connections" => "of two that a hash names, the one with fewer connections".to_owned(),
            "maglev" => "by its place in a Maglev table, by a hash of addresses and ports; another port may give another".to_owned(),
            _ => "by a hash of addresses and ports; another port may give another".to_owned(),
        };
        format!("Chosen is {}{pod}: {how}.", entry.backend)
    }
}
