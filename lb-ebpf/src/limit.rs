//! Limits on how often something may be done: a bucket in one word (the generic cell rate algorithm).
//!
//! The word is the time up to which the limit is used, in 1/65536 of a jiffy. What is done takes an interval more of it;
//! it may run ahead of the clock as far as the burst. The clock has 32 bits of jiffies and comes round: what seems to
//! be ahead of it by more than a bucket can be is a time long past.

/// The clock's 32 bits of jiffies and 16 of their fractions.
const CLOCK: u64 = (1 << 48) - 1;

/// Takes `interval` (in 1/65536 of a jiffy; 0: there is no limit) from a bucket that is used up to `until` (0: never
/// used) and holds `burst` jiffies, or one interval if that is more. The new `until`, or `None` when too little is left.
#[inline(always)]
pub const fn take(now: u32, interval: u32, burst: u32, until: u64) -> Option<u64> {
    if interval == 0 {
        return Some(until);
    }
    let (now, interval, burst) = ((now as u64) << 16, interval as u64, (burst as u64) << 16);
    let capacity = if burst < interval { interval } else { burst };
    let ahead = until.wrapping_sub(now) & CLOCK;
    // Twice: another CPU, whose clock is a little ahead, may have filled the bucket.
    let used = if until == 0 || ahead > 2 * capacity {
        0
    } else {
        ahead
    };
    if used + interval > capacity {
        return None;
    }
    Some((now + used + interval) & CLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 1000;
    /// A hundred in a second.
    const INTERVAL: u32 = 10 << 16;

    /// How many are let through of `tries`, at one point in time.
    fn pass(now: u32, until: &mut u64, tries: u32) -> u32 {
        let mut passed = 0;
        for _ in 0..tries {
            if let Some(next) = take(now, INTERVAL, SECOND, *until) {
                *until = next;
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn a_bucket_holds_a_second() {
        let mut until = 0;
        assert_eq!(pass(5000, &mut until, 1000), 100);
        assert_eq!(pass(5009, &mut until, 1000), 0);
        assert_eq!(pass(5010, &mut until, 1000), 1);
        assert_eq!(pass(5500, &mut until, 1000), 49);
        assert_eq!(pass(9000, &mut until, 1000), 100);
    }

    #[test]
    fn in_the_long_run_the_rate_is_kept() {
        let (mut until, mut passed) = (0, 0);
        for now in 0..10 * SECOND {
            passed += pass(now, &mut until, 3);
        }
        assert_eq!(passed, 100 + 10 * 100 - 1);
    }

    #[test]
    fn the_clock_may_come_round() {
        let (mut until, mut passed) = (0, 0);
        for step in 0..10 * SECOND {
            passed += pass((u32::MAX - 5 * SECOND).wrapping_add(step), &mut until, 3);
        }
        assert_eq!(passed, 100 + 10 * 100 - 1);
    }

    #[test]
    fn however_long_nothing_was_done_the_bucket_is_full() {
        for idle in [SECOND, 1 << 30, 1 << 31, 3 << 30, u32::MAX - 2 * SECOND] {
            for start in [0, 1, 1 << 31, u32::MAX - 10] {
                let mut until = 0;
                assert_eq!(pass(start, &mut until, 1000), 100);
                assert_eq!(pass(start.wrapping_add(idle), &mut until, 1000), 100, "{idle}");
            }
        }
    }

    #[test]
    fn a_bucket_that_was_never_used_is_full_just_before_the_clock_comes_round() {
        assert_eq!(pass(u32::MAX - 100, &mut 0, 1000), 100);
    }

    #[test]
    fn a_clock_that_is_a_little_behind_does_not_empty_the_bucket() {
        let mut until = 0;
        assert_eq!(pass(5001, &mut until, 1000), 100);
        assert_eq!(pass(5000, &mut until, 1000), 0);
    }

    #[test]
    fn an_interval_longer_than_the_burst_lets_one_through_at_a_time() {
        let interval = 30_000 << 16;
        let until = take(7, interval, SECOND, 0).unwrap();
        assert_eq!(take(7 + 29_999, interval, SECOND, until), None);
        assert!(take(7 + 30_000, interval, SECOND, until).is_some());
    }

    #[test]
    fn without_an_interval_there_is_no_limit() {
        assert_eq!(take(9, 0, SECOND, 1 << 40), Some(1 << 40));
    }
}
