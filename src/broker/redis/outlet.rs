//! The feed's way to the dispatcher, which never makes the feed wait.
//!
//! In: events in the order in which they came from Redis. Out: the bounded [`crate::broker::Feed`].
//! Owner: the feed's loop. Bound: the channel's. At the bound events are dropped and counted, and
//! a [`FeedEvent::Break`] follows before anything else as soon as there is room; confirmations
//! are kept instead (at most one per wished topic), because somebody waits for each.

use std::sync::Arc;

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::broker::interest::WishNumber;
use crate::broker::{FeedEvent, FeedNumber};
use crate::protocol::ids::Topic;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub struct Outlet {
    feed: Sender<FeedEvent>,
    number: FeedNumber,
    confirmed: Vec<(Topic, WishNumber)>,
    is_break_owed: bool,
    metrics: Arc<Metrics>,
}

impl Outlet {
    /// The outlet of the feed of this number, into the channel that all feeds share.
    #[must_use]
    pub fn new(feed: Sender<FeedEvent>, number: FeedNumber, metrics: Arc<Metrics>) -> Self {
        Self {
            feed,
            number,
            confirmed: Vec::new(),
            is_break_owed: false,
            metrics,
        }
    }

    /// Passes an event on, or drops it.
    pub fn push(&mut self, event: FeedEvent) {
        if !self.pay() {
            self.metrics.control.feed_dropped.add(1);
            return;
        }
        if let Err(TrySendError::Full(_)) = self.feed.try_send(event) {
            self.metrics.control.feed_dropped.add(1);
            self.break_off();
        }
    }

    /// These subscriptions stand and are awaited.
    pub fn confirm(&mut self, topics: Vec<(Topic, WishNumber)>) {
        self.confirmed.extend(topics);
        self.pay();
    }

    /// Something may have been lost. Several breaks that were not told yet are one.
    pub fn break_off(&mut self) {
        self.is_break_owed = true;
        self.pay();
    }

    /// Whether something waits for room.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.is_break_owed || !self.confirmed.is_empty()
    }

    /// Waits for room. Cancel-safe.
    pub async fn room(&self) {
        // An error means that nobody listens any more, which `is_closed` tells.
        let _ = self.feed.reserve().await;
    }

    /// Whether nobody listens any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.feed.is_closed()
    }

    /// Sends what is owed, as far as there is room; `true` when nothing is owed any more. The
    /// break comes last, so that it covers what was lost of topics just confirmed.
    pub fn pay(&mut self) -> bool {
        if !self.confirmed.is_empty() {
            let event = FeedEvent::Subscribed(std::mem::take(&mut self.confirmed));
            if let Err(TrySendError::Full(FeedEvent::Subscribed(topics))) =
                self.feed.try_send(event)
            {
                self.confirmed = topics;
                return false;
            }
        }
        if self.is_break_owed {
            self.is_break_owed = matches!(
                self.feed.try_send(FeedEvent::Break(self.number)),
                Err(TrySendError::Full(_))
            );
        }
        !self.is_break_owed
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::protocol::ids::App;

    fn event(n: u8) -> FeedEvent {
        FeedEvent::Control(Bytes::from(vec![n]))
    }

    #[test]
    fn a_full_feed_drops_and_counts_and_tells_a_break_before_anything_else() {
        let (sender, mut feed) = tokio::sync::mpsc::channel(2);
        let metrics = Arc::new(Metrics::new(0));
        let mut outlet = Outlet::new(sender, FeedNumber(7), Arc::clone(&metrics));
        let confirmed = vec![(Topic::everyone(&App::default_app()), WishNumber(1))];
        for n in 0..5 {
            outlet.push(event(n));
        }
        outlet.confirm(confirmed.clone());
        assert!(outlet.owes());
        assert_eq!(feed.try_recv(), Ok(event(0)));
        assert_eq!(feed.try_recv(), Ok(event(1)));
        outlet.push(event(5));
        outlet.push(event(6));
        assert_eq!(feed.try_recv(), Ok(FeedEvent::Subscribed(confirmed)));
        assert_eq!(feed.try_recv(), Ok(FeedEvent::Break(FeedNumber(7))));
        // The fifth and sixth were lost behind that break, so another one covers them.
        outlet.push(event(7));
        assert_eq!(feed.try_recv(), Ok(FeedEvent::Break(FeedNumber(7))));
        assert_eq!(feed.try_recv(), Ok(event(7)));
        assert!(feed.try_recv().is_err());
        assert!(!outlet.owes());
        assert_eq!(metrics.control.feed_dropped.get(), 5);
    }
}
