//! Durations by their length.
//!
//! In: a stage counts a duration. Out: how many were no longer than each bound, and their sum. A plain
//! load and store where one thread owns it; no lock and no allocation anywhere. Bound: the cells.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::trace::context::TraceContext;

/// The shortest bound, in microseconds; each is twice the one before.
const SHORTEST_US: u64 = 250;
/// Bounds from 0.25 ms to 8.192 s.
pub const BOUNDS: usize = 16;
/// Bounds from 0.25 ms to 262.144 s, since a backlog may be older than minutes.
const LONG_BOUNDS: usize = 21;

/// What may take minutes.
pub type LongHistogram = Histogram<LONG_BOUNDS>;

/// See the module.
#[derive(Debug)]
pub struct Histogram<const COUNT: usize = BOUNDS> {
    /// Not above the bound of the same place and above the one before.
    cells: [AtomicU64; COUNT],
    /// Above all.
    above: AtomicU64,
    sum_us: AtomicU64,
}

/// An observation that has a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    /// Where it can be looked at.
    pub context: TraceContext,
    /// What was observed, in microseconds.
    pub us: u64,
    /// When, in unix milliseconds.
    pub at_ms: u64,
}

/// What a histogram says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// How many lie at or below each bound and above the one before; the last: above all.
    pub counts: Vec<u64>,
    /// Of all of them, in microseconds.
    pub sum_us: u64,
    /// Of each of these the last that has a trace; none at all where none are kept.
    pub exemplars: Vec<Option<Exemplar>>,
}

impl Spread {
    /// The bound of this place, in microseconds; the last place has none.
    #[must_use]
    pub fn bound_us(&self, place: usize) -> Option<u64> {
        (place + 1 < self.counts.len()).then_some(SHORTEST_US << place)
    }

    /// Adds what another one of the same bounds says.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.wrapping_add(other.sum_us);
    }
}

impl<const COUNT: usize> Default for Histogram<COUNT> {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| AtomicU64::default()),
            above: AtomicU64::default(),
            sum_us: AtomicU64::default(),
        }
    }
}

impl<const COUNT: usize> Histogram<COUNT> {
    /// Counts one, from any thread. Returns it in microseconds, as it was counted.
    pub fn count(&self, duration: Duration) -> u64 {
        let us = micros(duration);
        self.cell(us).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
        us
    }

    /// Counts one, from the one thread that owns this histogram. Not for shared ones.
    pub fn count_owned(&self, duration: Duration) {
        let us = micros(duration);
        for (cell, more) in [(self.cell(us), 1), (&self.sum_us, us)] {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// What it says now.
    #[must_use]
    pub fn spread(&self) -> Spread {
        let cells = self.cells.iter().chain([&self.above]);
        Spread {
            counts: cells.map(|cell| cell.load(Relaxed)).collect(),
            sum_us: self.sum_us.load(Relaxed),
            exemplars: Vec::new(),
        }
    }

    /// How many it has counted, and their sum in microseconds.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        let cells = self.cells.iter().chain([&self.above]);
        let count = cells.map(|cell| cell.load(Relaxed)).sum();
        (count, self.sum_us.load(Relaxed))
    }

    /// The place of its bound; the last: above all.
    #[must_use]
    pub fn place(us: u64) -> usize {
        let steps = us.div_ceil(SHORTEST_US).max(1);
        // The next power of two has the place of its bound.
        let place = u64::BITS - (steps - 1).leading_zeros();
        COUNT.min(place as usize)
    }

    fn cell(&self, us: u64) -> &AtomicU64 {
        self.cells.get(Self::place(us)).unwrap_or(&self.above)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_counted_at_the_first_bound_that_is_not_below_it() {
        let rows = [
            (0, 0),
            (250, 0),
            (251, 1),
            (500, 1),
            (501, 2),
            (1_000, 2),
            (8_192_000, 15),
            (8_192_001, 16),
            (u64::MAX, 16),
        ];
        for owned in [false, true] {
            for (us, place) in rows {
                let histogram: Histogram = Histogram::default();
                let duration = Duration::from_micros(us);
                match owned {
                    true => histogram.count_owned(duration),
                    false => {
                        assert_eq!(histogram.count(duration), us);
                    }
                }
                let spread = histogram.spread();
                let expected: Vec<_> = (0..17).map(|at| u64::from(at == place)).collect();
                assert_eq!((spread.counts, spread.sum_us), (expected, us));
            }
        }
    }

    #[test]
    fn the_longest_bounds_are_those_that_are_told() {
        let spread = Histogram::<BOUNDS>::default().spread();
        assert_eq!(spread.bound_us(0), Some(250));
        assert_eq!(spread.bound_us(15), Some(8_192_000));
        assert_eq!(spread.bound_us(16), None);
        let spread = LongHistogram::default().spread();
        assert_eq!(spread.bound_us(20), Some(262_144_000));
        assert_eq!(spread.bound_us(21), None);
    }
}
