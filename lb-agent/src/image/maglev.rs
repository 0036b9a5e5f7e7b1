//! Maglev tables (Eisenbud et al., NSDI '16, section 3.4), with weights.
//!
//! Each endpoint prefers the slots in an order of its own, and the endpoints take turns to claim the first slot of theirs
//! that is free. So every endpoint gets its share of the slots, within one; and when one of them goes, the others keep
//! nearly all that they have. The order depends on the endpoint and on the hash seed alone, so all nodes of a cluster
//! build the same table.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;

use lb_common::addr::Address;

use crate::desired::{Target, seed_words};

/// What sizes a table may have: primes, so that every step goes through all slots.
pub const SIZES: [u32; 6] = [251, 1021, 4093, 16_381, 65_521, 131_071];

/// Slots for each share of the smallest endpoint: the more, the more even are shares, and the fewer flows of others move
/// when one goes. With a hundred, shares are within 1 %, and of others' flows up to 2.5 % move; with two hundred 2 %.
const SLOTS_PER_SHARE: u64 = 200;

/// The sizes to try for endpoints of these weights, the best one first: that which gives two hundred slots to each, and
/// smaller ones that still have one for each.
pub fn sizes(weights: impl Iterator<Item = u32>, max: u32) -> impl Iterator<Item = u32> {
    let (mut count, mut sum, mut least) = (0_u64, 0_u64, u64::MAX);
    for weight in weights {
        let weight = u64::from(weight);
        (count, sum, least) = (count + 1, sum + weight, least.min(weight));
    }
    let shares = sum.div_ceil(least.max(1));
    let allowed = move |size: &u32| *size <= max && u64::from(*size) >= count;
    let best = SIZES
        .into_iter()
        .filter(allowed)
        .find(|size| u64::from(*size) >= shares * SLOTS_PER_SHARE)
        .or_else(|| SIZES.into_iter().rev().find(allowed));
    let best = best.unwrap_or(0);
    SIZES
        .into_iter()
        .rev()
        .filter(move |size| allowed(size) && *size <= best)
}

/// For each slot, which of the endpoints has it. `size` is one of [`SIZES`], and not less than there are endpoints.
pub fn table<A: Address>(size: u32, seed: u64, members: &[(Target<A>, u32)]) -> Vec<u32> {
    let mut preferences: Vec<_> = members
        .iter()
        .map(|(target, _)| Preference::new(target, size, seed))
        .collect();
    let mut slots = vec![FREE; size as usize];
    let mut claim = |member: usize| {
        let Some(preference) = preferences.get_mut(member) else {
            return;
        };
        loop {
            if let Some(slot) = slots.get_mut(preference.next() as usize)
                && *slot == FREE
            {
                *slot = u32::try_from(member).unwrap_or_default();
                return;
            }
        }
    };
    let first = members.first().map(|(_, weight)| *weight);
    let even = members.iter().all(|(_, weight)| Some(*weight) == first);
    if even {
        (0..members.len())
            .cycle()
            .take(if members.is_empty() { 0 } else { size as usize })
            .for_each(&mut claim);
    } else {
        turns(size, members.iter().map(|(_, weight)| *weight)).for_each(&mut claim);
    }
    slots
}

/// A slot that nobody has claimed yet.
const FREE: u32 = u32::MAX;

/// An endpoint's order of preference.
struct Preference {
    size: u32,
    next: u32,
    step: u32,
}

impl Preference {
    fn new<A: Address>(target: &Target<A>, size: u32, seed: u64) -> Self {
        let [low, high] = seed_words(hash(target, seed));
        Self {
            size,
            next: high % size,
            step: low % (size - 1) + 1,
        }
    }

    fn next(&mut self) -> u32 {
        let slot = self.next;
        self.next = (self.next + self.step) % self.size;
        slot
    }
}

/// Whose turn it is: as often as weights say, and spread evenly.
fn turns(count: u32, weights: impl Iterator<Item = u32>) -> impl Iterator<Item = usize> {
    let pace = |weight: u32| (1_u64 << 40) / u64::from(weight.max(1));
    let mut due: BinaryHeap<_> = weights
        .enumerate()
        .map(|(member, weight)| Reverse((pace(weight), member, pace(weight))))
        .collect();
    (0..count).filter_map(move |_| {
        let mut first = due.peek_mut()?;
        let Reverse((time, member, pace)) = *first;
        *first = Reverse((time + pace, member, pace));
        Some(member)
    })
}

/// Octets that are hashed at once.
const WORD: usize = size_of::<u64>();

/// A number for an endpoint that looks random to whoever does not know the seed.
fn hash<A: Address>(target: &Target<A>, seed: u64) -> u64 {
    let octets = match target.addr.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_compatible().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (words, _) = octets.as_chunks::<WORD>();
    let words = words.iter().map(|word| u64::from_be_bytes(*word));
    let words = words.chain([target.port.number().into()]);
    words.fold(mix(seed), |hash, word| mix(hash ^ word))
}

/// The finalizer of splitmix64 (Steele et al., OOPSLA '14): every bit of the result depends on every bit of the word.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use lb_common::{Ip4, Port};

    use super::*;

    type Members = Vec<(Target<Ip4>, u32)>;

    fn members(weights: &[u32]) -> Members {
        let target = |host: u32| Target {
            addr: Ip4::new((0x0af4_0000 + host).to_be_bytes()),
            port: Port::new(8080),
        };
        (1..).map(target).zip(weights.iter().copied()).collect()
    }

    fn best(members: &Members) -> u32 {
        sizes(members.iter().map(|(_, weight)| *weight), 131_071)
            .next()
            .unwrap()
    }

    /// How many slots each has.
    fn shares(table: &[u32], members: usize) -> Vec<u32> {
        let mut shares = vec![0; members];
        for member in table {
            shares[*member as usize] += 1;
        }
        shares
    }

    /// Which part of the slots that the others had changes hands when `gone` goes.
    fn disruption(members: &Members, gone: usize) -> f64 {
        let size = best(members);
        let before = table(size, 7, members);
        let mut left = members.clone();
        left.remove(gone);
        let after = table(size, 7, &left);
        let of = |member: u32| member as usize - usize::from(member as usize > gone);
        let (mut kept, mut moved) = (0, 0);
        for (before, after) in before.iter().zip(&after) {
            if *before as usize != gone {
                kept += 1;
                moved += u32::from(of(*before) != *after as usize);
            }
        }
        f64::from(moved) / f64::from(kept)
    }

    #[test]
    fn every_slot_is_somebodys_and_shares_differ_by_one() {
        for count in [1, 2, 3, 10, 100, 655] {
            let members = members(&vec![1; count]);
            let size = best(&members);
            assert!(size as usize >= (200 * count).min(131_071), "{count}");
            let shares = shares(&table(size, 1, &members), count);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{count}: {least} to {most}");
        }
    }

    #[test]
    fn shares_follow_weights_within_one_slot_or_a_thousandth() {
        for weights in [
            &[9, 1][..],
            &[999, 1000],
            &[1, 2, 3, 4],
            &[1000, 1, 1, 1],
            &[1; 7],
        ] {
            let members = members(weights);
            let size = best(&members);
            let total: u32 = weights.iter().sum();
            for (share, weight) in shares(&table(size, 1, &members), weights.len())
                .iter()
                .zip(weights)
            {
                let exact = f64::from(size) * f64::from(*weight) / f64::from(total);
                let bound = (exact / 1000.0).max(1.0);
                assert!(
                    (f64::from(*share) - exact).abs() <= bound,
                    "{weights:?}: {share} of {exact}"
                );
            }
        }
    }

    #[test]
    fn when_one_goes_few_flows_of_others_move() {
        for (count, bound) in [
            (2, 0.0),
            (3, 0.01),
            (5, 0.025),
            (10, 0.02),
            (40, 0.02),
            (100, 0.01),
        ] {
            let members = members(&vec![1; count]);
            let rounds = u8::try_from(count.min(20)).unwrap();
            let sum: f64 = (0..rounds).map(|gone| disruption(&members, gone.into())).sum();
            let mean = sum / f64::from(rounds);
            assert!(mean <= bound, "{count}: {mean}");
        }
    }

    #[test]
    fn the_order_of_preference_is_the_seeds_and_the_endpoints() {
        let members = members(&[1; 10]);
        assert_eq!(table(1021, 1, &members), table(1021, 1, &members));
        let same = table(1021, 1, &members)
            .iter()
            .zip(table(1021, 2, &members))
            .filter(|(a, b)| **a == *b)
            .count();
        assert!(same < 200, "{same} of 1021 slots are alike under two seeds");
    }

    #[test]
    fn tables_are_of_the_smallest_size_that_gives_two_hundred_slots_to_each() {
        let sizes = |weights: &[u32], max| sizes(weights.iter().copied(), max).collect::<Vec<_>>();
        assert_eq!(sizes(&[1], 65_521), [251]);
        assert_eq!(sizes(&[1, 1], 65_521), [1021, 251]);
        assert_eq!(sizes(&[1; 3], 65_521), [1021, 251]);
        assert_eq!(sizes(&[9, 1], 65_521), [4093, 1021, 251]);
        assert_eq!(sizes(&[1; 700], 65_521), [65_521, 16_381, 4093, 1021]);
        assert_eq!(sizes(&[1; 700], 131_071)[0], 131_071);
        assert_eq!(sizes(&[1; 700], 1021), [1021]);
        assert!(sizes(&[1; 700], 251).is_empty());
        assert_eq!(sizes(&[], 251), [251]);
    }
}
