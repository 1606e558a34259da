//! From the broker's feed to the workers: interest, order and gap repair, once per node.
//!
//! In: the feed, the workers' wishes, the broker's answers to this task's own questions. Out:
//! deliveries to the queues of the workers that have members, exactly in the order of the
//! topic, each as one shared [`Outgoing`]. Owner of: which worker wants which topic, the
//! [`sequencer::Sequencer`] of every topic with local interest, and what full workers are owed. Bounds:
//! topics by local interest; one question a topic, as many at once as `pace.rs` lets;
//! [`sequencer::HELD_MAX`] entries held a topic. It never waits for a worker: a full queue turns
//! deliveries into one owed position a topic, sent before anything else of that topic. After a break
//! it takes nothing until revocations were read (`held_back.rs`).
//!
//! Joining: a first wish subscribes; once the broker has confirmed, the topic's last id is read;
//! the worker is told "joined at P" in the queue that carries deliveries, and then gets exactly
//! the ids above P. When the last worker leaves, the topic is forgotten at once; that a blink
//! costs no subscription is the business of the broker's feed. Each stay of the node in a topic has
//! the number of the wish that began it. Confirmations, questions and answers carry it, and what
//! belongs to an earlier stay is dropped: it may be older than what this one missed.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::apps::Apps;
use crate::broker::interest::WishNumber;
use crate::broker::{Broker, Entry, Feed, FeedEvent, FeedNumber};
use crate::config::{Config, Retention};
use crate::revocation::known::Revocations;
use crate::tasks::turns;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::tracer::Tracer;
use crate::worker::WorkerInterest;
use crate::worker::handle::{Inbound, WorkerHandle};
use crate::worker::outgoing::Outgoing;
use fanfare_protocol::ids::Topic;

mod asks;
mod control;
mod held_back;
mod losses;
mod pace;
pub mod sequencer;
#[cfg(test)]
mod tests;
mod traces;
pub mod worker_queues;

use asks::{Answer, Asking, Asks, retention};
use held_back::{HeldBack, HeldEvents};
use losses::Losses;
use sequencer::{Sequencer, Step};
use traces::{Found, Traces};
use worker_queues::WorkerQueues;

/// How often timers are looked at while anything waits for one.
const TICK: Duration = Duration::from_millis(50);
/// How often else, and the step of the sweep.
const IDLE_TICK: Duration = turns::IDLE_TURN;
/// In how long the sweep compares every topic's last id with the broker's.
const SWEEP: Duration = Duration::from_secs(60);
/// Feed events taken at once.
const BATCH_MAX: usize = 256;

#[derive(Debug)]
struct TopicState {
    stay: WishNumber,
    /// Judges what arrives; joining until the newest id was read.
    link: Sequencer,
    /// The subscription of this stay stands.
    is_confirmed: bool,
    /// Who is to be told that the topic is live, and by which wish.
    waiting: Vec<(usize, WishNumber)>,
    retention: Retention,
    workers: Vec<usize>,
    /// Where the topic's one question is.
    asking: Asking,
    /// What wants to know came while it was open: another one follows.
    ask_again: bool,
    /// Questions in a row that were not answered.
    fails: u8,
    /// When the broker last answered one.
    checked_at: Option<Instant>,
}

/// See the module.
pub struct Dispatcher {
    broker: Arc<Broker>,
    apps: Arc<Apps>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    interest: Arc<WorkerInterest>,
    /// Told when a control message asks this node to leave.
    leave: Arc<Notify>,
    revocations: Revocations,
    held_back: HeldBack,
    held_events: HeldEvents,
    held_answer: Option<Answer>,
    topics: FxHashMap<Topic, TopicState>,
    workers: WorkerQueues,
    asking: FuturesUnordered<BoxFuture<'static, Answer>>,
    asks: Asks,
    /// The time of this turn.
    now: Instant,
    sweep: Vec<Topic>,
    swept_at: Instant,
    /// What is gone and not told in the log yet.
    losses: Losses,
    traces: Traces,
}

impl Dispatcher {
    /// A dispatcher without topics. `leave` is notified when this node is to leave.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        config: Arc<Config>,
        metrics: Arc<Metrics>,
        interest: Arc<WorkerInterest>,
        workers: Vec<WorkerHandle>,
        leave: Arc<Notify>,
    ) -> Self {
        let tracer = Tracer::without_exporter(Arc::clone(&metrics.trace));
        Self {
            broker,
            apps: Arc::new(Apps::of(&config)),
            config,
            workers: WorkerQueues::new(workers, Arc::clone(&metrics)),
            traces: Traces::new(Arc::new(tracer)),
            metrics,
            interest,
            leave,
            revocations: Revocations::default(),
            held_back: HeldBack::default(),
            held_events: HeldEvents::default(),
            held_answer: None,
            topics: FxHashMap::default(),
            asking: FuturesUnordered::new(),
            asks: Asks::default(),
            now: Instant::now(),
            sweep: Vec::new(),
            swept_at: Instant::now(),
            losses: Losses::default(),
        }
    }

    /// The same, whose spans are made by this.
    #[must_use]
    pub fn traced_by(mut self, tracer: Arc<Tracer>) -> Self {
        self.traces = Traces::new(tracer);
        self
    }

    /// The same, with topics of these apps.
    #[must_use]
    pub fn of_apps(mut self, apps: Arc<Apps>) -> Self {
        self.apps = apps;
        self
    }

    /// The same, ringing here when tokens were revoked.
    #[must_use]
    pub fn ringing(mut self, revocations: Revocations) -> Self {
        self.revocations = revocations;
        self
    }

    /// Runs until the feed ends.
    pub async fn run(mut self, mut feed: Feed) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut tick = pin!(tokio::time::sleep(TICK));
        let interest = Arc::clone(&self.interest);
        let stamp = turns::stamp("dispatcher".to_owned());
        let mut told = self.revocations.told();
        loop {
            stamp.turned();
            let (is_held, window) = (self.held_back.is_open(), self.held_back.window());
            tokio::select! {
                count = feed.recv_many(&mut batch, BATCH_MAX), if !is_held => {
                    if count == 0 {
                        return;
                    }
                    self.now = Instant::now();
                    self.take(batch.drain(..));
                }
                () = held_back::over(&mut told, window), if is_held => {
                    self.now = Instant::now();
                    self.release(*told.borrow());
                }
                wishes = interest.changed() => {
                    self.now = Instant::now();
                    for ((worker, topic), wish) in wishes {
                        self.wish(worker, topic, wish);
                    }
                }
                Some(answer) = self.asking.next(), if !is_held => self.answers(answer),
                () = &mut tick => {
                    self.now = Instant::now();
                    self.tick();
                    tick.as_mut().reset((self.now + IDLE_TICK).into());
                }
            }
            self.workers.settle();
            self.ask();
            let soon = (self.now + TICK).into();
            if tick.deadline() > soon && self.waits() {
                tick.as_mut().reset(soon);
            }
        }
    }

    /// Whether anything waits that only the next tick brings on: a turn in a lane, the end of a rest,
    /// room in a worker's queue, a line of the log.
    fn waits(&self) -> bool {
        self.asks.waiting() > 0 || self.workers.owe() || self.losses.are_untold()
    }

    /// Takes an answer and those that came with it.
    fn answers(&mut self, first: Answer) {
        self.now = Instant::now();
        let (mut next, mut count) = (Some(first), 0);
        while let Some(answer) = next {
            count += 1;
            if !self.take_answer(answer) || count == BATCH_MAX {
                return;
            }
            next = self.asking.next().now_or_never().flatten();
        }
    }

    fn feed_event(&mut self, event: FeedEvent) {
        match event {
            FeedEvent::Delivery {
                topic,
                entry,
                trace,
            } => {
                self.metrics.control.feed_deliveries.add(1);
                match trace {
                    None => self.arrived(&topic, entry),
                    Some(context) => self.arrived_traced(topic, entry, context),
                }
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
            FeedEvent::Subscribed(wishes) => {
                for (topic, stay) in wishes {
                    self.confirmed(&topic, stay);
                }
            }
            FeedEvent::Down(feed) => self.feed_is_down(feed),
            FeedEvent::Break(feed) => self.broken(feed),
            FeedEvent::Doubt(topics) => {
                tracing::warn!(
                    event = "feed_overflowed",
                    topics = topics.len(),
                    "the dispatcher's queue was full; checking the topics that lost something"
                );
                for topic in &topics {
                    self.doubt(topic);
                }
            }
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
        let now = self.now;
        self.lane(feed).broke(now);
        for topic in &topics {
            self.doubt(topic);
        }
    }

    /// A worker has members in a topic, by its wish of this number, or none any more.
    fn wish(&mut self, worker: usize, topic: Topic, wish: Option<WishNumber>) {
        let Some(wish) = wish else {
            let Some(state) = self.topics.get_mut(&topic) else {
                return;
            };
            state.workers.retain(|w| *w != worker);
            state.waiting.retain(|(w, _)| *w != worker);
            self.workers.forget(worker, &topic);
            if state.workers.is_empty() {
                self.topics.remove(&topic);
                self.broker.interest().unwant(topic);
            }
            return;
        };
        let retention = retention(&self.apps, &topic);
        let state = self
            .topics
            .entry(topic.clone())
            .or_insert_with(|| TopicState {
                stay: self.broker.interest().want(topic.clone()),
                link: Sequencer::joining(retention),
                is_confirmed: false,
                waiting: Vec::with_capacity(1),
                retention,
                workers: Vec::with_capacity(1),
                asking: Asking::Idle,
                ask_again: false,
                fails: 0,
                checked_at: None,
            });
        if !state.workers.contains(&worker) {
            state.workers.push(worker);
        }
        if state.link.is_joining() {
            state.waiting.retain(|(w, _)| *w != worker);
            state.waiting.push((worker, wish));
        } else {
            let last = state.link.last();
            self.workers.send_joined(worker, &topic, last, wish);
        }
        self.metrics.control.topics.set(self.topics.len() as u64);
    }

    fn arrived(&mut self, topic: &Topic, entry: Entry) {
        self.step(topic, |link, steps| link.arrived(entry, steps));
    }

    /// The same of one with the context of a trace, which is kept until it is delivered.
    fn arrived_traced(&mut self, topic: Topic, entry: Entry, context: TraceContext) {
        let place = (topic, entry.position);
        self.traces.arrived(place.clone(), context, self.now);
        self.arrived(&place.0, entry);
        let is_held = |state: &TopicState| !state.link.is_live();
        if !self.topics.get(&place.0).is_some_and(is_held) {
            self.traces.forget(&place);
        }
    }

    /// Lets the topic's link judge, and does what it says.
    fn step(&mut self, topic: &Topic, judge: impl FnOnce(&mut Sequencer, &mut Vec<Step>)) {
        let Some(state) = self.topics.get_mut(topic) else {
            return;
        };
        let was_repairing = state.link.is_repairing();
        let mut steps = Vec::new();
        judge(&mut state.link, &mut steps);
        let counters = &self.metrics.control;
        if !was_repairing && state.link.is_repairing() {
            counters.repairs.add(1);
        }
        let mut asks = None;
        for step in steps {
            match step {
                Step::Deliver(entry) => {
                    if was_repairing {
                        counters.repaired.add(1);
                    }
                    let has_history = state.retention.entries_max > 0;
                    let Found { told, delivery } =
                        self.traces
                            .deliver(topic, entry.position, was_repairing, &self.apps);
                    let outgoing = Outgoing::with_trace(topic.clone(), entry, has_history, told);
                    self.workers
                        .deliver(&state.workers, &outgoing, delivery.as_ref());
                }
                Step::Gap { from, to, reason } => {
                    counters.gaps.add(1);
                    self.losses.add(topic, from, to, reason);
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
                Step::Ask(_) => asks = Some(true),
                Step::AskLater(_) => asks = Some(false),
                Step::Duplicate => counters.duplicates_dropped.add(1),
                Step::Overflow => counters.held_overflow.add(1),
            }
        }
        match asks {
            Some(true) => self.want_asked(topic),
            Some(false) => self.rest(topic),
            None => {}
        }
    }

    fn tick(&mut self) {
        self.look_at_masters();
        self.wake();
        self.losses.tell(self.now);
        self.traces.age(self.now);
        let control = &self.metrics.control;
        control.topics.set(self.topics.len() as u64);
        control.questions_waiting.set(self.asks.waiting() as u64);
        self.sweep();
    }

    /// Once a second, a sixtieth of all topics: a lost last message of a quiet topic is found
    /// within [`SWEEP`], or twice that where the topic was asked about for another reason, and the
    /// broker goes on remembering the last ids. A topic whose master is away waits for the break or
    /// the confirmation by which it comes back.
    fn sweep(&mut self) {
        if self.now.saturating_duration_since(self.swept_at) < IDLE_TICK {
            return;
        }
        self.swept_at = self.now;
        if self.sweep.is_empty() {
            self.sweep = self.topics.keys().cloned().collect();
        }
        let steps = usize::try_from(SWEEP.as_secs()).expect("a minute fits");
        let count = self.topics.len().div_ceil(steps).min(self.sweep.len());
        for topic in self.sweep.split_off(self.sweep.len() - count) {
            if self.is_to_be_swept(&topic) {
                self.want_asked(&topic);
            }
        }
    }

    fn is_to_be_swept(&self, topic: &Topic) -> bool {
        let is_due = |at: Instant| self.now.saturating_duration_since(at) >= SWEEP;
        self.topics.get(topic).is_some_and(|state| {
            state.asking == Asking::Idle
                && state.link.is_live()
                && state.checked_at.is_none_or(is_due)
        }) && self.is_up(topic)
    }

    /// Whether the topic's master can be asked, as far as that was looked at.
    fn is_up(&self, topic: &Topic) -> bool {
        let feed = self.broker.feed_of(topic);
        feed.is_some_and(|feed| self.asks.lanes.get(&feed).is_none_or(|lane| lane.is_up))
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("topics", &self.topics.len())
            .finish_non_exhaustive()
    }
}
