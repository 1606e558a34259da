//! What became of what is sent to a collector.
//!
//! In: gates and exporters count items: spans, lines, points of metrics. Out: one family. Each item
//! that came to a gate is counted once.

use std::sync::Arc;

use super::counter::Counter;
use super::family::{Family, Kind, Table};
use super::labels::label;

label! {
    /// A kind of telemetry.
    Signal, "signal" {
        /// Spans.
        Traces: "traces",
        /// Lines of the log.
        Logs: "logs",
        /// Points of metrics.
        Metrics: "metrics",
    }
}

label! {
    /// What became of an item.
    ItemResult, "result" {
        /// The collector took it.
        Sent: "sent",
        /// It found no room, or the node ended first.
        Dropped: "dropped",
        /// The collector refused it, or could not be reached in time.
        Failed: "failed",
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct TelemetryMetrics(Table<Signal, Table<ItemResult, Arc<Counter>>>);

impl TelemetryMetrics {
    /// The cell of a signal and a result.
    #[must_use]
    pub fn of(&self, signal: Signal, result: ItemResult) -> &Arc<Counter> {
        self.0.of(signal).of(result)
    }

    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        vec![Family::of(
            Kind::Counter,
            "fanfare_telemetry_items_total",
            "Spans, lines of the log and points of metrics for a collector, by what became of them: sent, dropped because too many waited or the node ended first, or failed because the collector refused them or could not be reached in time.",
            &self.0,
        )]
    }
}
