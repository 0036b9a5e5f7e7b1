//! What came out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::flows::Packet;
use super::walk::Entry;

/// What came out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many packets went as they should, differences on purpose included.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// Where Sluice differs from the file on purpose.
    pub deviations: Vec<Deviation>,
    /// What is wrong.
    pub failures: Vec<Failure>,
}

/// A packet that goes another way than with kube-proxy, on purpose.
#[derive(Clone, Debug, Serialize)]
pub struct Deviation {
    /// The scenario.
    pub scenario: String,
    /// The packet.
    pub packet: String,
    /// Why.
    pub reason: &'static str,
}

/// A packet that goes another way than it should.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// The scenario.
    pub scenario: String,
    /// The packet.
    pub packet: String,
    /// How it met the programs; `None` when it could not be tried.
    pub entry: Option<Entry>,
    /// What should have become of it.
    pub expected: String,
    /// What did.
    pub found: String,
    /// What the agent has warned of.
    pub warnings: Vec<String>,
}

impl Report {
    /// Takes note of a packet, with all that differs.
    pub(super) fn add(
        &mut self,
        scenario: &str,
        packet: &Packet,
        on_purpose: BTreeSet<&'static str>,
        failures: Vec<Failure>,
    ) {
        if !failures.is_empty() {
            self.failed += 1;
            self.failures.extend(failures);
            return;
        }
        self.passed += 1;
        self.deviations
            .extend(on_purpose.into_iter().map(|reason| Deviation {
                scenario: scenario.to_owned(),
                packet: format!("{} ({packet})", packet.name),
                reason,
            }));
    }

    /// Takes note of a scenario that could not be tried: all of its packets have failed.
    pub(super) fn cannot_try(&mut self, scenario: &Value, error: &str) {
        let packets = scenario["packets"].as_array().map_or(0, Vec::len);
        self.failed += packets.max(1);
        self.failures.push(Failure {
            scenario: scenario["name"].as_str().unwrap_or("without name").to_owned(),
            packet: format!("all {packets} packets"),
            entry: None,
            expected: "a scenario that can be tried".to_owned(),
            found: error.to_owned(),
            warnings: Vec::new(),
        });
    }

    /// How many packets differ for each reason.
    fn reasons(&self) -> BTreeMap<&'static str, usize> {
        let mut reasons = BTreeMap::new();
        for deviation in &self.deviations {
            *reasons.entry(deviation.reason).or_default() += 1;
        }
        reasons
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Failure {
            scenario,
            packet,
            entry,
            expected,
            found,
            warnings,
        } in &self.failures
        {
            writeln!(f, "FAILED {scenario}")?;
            match entry {
                Some(entry) => writeln!(f, "  packet    {packet}, {entry}")?,
                None => writeln!(f, "  packet    {packet}")?,
            }
            writeln!(f, "  expected  {expected}\n  found     {found}")?;
            for warning in warnings {
                writeln!(f, "  warning   {warning}")?;
            }
        }
        for Deviation {
            scenario,
            packet,
            reason,
        } in &self.deviations
        {
            writeln!(f, "differs on purpose: {scenario}: {packet}: {reason}")?;
        }
        for (reason, count) in self.reasons() {
            writeln!(f, "{count} differ on purpose: {reason}")?;
        }
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UplinkTc => "at the uplink, TC",
            Self::UplinkXdp => "at the uplink, XDP",
            Self::Pod => "at the pod's device, TC",
            Self::Node => "from the node, TC egress",
        })
    }
}
