//! What is held back after a break until revocations were read: nobody is to get what was published
//! after he was put out.
//!
//! In: word that a feed is down, what it brings first when it stands again, answers, and how far the
//! workers were told of revocations. Out: a window in which the dispatcher takes neither events nor
//! answers. It ends when a reading that was begun in it was told to the workers, whose queues carry
//! that before any delivery behind it, or after [`WINDOW_MAX`]: the master of `{rv}` may be away while
//! others work. A node that has read nothing for too long, or whose workers were not told for as long,
//! because it stood still, holds back once in the same way. [`HeldBack`] is pure. Bounds: one batch of
//! events and one answer are kept; the feed's queue is bounded and names what it lost. Where revocations are in no store nothing is held back.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout_at;

use super::Dispatcher;
use super::asks::Answer;
use crate::broker::{FeedEvent, FeedNumber};
use crate::revocation::known::HELD_MAX;
use crate::telemetry::revocation_metrics::WaitEnd;

/// The longest that is held back.
pub(super) const WINDOW_MAX: Duration = HELD_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    /// Feeds that were down and have brought nothing since.
    down: BTreeSet<FeedNumber>,
    /// It was held back because nothing was read for too long, and nothing was read since.
    is_unread: bool,
    opened_at: Option<Instant>,
}

impl HeldBack {
    /// A feed is down.
    pub(super) fn down(&mut self, feed: FeedNumber) {
        self.down.insert(feed);
    }

    /// Whether any feed was down and has brought nothing since.
    pub(super) fn is_any_down(&self) -> bool {
        !self.down.is_empty()
    }

    /// A feed, or the master that it belongs to, brings something. Returns whether that is held back.
    pub(super) fn brings(&mut self, feed: FeedNumber, now: Instant) -> bool {
        if self.down.remove(&feed) {
            self.opened_at.get_or_insert(now);
        }
        self.is_open()
    }

    /// Whether nothing was read for too long. Returns whether what comes is held back.
    pub(super) fn looks(&mut self, is_unread: bool, now: Instant) -> bool {
        if is_unread && !std::mem::replace(&mut self.is_unread, true) {
            self.opened_at.get_or_insert(now);
        }
        self.is_unread = is_unread;
        self.is_open()
    }

    /// Whether everything is held back.
    pub(super) fn is_open(&self) -> bool {
        self.opened_at.is_some()
    }

    /// When it was opened, while it is open.
    pub(super) fn window(&self) -> Option<Instant> {
        self.opened_at
    }

    /// The workers were told of all that a reading which was begun then has found. Returns how the
    /// window ended, if it has.
    pub(super) fn settle(&mut self, told: Option<Instant>, now: Instant) -> Option<WaitEnd> {
        let opened_at = self.opened_at?;
        let end = if told.is_some_and(|begun_at| begun_at >= opened_at) {
            WaitEnd::Read
        } else if now >= opened_at + WINDOW_MAX {
            // Nobody was told for as long: that opens no further window.
            self.is_unread = true;
            WaitEnd::Late
        } else {
            return None;
        };
        self.opened_at = None;
        Some(end)
    }
}

/// Returns when the window is to be looked at again. Cancel-safe.
pub(super) async fn over(told: &mut watch::Receiver<Option<Instant>>, opened_at: Option<Instant>) {
    let until = opened_at.map_or_else(Instant::now, |at| at + WINDOW_MAX);
    // A teller that is gone is as good as none.
    let read = async {
        if told
            .wait_for(|begun_at| *begun_at >= opened_at)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    };
    let _ = timeout_at(until.into(), read).await;
}

impl Dispatcher {
    /// Takes events in their order, as far as nothing is held back.
    pub(super) fn take(&mut self, events: impl IntoIterator<Item = FeedEvent>) {
        self.look_at_reading();
        let mut events = events.into_iter();
        for event in events.by_ref() {
            if self.is_held(&event) {
                self.held_events.push_back(event);
                break;
            }
            self.feed_event(event);
        }
        self.held_events.extend(events);
    }

    /// Takes an answer, or keeps it while everything is held back. Returns whether it was taken.
    pub(super) fn take_answer(&mut self, answer: Answer) -> bool {
        self.look_at_reading();
        let is_held = match answer.answered_by() {
            Some(feed) => self.brings(feed),
            None => self.held_back.is_open(),
        };
        if is_held {
            self.held_answer = Some(answer);
            return false;
        }
        self.answered(answer);
        true
    }

    /// Goes on where the window has ended.
    pub(super) fn release(&mut self, told: Option<Instant>) {
        let Some(end) = self.held_back.settle(told, self.now) else {
            return;
        };
        self.revocations.metrics().waits.of(end).add(1);
        self.revocations.await_told(None);
        if let Some(answer) = self.held_answer.take() {
            self.take_answer(answer);
        }
        let events = std::mem::take(&mut self.held_events);
        self.take(events);
    }

    fn look_at_reading(&mut self) {
        let was_open = self.held_back.is_open();
        // Not by what was read: after a node stood still its reader is quicker than who tells the workers.
        let revocations = &self.revocations;
        let is_unread = revocations.unread().is_some() || !revocations.is_told(self.now);
        if self.held_back.looks(is_unread, self.now) && !was_open {
            self.revocations.await_told(self.held_back.window());
        }
    }

    fn is_held(&mut self, event: &FeedEvent) -> bool {
        if self.held_back.is_open() || !self.held_back.is_any_down() {
            return self.held_back.is_open();
        }
        let topic = match event {
            FeedEvent::Delivery { topic, .. } | FeedEvent::Acked { topic, .. } => Some(topic),
            FeedEvent::Subscribed(wishes) => wishes.first().map(|(topic, _)| topic),
            FeedEvent::Doubt(topics) => topics.first(),
            FeedEvent::Down(_) | FeedEvent::Break(_) | FeedEvent::Control(_) => None,
        };
        let feed = match event {
            FeedEvent::Break(feed) => Some(*feed),
            _ => topic.and_then(|topic| self.broker.feed_of(topic)),
        };
        feed.is_some_and(|feed| self.brings(feed))
    }

    fn brings(&mut self, feed: FeedNumber) -> bool {
        let was_open = self.held_back.is_open();
        let is_open = self.held_back.brings(feed, self.now);
        if is_open && !was_open {
            self.revocations.await_told(self.held_back.window());
        }
        is_open
    }

    /// That a feed is down matters where others may revoke.
    pub(super) fn feed_is_down(&mut self, feed: FeedNumber) {
        if self.revocations.is_shared() {
            self.held_back.down(feed);
        }
    }
}

/// Events that wait for the end of the window.
pub(super) type HeldEvents = VecDeque<FeedEvent>;

#[cfg(test)]
mod tests {
    use super::*;

    const FEED: FeedNumber = FeedNumber(3);

    #[test]
    fn what_a_feed_brings_first_after_it_was_down_waits_for_a_reading_that_began_then() {
        let mut held = HeldBack::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!held.brings(FEED, at(0)), "it was never down");
        held.down(FEED);
        assert!(
            !held.brings(FeedNumber(4), at(5)) && held.is_any_down(),
            "another one works"
        );
        assert!(held.brings(FEED, at(10)));
        assert!(
            held.brings(FeedNumber(4), at(11)),
            "nothing is taken meanwhile"
        );
        assert_eq!(held.settle(None, at(12)), None);
        assert_eq!(
            held.settle(Some(at(9)), at(20)),
            None,
            "that reading began before"
        );
        assert_eq!(held.settle(Some(at(10)), at(20)), Some(WaitEnd::Read));
        assert!(!held.brings(FEED, at(21)), "once");
    }

    #[test]
    fn what_is_held_back_goes_on_after_a_second_whatever_comes() {
        let mut held = HeldBack::default();
        let start = Instant::now();
        held.down(FEED);
        assert!(held.brings(FEED, start));
        // It breaks again meanwhile: the window stays, and the next one is another.
        held.down(FEED);
        assert!(held.brings(FEED, start + WINDOW_MAX / 2));
        let before = start + WINDOW_MAX - Duration::from_millis(1);
        assert_eq!(held.settle(None, before), None);
        assert_eq!(held.window(), Some(start));
        assert_eq!(held.settle(None, start + WINDOW_MAX), Some(WaitEnd::Late));
        assert!(!held.is_open());
        assert!(!held.looks(true, start + WINDOW_MAX), "once for both");
    }

    #[test]
    fn a_node_that_has_read_nothing_for_too_long_holds_back_once_until_it_has() {
        let mut held = HeldBack::default();
        let start = Instant::now();
        assert!(!held.looks(false, start));
        assert!(held.looks(true, start));
        assert_eq!(held.settle(None, start + WINDOW_MAX), Some(WaitEnd::Late));
        assert!(
            !held.looks(true, start + WINDOW_MAX),
            "not for as long as it cannot read"
        );
        assert!(!held.looks(false, start + WINDOW_MAX));
        assert!(
            held.looks(true, start + 2 * WINDOW_MAX),
            "but the next time"
        );
    }
}
