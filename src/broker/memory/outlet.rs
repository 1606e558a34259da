//! The sending end of the feed: never waits, never loses in silence.
//!
//! In: deliveries, acknowledgements, control messages and confirmed subscriptions, all under the
//! broker's lock, so that the feed's order is the order of ids. Out: the [`Feed`]. Bound:
//! [`FEED_EVENTS_MAX`] events. At the bound an event is dropped and counted, and what follows is
//! dropped too until a [`FeedEvent::Break`] found room. Confirmations are never dropped; they wait
//! here, at most one per topic, until there is room behind the break.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::broker::interest::WishNumber;
use crate::broker::{FEED_EVENTS_MAX, Feed, FeedEvent, FeedNumber};
use crate::protocol::ids::Topic;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(super) struct Outlet {
    feed: mpsc::Sender<FeedEvent>,
    full: Arc<Notify>,
    /// Events dropped since the last [`FeedEvent::Break`]; not 0 means that a break is owed.
    dropped: u64,
    unconfirmed: HashMap<Topic, WishNumber>,
    metrics: Arc<Metrics>,
}

impl Outlet {
    /// A new feed. `full` is notified whenever something is owed that did not fit, so that the
    /// broker's task waits for room and calls [`Self::settle`].
    pub(super) fn new(full: Arc<Notify>, metrics: Arc<Metrics>) -> (Self, Feed) {
        let (feed, receiver) = mpsc::channel(FEED_EVENTS_MAX);
        let outlet = Self {
            feed,
            full,
            dropped: 0,
            unconfirmed: HashMap::new(),
            metrics,
        };
        (outlet, receiver)
    }

    /// A handle on which to wait for room.
    pub(super) fn sender(&self) -> mpsc::Sender<FeedEvent> {
        self.feed.clone()
    }

    /// Sends an event behind everything that is owed, or drops it and owes a break.
    pub(super) fn push(&mut self, event: FeedEvent) {
        self.settle();
        if self.owes() || !send(&self.feed, || event) {
            self.dropped += 1;
            self.metrics.control.feed_dropped.add(1);
            self.full.notify_one();
        }
    }

    /// Confirms subscriptions, now or as soon as there is room.
    pub(super) fn confirm(&mut self, topics: impl IntoIterator<Item = (Topic, WishNumber)>) {
        self.unconfirmed.extend(topics);
        self.settle();
        if self.owes() {
            self.full.notify_one();
        }
    }

    /// Forgets a confirmation that nobody waits for any more.
    pub(super) fn forget(&mut self, topic: &Topic) {
        self.unconfirmed.remove(topic);
    }

    /// Whether a break or a confirmation waits for room.
    pub(super) fn owes(&self) -> bool {
        self.dropped > 0 || !self.unconfirmed.is_empty()
    }

    /// Sends what is owed, as far as there is room.
    pub(super) fn settle(&mut self) {
        if !self.owes() {
            return;
        }
        if self.feed.is_closed() {
            // Nobody is left who could be told; owing on would keep the broker's task awake.
            self.dropped = 0;
            self.unconfirmed.clear();
            return;
        }
        if self.dropped > 0 && send(&self.feed, || FeedEvent::Break(FeedNumber::default())) {
            let dropped = std::mem::take(&mut self.dropped);
            tracing::warn!(
                event = "feed_overflowed",
                dropped,
                "the feed was full; its reader checks every topic"
            );
        }
        if self.dropped == 0 && !self.unconfirmed.is_empty() {
            let unconfirmed = &mut self.unconfirmed;
            send(&self.feed, || {
                FeedEvent::Subscribed(unconfirmed.drain().collect())
            });
        }
    }
}

/// Sends if there is room; only then is the event made. A closed feed has room for everything:
/// its reader ended with the node, and nothing can be lost to it.
fn send(feed: &mpsc::Sender<FeedEvent>, event: impl FnOnce() -> FeedEvent) -> bool {
    match feed.try_reserve() {
        Ok(room) => {
            room.send(event());
            true
        }
        Err(TrySendError::Closed(())) => true,
        Err(TrySendError::Full(())) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::App;
    use bytes::Bytes;

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).expect("a valid name")
    }

    fn control(text: &'static str) -> FeedEvent {
        FeedEvent::Control(Bytes::from_static(text.as_bytes()))
    }

    fn full() -> (Outlet, Feed) {
        let (mut outlet, feed) = Outlet::new(Arc::default(), Arc::new(Metrics::new(0)));
        for _ in 0..FEED_EVENTS_MAX {
            outlet.push(control("early"));
        }
        assert!(!outlet.owes());
        (outlet, feed)
    }

    #[test]
    fn what_does_not_fit_is_followed_by_a_break_before_anything_else() {
        let (mut outlet, mut feed) = full();
        outlet.push(control("dropped"));
        assert!(outlet.owes());
        for _ in 0..2 {
            assert_eq!(feed.try_recv().ok(), Some(control("early")));
        }
        outlet.push(control("late"));
        assert!(!outlet.owes());
        for _ in 2..FEED_EVENTS_MAX {
            assert_eq!(feed.try_recv().ok(), Some(control("early")));
        }
        assert_eq!(
            feed.try_recv().ok(),
            Some(FeedEvent::Break(FeedNumber::default()))
        );
        assert_eq!(feed.try_recv().ok(), Some(control("late")));
        assert!(feed.try_recv().is_err());
    }

    #[test]
    fn an_event_that_finds_room_only_for_the_break_is_dropped_and_owes_another() {
        let (mut outlet, mut feed) = full();
        outlet.push(control("dropped"));
        feed.try_recv().expect("the feed is full");
        outlet.push(control("dropped too"));
        assert!(outlet.owes());
        assert_eq!(feed.len(), FEED_EVENTS_MAX);
        assert_eq!(outlet.metrics.control.feed_dropped.get(), 2);
    }

    #[test]
    fn a_confirmation_outlives_a_full_feed_and_comes_behind_the_break() {
        let (mut outlet, mut feed) = full();
        outlet.push(control("dropped"));
        outlet.confirm([
            (topic("wanted"), WishNumber(1)),
            (topic("given-up"), WishNumber(2)),
        ]);
        outlet.forget(&topic("given-up"));
        while feed.try_recv().is_ok() {}
        outlet.settle();
        assert_eq!(
            feed.try_recv().ok(),
            Some(FeedEvent::Break(FeedNumber::default()))
        );
        assert_eq!(
            feed.try_recv().ok(),
            Some(FeedEvent::Subscribed(vec![(
                topic("wanted"),
                WishNumber(1)
            )]))
        );
        assert!(!outlet.owes());
    }

    #[test]
    fn a_closed_feed_is_owed_nothing() {
        let (mut outlet, feed) = full();
        outlet.push(control("dropped"));
        drop(feed);
        outlet.confirm([(topic("wanted"), WishNumber(1))]);
        assert!(!outlet.owes());
        outlet.push(control("nobody listens"));
        assert!(!outlet.owes());
    }
}
