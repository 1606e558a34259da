//! The consumer: runs passes over the queues of the partitions that this node holds.
//!
//! In: leases of partitions, bells, time. Out: passes, as many at once as there is work for, and the
//! figures of what waits, each second. Owner: the one task [`Consumer::run`], on the control runtime.
//! Bounds: `queue.workers` passes at once, of which a master of Redis has an even share, so that one
//! that hangs holds up its own queues only; a pass that is not back after [`PATIENCE`] is given up and
//! counted. At the end no further pass begins, and those on their way end before leases are given back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::counting::Counting;
use super::faults::Faults;
use super::figures::{Figures, SharedFigures};
use super::pass::{Context, Looked, Outcome};
use super::pressure::Pressure;
use super::rota::{Pass, Rota, Seen};
use crate::apps::Apps;
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::{Depths, FETCH_MAX, HeldPartition, PARTITIONS_PER_CALL};
use crate::broker::{Broker, BrokerHealth, FeedNumber};
use crate::cluster::partition_leases::Held;
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
    /// What waits in the partitions that this node holds.
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
        held: watch::Receiver<Held>,
    ) -> Consumer {
        let pressure = Pressure::new(machine::cores_max(&Machine::here()));
        Consumer {
            workers_max: config.queue.workers,
            context: Arc::new(Context {
                broker,
                config,
                apps,
                metrics,
                tracer,
            }),
            held,
            rota: Rota::default(),
            running: FuturesUnordered::new(),
            counts: BTreeMap::new(),
            masters: BTreeSet::new(),
            partitions_per_call: PARTITIONS_PER_CALL,
            counting: Counting::default(),
            figures: Figures::default(),
            faults: Faults::default(),
            failing: BTreeSet::new(),
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
    workers_max: usize,
    held: watch::Receiver<Held>,
    rota: Rota,
    running: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// How many passes each master has.
    counts: BTreeMap<FeedNumber, usize>,
    /// The masters that have partitions which are held: one that is slow has its share, and no more.
    masters: BTreeSet<FeedNumber>,
    /// How many partitions the last call could have.
    partitions_per_call: usize,
    /// Partitions in which what waits is being counted.
    counting: Counting,
    figures: Figures,
    faults: Faults,
    /// Partitions whose last pass failed, held or not; while the broker is whole those that are held.
    failing: BTreeSet<u32>,
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
                (partition, depths) = self.counting.next() => {
                    if let Some(depths) = depths {
                        self.found(partition, depths, Instant::now());
                    }
                    self.counting.begin(&self.context.broker);
                }
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

    /// Takes what is held now.
    fn note(&mut self) {
        let held = self.held.borrow_and_update().clone();
        let tokens = held.partitions().into_iter();
        let tokens: BTreeMap<_, _> = tokens.filter_map(|p| Some((p, held.token(p)?))).collect();
        let (taken, lost) = self.rota.note(&tokens, Instant::now());
        for partition in taken {
            self.context.broker.hear_bell(partition, true);
            self.figures.hold(partition);
        }
        for partition in lost {
            self.context.broker.hear_bell(partition, false);
            self.figures.let_go(partition);
        }
        // Those that can be asked for are told by whoever holds them now.
        let mut there: Vec<_> = self.figures.let_go_of().collect();
        there.retain(|partition| !self.is_away(*partition));
        for partition in there {
            self.figures.forget(partition);
        }
        let calls = self.rota.held();
        let calls = calls.filter_map(|partition| self.context.broker.queue_call_of(partition));
        self.masters = calls.map(|call| call.feed).collect();
    }

    /// Begins passes while there is work, and room for it. Returns as of when there was.
    fn begin(&mut self) -> Instant {
        let now = Instant::now();
        while self.running.len() < self.workers_max {
            let each_max = self.each_max(now);
            let is_full = |feed| self.counts.get(feed).is_some_and(|n| *n >= each_max);
            if self.masters.iter().all(is_full) {
                break; // No master has room: no need to ask for each partition whose it is.
            }
            let (broker, counts) = (&self.context.broker, &self.counts);
            let may_begin = |call: &CallOf| counts.get(&call.feed).is_none_or(|n| *n < each_max);
            let call_of = |partition| broker.queue_call_of(partition);
            let Some(pass) = self.rota.take(now, call_of, may_begin) else {
                break;
            };
            self.push(pass);
        }
        now
    }

    /// How many passes a master may have: one, and one more for each [`CALLS_PER_PASS`] that wait, by
    /// their partitions or entries; at most its share. Fewer at once bring more entries each.
    fn each_max(&self, now: Instant) -> usize {
        let masters_count = self.masters.len().max(1);
        let entries = usize::try_from(self.figures.due_count()).unwrap_or(usize::MAX);
        let calls = self.rota.due_count(now) / self.partitions_per_call + entries / FETCH_MAX;
        let wanted = 1 + calls / CALLS_PER_PASS;
        wanted.min((self.workers_max / masters_count).max(1))
    }

    fn push(&mut self, pass: Pass) {
        let Pass {
            call,
            held,
            from,
            is_glance,
        } = pass;
        *self.counts.entry(call.feed).or_default() += 1;
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
        if let Some(count) = self.counts.get_mut(&call.feed) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&call.feed);
            }
        }
        let Some(outcome) = outcome else {
            self.context.metrics.queue.given_up.add(1);
            for held in held {
                self.failing.insert(held.partition);
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
                None if is_bare && self.rota.holds(held.partition) => {
                    self.figures.set_bare(held.partition, now);
                }
                None => {}
            }
            match seen {
                Seen::Failed => self.failing.insert(held.partition),
                Seen::Looked { .. } | Seen::Refused => self.failing.remove(&held.partition),
                Seen::Something | Seen::Unsaid => false,
            };
            self.rota.ended(held, seen, now, rand::random());
            if let Some(fault) = fault {
                let count = self.rota.failing_count();
                self.faults.note(held.partition, &fault, count, now);
            }
        }
    }

    /// So much waits in a partition.
    fn found(&mut self, partition: u32, depths: Depths, now: Instant) {
        self.rota.found(partition, &depths);
        if self.rota.holds(partition) {
            self.figures.set(partition, depths, now);
        }
    }

    /// Counts what waits in partitions that no pass has come to for a while.
    fn find_uncounted(&mut self, now: Instant) {
        if let Some(then) = now.checked_sub(UNCOUNTED_AFTER) {
            let (broker, figures) = (&self.context.broker, &self.figures);
            let held = self.rota.held();
            let old = held.filter(|partition| figures.is_older(*partition, then));
            let calls = old.filter_map(|one| Some((broker.queue_call_of(one)?.feed, one)));
            self.counting.add(calls);
        }
        self.counting.begin(&self.context.broker);
    }

    /// Whether what has this partition is away, as far as is known.
    fn is_away(&self, partition: u32) -> bool {
        match *self.context.broker.health().borrow() {
            BrokerHealth::Up => false,
            BrokerHealth::Down(_) => true,
            _ => self.failing.contains(&partition),
        }
    }

    /// Whether all of the broker is there.
    fn is_whole(&self) -> bool {
        *self.context.broker.health().borrow() == BrokerHealth::Up
    }

    /// This node's part of `queue.capacity`, by the partitions that it tells: of all nodes it adds up.
    fn capacity(&self) -> u64 {
        let config = &self.context.config;
        let told = self.rota.held().chain(self.figures.let_go_of());
        let share = |partition| share_of(config.queue.capacity, partition, config.redis.partitions);
        told.map(share).sum()
    }

    /// Tells the figures.
    fn tick(&mut self) {
        // Leases end by themselves, too.
        self.note();
        if self.is_whole() {
            let rota = &self.rota;
            self.failing.retain(|partition| rota.holds(*partition));
        }
        self.find_uncounted(Instant::now());
        if let Some(seconds) = process::cpu_seconds_now() {
            self.pressure.sample(seconds);
        }
        let part = if self.is_whole() {
            self.pressure.part()
        } else {
            0.0
        };
        let told = self.figures.told(part, Instant::now());
        self.context.metrics.queue.tell(&told.due, &told.oldest_ms);
        let metrics = &self.context.metrics.queue;
        metrics.capacity.set(self.capacity());
        let blocked = self.rota.failing_count() + self.figures.let_go_of().count();
        metrics.blocked.set(blocked as u64);
        metrics.delayed.set(told.later);
        metrics.dead.set(told.dead);
        metrics.pressure.set(told.pressure);
        self.shared.set(told);
    }
}

/// The part of a whole that one of so many partitions has: of all of them together, the whole.
fn share_of(whole: u64, partition: u32, partitions: u32) -> u64 {
    let up_to = |count: u32| {
        let part = u128::from(whole) * u128::from(count) / u128::from(partitions.max(1));
        u64::try_from(part).unwrap_or(u64::MAX)
    };
    up_to(partition.saturating_add(1)) - up_to(partition)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_partitions_are_the_whole_together() {
        for (whole, partitions) in [(1_000_000, 256), (100, 256), (7, 3), (u64::MAX, 8), (5, 1)] {
            let shares = (0..partitions).map(|partition| share_of(whole, partition, partitions));
            assert_eq!(shares.map(u128::from).sum::<u128>(), u128::from(whole));
        }
        // Half of them are half, to one.
        let half: u64 = (0..128)
            .map(|partition| share_of(1_001, partition, 256))
            .sum();
        assert_eq!(half, 500);
    }
}
