//! The in-process broker: the same positions, history, recovery, presence and queue, in one process.
//!
//! In: publications, questions and wishes of this one node. Out: answers, and the [`Feed`] of the
//! topics that the node wants to hear. Owner of every topic's state, under one lock that is held
//! for the work on one topic and never across an await; events enter the feed under that lock, so
//! that the feed's order is the order of ids. Bounds: each topic by its retention, the feed by
//! `FEED_EVENTS_MAX` (at the bound: dropped, counted, told by [`FeedSender`]), everything
//! together by `memory.bytes_max` (at the bound: the oldest is forgotten, see [`room`], and where
//! that does not help, topics that are not known yet are refused, and entries of the [`queue`]). Topics
//! and keys that ended are swept by [`MemoryBroker::run`]. Nothing outlives the process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::feed_sender::FeedSender;
use super::interest::{Interest, WishNumber};
use super::queue::bells::Bells;
use super::unavailable::Unavailable;
use super::{
    Acked, Body, BrokerError, BrokerHealth, Feed, FeedEvent, HistoryPage, HistoryQuery,
    InboxSummary, Moves, Page, PublishRequest, Published, SincePage,
};
use crate::config::Retention;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{Position, SessionId, Topic};

mod audit;
pub mod clock;
mod idempotency;
mod presence;
mod queue;
mod room;
mod state;
mod topic;

use audit::Audit;
use clock::Clock;
use queue::queues::Queues;
use room::Room;
use state::State;
use topic::TopicState;

/// How often what is over its life is freed. It is invisible from its end on; this only bounds
/// how long it takes up memory.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// Topics swept under one hold of the lock, so that a sweep of many delays no publication.
const SWEEP_TOPICS_MAX: usize = 256;

/// Partitions of the queue, unless [`MemoryBroker::with_partitions`] says otherwise.
const PARTITIONS_COUNT: u32 = 256;

/// See the module.
#[derive(Debug)]
pub struct MemoryBroker {
    clock: Clock,
    audit: Audit,
    interest: Interest,
    /// Boxed, so that the enum of both engines stays small.
    state: Mutex<Box<State>>,
    /// Notified when the feed owes something that did not fit.
    owing: Arc<Notify>,
    /// Where there is room for it.
    waiting_room: mpsc::Sender<FeedEvent>,
    health: watch::Sender<BrokerHealth>,
    /// Partitions of the queue, and which of them were rung for.
    partitions_count: u32,
    bells: Arc<Bells>,
    metrics: Arc<Metrics>,
}

/// The calls have the signatures of the Redis engine; here none of them waits, and none fails.
#[allow(clippy::unused_async)]
impl MemoryBroker {
    /// An empty broker and the reading end of its feed. [`Self::run`] must be running for wishes
    /// to be heard and memory to be freed.
    #[must_use]
    pub fn new(clock: Clock, metrics: Arc<Metrics>) -> (Self, Feed) {
        Self::bounded(clock, usize::MAX, metrics)
    }

    /// The same, which takes up about so many bytes at most.
    #[must_use]
    pub fn bounded(clock: Clock, bytes_max: usize, metrics: Arc<Metrics>) -> (Self, Feed) {
        let (sender, feed) = FeedSender::alone(Arc::clone(&metrics));
        let (waiting_room, owing) = sender.waiting();
        let broker = Self {
            clock,
            audit: Audit::default(),
            interest: Interest::default(),
            owing,
            waiting_room,
            state: Mutex::new(Box::new(State {
                topics: HashMap::new(),
                queues: Queues::default(),
                sender,
                room: Room::new(bytes_max),
                has_refused: None,
                metrics: Arc::clone(&metrics),
            })),
            health: watch::Sender::new(BrokerHealth::Up),
            partitions_count: PARTITIONS_COUNT,
            bells: Arc::default(),
            metrics,
        };
        (broker, feed)
    }

    /// The same with so many partitions of the queue; before anything is put into it.
    #[must_use]
    pub fn with_partitions(self, partitions_count: u32) -> Self {
        Self {
            partitions_count,
            ..self
        }
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
                _ = self.waiting_room.reserve(), if owes => self.lock().sender.settle(),
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
    /// [`BrokerError::Unavailable`] on a topic that is not known yet, while what is in use fills
    /// all of `memory.bytes_max`.
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        let (control, begun_at) = (&self.metrics.control, Instant::now());
        let trace = request.trace;
        let Some(published) = self.append(request) else {
            control.publish_errors.add(1);
            control.refused_memory.add(1);
            self.tell_room(Some(Unavailable::MemoryFull));
            return Err(Unavailable::MemoryFull.into());
        };
        match published.duplicate {
            true => control.publish_duplicates.add(1),
            false => control.published.add(1),
        }
        self.metrics
            .publish_seconds
            .count(begun_at.elapsed(), trace);
        Ok(published)
    }

    /// `None`: there is no room for one more topic.
    fn append(&self, request: PublishRequest) -> Option<Published> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        if state.room.is_short() && !state.topics.contains_key(&request.topic) {
            state.has_refused = Some(Unavailable::MemoryFull);
            return None;
        }
        let topic = request.topic.clone();
        let published = state.change(&topic, now_ms, |state, sender| {
            Self::append_to(state, sender, request, now_ms)
        });
        Some(published)
    }

    fn append_to(
        state: &mut TopicState,
        sender: &mut FeedSender,
        request: PublishRequest,
        now_ms: u64,
    ) -> Published {
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
            let (topic, trace) = (request.topic, request.trace);
            let event = FeedEvent::Delivery {
                topic,
                entry,
                trace,
            };
            sender.push(event);
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
        Ok(match state.topics.get_mut(topic) {
            Some(known) => known.renew_last(retention, now_ms),
            None => state.room.floor(),
        })
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
        let acked = self.lock().change(inbox, now_ms, |state, sender| {
            let outcome = state.ack(position, retention, now_ms);
            if outcome.moved && state.wanted {
                sender.push(FeedEvent::Acked {
                    topic: inbox.clone(),
                    position,
                    session,
                });
            }
            outcome.acked
        });
        Ok(acked)
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

    /// As [`super::Broker::health`]; this broker is up, or its memory is full.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.health.subscribe()
    }

    /// Takes the wishes as they stand. From a confirmation on, every publication comes after it.
    fn apply(&self, wishes: FxHashMap<Topic, Option<WishNumber>>) {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let mut wanted = Vec::new();
        for (topic, wish) in wishes {
            if let Some(number) = wish {
                state.change(&topic, now_ms, |state, _| state.wanted = true);
                wanted.push((topic, number));
            } else {
                if state.topics.contains_key(&topic) {
                    state.change(&topic, now_ms, |state, _| state.wanted = false);
                }
                state.sender.forget(&topic);
            }
        }
        state.sender.confirm(wanted);
    }

    /// Frees what is over its life, a few topics at a time.
    async fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        let topics: Vec<Topic> = self.lock().topics.keys().cloned().collect();
        for some in topics.chunks(SWEEP_TOPICS_MAX) {
            self.sweep_some(some, now_ms);
            tokio::task::yield_now().await;
        }
        self.sweep_queues(now_ms).await;
        let why = {
            let mut state = self.lock();
            let is_short = state.room.is_short().then_some(Unavailable::MemoryFull);
            state.has_refused.take().or(is_short)
        };
        self.tell_room(why);
    }

    /// Tells that topics in use, or the queue, fill the memory, in the words of the first refusal: from
    /// it or the next sweep on, until a sweep finds room and that nobody was refused since the one
    /// before.
    fn tell_room(&self, why: Option<Unavailable>) {
        let is_full = why.is_some();
        let now = why.map_or(BrokerHealth::Up, |why| {
            BrokerHealth::Partly(why.to_string())
        });
        self.health.send_if_modified(|told| {
            let is_changed = is_full == (*told == BrokerHealth::Up);
            if is_changed && is_full {
                tracing::warn!(
                    event = "embedded_memory_exhausted",
                    "topics in use, or what waits in the queue, fill memory.bytes_max: what is new is refused"
                );
            } else if is_changed {
                tracing::info!(
                    event = "embedded_memory_recovered",
                    "there is memory for more topics and entries again"
                );
            }
            if is_changed {
                *told = now;
            }
            is_changed
        });
    }

    fn sweep_some(&self, some: &[Topic], now_ms: u64) {
        let state = &mut *self.lock();
        for topic in some {
            let Some(swept) = state.topics.get_mut(topic) else {
                continue;
            };
            let before = swept.weight();
            let is_used = swept.sweep(now_ms);
            state.room.weigh(before, swept.weight());
            if !is_used {
                state.free(topic);
            }
        }
        state.make_room();
    }

    /// Reads a topic; one that is not kept reads as an empty one, and is not made by it.
    fn read<T>(&self, topic: &Topic, answer: impl FnOnce(&TopicState) -> T) -> T {
        let now_ms = self.clock.now_ms();
        let state = self.lock();
        match state.topics.get(topic) {
            Some(state) => answer(state),
            None => answer(&TopicState::beginning(state.room.floor(), now_ms)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Box<State>> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests;
