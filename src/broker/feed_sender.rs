//! The sending end of the feed: never waits, never loses in silence. Both engines use it.
//!
//! In: events in the order in which the broker made them, confirmed subscriptions, word that the
//! feed is down or broke. Out: the [`Feed`]. Owner: the broker under its lock, or the feed's loop. Bounds: the
//! channel's; confirmations, at most one per wished topic; [`LOST_TOPICS_MAX`] names of topics. At
//! the channel's bound an event is dropped and counted, and what follows is dropped too until what
//! is owed has found room: confirmations are kept, because somebody waits for each; behind them
//! comes word of what was lost, which therefore covers the topics just confirmed. Only topics that
//! lost something are named ([`FeedEvent::Doubt`]); a [`FeedEvent::Break`] of the whole feed stands
//! for more than can be named.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TrySendError};

use super::interest::WishNumber;
use super::{FEED_EVENTS_MAX, Feed, FeedEvent, FeedNumber};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::Topic;

/// Topics that lost something and are remembered by name: as many as a queue of
/// [`FEED_EVENTS_MAX`] that overflows a little may hold. With more the whole feed is checked.
pub const LOST_TOPICS_MAX: usize = 1_024;

/// What was lost since it was last told.
#[derive(Debug)]
enum Lost {
    /// Something of these topics; of none when it is empty.
    Topics(FxHashSet<Topic>),
    /// Something of any topic of the feed.
    Anything,
}

/// See the module.
#[derive(Debug)]
pub struct FeedSender {
    feed: mpsc::Sender<FeedEvent>,
    number: FeedNumber,
    confirmed: FxHashMap<Topic, WishNumber>,
    lost: Lost,
    /// That it is down is still to be told.
    is_down: bool,
    /// Told whenever something begins to be owed.
    owing: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl FeedSender {
    /// The sender of the feed of this number, into a channel that several feeds may share.
    #[must_use]
    pub fn new(feed: mpsc::Sender<FeedEvent>, number: FeedNumber, metrics: Arc<Metrics>) -> Self {
        Self {
            feed,
            number,
            confirmed: FxHashMap::default(),
            lost: Lost::nothing(),
            is_down: false,
            owing: Arc::default(),
            metrics,
        }
    }

    /// The only sender of a feed, and the feed.
    #[must_use]
    pub fn alone(metrics: Arc<Metrics>) -> (Self, Feed) {
        let (sender, feed) = mpsc::channel(FEED_EVENTS_MAX);
        (Self::new(sender, FeedNumber::default(), metrics), feed)
    }

    /// The channel and the word that something is owed, for an owner that must not hold this sender
    /// while it waits for room: wait for the word, then for room, then call [`Self::settle`].
    #[must_use]
    pub fn waiting(&self) -> (mpsc::Sender<FeedEvent>, Arc<Notify>) {
        (self.feed.clone(), Arc::clone(&self.owing))
    }

    /// Sends an event behind everything that is owed, or drops it and owes word of that.
    pub fn push(&mut self, event: FeedEvent) {
        self.settle();
        let event = if self.owes() {
            event
        } else {
            match self.feed.try_send(event) {
                Err(TrySendError::Full(event)) => event,
                // A closed feed loses nothing: its reader ended with the node.
                Ok(()) | Err(TrySendError::Closed(_)) => return,
            }
        };
        self.metrics.control.feed_dropped.add(1);
        // A moved cursor and a control message are in no stream: no check would find them.
        if let FeedEvent::Delivery { topic, .. } = event {
            self.lost.add(topic);
        }
        self.owing.notify_one();
    }

    /// These subscriptions stand and are awaited: tells it now, or as soon as there is room.
    pub fn confirm(&mut self, topics: impl IntoIterator<Item = (Topic, WishNumber)>) {
        self.confirmed.extend(topics);
        self.settle();
    }

    /// Forgets a confirmation that nobody waits for any more.
    pub fn forget(&mut self, topic: &Topic) {
        self.confirmed.remove(topic);
    }

    /// What comes from now on comes after a time in which nothing was heard.
    pub fn down(&mut self) {
        self.is_down = true;
        self.settle();
    }

    /// Anything of this feed may have been lost. Several breaks that were not told yet are one.
    pub fn break_off(&mut self) {
        self.lost = Lost::Anything;
        self.settle();
    }

    /// Whether something waits for room.
    #[must_use]
    pub fn owes(&self) -> bool {
        self.is_down || !self.confirmed.is_empty() || !self.lost.is_nothing()
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

    /// Sends what is owed, as far as there is room.
    pub fn settle(&mut self) {
        if !self.owes() {
            return;
        }
        if self.feed.is_closed() {
            // Nobody is left who could be told; to owe on would keep the owner awake.
            self.confirmed.clear();
            (self.lost, self.is_down) = (Lost::nothing(), false);
            return;
        }
        if self.is_down {
            let Ok(room) = self.feed.try_reserve() else {
                return self.owing.notify_one();
            };
            room.send(FeedEvent::Down(self.number));
            self.is_down = false;
        }
        if !self.confirmed.is_empty() {
            let Ok(room) = self.feed.try_reserve() else {
                return self.owing.notify_one();
            };
            let confirmed = std::mem::take(&mut self.confirmed);
            room.send(FeedEvent::Subscribed(confirmed.into_iter().collect()));
        }
        if !self.lost.is_nothing() {
            let Ok(room) = self.feed.try_reserve() else {
                return self.owing.notify_one();
            };
            room.send(match std::mem::replace(&mut self.lost, Lost::nothing()) {
                Lost::Topics(topics) => FeedEvent::Doubt(topics.into_iter().collect()),
                Lost::Anything => FeedEvent::Break(self.number),
            });
        }
    }
}

impl Lost {
    fn nothing() -> Self {
        Self::Topics(FxHashSet::default())
    }

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Topics(topics) if topics.is_empty())
    }

    fn add(&mut self, topic: Topic) {
        if let Self::Topics(topics) = self {
            topics.insert(topic);
            if topics.len() > LOST_TOPICS_MAX {
                *self = Self::Anything;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::{Body, Entry};
    use fanfare_protocol::ids::{App, Position, SessionId};

    const WISH: WishNumber = WishNumber(1);

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).expect("a valid name")
    }

    /// Something of this topic that a stream has.
    fn of(name: &str) -> FeedEvent {
        let entry = Entry {
            position: Position::ZERO,
            prev: Position::ZERO,
            body: Body::Unreadable,
        };
        let topic = topic(name);
        FeedEvent::Delivery {
            topic,
            entry,
            trace: None,
        }
    }

    /// Something that no stream has.
    fn control() -> FeedEvent {
        FeedEvent::Control(Bytes::from_static(b"x"))
    }

    fn confirmed(name: &str) -> FeedEvent {
        FeedEvent::Subscribed(vec![(topic(name), WISH)])
    }

    fn doubt(names: &[&str]) -> FeedEvent {
        FeedEvent::Doubt(names.iter().map(|name| topic(name)).collect())
    }

    /// Feed number 7 with room for so many events.
    fn with_room(count: usize) -> (FeedSender, Feed) {
        let (sender, feed) = mpsc::channel(count);
        let metrics = Arc::new(Metrics::new(0));
        (FeedSender::new(sender, FeedNumber(7), metrics), feed)
    }

    /// What is in the feed, with names of doubted topics in order.
    fn read(feed: &mut Feed) -> Vec<FeedEvent> {
        let mut events: Vec<_> = std::iter::from_fn(|| feed.try_recv().ok()).collect();
        for event in &mut events {
            if let FeedEvent::Doubt(topics) = event {
                topics.sort();
            }
        }
        events
    }

    #[test]
    fn what_does_not_fit_is_doubted_before_anything_else() {
        let (mut sender, mut feed) = with_room(2);
        for name in ["a", "b", "c", "d", "c"] {
            sender.push(of(name));
        }
        assert!(sender.owes());
        assert_eq!(read(&mut feed), [of("a"), of("b")]);
        sender.push(of("e"));
        assert!(!sender.owes());
        assert_eq!(read(&mut feed), [doubt(&["c", "d"]), of("e")]);
        assert_eq!(sender.metrics.control.feed_dropped.get(), 3);
    }

    #[test]
    fn what_finds_room_only_for_the_doubt_is_doubted_too() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(of("a"));
        sender.push(of("b"));
        assert_eq!(read(&mut feed), [of("a")]);
        sender.push(of("c"));
        assert_eq!(read(&mut feed), [doubt(&["b"])]);
        sender.settle();
        assert_eq!(read(&mut feed), [doubt(&["c"])]);
    }

    #[test]
    fn a_drop_behind_an_owed_confirmation_is_doubted() {
        let (mut sender, mut feed) = with_room(2);
        sender.push(of("a"));
        sender.push(of("a"));
        sender.confirm([(topic("x"), WISH)]);
        sender.push(of("b"));
        assert_eq!(read(&mut feed), [of("a"), of("a")]);
        sender.settle();
        assert_eq!(read(&mut feed), [confirmed("x"), doubt(&["b"])]);
        assert!(!sender.owes());
    }

    #[test]
    fn a_confirmation_behind_a_drop_comes_before_the_doubt() {
        let (mut sender, mut feed) = with_room(2);
        sender.push(of("a"));
        sender.push(of("a"));
        sender.push(of("b"));
        sender.confirm([(topic("x"), WISH)]);
        assert_eq!(read(&mut feed), [of("a"), of("a")]);
        sender.settle();
        assert_eq!(read(&mut feed), [confirmed("x"), doubt(&["b"])]);
        assert!(!sender.owes());
    }

    #[test]
    fn room_for_the_confirmation_alone_still_owes_the_doubt() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(of("a"));
        sender.confirm([(topic("x"), WISH)]);
        sender.push(of("b"));
        assert_eq!(read(&mut feed), [of("a")]);
        sender.push(of("c"));
        assert_eq!(read(&mut feed), [confirmed("x")]);
        assert!(sender.owes());
        sender.settle();
        assert_eq!(read(&mut feed), [doubt(&["b", "c"])]);
    }

    #[test]
    fn a_confirmation_that_nobody_waits_for_is_not_told() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(of("a"));
        sender.confirm([(topic("x"), WISH), (topic("given-up"), WISH)]);
        sender.forget(&topic("given-up"));
        assert_eq!(read(&mut feed), [of("a")]);
        sender.settle();
        assert_eq!(read(&mut feed), [confirmed("x")]);
    }

    #[test]
    fn that_a_feed_is_down_is_told_before_what_comes_afterwards() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(of("a"));
        sender.down();
        sender.confirm([(topic("x"), WISH)]);
        assert_eq!(read(&mut feed), [of("a")]);
        assert!(sender.owes());
        sender.settle();
        assert_eq!(read(&mut feed), [FeedEvent::Down(FeedNumber(7))]);
        sender.settle();
        assert_eq!(read(&mut feed), [confirmed("x")]);
        assert!(!sender.owes());
    }

    #[test]
    fn a_break_stands_for_every_doubt() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(of("a"));
        sender.push(of("b"));
        sender.break_off();
        sender.push(of("c"));
        assert_eq!(read(&mut feed), [of("a")]);
        sender.settle();
        assert_eq!(read(&mut feed), [FeedEvent::Break(FeedNumber(7))]);
        assert!(!sender.owes());
    }

    #[test]
    fn more_topics_than_can_be_named_are_a_break() {
        for (count, is_break) in [(LOST_TOPICS_MAX, false), (LOST_TOPICS_MAX + 1, true)] {
            let (mut sender, mut feed) = with_room(1);
            sender.push(control());
            for n in 0..count {
                sender.push(of(&format!("t{n}")));
            }
            assert_eq!(read(&mut feed), [control()]);
            sender.settle();
            match &read(&mut feed)[..] {
                [FeedEvent::Break(FeedNumber(7))] if is_break => {}
                [FeedEvent::Doubt(topics)] if !is_break => assert_eq!(topics.len(), count),
                other => panic!("{count} lost topics are told by {other:?}"),
            }
        }
    }

    #[test]
    fn what_no_stream_has_is_counted_and_leads_to_no_check() {
        let (mut sender, mut feed) = with_room(1);
        sender.push(control());
        sender.push(control());
        sender.push(FeedEvent::Acked {
            topic: topic("@anna"),
            position: Position::ZERO,
            session: SessionId(1),
        });
        assert!(!sender.owes());
        assert_eq!(sender.metrics.control.feed_dropped.get(), 2);
        assert_eq!(read(&mut feed), [control()]);
    }

    #[test]
    fn a_closed_feed_is_owed_nothing() {
        let (mut sender, feed) = with_room(1);
        sender.push(of("a"));
        sender.push(of("b"));
        drop(feed);
        sender.confirm([(topic("x"), WISH)]);
        assert!(!sender.owes());
        sender.push(of("nobody-listens"));
        assert!(!sender.owes());
    }
}
