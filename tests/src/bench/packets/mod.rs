//! Nanoseconds per packet, by `BPF_PROG_TEST_RUN`.
//!
//! A repeated run gives the program the packet as the run before left it, so a wrapper program restores the packet
//! and then tail-calls the program under test. The wrapper is measured alone, with an empty program to call, in the
//! same rounds, and subtracted. Each measurement checks verdict and counters, so that a number can only come from the
//! path that it names.

mod beside;
mod cases;
mod floors;
mod frame;
mod ground;
mod lab;
mod live;
mod rows;

use std::path::Path;

use anyhow::{Result, ensure};
use serde::Serialize;

pub use beside::{Compared, text as beside_text};
use cases::Case;
use ground::Ground;
use lab::Lab;

use super::table::table;

/// Runs in one round.
const RUNS: u32 = 500_000;
/// Rounds; the minimum and the median are reported.
const ROUNDS: usize = 9;
/// Runs in one round of new flows into a table that has room: two entries each fill less than half of it.
const ROOM_RUNS: u32 = 50_000;
/// Rounds of that, each with a new table.
const ROOM_ROUNDS: usize = 5;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One row for each case, family and number of flows.
    pub cases: Vec<Measured>,
    /// What is compared with: nanoseconds (minimum) of programs that do one thing.
    pub floors: floors::Floors,
    /// Frames a second over veth.
    pub live: live::Live,
}

/// One measured case.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Name of the case.
    pub name: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Flows that the packets belong to in turn. For new flows: clients that they come from in turn.
    pub flows: u16,
    /// Fastest round, wrapper included.
    pub ns_min: u64,
    /// Middle round, wrapper included.
    pub ns_median: u64,
    /// Fastest round of the wrapper alone.
    pub wrapper_ns: u64,
    /// `ns_min` without the wrapper.
    pub net_ns: u64,
}

/// Measures everything, or of the cases those whose name contains `only`; `progress` is told what comes next.
pub fn run(only: &str, progress: impl Fn(&str)) -> Result<Report> {
    let ground = Ground::new()?;
    let mut measured = Vec::new();
    for case in wanted(only) {
        progress(&case.title());
        measured.push(ground.run(|device| measure(&case, device))?);
        if let Some(name) = case.name_with_room() {
            measured.push(ground.run(|device| measure_with_room(&case, name, device))?);
        }
    }
    progress("floors");
    let floors = ground.run(floors::measure)?;
    progress("live frames");
    let live = live::measure(&ground)?;
    Ok(Report {
        cases: measured,
        floors,
        live,
    })
}

/// Measures the cases with the programs of this build and, in turn, with those in the object `other`.
pub fn compare(only: &str, other: &Path, progress: impl Fn(&str)) -> Result<Vec<Compared>> {
    let ground = Ground::new()?;
    let compare = |case: Case| {
        progress(&case.title());
        ground.run(|device| beside::measure(&case, other, device))
    };
    wanted(only).map(compare).collect()
}

fn wanted(only: &str) -> impl Iterator<Item = Case> {
    cases::all()
        .into_iter()
        .filter(move |case| case.name.contains(only))
}

fn measure(case: &Case, device: u32) -> Result<Measured> {
    let mut lab = Lab::new(case, device)?;
    // Fills the flow table, where the case does, and warms the caches.
    for _round in 0..case.warm_up_rounds() {
        lab.run_target(RUNS)?;
    }
    let (mut with, mut alone) = (Vec::new(), Vec::new());
    for _round in 0..ROUNDS {
        alone.push(lab.run_empty(RUNS)?);
        with.push(lab.run_target(RUNS)?);
    }
    sum_up(case, case.name, (with, alone), device)
}

/// New flows into a table that is not full: nothing has to be forgotten for them.
fn measure_with_room(case: &Case, name: &'static str, device: u32) -> Result<Measured> {
    let (mut with, mut alone) = (Vec::new(), Vec::new());
    for _round in 0..ROOM_ROUNDS {
        let mut lab = Lab::new(case, device)?;
        alone.push(lab.run_empty(ROOM_RUNS)?);
        with.push(lab.run_target(ROOM_RUNS)?);
    }
    sum_up(case, name, (with, alone), device)
}

fn sum_up(
    case: &Case,
    name: &'static str,
    (mut with, mut alone): (Vec<u64>, Vec<u64>),
    device: u32,
) -> Result<Measured> {
    with.sort_unstable();
    alone.sort_unstable();
    ensure!(!with.is_empty() && with.len() == alone.len(), "no rounds");
    let (ns_min, ns_median, wrapper_ns) = (with[0], with[with.len() / 2], alone[0]);
    // What the wrapper of the packets that grow has given back.
    let give_back = if case.path.wraps() {
        floors::give_back(device)?
    } else {
        0
    };
    Ok(Measured {
        name,
        family: case.family.name(),
        flows: case.flows,
        ns_min,
        ns_median,
        wrapper_ns,
        net_ns: ns_min.saturating_sub(wrapper_ns + give_back),
    })
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let rows = self.cases.iter().map(|row| {
            let words = [row.name.to_owned(), row.family.to_owned()];
            let numbers = [
                u64::from(row.flows),
                row.ns_min,
                row.ns_median,
                row.wrapper_ns,
                row.net_ns,
            ];
            words
                .into_iter()
                .chain(numbers.map(|number| number.to_string()))
                .collect()
        });
        let header = ["CASE", "FAMILY", "FLOWS", "NS MIN", "NS MEDIAN", "WRAPPER", "NET"];
        format!(
            "{}\nfloors (ns): {}\nlive frames: {}\n",
            table(&header, 2, rows),
            self.floors,
            self.live
        )
    }
}
