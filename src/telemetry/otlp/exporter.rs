//! One signal on its way to its collector: gathered, sent, tried again, and counted.
//!
//! In: items from a gate, or encoded messages. Out: requests by [`Client`], one at a time; each item is
//! counted once, as sent or as failed. The first failure and the first success after it are logged.
//! Bounds: one batch is tried for its deadline, with pauses of [`PAUSE_MIN`] to [`PAUSE_MAX`], and
//! meanwhile items wait in the gate. Once the node ends, nothing is tried twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::answer::Failure;
use super::client::Client;
use crate::config::telemetry::Batches;
use crate::telemetry::counter::Counter;
use crate::telemetry::family::Label as _;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp_metrics::{ItemResult, Signal};

/// The first pause before another try; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest one that is not the collector's wish.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Exporter {
    signal: Signal,
    client: Client,
    deadline: Duration,
    sent: Arc<Counter>,
    failed: Arc<Counter>,
    stop: watch::Receiver<bool>,
    /// How many items have failed since the last success, once that was logged.
    failing: Option<u64>,
}

/// Items that are being sent. Whatever ends that, they are counted.
struct InHand<'a> {
    count: u64,
    failed: &'a Counter,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.failed.add(self.count);
    }
}

impl Exporter {
    /// An exporter of this signal, which tries a request for so long.
    pub(super) fn new(
        signal: Signal,
        client: Client,
        deadline: Duration,
        metrics: &Metrics,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let of = |result| Arc::clone(metrics.telemetry.of(signal, result));
        Self {
            signal,
            client,
            deadline,
            sent: of(ItemResult::Sent),
            failed: of(ItemResult::Failed),
            stop,
            failing: None,
        }
    }

    /// Sends what comes out of a gate, in batches, until the node ends.
    pub(super) async fn run<T>(
        mut self,
        mut items: mpsc::Receiver<T>,
        pace: Batches,
        encode: impl Fn(Vec<T>) -> Vec<u8>,
    ) {
        let most = pace.batch_max.min(pace.queue_max);
        let mut stop = self.stop.clone();
        loop {
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
            self.batch(batch, &encode).await;
        }
        items.close();
        loop {
            let mut batch = Vec::new();
            if items.recv_many(&mut batch, most).await == 0 {
                return;
            }
            self.batch(batch, &encode).await;
        }
    }

    async fn batch<T>(&mut self, batch: Vec<T>, encode: &impl Fn(Vec<T>) -> Vec<u8>) {
        let count = batch.len() as u64;
        self.export(encode(batch), count).await;
    }

    /// Sends one message of so many items. Returns whether the collector took any of them.
    pub(super) async fn export(&mut self, message: Vec<u8>, count: u64) -> bool {
        let failed = Arc::clone(&self.failed);
        let mut in_hand = InHand {
            count,
            failed: &failed,
        };
        let body = self.client.pack(message);
        let ends = Instant::now() + self.deadline;
        let mut pause = PAUSE_MIN;
        loop {
            let patience = self.client.timeout().min(ends - Instant::now());
            let outcome = match timeout(patience, self.client.send(body.clone())).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.client.renew();
                    let ms = patience.as_millis();
                    Err(Failure::passing(format!("no answer within {ms} ms")))
                }
            };
            let failure = match outcome {
                Ok(answer) => {
                    in_hand.count = answer.rejected.min(count);
                    self.sent.add(count - in_hand.count);
                    match in_hand.count {
                        0 => self.tell_success(),
                        rejected => self.tell_failure(&answer.why, rejected),
                    }
                    return true;
                }
                Err(failure) => failure,
            };
            let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
            let wait = wait(failure.after, jitter, self.deadline);
            let is_last = *self.stop.borrow() || !failure.is_passing;
            if is_last || Instant::now() + wait >= ends {
                self.tell_failure(&failure.why, count);
                return false;
            }
            self.tell_failure(&failure.why, 0);
            tokio::select! {
                () = sleep(wait) => {}
                _ = self.stop.wait_for(|stops| *stops) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn tell_failure(&mut self, why: &str, count: u64) {
        if self.failing.is_none() {
            tracing::warn!(
                event = "telemetry_export_failed",
                signal = self.signal.word(),
                reason = why,
                "the collector does not take what is sent; it is tried again, and what it never takes is counted"
            );
        }
        *self.failing.get_or_insert(0) += count;
    }

    fn tell_success(&mut self) {
        if let Some(items) = self.failing.take() {
            tracing::info!(
                event = "telemetry_export_recovered",
                signal = self.signal.word(),
                items,
                "the collector takes what is sent again; so many items were lost"
            );
        }
    }
}

/// How long to wait before another try: as long as the collector says, but neither at once nor beyond
/// the deadline, which ends it anyway.
fn wait(told: Option<Duration>, own: Duration, deadline: Duration) -> Duration {
    told.unwrap_or(own).max(own).min(deadline)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_collector_says_makes_nobody_hurry_and_overflows_nothing() {
        let [own, deadline] = [1, 30].map(Duration::from_secs);
        let waits = |told: Option<u64>| wait(told.map(Duration::from_secs), own, deadline);
        assert_eq!(waits(None), own);
        assert_eq!(waits(Some(0)), own);
        assert_eq!(waits(Some(7)), Duration::from_secs(7));
        assert_eq!(waits(Some(u64::MAX)), deadline);
    }
}
