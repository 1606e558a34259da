//! The in-process broker: the same positions, history, recovery and presence, in one process.
//!
//! In: publications, questions and wishes of this one node. Out: answers, and the [`Feed`] of the
//! topics that the node wants to hear. Owner of every topic's state, under one lock that is held
//! for the work on one topic and never across an await; events enter the feed under that lock, so
//! that the feed's order is the order of ids. Bounds: each topic by its retention, the feed by
//! `FEED_EVENTS_MAX` (at the bound: dropped, counted, told by [`FeedSender`]). Topics and
//! keys that ended are swept by [`MemoryBroker::run`]. Nothing outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::feed_sender::FeedSender;
use super::interest::{Interest, WishNumber};
use super::{
    Acked, Body, BrokerError, BrokerHealth, Feed, FeedEvent, HistoryPage, HistoryQuery,
    InboxSummary, Moves, Page, PublishRequest, Published, SincePage,
};
use crate::config::Retention;
use crate::protocol::ids::{Position, SessionId, Topic};
use crate::telemetry::metrics::Metrics;

pub mod clock;
mod presence;
mod topic;

use clock::Clock;
use topic::TopicState;

/// How often what is over its life is freed. It is invisible from its end on; this only bounds
/// how long it takes up memory.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Topics swept under one hold of the lock, so that a sweep of many delays no publication.
const SWEEP_TOPICS_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct MemoryBroker {
    clock: Clock,
    interest: Interest,
    state: Mutex<State>,
    /// Notified when the feed owes something that did not fit.
    owing: Arc<Notify>,
    /// Where there is room for it.
    room: mpsc::Sender<FeedEvent>,
    health: watch::Sender<BrokerHealth>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    topics: HashMap<Topic, TopicState>,
    sender: FeedSender,
}

/// The calls have the signatures of the Redis engine; here none of them waits, and none fails.
#[allow(clippy::unused_async)]
impl MemoryBroker {
    /// An empty broker and the reading end of its feed. [`Self::run`] must be running for wishes
    /// to be heard and memory to be freed.
    #[must_use]
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> (Self, Feed) {
        let (sender, feed) = FeedSender::alone(Arc::clone(&metrics));
        let (room, owing) = sender.waiting();
        let broker = Self {
            clock,
            interest: Interest::default(),
            owing,
            room,
            state: Mutex::new(State {
                topics: HashMap::new(),
                sender,
            }),
            health: watch::Sender::new(BrokerHealth::Up),
            metrics,
        };
        (broker, feed)
    }

    /// The broker's one task, which never ends: takes wishes and confirms them, tells what the
    /// feed lost as soon as there is room, frees what ended. Spawn it once.
    pub async fn run(&self) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let owes = self.lock().sender.owes();
            tokio::select! {
                wishes = self.interest.changed() => self.apply(wishes),
                // The room found is given back at once: under the lock, what is owed goes first.
                _ = self.room.reserve(), if owes => self.lock().sender.settle(),
                () = self.owing.notified(), if !owes => {}
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// As [`super::Broker::publish`].
    ///
    /// # Errors
    /// None.
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        let published = self.append(request);
        let control = &self.metrics.control;
        match published.duplicate {
            true => control.publish_duplicates.add(1),
            false => control.published.add(1),
        }
        Ok(published)
    }

    fn append(&self, request: PublishRequest) -> Published {
        let now_ms = self.clock.now_ms();
        let State { topics, sender } = &mut *self.lock();
        let state = topics.entry(request.topic.clone()).or_default();
        if let Some((key, _)) = &request.idempotency
            && let Some(position) = state.duplicate_of(key, now_ms)
        {
            return Published {
                position,
                duplicate: true,
            };
        }
        let body = Body::Publication(Arc::new(request.publication));
        let entry = state.append(body, request.retention, now_ms);
        let position = entry.position;
        if let Some((key, life_ms)) = request.idempotency {
            state.remember_key(key, position, now_ms, life_ms);
        }
        if state.wanted {
            let topic = request.topic;
            sender.push(FeedEvent::Delivery { topic, entry });
        }
        Published {
            position,
            duplicate: false,
        }
    }

    /// As [`super::Broker::since`].
    ///
    /// # Errors
    /// None.
    pub async fn since(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Result<SincePage, BrokerError> {
        let now_ms = self.clock.now_ms();
        Ok(self.read(topic, |state| state.since(since, retention, page, now_ms)))
    }

    /// As [`super::Broker::last`].
    ///
    /// # Errors
    /// None.
    pub async fn last(
        &self,
        topic: &Topic,
        retention: Retention,
        _was_there: bool,
    ) -> Result<Option<Position>, BrokerError> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let state = state.topics.get_mut(topic);
        Ok(state.and_then(|state| state.renew_last(retention, now_ms)))
    }

    /// As [`super::Broker::history`].
    ///
    /// # Errors
    /// None.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, BrokerError> {
        let now_ms = self.clock.now_ms();
        Ok(self.read(&query.topic, |state| state.history(&query, now_ms)))
    }

    /// As [`super::Broker::inbox`].
    ///
    /// # Errors
    /// None.
    pub async fn inbox(
        &self,
        inbox: &Topic,
        retention: Retention,
    ) -> Result<InboxSummary, BrokerError> {
        let now_ms = self.clock.now_ms();
        Ok(self.read(inbox, |state| state.inbox(retention, now_ms)))
    }

    /// As [`super::Broker::ack`].
    ///
    /// # Errors
    /// None.
    pub async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Result<Acked, BrokerError> {
        let now_ms = self.clock.now_ms();
        let State { topics, sender } = &mut *self.lock();
        let state = topics.entry(inbox.clone()).or_default();
        let outcome = state.ack(position, retention, now_ms);
        if outcome.moved && state.wanted {
            sender.push(FeedEvent::Acked {
                topic: inbox.clone(),
                position,
                session,
            });
        }
        Ok(outcome.acked)
    }

    /// As [`super::Broker::control`]; the only node there is hears it.
    ///
    /// # Errors
    /// None.
    pub async fn control(&self, message: Bytes) -> Result<(), BrokerError> {
        self.lock().sender.push(FeedEvent::Control(message));
        Ok(())
    }

    /// As [`super::Broker::interest`].
    #[must_use]
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// As [`super::Broker::moves`]; here nothing ever moves.
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<Moves> {
        watch::Sender::new(Moves::default()).subscribe()
    }

    /// As [`super::Broker::health`]; this broker is always up.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.health.subscribe()
    }

    /// Takes the wishes as they stand. From a confirmation on, every publication comes behind it.
    fn apply(&self, wishes: FxHashMap<Topic, Option<WishNumber>>) {
        let State { topics, sender } = &mut *self.lock();
        let mut wanted = Vec::new();
        for (topic, wish) in wishes {
            if let Some(number) = wish {
                topics.entry(topic.clone()).or_default().wanted = true;
                wanted.push((topic, number));
            } else {
                if let Some(state) = topics.get_mut(&topic) {
                    state.wanted = false;
                }
                sender.forget(&topic);
            }
        }
        sender.confirm(wanted);
    }

    /// Frees what is over its life, a few topics at a time.
    async fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        let topics: Vec<Topic> = self.lock().topics.keys().cloned().collect();
        for some in topics.chunks(SWEEP_TOPICS_MAX) {
            self.sweep_some(some, now_ms);
            tokio::task::yield_now().await;
        }
    }

    fn sweep_some(&self, some: &[Topic], now_ms: u64) {
        let topics = &mut self.lock().topics;
        for topic in some {
            let is_used = topics
                .get_mut(topic)
                .is_some_and(|state| state.sweep(now_ms));
            if !is_used {
                topics.remove(topic);
            }
        }
    }

    /// Reads a topic; one that is not kept reads as an empty one, and is not made by it.
    fn read<T>(&self, topic: &Topic, answer: impl FnOnce(&TopicState) -> T) -> T {
        match self.lock().topics.get(topic) {
            Some(state) => answer(state),
            None => answer(&TopicState::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::broker::publication::Publication;
    use crate::protocol::data::Data;
    use crate::protocol::event::Member;
    use crate::protocol::ids::{App, NodeId, Owner, Priority};

    const HOUR_MS: u64 = 3_600_000;

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).expect("a valid name")
    }

    fn request(name: &str, entries_max: u32, key: Option<&str>) -> PublishRequest {
        PublishRequest {
            topic: topic(name),
            publication: Publication {
                data: Data::Json(Bytes::from_static(b"1")),
                user: None,
                priority: Priority::Normal,
                key: None,
                conflate: false,
                removed: false,
                time_ms: 0,
                ttl_ms: None,
                exclude: None,
            },
            retention: Retention {
                entries_max,
                age_ms: HOUR_MS,
            },
            replicas: crate::config::Replicas::default(),
            idempotency: key.map(|key| (key.to_owned(), 3 * HOUR_MS)),
        }
    }

    /// The names of the topics that take up memory.
    fn kept(broker: &MemoryBroker) -> Vec<String> {
        let mut names: Vec<_> = broker.lock().topics.keys().map(Topic::to_string).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn a_sweep_forgets_a_topic_when_nothing_of_it_is_alive() {
        let now_ms = Arc::new(AtomicU64::new(1_732_190_000_000));
        let (broker, _feed) = MemoryBroker::new(
            Clock::Manual(Arc::clone(&now_ms)),
            Arc::new(Metrics::new(0)),
        );
        let member = Member {
            user: None,
            session: SessionId(1),
            info: None,
        };
        let owner = Owner {
            node: NodeId::new("node-a").expect("a valid name"),
            incarnation: 1,
        };
        for request in [
            request("keyed", 0, Some("k")),
            request("kept", 10, None),
            request("plain", 0, None),
        ] {
            broker.publish(request).await.expect("never fails");
        }
        broker
            .enter(&topic("room"), &member, &owner, 1)
            .await
            .expect("never fails");
        broker.apply(FxHashMap::from_iter([(
            topic("wanted"),
            Some(WishNumber(1)),
        )]));
        let advance_and_sweep = async |by_ms| {
            now_ms.fetch_add(by_ms, Ordering::Relaxed);
            broker.sweep().await;
            kept(&broker)
        };

        let all = ["%room", "kept", "keyed", "plain", "wanted"];
        assert_eq!(advance_and_sweep(HOUR_MS).await, all);
        assert_eq!(
            advance_and_sweep(1).await,
            ["%room", "kept", "keyed", "wanted"]
        );
        assert_eq!(
            advance_and_sweep(HOUR_MS).await,
            ["%room", "keyed", "wanted"]
        );
        assert_eq!(advance_and_sweep(HOUR_MS).await, ["%room", "wanted"]);

        let room = topic("room");
        let left = broker.leave(&room, member.session, &owner, 1);
        left.await.expect("never fails");
        broker.apply(FxHashMap::from_iter([(topic("wanted"), None)]));
        assert_eq!(advance_and_sweep(0).await, ["%room"]);
        assert_eq!(advance_and_sweep(2 * HOUR_MS + 1).await, [""; 0]);
    }
}
