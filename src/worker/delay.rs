//! How long what a turn delivers was on its way through the node.
//!
//! In: the deliveries of one turn. Out: for each priority one observation, made when the last socket
//! is written: how long ago the first of them was taken from the feed. One reading of the clock a turn,
//! however many deliveries. Owned by the turn.

use std::time::Instant;

use super::handle::Inbound;
use crate::telemetry::family::Label as _;
use crate::telemetry::metrics::WorkerMetrics;
use fanfare_protocol::ids::Priority;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Delay([Option<Instant>; 4]);

impl Delay {
    /// This one is delivered in the turn, behind those that were noted before it.
    pub(super) fn note(&mut self, message: &Inbound) {
        if let Inbound::Deliver(outgoing) | Inbound::Traced(outgoing, _) = message {
            let first = &mut self.0[outgoing.priority().place()];
            first.get_or_insert(outgoing.arrived_at());
        }
    }

    /// The last socket is written.
    pub(super) fn tell(&self, metrics: &WorkerMetrics) {
        if self.0.iter().all(Option::is_none) {
            return;
        }
        let now = Instant::now();
        for (priority, first) in Priority::ALL.iter().zip(&self.0) {
            if let Some(first) = first {
                let seconds = metrics.delivery_seconds.of(*priority);
                seconds.count_owned(now.saturating_duration_since(*first));
            }
        }
    }
}
