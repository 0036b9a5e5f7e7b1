//! How long to wait until the server is asked again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::trouble::Trouble;

/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait while nobody answers: that costs a server nothing, and it is to be found soon when it is back.
const UNREACHABLE: Duration = Duration::from_secs(1);
/// The longest wait between answers that are refusals.
const REFUSED: Duration = Duration::from_secs(30);

/// Waits that grow, with chance in them, so that not all nodes ask at the same time.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    next: Duration,
    unreachable: bool,
}

impl Backoff {
    /// All is well.
    pub(super) fn reset(&mut self) {
        self.next = Duration::ZERO;
    }

    /// The wait after `trouble`. When the server is back but refuses, waits begin anew.
    pub(super) fn after(&mut self, trouble: &Trouble) -> Duration {
        let unreachable = matches!(trouble, Trouble::Unreachable(_));
        if std::mem::replace(&mut self.unreachable, unreachable) != unreachable {
            self.next = Duration::ZERO;
        }
        let longest = if unreachable { UNREACHABLE } else { REFUSED };
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

    #[test]
    fn waits_double_up_to_a_limit_that_depends_on_who_answers() {
        let mut backoff = Backoff::default();
        let mut check = |trouble: &Trouble, upper: &[u64]| {
            for upper in upper.iter().map(|millis| Duration::from_millis(*millis)) {
                let wait = backoff.after(trouble);
                assert!(upper / 2 <= wait && wait <= upper, "{wait:?} for {upper:?}");
            }
        };
        let away = Trouble::Unreachable(String::new());
        let refused = |seconds| Trouble::Refused {
            resource: "services",
            code: 429,
            message: String::new(),
            wait: Duration::from_secs(seconds),
        };
        check(&away, &[100, 200, 400, 800, 1000, 1000]);
        check(&refused(0), &[100, 200, 400, 800, 1600, 3200]);
        check(&refused(20), &[20_000]);
        check(&away, &[100]);
        backoff.reset();
        assert!(backoff.after(&away) <= FIRST);
    }
}
