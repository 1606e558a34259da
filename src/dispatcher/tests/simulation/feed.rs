//! Redis as the feed sees it, the connection between them, and the node's end of it.
//!
//! In: wishes, publications, and one small step at a time. Out: [`FeedEvent`]s for the dispatcher.
//! What is subscribed and confirmed is decided by the real [`Subscriptions`]; Redis carries out one
//! command after the other, and sends what is published on the channels that are subscribed by then.
//! A lost message is followed by a break, a lost connection too, when everything stands again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::broker::interest::WishNumber;
use crate::broker::redis::subscriptions::{Chunk, Subscriptions};
use crate::broker::{Entry, FeedEvent, FeedNumber};
use fanfare_protocol::ids::Topic;

/// How far the clock goes with each step, so that what lingers is unsubscribed in the end.
const STEP: Duration = Duration::from_millis(60);

#[derive(Debug)]
enum Command {
    Subscribe(Chunk),
    Unsubscribe(Vec<Topic>),
}

#[derive(Debug)]
enum FromRedis {
    Message(Topic, Entry),
    /// The PING behind a SUBSCRIBE came back.
    Stands(Chunk),
}

/// What becomes of a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives,
    Lost,
    Doubled,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FeedModel {
    subscriptions: Subscriptions,
    connections: u64,
    now: Instant,
    /// What Redis sends over this connection.
    channels: BTreeSet<Topic>,
    commands: VecDeque<Command>,
    /// One SUBSCRIBE is with Redis at a time.
    is_subscribing: bool,
    from_redis: VecDeque<FromRedis>,
    pub(super) events: VecDeque<FeedEvent>,
}

impl FeedModel {
    /// A feed that has just connected.
    pub(super) fn new() -> Self {
        let mut feed = Self {
            subscriptions: Subscriptions::default(),
            connections: 0,
            now: Instant::now(),
            channels: BTreeSet::new(),
            commands: VecDeque::new(),
            is_subscribing: false,
            from_redis: VecDeque::new(),
            events: VecDeque::new(),
        };
        feed.connect(0);
        feed
    }

    /// The connection is lost with all but the first `read` of what was on it, and there is
    /// another.
    pub(super) fn connect(&mut self, read: usize) {
        self.from_redis.truncate(read);
        self.from_redis
            .retain(|m| matches!(m, FromRedis::Message(..)));
        self.connections += 1;
        self.channels.clear();
        self.commands.clear();
        self.is_subscribing = false;
        self.subscriptions.reset();
    }

    /// How much is on the connection.
    pub(super) fn on_connection(&self) -> usize {
        self.from_redis.len()
    }

    pub(super) fn wish(&mut self, topic: Topic, wish: Option<WishNumber>) {
        let stands = self.subscriptions.wish(topic.clone(), wish, self.now);
        if let Some(number) = wish.filter(|_| stands) {
            let confirmed = vec![(topic, number)];
            self.events.push_back(FeedEvent::Subscribed(confirmed));
        }
    }

    pub(super) fn published(&mut self, topic: &Topic, entry: &Entry) {
        if self.channels.contains(topic) {
            let message = FromRedis::Message(topic.clone(), entry.clone());
            self.from_redis.push_back(message);
        }
    }

    /// The node sends what is due.
    pub(super) fn send(&mut self) {
        self.now += STEP;
        let leaving = self.subscriptions.due(self.now);
        if !leaving.is_empty() {
            self.commands.push_back(Command::Unsubscribe(leaving));
        }
        if !self.is_subscribing
            && let Some(chunk) = self.subscriptions.next_chunk(std::time::Instant::now())
        {
            self.is_subscribing = true;
            self.commands.push_back(Command::Subscribe(chunk));
        }
    }

    /// Redis carries out a command.
    pub(super) fn carry_out(&mut self) {
        match self.commands.pop_front() {
            Some(Command::Subscribe(chunk)) => {
                self.channels.extend(chunk.topics.iter().cloned());
                self.from_redis.push_back(FromRedis::Stands(chunk));
            }
            Some(Command::Unsubscribe(topics)) => {
                self.channels.retain(|topic| !topics.contains(topic));
            }
            None => {}
        }
    }

    /// The node reads one thing from the connection.
    pub(super) fn hear(&mut self, fate: Fate) {
        match self.from_redis.pop_front() {
            Some(FromRedis::Message(topic, entry)) => {
                if self.subscriptions.wanted(topic.qualified()).is_none() {
                    return;
                }
                let trace = None;
                let delivery = FeedEvent::Delivery {
                    topic,
                    entry,
                    trace,
                };
                match fate {
                    Fate::Lost => self
                        .events
                        .push_back(FeedEvent::Break(FeedNumber::default())),
                    Fate::Arrives => self.events.push_back(delivery),
                    Fate::Doubled => self.events.extend([delivery.clone(), delivery]),
                }
            }
            Some(FromRedis::Stands(chunk)) => {
                self.is_subscribing = false;
                let confirmed = self.subscriptions.confirm(&chunk);
                if !confirmed.is_empty() {
                    self.events.push_back(FeedEvent::Subscribed(confirmed));
                }
                if chunk.is_last && self.connections > 1 {
                    self.events
                        .push_back(FeedEvent::Break(FeedNumber::default()));
                }
            }
            None => {}
        }
    }

    /// Whether nothing is on its way, in either direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.commands.is_empty()
            && !self.is_subscribing
            && self.from_redis.is_empty()
            && self.events.is_empty()
    }
}
