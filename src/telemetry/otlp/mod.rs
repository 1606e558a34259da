//! What the node sends to a collector, by OTLP.
//!
//! In: spans by a gate. Out: requests to the collector, by gRPC or HTTP. Owner: one thread with a
//! runtime of its own, which `node` starts and ends ([`Work::run`]). Bounds: a gate for each signal, one
//! request a signal at a time, and [`FLUSH`] at the end. Without an endpoint there is no thread, no
//! runtime and no gate.
//!
//! Nothing here makes a caller wait, and what the exporters themselves log is never sent.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::gate::Gate;
use super::metrics::Metrics;
use super::otlp_metrics::{ItemResult, Signal};
use super::trace::span::Span;
use crate::config::Config;
use crate::config::telemetry::Target;
use client::Client;
use exporter::Exporter;

mod client;
mod exporter;
mod grpc;
mod resource;
mod spans;

/// For how long the end of the node waits for what is still to be sent.
pub const FLUSH: Duration = Duration::from_secs(3);
/// When what is not sent by then is given up; the rest of [`FLUSH`] is for the thread to end.
const GIVE_UP: Duration = Duration::from_millis(2_500);

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
    /// Dropped at the end.
    _ended: watch::Sender<()>,
}

/// Makes what the configuration asks for. Without [`Work`] there is nothing to do.
///
/// # Errors
/// Where the system gives no poller.
pub fn start(config: &Config, metrics: &Arc<Metrics>) -> io::Result<(Otlp, Option<Work>)> {
    let telemetry = &config.telemetry;
    let (stop, stops) = watch::channel(false);
    let (ends, ended) = watch::channel(());
    let resource = Arc::new(resource::resource(
        telemetry,
        config.server.node_id.as_str(),
    ));
    let mut jobs: Vec<Job> = Vec::new();
    let spans = telemetry.traces_target().map(|target| {
        tell(Signal::Traces, &target);
        let pace = telemetry.traces.batches.clone();
        let dropped = metrics.telemetry.of(Signal::Traces, ItemResult::Dropped);
        let (gate, items) = Gate::with_room(pace.queue_max, Arc::clone(dropped));
        let client = Client::new(target, TRACES);
        let (deadline, stops) = (pace.deadline, stops.clone());
        let exporter = Exporter::new(Signal::Traces, client, deadline, metrics, stops);
        let resource = Arc::clone(&resource);
        let encode = move |spans| spans::request(&resource, spans);
        jobs.push(Box::pin(exporter.run(items, pace, encode)));
        gate
    });
    let work = match jobs.is_empty() {
        true => None,
        false => Some(Work {
            runtime: tokio::runtime::Builder::new_current_thread()
                .thread_name("telemetry")
                .enable_all()
                .build()?,
            jobs,
            stop: stops,
            _ended: ends,
        }),
    };
    Ok((Otlp { spans, stop, ended }, work))
}

fn tell(signal: Signal, target: &Target) {
    use super::family::Label as _;
    tracing::info!(
        event = "telemetry_export_started",
        signal = signal.word(),
        url = target.url.as_str(),
        protocol = ?target.protocol,
        "telemetry is sent to a collector"
    );
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
        let jobs = join_all(self.jobs);
        self.runtime.block_on(async {
            let overdue = async {
                // The sender lives as long as the node.
                let _ = self.stop.wait_for(|stops| *stops).await;
                tokio::time::sleep(GIVE_UP).await;
            };
            tokio::select! {
                _ = jobs => {}
                () = overdue => {}
            }
        });
        // A name that is being looked up holds nobody up.
        self.runtime.shutdown_background();
    }
}
