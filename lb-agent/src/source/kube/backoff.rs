//! How long to wait until the server is asked again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use super::trouble::Trouble;

/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait while nobody answers: that costs a server nothing, and it is to be found soon when it is back.
const UNREACHABLE: Duration = Duration::from_secs(1);
/// The longest wait between answers that are refusals.
const REFUSED: Duration = Duration::from_secs(30);
/// A server that was away is back so long before its refusals mean what they say: one that starts answers requests before
/// it knows who may ask (401, 403), and before it has read what it is asked for (429, 503).
const STARTING: Duration = Duration::from_secs(30);
/// The longest wait meanwhile.
const SOON: Duration = Duration::from_secs(1);

/// Waits that grow, with chance in them, so that not all nodes ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
    unreachable: bool,
    /// The last answer was that everything has to be told anew.
    gone: bool,
    /// When a server that had been away answered again.
    back: Option<Instant>,
}

impl Backoff {
    /// All is well.
    pub(super) fn reset(&mut self) {
        self.next = Duration::ZERO;
    }

    /// The wait after `trouble`. When the server is back but refuses, waits begin anew.
    pub(super) fn after(&mut self, trouble: &Trouble) -> Duration {
        self.at(Instant::now(), trouble)
    }

    fn at(&mut self, now: Instant, trouble: &Trouble) -> Duration {
        let unreachable = matches!(trouble, Trouble::Unreachable(_));
        if std::mem::replace(&mut self.unreachable, unreachable) != unreachable {
            self.next = Duration::ZERO;
            self.back = (!unreachable).then_some(now);
        }
        // The first such answer says that the server is well.
        let gone = matches!(trouble, Trouble::Gone { .. });
        if !std::mem::replace(&mut self.gone, gone) && gone {
            self.next = Duration::ZERO;
        }
        let starts = self.back.is_some_and(|back| now.duration_since(back) < STARTING);
        let longest = match unreachable {
            true => UNREACHABLE,
            false if starts => SOON,
            false => REFUSED,
        };
        let wait = self.next.clamp(FIRST, longest);
        self.next = wait * 2;
        let asked = match trouble {
            Trouble::Refused { wait, .. } => *wait,
            _ => Duration::ZERO,
        };
        wait.max(asked.min(REFUSED)).mul_f64(0.5 + chance() / 2.0)
    }
}

/// From 0 to 1.
pub(super) fn chance() -> f64 {
    let random = RandomState::new().hash_one(0_u8);
    f64::from(u32::try_from(random >> u32::BITS).unwrap_or_default()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits that follow one on the other.
    struct Waits {
        backoff: Backoff,
        now: Instant,
    }

    impl Waits {
        fn new() -> Self {
            Self {
                backoff: Backoff::default(),
                now: Instant::now(),
            }
        }

        #[track_caller]
        fn check(&mut self, trouble: &Trouble, upper: &[u64]) {
            for upper in upper.iter().map(|millis| Duration::from_millis(*millis)) {
                let wait = self.backoff.at(self.now, trouble);
                self.now += upper;
                assert!(upper / 2 <= wait && wait <= upper, "{wait:?} for {upper:?}");
            }
        }
    }

    fn away() -> Trouble {
        Trouble::Unreachable(String::new())
    }

    fn refused(seconds: u64) -> Trouble {
        Trouble::Refused {
            resource: "services",
            code: 429,
            message: String::new(),
            wait: Duration::from_secs(seconds),
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_that_depends_on_who_answers() {
        let mut waits = Waits::new();
        waits.check(&refused(0), &[100, 200, 400, 800, 1600, 3200]);
        waits.check(&refused(20), &[20_000]);
        waits.check(&refused(0), &[12_800, 25_600, 30_000, 30_000]);
        waits.check(&away(), &[100, 200, 400, 800, 1000, 1000]);
        waits.backoff.reset();
        assert!(waits.backoff.after(&away()) <= FIRST);
    }

    #[test]
    fn an_answer_that_everything_is_told_anew_begins_anew_but_once() {
        let mut waits = Waits::new();
        waits.check(&refused(0), &[100, 200, 400, 800]);
        let gone = Trouble::Gone { resource: "services" };
        waits.check(&gone, &[100, 200, 400, 800]);
        waits.check(&refused(0), &[1600]);
    }

    #[test]
    fn a_server_that_was_away_is_asked_soon_until_it_has_had_time_to_start() {
        let mut waits = Waits::new();
        waits.check(&away(), &[100]);
        waits.check(&refused(0), &[100, 200, 400, 800]);
        waits.check(&Trouble::Unauthorized, &[1000; 20]);
        // It may ask for more.
        waits.check(&refused(5), &[5000]);
        waits.check(&refused(0), &[1000; 4]);
        waits.check(&refused(0), &[2000, 4000, 8000, 16_000, 30_000]);
    }
}
