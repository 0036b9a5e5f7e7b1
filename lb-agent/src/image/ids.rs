//! Numbers that stay: which index belongs to whom, and which is given out next.

use std::collections::{BTreeMap, VecDeque};

/// Gives out indices: those never used first, then free ones, then resting ones, the longest so first.
///
/// A resting index still means something to flows, but may be taken when nothing else is left.
#[derive(Debug)]
pub struct IndexPool {
    next: u32,
    end: u32,
    free: VecDeque<u32>,
    /// Resting indices in order of the time at which they began to.
    resting: BTreeMap<u64, u32>,
    since: BTreeMap<u32, u64>,
    clock: u64,
}

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
            clock: 0,
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
    pub fn rest(&mut self, index: u32) {
        if !self.rests(index) {
            self.clock += 1;
            self.since.insert(index, self.clock);
            self.resting.insert(self.clock, index);
        }
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
        pool.rest(0);
        pool.release(1);
        check(&mut pool, &[Some(3), Some(1), Some(0), None]);
    }

    #[test]
    fn of_those_that_rest_the_longest_goes_first() {
        let mut pool = IndexPool::new(0, 3);
        check(&mut pool, &[Some(0), Some(1), Some(2)]);
        pool.rest(2);
        pool.rest(0);
        pool.rest(2);
        check(&mut pool, &[Some(2), Some(0), None]);
    }

    #[test]
    fn an_index_in_use_again_is_not_taken() {
        let mut pool = IndexPool::new(0, 2);
        check(&mut pool, &[Some(0), Some(1)]);
        pool.rest(0);
        pool.rest(1);
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
}
