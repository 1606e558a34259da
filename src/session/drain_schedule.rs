//! When the sessions of a leaving node go: decided once for all of them, when it begins to leave.
//!
//! In: `[drain]` and the number of sessions. Out: for each session, which brings a random share of
//! its own, when it is told `drain` and when it is closed; for the node, when the last is gone.
//! Pure. The pace is the number of sessions over [`DrainSchedule::spread`]: half of the window, or
//! longer where `drain.sessions_per_s` asks for it.

use std::time::{Duration, Instant};

use crate::config::Drain;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct DrainSchedule {
    begins: Instant,
    spread: Duration,
    grace: Duration,
}

impl DrainSchedule {
    /// The plan of a node with so many sessions that leaves now.
    #[must_use]
    pub fn new(drain: &Drain, sessions_count: u64, now: Instant) -> Self {
        let paced = drain.sessions_per_s.map_or(Duration::ZERO, |most| {
            // The rest of a division is less than a second of an hour.
            let ms = sessions_count.saturating_mul(1_000) / u64::from(most);
            Duration::from_millis(ms)
        });
        Self {
            begins: now + drain.delay,
            spread: paced.max(drain.window / 2),
            grace: grace(drain),
        }
    }

    /// Over how long the sessions are told.
    #[must_use]
    pub fn spread(&self) -> Duration {
        self.spread
    }

    /// When the session with this share (0 to 1, at random) is told.
    #[must_use]
    pub fn tell_at(&self, share: f64) -> Instant {
        self.begins + self.spread.mul_f64(share)
    }

    /// How long after that it is closed, if it has not gone by then.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// When the last one is closed.
    #[must_use]
    pub fn ends(&self) -> Instant {
        self.begins + self.spread + self.grace
    }
}

/// How long a session that was told to go may stay: a quarter of the window.
#[must_use]
pub fn grace(drain: &Drain) -> Duration {
    drain.window / 4
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn departure(sessions_count: u64, sessions_per_s: Option<u32>) -> (Instant, DrainSchedule) {
        let drain = Drain {
            window: 20 * S,
            sessions_per_s,
            delay: 3 * S,
            commands: S,
        };
        let now = Instant::now();
        (now, DrainSchedule::new(&drain, sessions_count, now))
    }

    #[test]
    fn sessions_are_told_in_the_first_half_of_the_window_behind_the_delay() {
        let (now, departure) = departure(5_000, None);
        assert_eq!(departure.tell_at(0.0), now + 3 * S);
        assert_eq!(departure.tell_at(1.0), now + 13 * S);
        assert_eq!(departure.ends(), now + 18 * S);
    }

    /// What `tests/cluster/rolling.rs` sees from outside, without the noise of a machine.
    #[test]
    fn no_second_tells_more_than_twice_as_many_as_the_plan_has() {
        let mut rng = StdRng::seed_from_u64(7);
        for sessions_count in [500, 1_667, 5_000, 100_000] {
            let (now, departure) = departure(sessions_count, Some(1_000));
            let mut by_second = std::collections::BTreeMap::<_, u64>::new();
            for _ in 0..sessions_count {
                let told = departure.tell_at(rng.random_range(0.0..=1.0)) - now;
                // A worker looks every quarter of a second.
                let second = told.as_millis().next_multiple_of(250) / 1_000;
                *by_second.entry(second).or_default() += 1;
            }
            let planned_per_s = sessions_count as f64 / departure.spread().as_secs_f64();
            assert!(planned_per_s <= 1_000.0);
            let most = by_second.into_values().max().expect("some were told");
            assert!(
                most as f64 <= 2.0 * planned_per_s,
                "{most} of {planned_per_s}"
            );
        }
    }

    #[test]
    fn the_pace_lengthens_the_window_and_never_shortens_it() {
        let (now, slow) = departure(5_000, Some(100));
        assert_eq!(slow.spread(), 50 * S);
        assert_eq!(slow.ends(), now + (3 + 50 + 5) * S);
        let (_, few) = departure(5_000, Some(1_000));
        assert_eq!(few.spread(), 10 * S);
        let (_, none) = departure(0, Some(1));
        assert_eq!(none.spread(), 10 * S);
    }
}
