//! One signal on its way to its collector: sent, tried again, and counted.
//!
//! In: encoded messages, of spans and lines from the exporters whose client this is, and of metrics as
//! they are. Out: requests by [`Client`], one at a time; each item is counted once, as sent or as failed.
//! The first failure and the first success after it are logged. Bounds: one message is tried for its
//! deadline, with pauses of [`PAUSE_MIN`] to [`PAUSE_MAX`]. Once the node ends, nothing is tried twice.
//! Of a request of an exporter only the body counts: how it goes, where to and with what headers is said by
//! our settings alone, whatever the exporter has read in the environment.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::answer::Failure;
use super::client::Client;
use crate::telemetry::counter::Counter;
use crate::telemetry::family::Label as _;
use crate::telemetry::fields::causes;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp_metrics::{ItemResult, Signal};

/// The first pause before another try; each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest one that is not the collector's wish.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Courier {
    signal: Signal,
    client: Client,
    deadline: Duration,
    sent: Arc<Counter>,
    failed: Arc<Counter>,
    stop: watch::Receiver<bool>,
    /// Items of which nobody knows yet what becomes of them.
    in_hand: AtomicU64,
    is_failing: AtomicBool,
    /// How many items have failed since the last success.
    lost: AtomicU64,
}

/// Items that are being sent. Whatever ends that, those that were not taken have failed.
struct InHand<'a>(&'a Courier);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let count = self.0.in_hand.swap(0, Ordering::Relaxed);
        self.0.failed.add(count);
        self.0.lost.fetch_add(count, Ordering::Relaxed);
    }
}

impl Courier {
    /// A courier of this signal, who tries a message for so long.
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
            in_hand: AtomicU64::new(0),
            is_failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        }
    }

    /// Where it goes.
    pub(super) fn url(&self) -> &str {
        self.client.url()
    }

    /// How long it tries.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Counts what becomes of so many items, of which one message is made and carried meanwhile. Returns
    /// whether the collector took any of them.
    pub(super) async fn count<E: Error + 'static>(
        &self,
        count: u64,
        carried: impl Future<Output = Result<(), E>>,
    ) -> bool {
        self.in_hand.store(count, Ordering::Relaxed);
        let _in_hand = InHand(self);
        // What does not come as far as this has its reason from the exporter.
        carried
            .await
            .inspect_err(|e| self.tell_failure(&causes(e)))
            .is_ok()
    }

    /// Carries one message, the only one at its time.
    ///
    /// # Errors
    /// The last reason why it was not taken.
    pub(super) async fn carry(&self, message: Bytes) -> Result<(), Failure> {
        let mut stop = self.stop.clone();
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
                    self.taken(answer.rejected, &answer.why);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            self.tell_failure(&failure.why);
            let jitter = pause.mul_f64(rand::random_range(0.5..1.0));
            let wait = wait(failure.after, jitter, self.deadline);
            let is_last = *stop.borrow() || !failure.is_passing;
            if is_last || Instant::now() + wait >= ends {
                return Err(failure);
            }
            tokio::select! {
                () = sleep(wait) => {}
                _ = stop.wait_for(|stops| *stops) => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The collector took all items but those that it rejected.
    fn taken(&self, rejected: u64, why: &str) {
        let count = self.in_hand.load(Ordering::Relaxed);
        let rejected = rejected.min(count);
        self.in_hand.store(rejected, Ordering::Relaxed);
        self.sent.add(count - rejected);
        match rejected {
            0 => self.tell_success(),
            _ => self.tell_failure(why),
        }
    }

    fn tell_failure(&self, why: &str) {
        if !self.is_failing.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                event = "telemetry_export_failed",
                signal = self.signal.word(),
                reason = why,
                "the collector does not take what is sent; it is tried again, and what it never takes is counted"
            );
        }
    }

    fn tell_success(&self) {
        let items = self.lost.swap(0, Ordering::Relaxed);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!(
                event = "telemetry_export_recovered",
                signal = self.signal.word(),
                items,
                "the collector takes what is sent again; so many items were lost"
            );
        }
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.carry(request.into_body()).await?;
        // What the collector said is counted, and nothing of it is for the exporter.
        Ok(Response::new(Bytes::new()))
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
