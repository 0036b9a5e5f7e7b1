//! How many jiffies the kernel counts in a second: measured, because no kernel tells.

use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use lb_common::layout::program;

use super::DataplaneError;

/// Two readings must be so far apart that one jiffy more or less cannot make one rate look like another.
const APART: Duration = Duration::from_millis(60);
/// What kernels are configured with (`CONFIG_HZ`).
const RATES: [u32; 4] = [100, 250, 300, 1000];

/// A first reading of the kernel's clock.
#[derive(Clone, Copy, Debug)]
pub struct FirstReading {
    jiffies: u32,
    at: Instant,
}

impl FirstReading {
    /// Reads the clock by running [`program::JIFFIES`].
    pub fn take(clock: &SchedClassifier) -> Result<Self, DataplaneError> {
        Ok(Self {
            jiffies: jiffies(clock)?,
            at: Instant::now(),
        })
    }

    /// Reads the clock again, when it is time for that, and gives jiffies per second.
    pub async fn rate(self, clock: &SchedClassifier) -> Result<u32, DataplaneError> {
        tokio::time::sleep(APART.saturating_sub(self.at.elapsed())).await;
        let ticks = jiffies(clock)?.wrapping_sub(self.jiffies) & 0x7fff_ffff;
        Ok(nearest_rate(ticks, self.at.elapsed()))
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
    fn a_jiffy_more_or_less_makes_no_other_rate() {
        let cases = [
            (5, 100),
            (6, 100),
            (7, 100),
            (14, 250),
            (15, 250),
            (16, 250),
            (17, 300),
            (18, 300),
            (19, 300),
        ];
        for (ticks, rate) in cases {
            assert_eq!(
                nearest_rate(ticks, Duration::from_millis(60)),
                rate,
                "{ticks} ticks"
            );
        }
        assert_eq!(nearest_rate(60, Duration::from_millis(60)), 1000);
    }

    #[test]
    fn an_unusual_rate_is_taken_as_measured() {
        assert_eq!(nearest_rate(36, Duration::from_millis(60)), 600);
        assert_eq!(nearest_rate(0, Duration::from_millis(60)), 1);
    }
}
