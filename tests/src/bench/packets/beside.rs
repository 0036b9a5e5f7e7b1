//! Two builds of the programs in turn: where a machine's pace changes all the time, only their ratio says which is faster.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::cases::Case;
use super::lab::Lab;
use crate::bench::median;
use crate::bench::table::table;

/// Runs in one round: so few that the pace is mostly the same for both.
const RUNS: u32 = 20_000;
/// Runs before them, in which the caches become this build's own.
const WARM_UP: u32 = 2_000;
/// Rounds of each build.
const ROUNDS: usize = 120;

/// One case with two builds.
#[derive(Debug, Serialize)]
pub struct Compared {
    /// Name of the case.
    pub name: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// As of [`super::Measured::flows`].
    pub flows: u16,
    /// Fastest round of this build, wrapper included.
    pub ns_min: u64,
    /// Fastest round of the other build, wrapper included.
    pub other_ns_min: u64,
    /// This build's time by the other's, wrapper included: the middle one of all rounds.
    pub ratio: f64,
}

/// Measures a case with the programs of this build, and with those in the object `other`.
pub(super) fn measure(case: &Case, other: &Path, device: u32) -> Result<Compared> {
    let mut this = Lab::new(case, device)?;
    let mut other = Lab::of(case, device, other)
        .with_context(|| format!("cannot measure the programs of {}", other.display()))?;
    for _round in 0..case.warm_up_rounds() {
        this.run_target(super::RUNS)?;
        other.run_target(super::RUNS)?;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        ours.push(round(&mut this)?);
        theirs.push(round(&mut other)?);
    }
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of one packet")]
    let ratios = ours
        .iter()
        .zip(&theirs)
        .map(|(our, their)| *our as f64 / *their as f64);
    Ok(Compared {
        name: case.name,
        family: case.family.name(),
        flows: case.flows,
        ratio: median(ratios.collect()),
        ns_min: ours.into_iter().min().context("no rounds")?,
        other_ns_min: theirs.into_iter().min().context("no rounds")?,
    })
}

fn round(lab: &mut Lab) -> Result<u64> {
    lab.run_target(WARM_UP)?;
    lab.run_target(RUNS)
}

/// For people.
pub fn text(rows: &[Compared]) -> String {
    let rows = rows.iter().map(|row| {
        vec![
            row.name.to_owned(),
            row.family.to_owned(),
            row.flows.to_string(),
            row.ns_min.to_string(),
            row.other_ns_min.to_string(),
            format!("{:.3}", row.ratio),
        ]
    });
    let header = ["CASE", "FAMILY", "FLOWS", "NS MIN", "OTHER NS MIN", "RATIO"];
    table(&header, 2, rows)
}
