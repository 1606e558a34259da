//! What the node sends to a collector, by OTLP.
//!
//! In: spans and lines of the log, each by a gate, and all that is counted, read once an interval. Out:
//! requests to the collector, by gRPC or HTTP. Owner: one thread with a runtime of its own, which
//! `node` starts and ends ([`Work::run`]). Bounds: a gate for each signal, one request a signal at a
//! time, and [`FLUSH`] at the end. Without an endpoint there is no thread, no runtime and no gate.
//!
//! Nothing here makes a caller wait, and what the exporters themselves log is never sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{JoinAll, join_all};
use opentelemetry_sdk::Resource;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::counter::Counter;
use super::family::Label as _;
use super::gate::Gate;
use super::metrics::Metrics;
use super::otlp_metrics::{ItemResult, Signal};
use super::trace::span::Span;
use crate::config::Config;
use crate::config::telemetry::{Batches, Target, Telemetry};
use client::Client;
use courier::Courier;
use exporter::Waiting;
use points::{Points, Readings};
use records::Lines;
use resource::resource;
use spans::Spans;

mod answer;
mod client;
#[cfg(test)]
mod collectors;
mod connections;
mod courier;
mod exporter;
mod grpc;
mod notices;
mod patience;
mod points;
pub mod records;
mod resource;
mod spans;

/// For how long the end of the node waits for what is still to be sent.
pub const FLUSH: Duration = Duration::from_secs(3);
/// When what is not sent by then is given up; the rest of [`FLUSH`] is for the thread to end.
const GIVE_UP: Duration = Duration::from_millis(2_500);

/// How many requests there are at once, and names that are looked up.
const SIGNALS: usize = 3;

const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the node hands in what is to be sent.
#[derive(Debug)]
pub struct Otlp {
    /// For spans; `None` where none are sent.
    pub spans: Option<Gate<Span>>,
    stop: watch::Sender<bool>,
    ended: watch::Receiver<()>,
}

/// What sends it, for a thread of its own.
#[must_use = "nothing is sent before it runs"]
pub struct Work {
    runtime: Runtime,
    jobs: Vec<Job>,
    stop: watch::Receiver<bool>,
    /// How many items were not taken, of each kind.
    lost: Vec<Arc<Counter>>,
    /// Dropped at the end.
    _ended: watch::Sender<()>,
}

/// What jobs are made of.
struct Making<'a> {
    config: &'a Telemetry,
    node: &'a str,
    resource: Resource,
    metrics: &'a Metrics,
    stop: watch::Receiver<bool>,
}

/// Makes what the configuration asks for. Without [`Work`] there is nothing to do.
///
/// # Errors
/// Where the system gives no poller, or an exporter does not take the address that is set.
pub fn start(
    config: &Config,
    metrics: &Metrics,
    read: Readings,
) -> io::Result<(Otlp, Option<Work>)> {
    let (stop, stops) = watch::channel(false);
    let (ends, ended) = watch::channel(());
    let node = config.server.node_id.as_str();
    let making = Making {
        config: &config.telemetry,
        node,
        resource: resource(&config.telemetry, node),
        metrics,
        stop: stops.clone(),
    };
    let (traces, spans) = making.traces()?.unzip();
    let jobs = [traces, making.metrics(read), making.logs()?];
    let jobs: Vec<Job> = jobs.into_iter().flatten().collect();
    let work = match jobs.is_empty() {
        true => None,
        false => Some(Work {
            runtime: tokio::runtime::Builder::new_current_thread()
                // Names are looked up on threads beside it.
                .thread_name("telemetry-names")
                .max_blocking_threads(SIGNALS)
                .enable_all()
                .build()?,
            jobs,
            stop: stops,
            lost: lost(metrics),
            _ended: ends,
        }),
    };
    Ok((Otlp { spans, stop, ended }, work))
}

impl Making<'_> {
    fn traces(&self) -> io::Result<Option<(Job, Gate<Span>)>> {
        let Some(target) = self.config.traces_target() else {
            return Ok(None);
        };
        let pace = self.config.traces.batches.clone();
        let (gate, items) = self.gate(Signal::Traces, &pace);
        let courier = self.courier(Signal::Traces, target, TRACES, pace.deadline);
        let spans = Spans::new(&courier, &self.resource).map_err(io::Error::other)?;
        let sends = exporter::run(spans, courier, items, pace, self.stop.clone());
        Ok(Some((Box::pin(sends), gate)))
    }

    fn logs(&self) -> io::Result<Option<Job>> {
        let Some(target) = self.config.logs_target() else {
            records::send_to(None);
            return Ok(None);
        };
        let pace = self.config.logs.batches.clone();
        let (gate, items) = self.gate(Signal::Logs, &pace);
        let courier = self.courier(Signal::Logs, target, LOGS, pace.deadline);
        let lines = Lines::new(&courier, &self.resource).map_err(io::Error::other)?;
        records::send_to(Some(gate));
        let sends = exporter::run(lines, courier, items, pace, self.stop.clone());
        Ok(Some(Box::pin(sends)))
    }

    fn metrics(&self, read: Readings) -> Option<Job> {
        let target = self.config.metrics_target()?;
        let config = &self.config.metrics;
        let deadline = config.deadline.min(config.interval);
        let courier = self.courier(Signal::Metrics, target, METRICS, deadline);
        let points = Points::new(self.resource.clone(), config.temporality);
        let stop = self.stop.clone();
        let pace = (points::phase(self.node, config.interval), config.interval);
        let sends = points::run(courier, points, pace, read, stop);
        Some(Box::pin(sends))
    }

    fn gate<T>(&self, signal: Signal, pace: &Batches) -> (Gate<T>, Waiting<T>) {
        let dropped = self.metrics.telemetry.of(signal, ItemResult::Dropped);
        let (gate, items) = Gate::with_room(pace.queue_max, Arc::clone(dropped));
        (gate, Waiting::new(items, Arc::clone(dropped)))
    }

    fn courier(
        &self,
        signal: Signal,
        target: Target,
        method: &'static str,
        deadline: Duration,
    ) -> Arc<Courier> {
        tell(signal, &target);
        let client = Client::new(target, method);
        let stop = self.stop.clone();
        Arc::new(Courier::new(signal, client, deadline, self.metrics, stop))
    }
}

fn tell(signal: Signal, target: &Target) {
    tracing::info!(
        event = "telemetry_export_started",
        signal = signal.word(),
        url = target.url.as_str(),
        protocol = ?target.protocol,
        "telemetry is sent to a collector"
    );
}

fn lost(metrics: &Metrics) -> Vec<Arc<Counter>> {
    let results = [ItemResult::Dropped, ItemResult::Failed];
    let cells = Signal::ALL
        .iter()
        .flat_map(|signal| results.map(|result| metrics.telemetry.of(*signal, result)));
    cells.map(Arc::clone).collect()
}

impl Otlp {
    /// Sends what is still there, and ends; for at most [`FLUSH`].
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.clone();
        // What is waited for is that the sender goes.
        let end = async { while ended.changed().await.is_ok() {} };
        if tokio::time::timeout(FLUSH, end).await.is_err() {
            tracing::warn!(
                event = "telemetry_stuck",
                "what is sent to the collector did not end in time"
            );
        }
    }
}

impl Work {
    /// Sends until the node ends.
    pub fn run(mut self) {
        let mut jobs = join_all(self.jobs);
        self.runtime.block_on(async {
            let overdue = async {
                // The sender lives as long as the node.
                let _ = self.stop.wait_for(|stops| *stops).await;
                tokio::time::sleep(GIVE_UP).await;
            };
            tokio::select! {
                _ = &mut jobs => {}
                () = overdue => give_up(jobs, &self.lost),
            }
        });
        // A name that is being looked up holds nobody up.
        self.runtime.shutdown_background();
    }
}

/// Ends what did not end in time: what is being sent has failed, and what waits is dropped.
fn give_up(jobs: JoinAll<Job>, lost: &[Arc<Counter>]) {
    let sum = || lost.iter().map(|cell| cell.get()).sum::<u64>();
    let before = sum();
    drop(jobs);
    tracing::warn!(
        event = "telemetry_cut_off",
        items = sum() - before,
        "the node ends, and the collector did not take in time what was still to be sent"
    );
}
