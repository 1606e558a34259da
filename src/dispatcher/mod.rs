//! From the broker's feed to the workers: interest, order and gap repair, once per node.
//!
//! In: the feed, the workers' wishes, the broker's answers to this task's own questions. Out:
//! deliveries to the queues of the workers that have members, exactly in the order of the
//! topic, each as one shared [`Outgoing`]. Owner of: which worker wants which topic, the
//! [`link::Link`] of every topic with local interest, and what full workers are owed. Bounds:
//! topics by local interest; [`asks::ASKS_MAX`] questions at the broker at once, one open question a
//! topic; [`link::HELD_MAX`] entries held a topic. It never waits for a worker: a full queue turns
//! deliveries into one owed position a topic, sent before anything else of that topic.
//!
//! Joining: a first wish subscribes; once the broker has confirmed, the topic's last id is read;
//! the worker is told "joined at P" in the queue that carries deliveries, and then gets exactly
//! the ids above P. When the last worker leaves, the topic is forgotten at once; that a blink
//! costs no subscription is the business of the broker's feed. Each stay of the node in a topic has
//! the number of the wish that began it. Confirmations, questions and answers carry it, and what
//! belongs to an earlier stay is dropped: it may be older than what this one missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::broker::interest::WishNumber;
use crate::broker::{Broker, Entry, Feed, FeedEvent, FeedNumber};
use crate::cluster::control::{self, ControlMessage, Request};
use crate::config::{Config, Retention};
use crate::protocol::ids::{Topic, TopicKind};
use crate::telemetry::metrics::Metrics;
use crate::worker::WorkerInterest;
use crate::worker::handle::{Inbound, WorkerHandle};
use crate::worker::outgoing::Outgoing;

mod asks;
pub mod link;
pub mod owed;
#[cfg(test)]
mod tests;

use asks::{Answer, Ask};
use link::{Link, Step};
use owed::Workers;

/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// In how long the sweep compares every topic's last id with the broker's.
const SWEEP: Duration = Duration::from_secs(60);
/// Feed events taken at once.
const BATCH_MAX: usize = 256;

/// How a topic stands between the first wish and the first delivery.
#[derive(Debug)]
enum Stage {
    /// Wished for, not confirmed, or confirmed and its last id being read. What arrives waits;
    /// when some of it is missing, the topic goes live in doubt.
    Joining {
        /// Who is to be told, and by which wish.
        waiting: Vec<(usize, WishNumber)>,
        early: Vec<Entry>,
        in_doubt: bool,
    },
    /// Deliveries flow.
    Live(Link),
}

#[derive(Debug)]
struct TopicState {
    stay: WishNumber,
    stage: Stage,
    retention: Retention,
    workers: Vec<usize>,
}

/// See the module.
pub struct Dispatcher {
    broker: Arc<Broker>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    interest: Arc<WorkerInterest>,
    /// Told when a control message asks this node to leave.
    leave: Arc<Notify>,
    topics: FxHashMap<Topic, TopicState>,
    workers: Workers,
    asking: FuturesUnordered<BoxFuture<'static, Answer>>,
    to_ask: VecDeque<Ask>,
    resting: Vec<(Instant, Ask)>,
    sweep: Vec<Topic>,
    swept_at: Instant,
}

impl Dispatcher {
    /// A dispatcher without topics. `leave` is notified when this node is asked to leave.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        interest: Arc<WorkerInterest>,
        workers: Vec<WorkerHandle>,
        leave: Arc<Notify>,
    ) -> Self {
        Self {
            broker,
            config,
            workers: Workers::new(workers, Arc::clone(&metrics)),
            metrics,
            interest,
            leave,
            topics: FxHashMap::default(),
            asking: FuturesUnordered::new(),
            to_ask: VecDeque::new(),
            resting: Vec::new(),
            sweep: Vec::new(),
            swept_at: Instant::now(),
        }
    }

    /// Runs until the feed ends.
    pub async fn run(mut self, mut feed: Feed) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let interest = Arc::clone(&self.interest);
        loop {
            tokio::select! {
                count = feed.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return;
                    }
                    for event in batch.drain(..) {
                        self.feed_event(event);
                    }
                }
                wishes = interest.changed() => {
                    for ((worker, topic), wish) in wishes {
                        self.wish(worker, topic, wish);
                    }
                }
                Some(answer) = self.asking.next() => self.answered(answer),
                _ = tick.tick() => self.tick(Instant::now()),
            }
            self.workers.settle();
            self.ask();
        }
    }

    fn feed_event(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Delivery { topic, entry } => {
                self.metrics.control.feed_deliveries.add(1);
                self.arrived(&topic, entry);
            }
            FeedEvent::Acked {
                topic,
                position,
                session,
            } => {
                let Some(state) = self.topics.get(&topic) else {
                    return;
                };
                for worker in &state.workers {
                    self.workers.send_acked(*worker, &topic, position, session);
                }
            }
            FeedEvent::Subscribed(mut wishes) => {
                wishes.retain(|(topic, stay)| self.is_staying(topic, *stay));
                self.read_last(&wishes);
            }
            FeedEvent::Break(feed) => self.broken(feed),
            FeedEvent::Control(message) => self.control(&message),
        }
    }

    /// Whatever this feed brings may be missing. A topic that moved to it is confirmed again when
    /// it stands, which checks it.
    fn broken(&mut self, feed: FeedNumber) {
        self.metrics.control.feed_breaks.add(1);
        let is_of_it = |topic: &Topic| self.broker.feed_of(topic) == Some(feed);
        let topics: Vec<_> = self
            .topics
            .keys()
            .filter(|t| is_of_it(t))
            .cloned()
            .collect();
        tracing::warn!(
            event = "feed_broken",
            feed = feed.0,
            topics = topics.len(),
            "a feed broke; checking every topic that it brings"
        );
        for topic in &topics {
            if let Some(TopicState { stage, .. }) = self.topics.get_mut(topic)
                && let Stage::Joining { in_doubt, .. } = stage
            {
                *in_doubt = true;
            }
        }
        self.compare_last(topics);
    }

    fn control(&mut self, message: &[u8]) {
        match control::decode(message) {
            Ok(ControlMessage {
                request:
                    Request::Disconnect {
                        app,
                        user,
                        session,
                        reason,
                    },
                ..
            }) => {
                let inbox = Topic::inbox(&app, &user);
                self.workers.broadcast(|| Inbound::Disconnect {
                    inbox: inbox.clone(),
                    session,
                    reason,
                });
            }
            Ok(ControlMessage {
                from,
                request: Request::Drain { node },
            }) => {
                if node == self.config.server.node_id {
                    tracing::info!(event = "drain_asked", %from, "this node was asked to leave");
                    self.leave.notify_one();
                }
            }
            Err(error) => {
                self.metrics.control.control_ignored.add(1);
                tracing::debug!(event = "control_ignored", %error, "a control message was ignored");
            }
        }
    }

    /// A worker has members in a topic, by its wish of this number, or none any more.
    fn wish(&mut self, worker: usize, topic: Topic, wish: Option<WishNumber>) {
        let Some(wish) = wish else {
            let Some(state) = self.topics.get_mut(&topic) else {
                return;
            };
            state.workers.retain(|w| *w != worker);
            if let Stage::Joining { waiting, .. } = &mut state.stage {
                waiting.retain(|(w, _)| *w != worker);
            }
            self.workers.forget(worker, &topic);
            if state.workers.is_empty() {
                self.topics.remove(&topic);
                self.broker.interest().unwant(topic);
            }
            return;
        };
        let retention = self.retention(&topic);
        let state = self
            .topics
            .entry(topic.clone())
            .or_insert_with(|| TopicState {
                stay: self.broker.interest().want(topic.clone()),
                stage: Stage::Joining {
                    waiting: Vec::with_capacity(1),
                    early: Vec::new(),
                    in_doubt: false,
                },
                retention,
                workers: Vec::with_capacity(1),
            });
        if !state.workers.contains(&worker) {
            state.workers.push(worker);
        }
        match &mut state.stage {
            Stage::Live(link) => {
                let last = link.last();
                self.workers.send_joined(worker, &topic, last, wish);
            }
            Stage::Joining { waiting, .. } => {
                waiting.retain(|(w, _)| *w != worker);
                waiting.push((worker, wish));
            }
        }
        self.metrics.control.topics.set(self.topics.len() as u64);
    }

    fn retention(&self, topic: &Topic) -> Retention {
        match topic.kind() {
            TopicKind::Presence => crate::broker::member::PRESENCE_RETENTION,
            _ => self.config.namespace(topic).retention(),
        }
    }

    fn arrived(&mut self, topic: &Topic, entry: Entry) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        match &mut state.stage {
            Stage::Live(_) => self.step(topic, |link, steps| link.arrived(entry, steps)),
            Stage::Joining {
                early, in_doubt, ..
            } => {
                early.push(entry);
                if early.len() > link::HELD_MAX {
                    *early = Vec::new();
                    *in_doubt = true;
                    self.metrics.control.held_overflow.add(1);
                }
            }
        }
    }

    /// Lets the topic's link judge, and does what it says.
    fn step(&mut self, topic: &Topic, judge: impl FnOnce(&mut Link, &mut Vec<Step>)) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        let Stage::Live(link) = &mut state.stage else {
            return;
        };
        let was_live = link.is_live();
        let mut steps = Vec::new();
        judge(link, &mut steps);
        let counters = &self.metrics.control;
        if was_live && !link.is_live() {
            counters.repairs.add(1);
        }
        for step in steps {
            match step {
                Step::Deliver(entry) => {
                    if !was_live {
                        counters.repaired.add(1);
                    }
                    let has_history = state.retention.entries_max > 0;
                    let outgoing = Outgoing::new(topic.clone(), entry, has_history);
                    self.workers.deliver(&state.workers, &outgoing);
                }
                Step::Gap { from, to, reason } => {
                    counters.gaps.add(1);
                    tracing::warn!(event = "publications_lost", %topic, %from, %to, reason = reason.name(), "publications are gone");
                    for worker in &state.workers {
                        let gap = Inbound::Gap {
                            topic: topic.clone(),
                            from,
                            to,
                            reason,
                        };
                        self.workers.send_gap(*worker, gap);
                    }
                }
                Step::Ask(question) => {
                    let ask = Ask::Link(topic.clone(), state.stay, question);
                    self.to_ask.push_back(ask);
                }
                Step::AskLater(question) => {
                    let ask = Ask::Link(topic.clone(), state.stay, question);
                    self.resting.push(asks::later(ask));
                }
                Step::Duplicate => counters.duplicates_dropped.add(1),
                Step::Overflow => counters.held_overflow.add(1),
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.resting.sort_by_key(|(at, _)| *at);
        let due = self.resting.partition_point(|(at, _)| *at <= now);
        self.to_ask
            .extend(self.resting.drain(..due).map(|(_, ask)| ask));
        self.metrics.control.topics.set(self.topics.len() as u64);
        self.sweep(now);
    }

    /// Once a second, a sixtieth of all topics: a lost last message of a quiet topic is found
    /// within [`SWEEP`], and the broker goes on remembering the last ids.
    fn sweep(&mut self, now: Instant) {
        const STEP: Duration = Duration::from_secs(1);
        if now.duration_since(self.swept_at) < STEP {
            return;
        }
        self.swept_at = now;
        if self.sweep.is_empty() {
            self.sweep = self.topics.keys().cloned().collect();
        }
        let steps = usize::try_from(SWEEP.as_secs()).expect("a minute fits");
        let count = self.topics.len().div_ceil(steps).min(self.sweep.len());
        let part = self.sweep.split_off(self.sweep.len() - count);
        self.compare_last(part);
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("topics", &self.topics.len())
            .finish_non_exhaustive()
    }
}
