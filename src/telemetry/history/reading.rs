//! What the instruments say at an instant, and what a second was like between two of them.
//!
//! In: [`Metrics`], and what the system says of the process. Out: [`Reading`]s, and the [`Point`] between
//! two of them. What only grows is told by how much it grew, what goes up and down as it stands at the
//! end. Asks nothing of workers and of Redis. Pure but for `/proc`.

use std::time::{Duration, Instant};

use super::measure::{Measure, Point, Range};
use crate::telemetry::counter::Counter;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::metrics::{Metrics, WorkerCounters};
use crate::telemetry::process;
use fanfare_protocol::error::ErrorCode;

/// A level stands for at most so long: of the time in which nobody looked it says nothing.
const LEVEL_MAX: Duration = Duration::from_secs(5);

/// How many, and how long they took in all.
#[derive(Debug, Clone, Copy, Default)]
struct Timed {
    count: u64,
    sum_us: u64,
}

impl Timed {
    fn of<'a, const COUNT: usize>(histograms: impl Iterator<Item = &'a Histogram<COUNT>>) -> Self {
        histograms.fold(Self::default(), |all, histogram| {
            let (count, sum_us) = histogram.total();
            Self {
                count: all.count + count,
                sum_us: all.sum_us.wrapping_add(sum_us),
            }
        })
    }

    fn since(self, before: Self) -> Range {
        let count = self.count.saturating_sub(before.count) as f64;
        let ms = self.sum_us.wrapping_sub(before.sum_us) as f64 / 1_000.0;
        Range::of(ms / count, count)
    }
}

/// What a measure is made of.
type Of<T> = fn(&Reading) -> T;

/// See the module.
#[derive(Debug)]
pub struct Reading {
    at: Instant,
    opened: u64,
    refused: u64,
    commands: u64,
    given_up: u64,
    publications: u64,
    unpublished: u64,
    deliveries: u64,
    written: u64,
    cache_hits: u64,
    cache_reads: u64,
    requests: Timed,
    command_times: Timed,
    connects: Timed,
    publishes: Timed,
    delivery_times: Timed,
    probes: Timed,
    errors: [u64; ErrorCode::ALL.len()],
    cpu_s: Option<f64>,
    busy: Duration,
    workers_count: usize,
    cores_max: f64,
    levels: [(Measure, Option<u64>); 8],
}

impl Reading {
    /// What the instruments say now.
    #[must_use]
    pub fn take(metrics: &Metrics, at: Instant) -> Self {
        let sum = |of: fn(&WorkerCounters) -> &Counter| metrics.sum(of);
        let workers = || metrics.workers.iter();
        let hits = sum(|c| &c.recent_hits);
        Self {
            at,
            opened: sum(|c| &c.sessions_opened),
            refused: workers().map(|worker| no_place(&worker.counters)).sum(),
            commands: workers()
                .map(|w| w.commands.cells().map(Counter::get).sum::<u64>())
                .sum(),
            given_up: metrics.api.given_up.get(),
            publications: metrics.control.published.get(),
            unpublished: metrics.control.publish_errors.get()
                + metrics.control.publish_refused.get(),
            deliveries: sum(|c| &c.deliveries),
            written: sum(|c| &c.bytes_written),
            cache_hits: hits,
            cache_reads: hits + sum(|c| &c.recent_misses),
            requests: Timed::of(metrics.api.calls()),
            command_times: Timed::of(workers().flat_map(|w| w.command_seconds.cells())),
            connects: Timed::of(workers().map(|w| &w.connect_seconds)),
            publishes: Timed::of(std::iter::once(&metrics.publish_seconds.durations)),
            delivery_times: Timed::of(workers().flat_map(|w| w.delivery_seconds.cells())),
            probes: Timed::of(std::iter::once(&metrics.probe_seconds)),
            errors: errors(metrics),
            cpu_s: process::cpu_seconds_now(),
            busy: workers().map(|w| w.busy()).sum(),
            workers_count: metrics.workers.len(),
            cores_max: metrics.facts().cores_max,
            levels: levels(metrics),
        }
    }

    /// What it was like since another one; `begun_ms`: when that was.
    #[must_use]
    pub fn since(&self, before: &Self, begun_ms: u64, ended_ms: u64) -> Point {
        let mut point = Point::empty(begun_ms, ended_ms);
        let lasts = self.at.saturating_duration_since(before.at);
        let seconds = lasts.as_secs_f64();
        let grown = |of: fn(&Self) -> u64| of(self).saturating_sub(of(before)) as f64;
        let rates: [(Measure, Of<u64>); 10] = [
            (Measure::Opened, |r| r.opened),
            (Measure::Refused, |r| r.refused),
            (Measure::Requests, |r| r.requests.count),
            (Measure::Commands, |r| r.commands),
            (Measure::Errors, |r| {
                r.errors.iter().sum::<u64>() + r.given_up
            }),
            (Measure::GivenUp, |r| r.given_up),
            (Measure::Publications, |r| r.publications),
            (Measure::PublicationsFailed, |r| r.unpublished),
            (Measure::Deliveries, |r| r.deliveries),
            (Measure::Written, |r| r.written),
        ];
        for (measure, of) in rates {
            point.set(measure, Range::rate(grown(of), seconds));
        }
        let times: [(Measure, Of<Timed>); 6] = [
            (Measure::RequestMs, |r| r.requests),
            (Measure::CommandMs, |r| r.command_times),
            (Measure::ConnectMs, |r| r.connects),
            (Measure::PublishMs, |r| r.publishes),
            (Measure::DeliveryMs, |r| r.delivery_times),
            (Measure::ProbeMs, |r| r.probes),
        ];
        for (measure, of) in times {
            point.set(measure, of(self).since(of(before)));
        }
        let reads = grown(|r| r.cache_reads);
        let hit_percent = 100.0 * grown(|r| r.cache_hits) / reads;
        point.set(Measure::CacheHitPercent, Range::of(hit_percent, reads));
        self.set_busy(before, seconds, &mut point);
        let weight = lasts.min(LEVEL_MAX).as_secs_f64();
        for (measure, level) in self.levels {
            if let Some(level) = level {
                point.set(measure, Range::of(level as f64, weight));
            }
        }
        for (code, (now, before)) in ErrorCode::ALL
            .iter()
            .zip(self.errors.iter().zip(before.errors))
        {
            point.set_errors(*code, now.saturating_sub(before));
        }
        point
    }

    /// What of the time it was at work.
    fn set_busy(&self, before: &Self, seconds: f64, point: &mut Point) {
        if let (Some(now_s), Some(before_s)) = (self.cpu_s, before.cpu_s)
            && self.cores_max > 0.0
        {
            let percent = 100.0 * (now_s - before_s) / (seconds * self.cores_max);
            point.set(Measure::CpuPercent, Range::of(percent.max(0.0), seconds));
        }
        let busy_s = self.busy.saturating_sub(before.busy).as_secs_f64();
        let percent = 100.0 * busy_s / (seconds * self.workers_count as f64);
        point.set(Measure::WorkerPercent, Range::of(percent, seconds));
    }
}

/// What goes up and down.
fn levels(metrics: &Metrics) -> [(Measure, Option<u64>); 8] {
    let sum = |of: fn(&WorkerCounters) -> &Counter| metrics.sum(of);
    let outboxes = metrics.workers.iter().flat_map(|w| w.outbox_bytes.cells());
    let waiting = outboxes.map(Counter::get).sum::<u64>() + sum(|c| &c.queued_bytes);
    let cache = sum(|c| &c.recent_bytes) + metrics.control.embedded_bytes.get();
    let oldest_ms = u64::try_from(metrics.queue.oldest().as_millis()).ok();
    [
        (Measure::Sessions, Some(metrics.sessions())),
        (Measure::Subscriptions, Some(sum(|c| &c.subscriptions))),
        (Measure::Topics, Some(metrics.control.topics.get())),
        (Measure::WaitingBytes, Some(waiting)),
        (Measure::MemoryBytes, process::resident_bytes()),
        (Measure::CacheBytes, Some(cache)),
        (Measure::QueueDue, Some(metrics.queue.due())),
        (Measure::QueueOldestMs, oldest_ms),
    ]
}

/// Connections and handshakes that found no place, or a node that could not serve: not those that were
/// at fault themselves, and not those that came to a node that leaves.
fn no_place(counters: &WorkerCounters) -> u64 {
    let all = [
        &counters.connections_refused,
        &counters.refused_capacity,
        &counters.refused_rate,
        &counters.refused_memory,
        &counters.refused_unavailable,
    ];
    all.into_iter().map(Counter::get).sum()
}

/// How often each error was told, to sessions and to callers.
fn errors(metrics: &Metrics) -> [u64; ErrorCode::ALL.len()] {
    ErrorCode::ALL.map(|code| {
        let workers = metrics.workers.iter();
        let told = workers.map(|worker| worker.command_errors.of(code).get());
        told.sum::<u64>() + metrics.api.errors.of(code).get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::facts::Facts;
    use crate::telemetry::family::Label as _;
    use crate::telemetry::labels::{CommandType, Route};

    #[test]
    fn a_second_is_what_was_counted_in_it() {
        let facts = Facts {
            cores_max: 2.0,
            ..Facts::default()
        };
        let metrics = Metrics::new(2).with_facts(facts);
        let begun = Instant::now();
        let worker = &metrics.workers[1];
        worker.counters.sessions.set(3);
        worker.counters.subscriptions.set(7);
        metrics.control.topics.set(4);
        worker.counters.deliveries.add_owned(1_000);
        metrics.queue.tell(&[1, 0, 2, 0], &[0, 700, 0, 0]);
        let before = Reading::take(&metrics, begun);
        worker.counters.deliveries.add_owned(50);
        worker.counters.refused_capacity.add_owned(1);
        metrics.workers[0].counters.refused_origin.add_owned(9);
        worker.commands.of(CommandType::Ping).add_owned(4);
        for ms in [10, 30] {
            let took = Duration::from_millis(ms);
            worker
                .command_seconds
                .of(CommandType::Ping)
                .count_owned(took);
            metrics.api.answered(Route::Publish, 200.into(), took);
            metrics.api.answered(Route::Ready, 503.into(), 100 * took);
        }
        metrics.api.told(Route::Publish, ErrorCode::Unavailable);
        metrics.api.given_up.add(2);
        metrics.control.publish_errors.add(3);
        metrics.control.publish_refused.add(1);
        metrics.api.told(Route::Other, ErrorCode::NotFound);
        worker
            .command_errors
            .of(ErrorCode::Unavailable)
            .add_owned(1);
        let after = Reading::take(&metrics, begun + Duration::from_secs(2));
        let point = after.since(&before, 1_000, 3_000);
        let means = [
            (Measure::Sessions, Some(3.0)),
            (Measure::Subscriptions, Some(7.0)),
            (Measure::Topics, Some(4.0)),
            (Measure::Deliveries, Some(25.0)),
            (Measure::Refused, Some(0.5)),
            (Measure::Requests, Some(1.0)),
            (Measure::Commands, Some(2.0)),
            (Measure::Errors, Some(2.0)),
            (Measure::GivenUp, Some(1.0)),
            (Measure::PublicationsFailed, Some(2.0)),
            (Measure::RequestMs, Some(20.0)),
            (Measure::CommandMs, Some(20.0)),
            (Measure::PublishMs, None),
            (Measure::CacheHitPercent, None),
            (Measure::QueueDue, Some(3.0)),
            (Measure::QueueOldestMs, Some(700.0)),
        ];
        for (measure, mean) in means {
            assert_eq!(point.range(measure).mean(), mean, "{}", measure.word());
        }
        assert_eq!(point.errors(ErrorCode::Unavailable), 2);
        assert_eq!(point.errors(ErrorCode::NotFound), 0, "no call of the API");
        assert!(point.range(Measure::MemoryBytes).min > 0.0);
        assert!(point.range(Measure::CpuPercent).mean().is_some());
        assert_eq!(point.seconds(), 2.0);
    }
}
