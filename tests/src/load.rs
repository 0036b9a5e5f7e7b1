//! Steady load on a service, and what became of each request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use crate::answer::Answer;
use crate::topology::Host;

/// One request.
#[derive(Debug)]
pub struct Sample {
    /// When it was begun.
    pub begun: Instant,
    /// When it was over.
    pub ended: Instant,
    /// What came of it.
    pub result: Result<Answer>,
}

/// Requests from one host, one after the other, until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sample>>>,
}

impl Load {
    /// Starts; `ask` makes one request.
    pub fn start(
        from: &Host,
        pause: Duration,
        ask: impl Fn() -> Result<Answer> + Send + 'static,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = from.netns.spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let result = ask();
                samples.push(Sample {
                    begun,
                    ended: Instant::now(),
                    result,
                });
                thread::sleep(pause);
            }
            Ok(samples)
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops; every request that was made.
    pub fn stop(self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load panicked"))?
    }

    /// Stops; the answers. An error if any request has failed.
    pub fn answers(self) -> Result<Vec<Answer>> {
        let results: Vec<_> = self.stop()?.into_iter().map(|sample| sample.result).collect();
        let all = results.len();
        let (answers, failed): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        let failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
        ensure!(
            failed.is_empty(),
            "{} of {all} requests failed: {failed:#?}",
            failed.len()
        );
        answers.into_iter().collect()
    }
}

/// How many requests each backend answered.
pub fn shares<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for answer in answers {
        *shares.entry(answer.backend.clone()).or_insert(0) += 1;
    }
    shares
}

/// Whether each of `expected` backends got its even share of all requests within five standard deviations of the
/// binomial distribution.
pub fn is_even(shares: &BTreeMap<String, usize>, expected: usize) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "numbers of requests are small")]
    let within = |count: usize, total: usize| {
        let (total, p) = (total as f64, 1.0 / expected as f64);
        (count as f64 - total * p).abs() <= 5.0 * (total * p * (1.0 - p)).sqrt()
    };
    let total = shares.values().sum();
    shares.len() == expected && shares.values().all(|&count| within(count, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn even(counts: &[usize], expected: usize) -> bool {
        let shares = counts
            .iter()
            .enumerate()
            .map(|(number, &count)| (number.to_string(), count))
            .collect();
        is_even(&shares, expected)
    }

    #[test]
    fn five_deviations_are_even_enough() {
        assert!(even(&[500, 500, 500, 500], 4));
        // 2000 requests to 4: the deviation is 19.4.
        assert!(even(&[596, 468, 468, 468], 4));
        assert!(!even(&[600, 466, 467, 467], 4));
        assert!(!even(&[1000, 1000], 3));
        assert!(even(&[7], 1));
    }
}
