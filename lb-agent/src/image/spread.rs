//! Slots by weight: which endpoint each of them has.

/// Slots of one region, unless there are more endpoints: with more, weights are rounded.
const MAX: u64 = 4096;

/// For each slot, which of the endpoints has it. Slots of one endpoint stand apart, so that taken in turn they are
/// mixed with the others'.
pub(super) fn slots(weights: &[u32]) -> Vec<u32> {
    let counts = counts(weights);
    let mut places = Vec::new();
    for (member, count) in (0..).zip(counts) {
        // In the middle of each of `count` equal parts of the whole.
        places.extend((0..count).map(|slot| ((2 * slot + 1) * (1 << 40) / (2 * count), member)));
    }
    places.sort_unstable();
    places.into_iter().map(|(_, member)| member).collect()
}

/// How many slots each endpoint has.
fn counts(weights: &[u32]) -> Vec<u64> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let exact = total <= MAX;
    let rounded = |weight: u64| (weight * MAX + total / 2) / total.max(1);
    let count = |weight: &u32| {
        let weight = u64::from(*weight);
        if exact { weight } else { rounded(weight).max(1) }
    };
    let even = weights.iter().all(|weight| Some(weight) == weights.first());
    if even {
        return vec![1; weights.len()];
    }
    weights.iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_follow_weights_and_are_mixed() {
        assert!(slots(&[]).is_empty());
        assert_eq!(slots(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(slots(&[5, 5]), [0, 1]);
        assert_eq!(slots(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(slots(&[1, 2, 1]), [1, 0, 2, 1]);
    }

    #[test]
    fn many_weights_are_rounded_and_nobody_is_forgotten() {
        let weights: Vec<u32> = (1..=1000).collect();
        let slots = slots(&weights);
        assert!(slots.len() < 5000, "{}", slots.len());
        let count = |member: u32| slots.iter().filter(|other| **other == member).count();
        assert_eq!((count(0), count(499), count(999)), (1, 4, 8));
    }
}
