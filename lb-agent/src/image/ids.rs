//! Numbers that stay: which index belongs to whom, and which is given out next.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// Gives out indices: those never used first, then free ones, then resting ones, the longest so first.
///
/// A resting index still means something to flows, but may be taken when nothing else is left.
#[derive(Debug)]
pub struct IndexPool {
    next: u32,
    end: u32,
    free: VecDeque<u32>,
    /// Resting indices in order of the time at which they began to.
    resting: BTreeMap<Since, u32>,
    since: BTreeMap<u32, Since>,
    rests: u64,
}

/// When an index began to rest, and how many did so before.
type Since = (Instant, u64);

impl IndexPool {
    /// Of the indices `start`..`end`, none of them used.
    pub fn new(start: u32, end: u32) -> Self {
        let (free, resting, since) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            next: start,
            end,
            free,
            resting,
            since,
            rests: 0,
        }
    }

    /// Says that an index is in use, which no call of [`Self::take`] gave out; those below that were not named so
    /// count as never used. To be called in ascending order, before anything else.
    pub fn adopt(&mut self, index: u32) {
        while self.next < index {
            self.free.push_back(self.next);
            self.next += 1;
        }
        self.next = self.next.max(index + 1);
    }

    /// The index to use next.
    pub fn take(&mut self) -> Option<u32> {
        if self.next < self.end {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.free.pop_front().or_else(|| {
            let (_, index) = self.resting.pop_first()?;
            self.since.remove(&index);
            Some(index)
        })
    }

    /// How many times [`Self::take`] can be called.
    pub fn available(&self) -> usize {
        self.end.saturating_sub(self.next) as usize + self.free.len() + self.resting.len()
    }

    /// Gives an index back for good.
    pub fn release(&mut self, index: u32) {
        self.wake(index);
        self.free.push_back(index);
    }

    /// Lets an index rest, from now on if it does not do so already.
    pub fn rest(&mut self, index: u32, now: Instant) {
        if !self.rests(index) {
            self.rests += 1;
            let since = (now, self.rests);
            self.since.insert(index, since);
            self.resting.insert(since, index);
        }
    }

    /// The indices that have rested at least since `then`.
    pub fn resting_since(&self, then: Instant) -> impl Iterator<Item = u32> {
        self.resting.range(..=(then, u64::MAX)).map(|(_, index)| *index)
    }

    /// When the index that rests longest began to.
    pub fn first_rest(&self) -> Option<Instant> {
        self.resting.first_key_value().map(|((since, _), _)| *since)
    }

    /// Whether an index rests.
    pub fn rests(&self, index: u32) -> bool {
        self.since.contains_key(&index)
    }

    /// Says that an index is in use again.
    pub fn wake(&mut self, index: u32) {
        if let Some(since) = self.since.remove(&index) {
            self.resting.remove(&since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many indices as `expected` has and compares them.
    #[track_caller]
    fn check(pool: &mut IndexPool, expected: &[Option<u32>]) {
        let taken: Vec<_> = expected.iter().map(|_| pool.take()).collect();
        assert_eq!(taken, expected);
    }

    #[test]
    fn never_used_goes_before_free_and_free_before_resting() {
        let mut pool = IndexPool::new(0, 4);
        check(&mut pool, &[Some(0), Some(1), Some(2)]);
        pool.rest(0, Instant::now());
        pool.release(1);
        check(&mut pool, &[Some(3), Some(1), Some(0), None]);
    }

    #[test]
    fn of_those_that_rest_the_longest_goes_first() {
        let (mut pool, now) = (IndexPool::new(0, 3), Instant::now());
        check(&mut pool, &[Some(0), Some(1), Some(2)]);
        pool.rest(2, now);
        pool.rest(0, now);
        pool.rest(2, now);
        check(&mut pool, &[Some(2), Some(0), None]);
    }

    #[test]
    fn an_index_in_use_again_is_not_taken() {
        let (mut pool, now) = (IndexPool::new(0, 2), Instant::now());
        check(&mut pool, &[Some(0), Some(1)]);
        pool.rest(0, now);
        pool.rest(1, now);
        pool.wake(0);
        check(&mut pool, &[Some(1), None]);
    }

    #[test]
    fn adopted_indices_leave_the_gaps_free() {
        let mut pool = IndexPool::new(1, 7);
        pool.adopt(2);
        pool.adopt(4);
        check(&mut pool, &[Some(5), Some(6), Some(1), Some(3), None]);
    }

    #[test]
    fn indices_that_rest_long_enough_are_named() {
        let (mut pool, now) = (IndexPool::new(0, 4), Instant::now());
        let later = |seconds| now + std::time::Duration::from_secs(seconds);
        check(&mut pool, &[Some(0), Some(1), Some(2)]);
        pool.rest(2, later(1));
        pool.rest(0, later(2));
        pool.rest(2, later(9));
        pool.rest(1, later(3));
        assert_eq!(pool.resting_since(later(2)).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(pool.first_rest(), Some(later(1)));
        pool.wake(2);
        assert_eq!(pool.first_rest(), Some(later(2)));
    }
}
