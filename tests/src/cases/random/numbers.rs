//! The same numbers in every run.

/// xorshift64* (Vigna).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Any number but 0.
        Self(0x9e37_79b9_7f4a_7c15 ^ seed)
    }

    pub(super) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound.max(1)
    }

    /// Once in so many times.
    pub(super) fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u32) as usize]
    }

    /// One of a table of choices, each as often as its weight says.
    pub(super) fn weighted<'a, T>(&mut self, table: &'a [(u32, T)]) -> &'a T {
        let mut left = self.below(table.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in table {
            if left < *weight {
                return choice;
            }
            left -= weight;
        }
        &table[0].1
    }
}
