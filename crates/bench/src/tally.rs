//! What came, and whether it was all of it, once, and in order.
//!
//! In: the mark of each message and the session that it came to. Out: counts, the latencies, and
//! how many came in each second. One thread: nothing here is locked. Bounds: per session and
//! publisher [`HOLES_MAX`] holes are remembered; a message that fills a forgotten one is counted
//! as doubled, and the hole stays missing, so a fault is never counted as none.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

use super::lanes::Lanes;
use super::latency::{histogram, micros};
use super::mark::Mark;

/// Most holes in the numbers of one publisher that one session remembers.
const HOLES_MAX: usize = 1_024;

/// What a number means beside those that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// It is the next.
    Next,
    /// So many before it have not come.
    Jumped(u64),
    /// It is one of those that had not come: it was overtaken.
    Late,
    /// It has come before.
    Again,
}

/// The numbers of one publisher as one session sees them.
#[derive(Debug, Default)]
pub struct Track {
    last: u64,
    holes: Vec<Range<u64>>,
}

impl Track {
    /// The highest number that came.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.last
    }

    /// Takes the next number that came.
    pub fn take(&mut self, number: u64) -> Order {
        if number > self.last {
            let jumped = number - self.last - 1;
            if jumped > 0 {
                if self.holes.len() == HOLES_MAX {
                    self.holes.remove(0);
                }
                self.holes.push(self.last + 1..number);
            }
            self.last = number;
            return if jumped == 0 {
                Order::Next
            } else {
                Order::Jumped(jumped)
            };
        }
        let Some(at) = self.holes.iter().position(|hole| hole.contains(&number)) else {
            return Order::Again;
        };
        let hole = self.holes.remove(at);
        let parts = [hole.start..number, number + 1..hole.end];
        let left = parts.into_iter().filter(|part| !part.is_empty());
        self.holes.splice(at..at, left);
        Order::Late
    }
}

/// The counts that all sessions of a crowd share.
#[derive(Debug)]
pub struct Tally {
    begin: Instant,
    last_at: Cell<Instant>,
    received: Cell<u64>,
    doubled: Cell<u64>,
    reordered: Cell<u64>,
    gaps_told: Cell<u64>,
    ended: Cell<u64>,
    returned: Cell<u64>,
    first_end: RefCell<Option<String>>,
    latency: RefCell<Histogram<u64>>,
    per_second: RefCell<Vec<u64>>,
    awaited: Cell<u64>,
    reached: Notify,
    lanes: Option<Rc<Lanes>>,
}

impl Tally {
    /// Counts from nothing. Times are counted from `begin`, which all tallies of a load share.
    #[must_use]
    pub fn new(begin: Instant) -> Self {
        Self {
            begin,
            last_at: Cell::new(begin),
            received: Cell::new(0),
            doubled: Cell::new(0),
            reordered: Cell::new(0),
            gaps_told: Cell::new(0),
            ended: Cell::new(0),
            returned: Cell::new(0),
            first_end: RefCell::new(None),
            latency: RefCell::new(histogram()),
            per_second: RefCell::new(Vec::new()),
            awaited: Cell::new(u64::MAX),
            reached: Notify::new(),
            lanes: None,
        }
    }

    /// The same, where each publisher is a lane whose waits are told apart.
    #[must_use]
    pub fn with_lanes(begin: Instant, lanes: Rc<Lanes>) -> Self {
        Self {
            lanes: Some(lanes),
            ..Self::new(begin)
        }
    }

    /// Takes a message that came to the session of these tracks, one per publisher.
    pub fn message(&self, tracks: &mut [Track], mark: Mark, now: Instant) {
        let Some(track) = tracks.get_mut(mark.publisher) else {
            return;
        };
        match track.take(mark.number) {
            Order::Next | Order::Jumped(_) => {}
            Order::Late => add(&self.reordered),
            Order::Again => {
                add(&self.doubled);
                return;
            }
        }
        add(&self.received);
        self.last_at.set(now);
        let since_begin = now.duration_since(self.begin);
        let latency_us = micros(since_begin).saturating_sub(mark.sent_us);
        self.latency.borrow_mut().saturating_record(latency_us);
        if let Some(lanes) = &self.lanes {
            lanes.message(mark, micros(since_begin));
        }
        let second = usize::try_from(since_begin.as_secs()).unwrap_or(usize::MAX);
        let mut per_second = self.per_second.borrow_mut();
        if second >= per_second.len() {
            per_second.resize(second + 1, 0);
        }
        per_second[second] += 1;
        if self.received.get() >= self.awaited.get() {
            self.awaited.set(u64::MAX);
            self.reached.notify_waiters();
        }
    }

    /// The server told a session what it will not get.
    pub fn gap_told(&self) {
        add(&self.gaps_told);
    }

    /// A session that should have stayed has ended; the first reason is kept.
    pub fn session_ended(&self, reason: &str) {
        add(&self.ended);
        self.first_end
            .borrow_mut()
            .get_or_insert_with(|| reason.to_owned());
    }

    /// A session that was ended came back.
    pub fn session_returned(&self) {
        add(&self.returned);
    }

    /// Microseconds since the load began, as marks carry them.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        micros(self.begin.elapsed())
    }

    /// Messages that came, each counted once.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.get()
    }

    /// When the last of them came.
    #[must_use]
    pub fn last_at(&self) -> Instant {
        self.last_at.get()
    }

    /// Sessions that ended although nobody asked them to.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ended.get()
    }

    /// Sessions that came back after an end.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.get()
    }

    /// The latencies since the last call.
    #[must_use]
    pub fn take_latency(&self) -> Histogram<u64> {
        self.latency.replace(histogram())
    }

    /// How many came in each second since the load began.
    #[must_use]
    pub fn per_second(&self) -> Vec<u64> {
        self.per_second.borrow().clone()
    }

    /// The counts beside what was to come.
    #[must_use]
    pub fn counts(&self, sent: u64, expected: u64) -> Counts {
        Counts {
            sent,
            expected,
            received: self.received.get(),
            missing: expected.saturating_sub(self.received.get()),
            doubled: self.doubled.get(),
            reordered: self.reordered.get(),
            gaps_told: self.gaps_told.get(),
            sessions_ended: self.ended.get(),
            first_end: self.first_end.borrow().clone(),
        }
    }

    /// Waits until so many came, or until nothing has come for `quiet`; says whether they came.
    /// Several may wait at once.
    pub async fn until(&self, expected: u64, quiet: Duration) -> bool {
        while self.received.get() < expected {
            let before = self.received.get();
            self.awaited.set(self.awaited.get().min(expected));
            let reached = self.reached.notified();
            let in_time = tokio::time::timeout(quiet, reached).await.is_ok();
            if !in_time && self.received.get() == before {
                return false;
            }
        }
        true
    }
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

/// What came beside what was to come.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Publications that the server took.
    pub sent: u64,
    /// Deliveries that these make.
    pub expected: u64,
    /// Deliveries that came, each counted once.
    pub received: u64,
    /// Deliveries that did not come.
    pub missing: u64,
    /// Deliveries that came again.
    pub doubled: u64,
    /// Deliveries that came after a later one of the same publisher.
    pub reordered: u64,
    /// Losses that the server told a session.
    pub gaps_told: u64,
    /// Sessions that ended although nobody asked them to.
    pub sessions_ended: u64,
    /// Why the first of those ended.
    pub first_end: Option<String>,
}

impl Counts {
    /// Whether everything came, once, and in order, and nobody was sent away.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing + self.doubled + self.reordered + self.sessions_ended == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(numbers: &[u64], sent: u64) -> Counts {
        let tally = Tally::new(Instant::now());
        let mut tracks = [Track::default()];
        for number in numbers {
            let mark = Mark {
                publisher: 0,
                number: *number,
                sent_us: 0,
            };
            tally.message(&mut tracks, mark, Instant::now());
        }
        tally.counts(sent, sent)
    }

    #[test]
    fn what_came_once_and_in_order_is_clean() {
        let counts = tally_of(&[1, 2, 3, 4], 4);
        assert!(counts.is_clean());
        assert_eq!((counts.received, counts.missing), (4, 0));
    }

    #[test]
    fn what_never_came_is_missing_in_the_middle_and_at_the_end() {
        let counts = tally_of(&[1, 3, 6], 8);
        assert!(!counts.is_clean());
        assert_eq!((counts.received, counts.missing), (3, 5));
        assert_eq!((counts.doubled, counts.reordered), (0, 0));
    }

    #[test]
    fn what_came_twice_is_doubled_and_hides_nothing_that_is_missing() {
        let counts = tally_of(&[1, 2, 2, 4, 1], 4);
        assert_eq!((counts.doubled, counts.missing), (2, 1));
        assert_eq!((counts.received, counts.reordered), (3, 0));
    }

    #[test]
    fn what_was_overtaken_is_reordered_and_not_missing() {
        let counts = tally_of(&[1, 5, 3, 2, 4, 3], 5);
        assert_eq!((counts.reordered, counts.missing), (3, 0));
        assert_eq!((counts.received, counts.doubled), (5, 1));
    }

    #[test]
    fn publishers_are_numbered_apart() {
        let tally = Tally::new(Instant::now());
        let mut tracks = [Track::default(), Track::default()];
        for (publisher, number) in [(0, 1), (1, 1), (1, 2), (0, 2)] {
            let mark = Mark {
                publisher,
                number,
                sent_us: 0,
            };
            tally.message(&mut tracks, mark, Instant::now());
        }
        assert!(tally.counts(4, 4).is_clean());
    }

    #[test]
    fn more_holes_than_are_remembered_never_look_like_none() {
        let numbers: Vec<u64> = (1..=3 * HOLES_MAX as u64).map(|n| 2 * n).collect();
        let counts = tally_of(&numbers, 6 * HOLES_MAX as u64);
        assert_eq!(counts.missing, 3 * HOLES_MAX as u64);
        let late: Vec<u64> = numbers.iter().copied().chain([1]).collect();
        let counts = tally_of(&late, 6 * HOLES_MAX as u64);
        assert_eq!((counts.doubled, counts.missing), (1, 3 * HOLES_MAX as u64));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_last_message_or_with_silence() {
        let tally = Tally::new(Instant::now());
        assert!(tally.until(0, Duration::MAX).await);
        assert!(!tally.until(1, Duration::from_millis(1)).await);
        let come = async {
            let mark = Mark {
                publisher: 0,
                number: 1,
                sent_us: 0,
            };
            tally.message(&mut [Track::default()], mark, Instant::now());
        };
        let waits = || tally.until(1, Duration::from_secs(60));
        let (first, second, ()) = tokio::join!(waits(), waits(), come);
        assert!(first && second);
    }
}
