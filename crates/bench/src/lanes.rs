//! How long messages of each priority waited, from when they were taken to when they came.
//!
//! In: lists that were posted, the moment of each answer, the marks of what came. Out: for each lane
//! the waits, and for how long nothing of it came although something waited. A list is known by the
//! time at which it was sent, which no two lists share. Bounds: one number for each list of the run.

use std::cell::RefCell;
use std::collections::HashMap;

use hdrhistogram::Histogram;

use super::latency::histogram;
use super::mark::Mark;

/// How many lanes there are: one for each priority.
pub const LANES_COUNT: usize = 4;

/// So many of each lane.
pub type Counts = [u64; LANES_COUNT];

/// What one lane saw.
#[derive(Debug, Clone)]
pub struct Lane {
    /// From the answer to the message, in microseconds; 0 for what came before its answer.
    pub wait: Histogram<u64>,
    /// Longest time in which something waited and nothing came, in microseconds.
    pub stood_us: u64,
    waiting: u64,
    moved_us: u64,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            wait: histogram(),
            stood_us: 0,
            waiting: 0,
            moved_us: 0,
        }
    }
}

impl Lane {
    /// Takes what was seen in another stretch.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.wait.add(&other.wait);
        self.stood_us = self.stood_us.max(other.stood_us);
    }
}

/// All lanes of a run. A message's publisher is its lane.
#[derive(Debug, Default)]
pub struct Lanes {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lanes: [Lane; LANES_COUNT],
    /// When each list was answered, by when it was sent.
    taken_us: HashMap<u64, u64>,
    last_sent_us: u64,
    waiting_max: u64,
}

impl Lanes {
    /// A list is to be sent now. Returns the time that its marks carry.
    #[must_use]
    pub fn sent(&self, counts: &Counts, now_us: u64) -> u64 {
        let inner = &mut *self.inner.borrow_mut();
        let sent_us = now_us.max(inner.last_sent_us + 1);
        inner.last_sent_us = sent_us;
        for (lane, count) in inner.lanes.iter_mut().zip(counts) {
            if lane.waiting == 0 {
                lane.moved_us = sent_us;
            }
            lane.waiting += count;
        }
        let waiting = inner.lanes.iter().map(|lane| lane.waiting).sum();
        inner.waiting_max = inner.waiting_max.max(waiting);
        sent_us
    }

    /// The list that was sent at this time was answered; so many of it were refused.
    pub fn taken(&self, sent_us: u64, refused: &Counts, now_us: u64) {
        let inner = &mut *self.inner.borrow_mut();
        inner.taken_us.insert(sent_us, now_us);
        for (lane, count) in inner.lanes.iter_mut().zip(refused) {
            lane.waiting = lane.waiting.saturating_sub(*count);
        }
    }

    /// A message came.
    pub fn message(&self, mark: Mark, now_us: u64) {
        let inner = &mut *self.inner.borrow_mut();
        let Some(lane) = inner.lanes.get_mut(mark.publisher) else {
            return;
        };
        let taken_us = inner.taken_us.get(&mark.sent_us).copied();
        let wait_us = now_us.saturating_sub(taken_us.unwrap_or(now_us));
        lane.wait.saturating_record(wait_us);
        lane.stood_us = lane.stood_us.max(now_us.saturating_sub(lane.moved_us));
        lane.moved_us = now_us;
        lane.waiting = lane.waiting.saturating_sub(1);
    }

    /// What was seen since the last call, and how many waited at most.
    #[must_use]
    pub fn take(&self) -> ([Lane; LANES_COUNT], u64) {
        let inner = &mut *self.inner.borrow_mut();
        let lanes = std::mem::take(&mut inner.lanes);
        (lanes, std::mem::take(&mut inner.waiting_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(publisher: usize, number: u64, sent_us: u64) -> Mark {
        Mark {
            publisher,
            number,
            sent_us,
        }
    }

    #[test]
    fn a_wait_begins_with_the_answer_and_a_lane_stands_while_something_waits() {
        let lanes = Lanes::default();
        let first = lanes.sent(&[1, 0, 0, 2], 1_000);
        let second = lanes.sent(&[1, 0, 0, 0], 1_000);
        assert_ne!(first, second, "no two lists are sent at one time");
        lanes.message(mark(0, 1, first), 1_500);
        lanes.taken(first, &[0; 4], 2_000);
        lanes.message(mark(3, 1, first), 5_000);
        lanes.message(mark(3, 2, first), 6_000);
        let (seen, waiting_max) = lanes.take();
        assert_eq!(waiting_max, 4);
        assert_eq!(seen[0].wait.max(), 0, "it came before its answer");
        assert_eq!((seen[3].wait.min(), seen[3].wait.len()), (3_000, 2));
        assert_eq!((seen[0].stood_us, seen[3].stood_us), (500, 4_000));
        assert_eq!(seen[1].stood_us, 0, "where nothing waits nothing stands");
    }

    #[test]
    fn what_was_refused_does_not_wait() {
        let lanes = Lanes::default();
        let sent = lanes.sent(&[0, 0, 0, 3], 10);
        lanes.taken(sent, &[0, 0, 0, 3], 20);
        let again = lanes.sent(&[0, 0, 0, 3], 9_000);
        lanes.message(mark(3, 1, again), 9_100);
        assert_eq!(lanes.take().0[3].stood_us, 100);
    }
}
