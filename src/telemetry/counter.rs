//! One number of an instrument.
//!
//! In: a stage adds, or sets. Out: the value, for whoever renders it. A plain load and store where one
//! thread owns it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows, or (as a gauge) is set by its one owner.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds, from the one thread that owns this counter. Not for shared counters.
    pub fn add_owned(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds, from any thread.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Takes off, from any thread; a gauge only. Returns what it was before.
    pub fn sub(&self, n: u64) -> u64 {
        self.0.fetch_sub(n, Relaxed)
    }

    /// Sets a gauge.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The longest of what has ended since somebody asked last.
#[derive(Debug, Default)]
pub struct Longest(AtomicU64);

impl Longest {
    /// Something took so long. From any thread; a load, unless it is the longest.
    pub fn note(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if us > self.0.load(Relaxed) {
            self.0.fetch_max(us, Relaxed);
        }
    }

    /// How long it took. What ends from now on is for the next who asks.
    #[must_use]
    pub fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Relaxed))
    }
}

/// Seconds, as a gauge or as a sum that only grows. Kept as microseconds.
#[derive(Debug, Default)]
pub struct Seconds(Counter);

impl Seconds {
    /// Sets it.
    pub fn set(&self, time: Duration) {
        self.0
            .set(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> Duration {
        Duration::from_micros(self.0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_is_told_once() {
        let (longest, ms) = (Longest::default(), Duration::from_millis);
        for took in [3, 9, 5] {
            longest.note(ms(took));
        }
        assert_eq!([longest.take(), longest.take()], [ms(9), ms(0)]);
    }
}
