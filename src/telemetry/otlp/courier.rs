//! One signal on its way to its collector: sent, tried again, and counted.
//!
//! In: encoded messages, of spans and lines from the exporters whose client this is, and of metrics as
//! they are. Out: requests by [`Client`], one at a time; each item is counted once, as sent or as failed.
//! What goes wrong is told by [`Notices`]. Bounds: one message is tried for its deadline, with pauses of
//! [`Patience`], which holds between messages as well. Once the node ends, nothing is tried twice.
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
use tokio::time::{Instant, timeout};

use super::answer::Failure;
use super::client::Client;
use super::notices::Notices;
use super::patience::Patience;
use crate::telemetry::counter::Counter;
use crate::telemetry::fields::causes;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp_metrics::{ItemResult, Signal};

/// See the module.
#[derive(Debug)]
pub(super) struct Courier {
    client: Client,
    deadline: Duration,
    sent: Arc<Counter>,
    failed: Arc<Counter>,
    stop: watch::Receiver<bool>,
    /// Items of which nobody knows yet what becomes of them.
    in_hand: AtomicU64,
    /// What is in hand came as far as a request.
    is_carried: AtomicBool,
    notices: Notices,
    patience: Patience,
}

/// Items that are being sent. Whatever ends that, those that were not taken have failed.
struct InHand<'a>(&'a Courier);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let count = self.0.in_hand.swap(0, Ordering::Relaxed);
        self.0.failed.add(count);
        self.0.notices.lost(count);
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
            client,
            deadline,
            sent: of(ItemResult::Sent),
            failed: of(ItemResult::Failed),
            stop,
            in_hand: AtomicU64::new(0),
            is_carried: AtomicBool::new(false),
            notices: Notices::new(signal),
            patience: Patience::default(),
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

    /// Waits until the collector may be asked again, or the node ends. What comes meanwhile waits where
    /// it is bounded.
    pub(super) async fn rest(&self) {
        self.patience.kept(&mut self.stop.clone()).await;
    }

    /// Counts what becomes of so many items, of which one message is made and carried meanwhile.
    ///
    /// # Errors
    /// Those of the carrying.
    pub(super) async fn count<E: Error + 'static>(
        &self,
        count: u64,
        carried: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        self.in_hand.store(count, Ordering::Relaxed);
        self.is_carried.store(false, Ordering::Relaxed);
        let _in_hand = InHand(self);
        carried.await.inspect_err(|error| {
            // What does not come as far as a request has its reason from the exporter.
            if !self.is_carried.load(Ordering::Relaxed) {
                self.notices.failure(&causes(error), false);
            }
        })
    }

    /// Carries one message, the only one at its time. `is_once`: what may have arrived is not sent again.
    ///
    /// # Errors
    /// The last reason why it was not taken.
    pub(super) async fn carry(&self, message: Bytes, is_once: bool) -> Result<(), Failure> {
        self.is_carried.store(true, Ordering::Relaxed);
        let body = self.client.pack(message);
        let ends = Instant::now() + self.deadline;
        loop {
            let patience = self.client.timeout().min(ends - Instant::now());
            let outcome = match timeout(patience, self.client.send(body.clone())).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.client.renew();
                    Err(Failure::unknown("no answer in time".to_owned()))
                }
            };
            let failure = match outcome {
                Ok(answer) => {
                    self.taken(answer.rejected, &answer.why);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            let next = self.patience.failed(&failure);
            let is_final = !failure.is_passing || (is_once && failure.is_unknown);
            let is_last = is_final || next >= ends || *self.stop.borrow();
            self.notices.failure(&failure.why, !is_last);
            if is_last {
                return Err(failure);
            }
            self.rest().await;
        }
    }

    /// The collector took all items but those that it rejected.
    fn taken(&self, rejected: u64, why: &str) {
        let count = self.in_hand.load(Ordering::Relaxed);
        let rejected = rejected.min(count);
        self.in_hand.store(rejected, Ordering::Relaxed);
        self.sent.add(count - rejected);
        self.patience.succeeded();
        match (rejected, why) {
            (0, why) => self.notices.success(why),
            (_, "") => {
                let why = format!("{rejected} of {count} items were rejected without a reason");
                self.notices.failure(&why, false);
            }
            (_, why) => self.notices.failure(why, false),
        }
    }
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.carry(request.into_body(), false).await?;
        // What the collector said is counted, and nothing of it is for the exporter.
        Ok(Response::new(Bytes::new()))
    }
}
