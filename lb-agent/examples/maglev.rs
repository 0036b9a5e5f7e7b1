//! How even Maglev tables are, and how much of them moves when one endpoint of many goes:
//! `cargo run --release -p lb-agent --example maglev`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lb_agent::desired::Target;
use lb_agent::image::maglev;
use lb_common::{Ip4, Port};

const SEED: u64 = 7;
/// Endpoints that go, one at a time.
const ROUNDS: u32 = 20;

type Members = Vec<(Target<Ip4>, u32)>;

fn main() {
    println!(
        "| endpoints | slots | slots each | most, above the mean | fewest, below the mean | others' slots that move, mean | worst | made in |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for count in [2, 3, 5, 10, 20, 40, 100, 160, 400, 655, 1310] {
        let members = members(count);
        for size in maglev::SIZES {
            if size >= 50 * count && size <= 800 * count || best(&members) == size {
                row(&members, count, size);
            }
        }
    }
}

/// Prints what a table of `size` slots is like for these endpoints.
fn row(members: &Members, count: u32, size: u32) {
    let (table, made) = timed(|| maglev::table(size, SEED, members));
    let mut shares = BTreeMap::<u32, u32>::new();
    for member in &table {
        *shares.entry(*member).or_default() += 1;
    }
    let mean = f64::from(size) / f64::from(count);
    let most = shares.values().max().copied().map_or(0.0, f64::from);
    let fewest = shares.values().min().copied().map_or(0.0, f64::from);
    let moved: Vec<f64> = (0..count)
        .step_by(count.div_ceil(ROUNDS) as usize)
        .map(|gone| moved(members, &table, size, gone as usize))
        .collect();
    let worst = moved.iter().copied().fold(0.0, f64::max);
    let (sum, rounds) = moved
        .iter()
        .fold((0.0, 0.0), |(sum, rounds), moved| (sum + moved, rounds + 1.0));
    println!(
        "| {count} | {size}{} | {mean:.0} | {:.2} % | {:.2} % | {:.2} % | {:.2} % | {:.2} ms |",
        if best(members) == size { " (default)" } else { "" },
        100.0 * (most / mean - 1.0),
        100.0 * (1.0 - fewest / mean),
        100.0 * sum / rounds,
        100.0 * worst,
        made.as_secs_f64() * 1000.0,
    );
}

/// Which part of the slots that the others had is another's when `gone` has gone.
fn moved(members: &Members, before: &[u32], size: u32, gone: usize) -> f64 {
    let mut left = members.clone();
    left.remove(gone);
    let after = maglev::table(size, SEED, &left);
    let place = |member: u32| member as usize - usize::from(member as usize > gone);
    let others = before
        .iter()
        .zip(&after)
        .filter(|(before, _)| **before as usize != gone);
    let (mut all, mut moved) = (0.0, 0.0);
    for (before, after) in others {
        all += 1.0;
        if place(*before) != *after as usize {
            moved += 1.0;
        }
    }
    moved / all
}

fn members(count: u32) -> Members {
    let target = |number: u32| Target {
        addr: Ip4::new((0x0af4_0000 + number).to_be_bytes()),
        port: Port::new(8080),
    };
    (1..=count).map(|number| (target(number), 1)).collect()
}

fn best(members: &Members) -> u32 {
    let weights = members.iter().map(|(_, weight)| *weight);
    maglev::sizes(weights, 131_071).next().unwrap_or_default()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}
