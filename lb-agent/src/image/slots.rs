//! Which parts of the flat array of slots are free.

use std::collections::BTreeMap;

/// Gives out regions of an array, first fit, and takes them back.
#[derive(Debug)]
pub struct SlotRegions {
    /// Free extents: first slot to number of slots. No two of them touch.
    free: BTreeMap<u32, u32>,
}

impl SlotRegions {
    /// Of an array of `capacity` slots, all free.
    pub fn new(capacity: u32) -> Self {
        Self {
            free: (capacity > 0).then_some((0, capacity)).into_iter().collect(),
        }
    }

    /// Takes `count` neighbouring slots; `None` when there are not so many in one piece.
    pub fn take(&mut self, count: u32) -> Option<u32> {
        let (base, room) = self
            .free
            .iter()
            .find(|(_, room)| **room >= count)
            .map(|(base, room)| (*base, *room))?;
        self.carve(base, room, base, count);
        Some(base)
    }

    /// Whether [`Self::take`] would find so many.
    pub fn fits(&self, count: u32) -> bool {
        self.free.values().any(|room| *room >= count)
    }

    /// Takes exactly these slots; `false` when they are not all free.
    pub fn reserve(&mut self, base: u32, count: u32) -> bool {
        let Some((start, room)) = self
            .free
            .range(..=base)
            .next_back()
            .map(|(start, room)| (*start, *room))
        else {
            return false;
        };
        let fits = base.checked_add(count).is_some_and(|end| end <= start + room);
        if fits {
            self.carve(start, room, base, count);
        }
        fits
    }

    /// Gives slots back.
    pub fn release(&mut self, base: u32, count: u32) {
        if count == 0 {
            return;
        }
        let (mut start, mut room) = (base, count);
        if let Some(next) = self.free.remove(&(base + count)) {
            room += next;
        }
        if let Some((before, length)) = self
            .free
            .range(..base)
            .next_back()
            .map(|(before, length)| (*before, *length))
            && before + length == base
        {
            self.free.remove(&before);
            (start, room) = (before, length + room);
        }
        self.free.insert(start, room);
    }

    /// How many slots are free, in any number of pieces.
    pub fn free(&self) -> u32 {
        self.free.values().sum()
    }

    /// Cuts `base`..`base + count` out of the free extent `start`..`start + room`.
    fn carve(&mut self, start: u32, room: u32, base: u32, count: u32) {
        self.free.remove(&start);
        if base > start {
            self.free.insert(start, base - start);
        }
        let (end, taken) = (start + room, base + count);
        if end > taken {
            self.free.insert(taken, end - taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::Random;

    #[test]
    fn regions_are_given_first_fit_and_joined_when_they_come_back() {
        let mut slots = SlotRegions::new(10);
        assert_eq!(slots.take(4), Some(0));
        assert_eq!(slots.take(4), Some(4));
        assert_eq!(slots.take(4), None);
        slots.release(0, 4);
        assert_eq!(slots.take(2), Some(0));
        slots.release(4, 4);
        assert_eq!(slots.take(8), Some(2));
    }

    #[test]
    fn slots_in_use_cannot_be_reserved() {
        let mut slots = SlotRegions::new(10);
        assert!(slots.reserve(3, 4));
        assert!(!slots.reserve(6, 2));
        assert!(!slots.reserve(2, 2));
        assert!(!slots.reserve(8, 3));
        assert!(slots.reserve(0, 3));
        assert!(slots.reserve(7, 3));
        assert_eq!(slots.free(), 0);
    }

    #[test]
    fn regions_never_overlap_and_nothing_is_lost() {
        const CAPACITY: u32 = 200;
        let mut random = Random::new(1);
        let mut slots = SlotRegions::new(CAPACITY);
        let mut used = Vec::<(u32, u32)>::new();
        for _ in 0..20_000 {
            let count = 1 + random.below(20);
            if random.below(2) == 0 {
                if let Some(base) = slots.take(count) {
                    assert!(base + count <= CAPACITY);
                    assert!(
                        used.iter()
                            .all(|(other, length)| base + count <= *other || other + length <= base)
                    );
                    used.push((base, count));
                }
            } else if !used.is_empty() {
                let (base, count) = used.swap_remove(random.below(100) as usize % used.len());
                slots.release(base, count);
            }
            assert_eq!(
                slots.free() + used.iter().map(|(_, count)| count).sum::<u32>(),
                CAPACITY
            );
        }
        for (base, count) in used {
            slots.release(base, count);
        }
        assert_eq!(slots.take(CAPACITY), Some(0));
    }
}
