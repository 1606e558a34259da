//! The consumer: runs passes over the queues of the partitions that this node holds.
//!
//! In: leases of partitions, the view, bells, time. Out: passes, as many at once as there is work for, and
//! the figures of what waits where this node is the home, each second. Owner: the one task
//! [`Consumer::run`], on the control runtime. Bounds: those of `room`, so that a master of Redis that hangs
//! holds up its own queues only; a pass that is not back after [`PATIENCE`] is given up and counted. At the
//! end no further pass begins, and those on their way end before leases are given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::counting::Counting;
use super::faults::{Fault, Faults};
use super::figures::{Figures, SharedFigures};
use super::homes::Homes;
use super::pass::{Context, Looked, Outcome};
use super::pressure::Pressure;
use super::room::Room;
use super::rota::{Pass, Rota, Seen};
use crate::apps::Apps;
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::{Depths, FETCH_MAX, HeldPartition, PARTITIONS_PER_CALL};
use crate::broker::{Broker, BrokerHealth};
use crate::cluster::partition_leases::Held;
use crate::cluster::view::View;
use crate::config::Config;
use crate::config::machine::{self, Machine};
use crate::tasks::running::Stopwatch;
use crate::tasks::turns;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::process;
use crate::telemetry::trace::tracer::Tracer;

/// How long a pass may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Calls that wait for each pass that is under way: as they take some milliseconds each, the last has
/// begun after some tens of them.
const CALLS_PER_PASS: usize = 8;
/// What waits in a partition is counted where no pass has looked for so long: more than a poll.
const UNCOUNTED_AFTER: Duration = Duration::from_secs(2);
/// How often figures are told.
const TICK: Duration = turns::IDLE_TURN;

/// The handle of the consumer. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// What waits in the partitions whose home this node is.
    pub figures: SharedFigures,
    stop: Arc<watch::Sender<bool>>,
}

impl Queue {
    /// Begins no further pass and returns when those on their way have ended.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }

    /// The task that consumes. The caller runs it.
    #[must_use]
    pub fn consumer(
        &self,
        broker: Arc<Broker>,
        (config, apps): (Arc<Config>, Arc<Apps>),
        metrics: Arc<Metrics>,
        tracer: Arc<Tracer>,
        (held, view): (watch::Receiver<Held>, watch::Receiver<Arc<View>>),
    ) -> Consumer {
        let pressure = Pressure::new(machine::cores_max(&Machine::here()));
        Consumer {
            room: Room::new(config.queue.workers),
            homes: Homes::new(config.redis.lease),
            context: Arc::new(Context {
                broker,
                config,
                apps,
                metrics,
                tracer,
            }),
            held,
            view,
            rota: Rota::default(),
            running: FuturesUnordered::new(),
            partitions_per_call: PARTITIONS_PER_CALL,
            counting: Counting::default(),
            figures: Figures::default(),
            faults: Faults::default(),
            blocked: BTreeSet::new(),
            shared: self.figures.clone(),
            pressure,
            stop: self.stop.subscribe(),
        }
    }
}

/// What came of a pass; `None`: it was given up.
type Ended = (CallOf, Vec<HeldPartition>, Option<Outcome>);

/// See the module.
pub struct Consumer {
    context: Arc<Context>,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    rota: Rota,
    /// What is told here.
    homes: Homes,
    room: Room,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// How many partitions the last call could have.
    partitions_per_call: usize,
    /// Partitions in which what waits is being counted.
    counting: Counting,
    figures: Figures,
    faults: Faults,
    /// Partitions that stood still when that was told last.
    blocked: BTreeSet<u32>,
    shared: SharedFigures,
    pressure: Pressure,
    stop: watch::Receiver<bool>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl Consumer {
    /// Consumes until it is stopped, or nobody leads partitions any more.
    pub async fn run(mut self) {
        let bells = Arc::clone(self.context.broker.bells());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut stop, mut held) = (self.stop.clone(), self.held.clone());
        self.note();
        let stamp = turns::stamp("the queue".to_owned());
        loop {
            stamp.turned();
            let begun = self.begin();
            // All these waits are cancel-safe.
            tokio::select! {
                ended = next(&mut self.running) => self.ended(ended),
                (of, depths) = self.counting.next() => self.counted(of, depths),
                rung = bells.heard() => {
                    let now = Instant::now();
                    for (partition, ring) in rung {
                        self.rota.ring(partition, ring, now);
                    }
                }
                () = at(self.rota.next_at(begun)) => {}
                changed = held.changed() => match changed {
                    Ok(()) => {
                        held.mark_unchanged();
                        self.note();
                    }
                    Err(_) => break,
                },
                _ = ticks.tick() => self.tick(),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        // What is left may take as long as Redis does.
        drop(stamp);
        while let Some(ended) = self.running.next().await {
            self.ended(ended);
        }
    }

    /// Takes what is held, and what this node is the home of.
    fn note(&mut self) {
        let now = Instant::now();
        let held = self.held.borrow_and_update().clone();
        let tokens = held.partitions().into_iter();
        let tokens: BTreeMap<_, _> = tokens.filter_map(|p| Some((p, held.token(p)?))).collect();
        let (taken, lost) = self.rota.note(&tokens, now);
        for partition in taken {
            self.context.broker.hear_bell(partition, true);
        }
        for partition in lost {
            self.context.broker.hear_bell(partition, false);
        }
        let view = Arc::clone(&self.view.borrow_and_update());
        if view.time_us > 0 {
            // For a home that holds nothing, and so has no passes that say it.
            self.figures.tick_first(view.time_us / 1_000, view.told_at);
        }
        let rota = &self.rota;
        let (came, went) = self.homes.note(&view, |one| rota.holds(one), now);
        for partition in came {
            self.figures.take(partition);
        }
        for partition in went {
            self.figures.let_go(partition);
        }
        // Those that can be asked for are told by their homes.
        let mut there: Vec<_> = self.figures.let_go_of().collect();
        there.retain(|partition| !self.context.broker.is_queue_away(*partition));
        for partition in there {
            self.figures.forget(partition);
        }
        let calls = self.rota.held();
        let calls = calls.filter_map(|partition| self.context.broker.queue_call_of(partition));
        self.room.note(calls.map(|call| call.feed).collect());
    }

    /// Begins passes while there is work, and room for it. Returns as of when there was.
    fn begin(&mut self) -> Instant {
        let now = Instant::now();
        while !self.room.is_full(usize::MAX) {
            let wanted = self.wanted(now);
            if self.room.is_full(wanted) {
                break; // No need to ask for each partition whose it is.
            }
            let (broker, room) = (&self.context.broker, &self.room);
            let may_begin = |call: &CallOf| room.has(call.feed, wanted);
            let call_of = |partition| broker.queue_call_of(partition);
            let Some(pass) = self.rota.take(now, call_of, may_begin) else {
                break;
            };
            self.push(pass);
        }
        now
    }

    /// How many passes a master should have: one, and one more for each [`CALLS_PER_PASS`] that wait, by
    /// their partitions or entries. Fewer at once bring more entries each.
    fn wanted(&self, now: Instant) -> usize {
        let entries = usize::try_from(self.rota.entries_count()).unwrap_or(usize::MAX);
        let calls = self.rota.due_count(now) / self.partitions_per_call + entries / FETCH_MAX;
        1 + calls / CALLS_PER_PASS
    }

    fn push(&mut self, pass: Pass) {
        let Pass {
            call,
            held,
            from,
            is_glance,
        } = pass;
        self.room.begun(call.feed);
        self.partitions_per_call = match call.alone {
            Some(_) => 1,
            None => PARTITIONS_PER_CALL,
        };
        let context = Arc::clone(&self.context);
        let run = async move {
            let watch = Stopwatch::begin();
            let outcome = timeout(PATIENCE, context.run(held.clone(), from, is_glance)).await;
            context.metrics.queue.longest.note(watch.took());
            (call, held, outcome.ok())
        };
        self.running.push(run.boxed());
        let workers = &self.context.metrics.queue.workers;
        workers.set(self.running.len() as u64);
    }

    fn ended(&mut self, (call, held, outcome): Ended) {
        let now = Instant::now();
        self.context
            .metrics
            .queue
            .workers
            .set(self.running.len() as u64);
        self.room.ended(call.feed);
        let Some(outcome) = outcome else {
            self.context.metrics.queue.given_up.add(1);
            for held in held {
                self.rota.ended(held, Seen::Failed, now, rand::random());
            }
            return;
        };
        if let Some(now_ms) = outcome.now_ms {
            self.figures.tick(now_ms, now);
        }
        for looked in outcome.looked {
            let Looked {
                held,
                seen,
                depths,
                fault,
            } = looked;
            // A glance asks nothing of dead letters.
            let is_bare = matches!(seen, Seen::Looked { .. });
            match depths {
                Some(depths) => self.found(held.partition, depths, now),
                None if is_bare && self.homes.has(held.partition) => {
                    self.figures.set_bare(held.partition, now);
                }
                None => {}
            }
            self.rota.ended(held, seen, now, rand::random());
            if let Some(fault) = fault {
                let count = self.blocked.len();
                self.faults.note(held.partition, &fault, count, now);
            }
        }
    }

    /// A partition was counted, which was asked for at this instant. A pass that ended since knows better.
    fn counted(&mut self, (partition, asked_at): (u32, Instant), depths: Option<Depths>) {
        let is_news = self.figures.is_older(partition, asked_at);
        if let Some(depths) = depths.filter(|_| is_news) {
            self.found(partition, depths, Instant::now());
        }
        self.counting.begin(&self.context.broker);
    }

    /// So much waits in a partition.
    fn found(&mut self, partition: u32, depths: Depths, now: Instant) {
        self.rota.found(partition, &depths);
        if self.homes.has(partition) {
            self.figures.set(partition, depths, now);
        }
    }

    /// Counts what waits in partitions that no pass has come to for a while, and each time in those that
    /// stand still.
    fn find_uncounted(&mut self, now: Instant) {
        let (broker, figures, blocked) = (&self.context.broker, &self.figures, &self.blocked);
        let is_old = |partition: &u32| {
            let after = match blocked.contains(partition) {
                true => TICK / 2,
                false => UNCOUNTED_AFTER,
            };
            now.checked_sub(after)
                .is_some_and(|then| figures.is_older(*partition, then))
        };
        let old = self.homes.partitions().filter(is_old);
        let old = old.filter(|partition| !broker.is_queue_away(*partition));
        let calls = old.filter_map(|one| Some((broker.queue_call_of(one)?.feed, one)));
        self.counting.add(calls);
        self.counting.begin(&self.context.broker);
    }

    /// The partitions of this home whose queues stand still: what has them is away or refuses, or nobody has
    /// their lease.
    fn find_blocked(&self, now: Instant) -> BTreeSet<u32> {
        let (broker, homes, rota) = (&self.context.broker, &self.homes, &self.rota);
        // What stood still when its lease ended does so until somebody has it.
        let was_so = |one: &u32| !rota.holds(*one) && self.blocked.contains(one);
        let stands_still = |one: &u32| {
            let is_so = rota.stands_still(*one) || homes.lacks(*one, now);
            is_so || was_so(one) || broker.is_queue_away(*one)
        };
        homes.partitions().filter(stands_still).collect()
    }

    /// Whether all of the broker is there.
    fn is_whole(&self) -> bool {
        *self.context.broker.health().borrow() == BrokerHealth::Up
    }

    /// Says that nobody can have the lease of a partition, though what has it is there.
    fn tell_unheld(&mut self, now: Instant) {
        let broker = &self.context.broker;
        let lacks = |one: &u32| self.homes.lacks(*one, now) && !broker.is_queue_away(*one);
        if let Some(partition) = self.homes.partitions().find(lacks) {
            self.faults
                .note(partition, &Fault::unheld(), self.blocked.len(), now);
        }
    }

    /// Tells the figures.
    fn tick(&mut self) {
        // Leases end by themselves, too.
        self.note();
        let now = Instant::now();
        self.blocked = self.find_blocked(now);
        self.tell_unheld(now);
        self.find_uncounted(now);
        if let Some(seconds) = process::cpu_seconds_now() {
            self.pressure.sample(seconds);
        }
        let part = if self.is_whole() {
            self.pressure.part()
        } else {
            0.0
        };
        let told = self.figures.told(part, &self.blocked, now);
        let metrics = &self.context.metrics.queue;
        metrics.tell(&told.due, &told.oldest_ms);
        let config = &self.context.config;
        let share = self
            .homes
            .share(config.queue.capacity, config.redis.partitions);
        metrics.capacity.set(share);
        metrics.blocked.set(self.blocked.len() as u64);
        metrics.delayed.set(told.later);
        metrics.dead.set(told.dead);
        metrics.pressure.set(told.pressure);
        self.shared.set(told);
    }
}

/// What the next of them brings; waits for ever where none runs. Cancel-safe.
async fn next<T>(running: &mut FuturesUnordered<BoxFuture<'static, T>>) -> T {
    match running.next().await {
        Some(brought) => brought,
        None => std::future::pending().await,
    }
}

/// Waits for an instant, or for ever. Cancel-safe.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
