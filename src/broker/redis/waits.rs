//! How long to wait before a server that was not reached, or refuses, is asked again.
//!
//! In: that it failed once more, or that it worked. Out: the next wait. Owner: whoever asks. Bounds:
//! waits grow from [`FIRST`], twice as long each time, up to one to two seconds, drawn for each so that
//! not all nodes come at the same times.

use std::time::Duration;

/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_millis(50);
/// The longest.
const LONGEST_MS: std::ops::RangeInclusive<u64> = 1_000..=2_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Since it worked.
    failures_count: u32,
}

impl Waits {
    /// It failed: how long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let longest = Duration::from_millis(rand::random_range(LONGEST_MS));
        let wait = FIRST.saturating_mul(1 << self.failures_count.min(10));
        self.failures_count = self.failures_count.saturating_add(1);
        wait.min(longest)
    }

    /// It worked.
    pub(super) fn over(&mut self) {
        self.failures_count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_one_of_their_own_until_it_works() {
        let mut waits = Waits::default();
        let first: Vec<_> = (0..5).map(|_| waits.next().as_millis()).collect();
        assert_eq!(first, [50, 100, 200, 400, 800]);
        let later: std::collections::BTreeSet<_> = (0..100).map(|_| waits.next()).collect();
        let is_long = |wait: &Duration| (1_000..=2_000).contains(&wait.as_millis());
        assert!(later.iter().all(is_long), "{later:?}");
        assert!(later.len() > 10, "all come at the same times");
        waits.over();
        assert_eq!(waits.next(), FIRST);
    }
}
