//! One coarse timer wheel for all sessions of a worker: pings, deadlines, ends of tokens.
//!
//! In: sessions say when they next want to be looked at. Out: once a tick, the keys that are due.
//! A session that is due looks at its own clock and says when it wants to be looked at again, so
//! an entry that came too early, or twice, costs a glance and nothing else. Bound: a few entries a
//! session; nothing is ever removed, only passed.

use std::time::{Duration, Instant};

/// How coarse the wheel is. Deadlines here are seconds; a quarter is close enough.
pub const TICK: Duration = Duration::from_millis(250);

/// Ticks in one turn of the wheel: 64 s, so that pings and deadlines fit into one turn.
const SLOTS: usize = 256;

/// The furthest that makes sense to ask for; what is further is looked at once a turn.
pub const HORIZON: Duration = Duration::from_secs(60);

/// The wheel over keys of any kind.
#[derive(Debug)]
pub struct Wheel<K> {
    slots: Vec<Vec<K>>,
    /// The slot that the next tick empties.
    at: usize,
    /// When that tick is due.
    due: Instant,
}

impl<K> Wheel<K> {
    /// An empty wheel whose first tick is one [`TICK`] after `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            slots: std::iter::repeat_with(Vec::new).take(SLOTS).collect(),
            at: 0,
            due: now + TICK,
        }
    }

    /// Asks for `key` at the first tick at or after `at`, or after one turn of the wheel if
    /// that is sooner.
    pub fn schedule(&mut self, key: K, at: Instant) {
        let wait = at.saturating_duration_since(self.due).as_nanos();
        let ticks = wait.div_ceil(TICK.as_nanos()).min(SLOTS as u128 - 1);
        let ticks = usize::try_from(ticks).expect("bounded by SLOTS above");
        let slot = (self.at + ticks) % SLOTS;
        self.slots[slot].push(key);
    }

    /// Takes what is due by `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        while self.due <= now {
            due.append(&mut self.slots[self.at]);
            self.at = (self.at + 1) % SLOTS;
            self.due += TICK;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_at_its_tick_and_not_before() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        wheel.schedule("soon", start);
        wheel.schedule("second", start + Duration::from_secs(1));
        wheel.schedule("far", start + Duration::from_secs(3_600));
        assert!(wheel.tick(start).is_empty());
        assert_eq!(wheel.tick(start + TICK), ["soon"]);
        assert!(wheel.tick(start + Duration::from_millis(999)).is_empty());
        assert_eq!(wheel.tick(start + Duration::from_secs(1)), ["second"]);
        let turn = TICK * u32::try_from(SLOTS).unwrap();
        assert_eq!(wheel.tick(start + turn), ["far"], "looked at once a turn");
    }

    #[test]
    fn a_late_tick_brings_everything_that_was_due() {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        for s in 0..10 {
            wheel.schedule(s, start + Duration::from_secs(s));
        }
        assert_eq!(wheel.tick(start + Duration::from_secs(20)).len(), 10);
    }
}
