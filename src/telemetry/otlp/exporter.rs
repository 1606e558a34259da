//! Spans and lines of the log on their way through the exporters of `opentelemetry-otlp`: gathered, and
//! handed over in batches.
//!
//! In: items from a gate. Out: one batch at a time to an exporter, which makes a message of it for its
//! [`Courier`]. Bounds: a batch has as many items as are set; meanwhile items wait in the gate.
//! Of the exporters only this is used. Their own ways to try again, pack, encrypt and speak gRPC are
//! off or left out, with the reasons in `docs/telemetry.md`.

use std::future::Future;
use std::sync::Arc;

use opentelemetry_otlp::{Protocol, RetryPolicy, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::courier::Courier;
use crate::config::telemetry::Batches;
use crate::telemetry::counter::Counter;

/// An exporter of one signal.
pub(super) trait Exporter<T>: Send {
    /// Makes one message of these items and has it carried.
    fn export(&mut self, batch: Vec<T>) -> impl Future<Output = OTelSdkResult> + Send;
}

/// Sets all that can be set, so that nothing is asked of the environment; all but the client is for the
/// form only, since the courier looks at bodies alone.
pub(super) fn configured<B: WithExportConfig + WithHttpConfig>(
    builder: B,
    courier: &Arc<Courier>,
) -> B {
    builder
        .with_endpoint(courier.url())
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(courier.deadline())
        // Their pauses would hold up the thread, and know nothing of the end of the node.
        .with_retry_policy(RetryPolicy::disabled())
        .with_shared_http_client(Arc::<Courier>::clone(courier))
}

/// What waits in a gate. Whatever ends the sending, what waits then is dropped and counted.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    items: mpsc::Receiver<T>,
    dropped: Arc<Counter>,
}

impl<T> Waiting<T> {
    /// Of a gate that counts there what it drops.
    pub(super) fn new(items: mpsc::Receiver<T>, dropped: Arc<Counter>) -> Self {
        Self { items, dropped }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.items.close();
        while self.items.try_recv().is_ok() {
            self.dropped.add(1);
        }
    }
}

/// Hands over what comes out of a gate, in batches, until the node ends.
pub(super) async fn run<T>(
    mut exporter: impl Exporter<T>,
    courier: Arc<Courier>,
    mut waiting: Waiting<T>,
    pace: Batches,
    mut stop: watch::Receiver<bool>,
) {
    let items = &mut waiting.items;
    let most = pace.batch_max.min(pace.queue_max);
    loop {
        courier.rest().await;
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            // The sender lives as long as this does.
            _ = stop.wait_for(|stops| *stops) => break,
            _ = items.recv_many(&mut batch, most) => {}
        }
        if batch.is_empty() {
            // Nobody is there any more who could hand in an item.
            return;
        }
        let due = Instant::now() + pace.delay;
        while batch.len() < most {
            let room = most - batch.len();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stops| *stops) => break,
                more = timeout_at(due, items.recv_many(&mut batch, room)) => {
                    if more.is_err() || more == Ok(0) {
                        break;
                    }
                }
            }
        }
        // What becomes of it is counted and told.
        let _ = courier
            .count(batch.len() as u64, exporter.export(batch))
            .await;
    }
    items.close();
    loop {
        let mut batch = Vec::new();
        if items.recv_many(&mut batch, most).await == 0 {
            return;
        }
        // What becomes of it is counted and told.
        let _ = courier
            .count(batch.len() as u64, exporter.export(batch))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::gate::Gate;

    #[test]
    fn what_waits_when_the_sending_ends_is_dropped_and_counted() {
        let dropped = Arc::new(Counter::default());
        let (gate, items) = Gate::new(Arc::clone(&dropped));
        let waiting = Waiting::new(items, Arc::clone(&dropped));
        (0..3).for_each(|item| gate.send(item));
        drop(waiting);
        assert_eq!(dropped.get(), 3);
        gate.send(3);
        assert_eq!(dropped.get(), 4, "nobody takes it");
    }
}
