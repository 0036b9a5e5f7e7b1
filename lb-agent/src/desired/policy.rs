//! The row of `lb_policies`: times and limits of a port of a Service.

use lb_common::ServicePolicy;

use crate::model::Service;

/// Parts of a jiffy in which the time between two connections is told.
const PARTS: u64 = 65_536;

/// What the programs are told about every port of `service`.
pub(super) fn policy(service: &Service, jiffies_per_second: u32) -> ServicePolicy {
    let limit = |rate: Option<u32>| rate.map_or(0, |rate| interval(rate, jiffies_per_second));
    let affinity = service.affinity_seconds.unwrap_or_default();
    ServicePolicy {
        // The programs compare 32-bit clocks, whose difference is good up to half of that.
        affinity: affinity
            .saturating_mul(jiffies_per_second)
            .min(i32::MAX.cast_unsigned()),
        interval: limit(service.options.limit),
        source_interval: limit(service.options.source_limit),
    }
}

/// The time that one event takes of a limit of `rate` in a second; never 0, which would be no limit.
pub fn interval(rate: u32, jiffies_per_second: u32) -> u32 {
    let interval = u64::from(jiffies_per_second) * PARTS / u64::from(rate.max(1));
    u32::try_from(interval).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_parts_of_a_jiffy() {
        assert_eq!(interval(1, 1000), 65_536_000);
        assert_eq!(interval(1000, 250), 16_384);
        assert_eq!(interval(u32::MAX, 1000), 1);
    }
}
