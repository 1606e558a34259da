//! How long something rests before it is tried again: longer each time, and never all at once.
//!
//! In: the first rest, how often it failed, the longest rest. Out: a time around that, a quarter
//! less or more at random, so that sessions which failed together do not come back together. Holds
//! nothing.

use std::time::Duration;

use rand::RngExt as _;

/// The rest after so many failures before this one: doubled for each, at most `most`.
#[must_use]
pub fn rest(first: Duration, failures: u32, most: Duration) -> Duration {
    let doubled = first.saturating_mul(1 << failures.min(16));
    doubled
        .min(most)
        .mul_f64(rand::rng().random_range(0.75..=1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_their_most_and_differ() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(5));
        let rests = |failures| (0..100).map(move |_| rest(first, failures, most));
        for (failures, around_ms) in [(0, 100), (1, 200), (5, 3_200), (6, 5_000), (1_000, 5_000)] {
            let around = Duration::from_millis(around_ms);
            let is_near = |r: Duration| r >= around * 3 / 4 && r <= around * 5 / 4;
            assert!(rests(failures).all(is_near), "{failures}");
        }
        let all: std::collections::HashSet<_> = rests(3).collect();
        assert!(all.len() > 50, "{} different ones", all.len());
    }
}
