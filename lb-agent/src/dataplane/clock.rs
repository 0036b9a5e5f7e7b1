//! How many jiffies the kernel counts in a second: measured, because no kernel tells.

use std::thread;
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lb_common::layout::program;

use super::{DataplaneError, Sizes, load_apart};

/// Two readings must be so far apart that some hundred microseconds more or less cannot make one rate look like another.
const APART: Duration = Duration::from_millis(20);
/// A jiffy of the slowest usual clock, and half of one more.
const LONGEST_JIFFY: Duration = Duration::from_millis(15);
/// What kernels are configured with (`CONFIG_HZ`).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// The bits of the clock that [`program::JIFFIES`] tells.
pub(super) const MASK: u32 = 0x7fff_ffff;

/// Where the clock stands: its low 31 bits. Its program is loaded for that, with maps of one row, and forgotten.
pub fn now() -> Result<u32, DataplaneError> {
    let least = Sizes {
        services: 1,
        slots: 1,
        backends: 1,
        flows: 1,
        ipv4: false,
        ipv6: false,
    };
    jiffies(load_apart(None, &least)?.get(program::JIFFIES)?)
}

/// Jiffies from `then`, of which the low 31 bits count, to `now`, when that is later. After 2^31 it begins anew.
pub const fn since(then: u32, now: u32) -> u32 {
    now.wrapping_sub(then) & MASK
}

/// A first reading of the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub struct FirstReading(Reading);

/// The clock, and when it was seen to tick.
#[derive(Clone, Copy, Debug)]
struct Reading {
    jiffies: u32,
    at: Instant,
}

impl FirstReading {
    /// Reads the clock by running [`program::JIFFIES`], until it ticks: a few milliseconds.
    pub fn take(clock: &SchedClassifier) -> Result<Self, DataplaneError> {
        next_tick(clock).map(Self)
    }

    /// Where the clock stands now, by our own clock: the low 31 bits, to about a second in a week.
    pub fn now(self, rate: u32) -> u32 {
        let Self(Reading { jiffies, at }) = self;
        let ticks = at.elapsed().as_millis() * u128::from(rate) / 1000;
        let ticks = u32::try_from(ticks & u128::from(MASK)).unwrap_or_default();
        jiffies.wrapping_add(ticks) & MASK
    }

    /// Reads the clock again, when it is time for that, and gives jiffies per second.
    pub async fn rate(self, clock: &SchedClassifier) -> Result<u32, DataplaneError> {
        let Self(first) = self;
        tokio::time::sleep(APART.saturating_sub(first.at.elapsed())).await;
        let second = next_tick(clock)?;
        let ticks = second.jiffies.wrapping_sub(first.jiffies) & MASK;
        Ok(nearest_rate(ticks, second.at.duration_since(first.at)))
    }
}

/// Waits for the clock to tick; a clock that does not is read as it stands.
fn next_tick(clock: &SchedClassifier) -> Result<Reading, DataplaneError> {
    let begin = Instant::now();
    let before = jiffies(clock)?;
    loop {
        let now = Reading {
            jiffies: jiffies(clock)?,
            at: Instant::now(),
        };
        if now.jiffies != before || begin.elapsed() > LONGEST_JIFFY {
            return Ok(now);
        }
        thread::sleep(Duration::from_micros(50));
    }
}

fn jiffies(clock: &SchedClassifier) -> Result<u32, DataplaneError> {
    // The kernel refuses to run a classifier on less than an Ethernet header.
    let packet = [0; 64];
    let options = TestRunOptions {
        data_in: Some(&packet),
        ..TestRunOptions::new()
    };
    let result = clock
        .test_run(options)
        .map_err(|source| DataplaneError::Program {
            program: program::JIFFIES.to_owned(),
            action: "run",
            source,
        })?;
    Ok(result.return_value)
}

/// The usual rate that a measurement means; the measurement itself when it is near none.
fn nearest_rate(ticks: u32, elapsed: Duration) -> u32 {
    let measured = u128::from(ticks) * 1_000_000 / elapsed.as_micros().max(1);
    let measured = u32::try_from(measured).unwrap_or(u32::MAX).max(1);
    let nearest = RATES
        .into_iter()
        .min_by_key(|rate| rate.abs_diff(measured))
        .unwrap_or(measured);
    if nearest.abs_diff(measured) <= nearest / 4 {
        nearest
    } else {
        measured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_hundred_microseconds_make_no_other_rate() {
        for rate in RATES {
            let ticks = rate / 50 + 1;
            let exact = 1_000_000 * u64::from(ticks) / u64::from(rate);
            for measured in [exact - 500, exact, exact + 500] {
                let measured = Duration::from_micros(measured);
                assert_eq!(nearest_rate(ticks, measured), rate, "{ticks} in {measured:?}");
            }
        }
    }

    #[test]
    fn an_unusual_rate_is_taken_as_measured() {
        assert_eq!(nearest_rate(36, Duration::from_millis(60)), 600);
        assert_eq!(nearest_rate(0, Duration::from_millis(60)), 1);
    }
}
