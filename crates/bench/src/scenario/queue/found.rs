//! What stretches of one way found, and how it is told.
//!
//! In: stretches of the same way. Out: figures whose names begin with the way, and where both ways ran
//! what the queue costs beside direct publications. Pure.

use std::time::Duration;

use crate::feeder::PRIORITIES;
use crate::lanes::{LANES_COUNT, Lane};
use crate::meter::Cpu;
use crate::publisher::Published;
use crate::report::Report;

/// The names of the ways in figures.
const WAYS: [&str; 2] = ["queue", "batch"];
/// The names of the latencies of each way.
const LATENCIES: [[&str; LANES_COUNT + 1]; 2] = [
    [
        "queue_wait_critical",
        "queue_wait_high",
        "queue_wait_normal",
        "queue_wait_low",
        "queue_answer",
    ],
    [
        "batch_wait_critical",
        "batch_wait_high",
        "batch_wait_normal",
        "batch_wait_low",
        "batch_answer",
    ],
];

/// What stretches of one way found together.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What feeders did.
    pub(super) published: Published,
    /// Messages that came.
    pub(super) received: u64,
    /// Until the last answer.
    pub(super) posted: Duration,
    /// Until the last message.
    pub(super) took: Duration,
    /// What it cost.
    pub(super) cpu: Cpu,
    /// By priority.
    pub(super) lanes: [Lane; LANES_COUNT],
    /// Most messages that were on their way at once.
    pub(super) waiting_max: u64,
}

impl Found {
    /// Takes another stretch.
    pub(super) fn add(&mut self, other: &Self) {
        self.published.add(&other.published);
        self.received += other.received;
        self.posted += other.posted;
        self.took += other.took;
        let sum = |one: Option<Duration>, more: Option<Duration>| {
            more.map_or(one, |more| Some(one.unwrap_or_default() + more))
        };
        self.cpu.server = sum(self.cpu.server, other.cpu.server);
        self.cpu.redis = sum(self.cpu.redis, other.cpu.redis);
        for (lane, more) in self.lanes.iter_mut().zip(&other.lanes) {
            lane.add(more);
        }
        self.waiting_max = self.waiting_max.max(other.waiting_max);
    }

    /// Tells it, as the way of this number.
    pub(super) fn tell(&self, way: usize, report: &mut Report) {
        if self.received == 0 {
            return;
        }
        let name = |what: &str| format!("{}_{what}", WAYS[way]);
        let seconds = self.took.as_secs_f64();
        report.figure(name("seconds"), seconds);
        report.figure(name("posted_after_s"), self.posted.as_secs_f64());
        report.figure(name("entries_per_s"), self.received as f64 / seconds);
        report.figure(name("entries_refused_for_now"), self.published.repeated);
        report.figure(name("waiting_max"), self.waiting_max);
        let parts = [("server", self.cpu.server), ("redis", self.cpu.redis)];
        for (part, cpu) in parts {
            if let Some(each) = self.each_us(cpu) {
                report.figure(name(&format!("{part}_cpu_us_per_entry")), each);
                report.figure(
                    name(&format!("{part}_cpu_share")),
                    cpu.unwrap_or_default().as_secs_f64() / seconds,
                );
            }
        }
        for (lane, priority) in self.lanes.iter().zip(PRIORITIES) {
            if !lane.wait.is_empty() {
                let (mean, stood) = (lane.wait.mean(), lane.stood_us);
                report.figure(name(&format!("wait_{priority}_mean_us")), mean);
                report.figure(name(&format!("stood_{priority}_us")), stood);
            }
        }
        let [critical, .., low] = &self.lanes;
        if low.wait.mean() > 0.0 {
            let part = critical.wait.mean() / low.wait.mean();
            report.figure(name("wait_critical_beside_low"), part);
        }
        for (lane, latency) in self.lanes.iter().zip(LATENCIES[way]) {
            report.latency(latency, lane.wait.clone());
        }
        let answer = self.published.answer.clone();
        report.latency(LATENCIES[way][LANES_COUNT], answer);
    }

    /// Processor time of a message, in microseconds.
    fn each_us(&self, cpu: Option<Duration>) -> Option<f64> {
        cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.received as f64)
    }
}

/// What a message costs by the queue, beside what it costs directly, where both ran.
pub(super) fn beside(found: &[Found; 2], report: &mut Report) {
    let [queue, batch] = found;
    if queue.received == 0 || batch.received == 0 {
        return;
    }
    for (name, of_queue, of_batch) in [
        ("server_cpu_ratio", queue.cpu.server, batch.cpu.server),
        ("redis_cpu_ratio", queue.cpu.redis, batch.cpu.redis),
    ] {
        if let (Some(queued), Some(direct)) = (queue.each_us(of_queue), batch.each_us(of_batch))
            && direct > 0.0
        {
            report.figure(name, queued / direct);
        }
    }
}

/// What was spent between two looks.
pub(super) fn spent(begin: &Cpu, end: &Cpu) -> Cpu {
    let between = |begin: Option<Duration>, end: Option<Duration>| {
        begin.zip(end).map(|(begin, end)| end.saturating_sub(begin))
    };
    Cpu {
        server: between(begin.server, end.server),
        redis: between(begin.redis, end.redis),
    }
}
