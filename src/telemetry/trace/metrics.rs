//! The instruments of traces.
//!
//! In: contexts that are ignored and work that is not traced, each with its reason. Out: families. Any
//! thread counts.

use super::context::BadTraceparent;
use crate::telemetry::counter::Counter;
use crate::telemetry::family::{Family, Kind, Table};
use crate::telemetry::labels::label;

label! {
    /// Why a `traceparent` is ignored.
    Ignored, "reason" {
        /// It has no form of that header.
        Malformed: "malformed",
        /// An id in it is all zeros.
        ZeroId: "zero_id",
        /// The header is there several times.
        Doubled: "doubled",
    }
}

impl From<BadTraceparent> for Ignored {
    fn from(bad: BadTraceparent) -> Self {
        match bad {
            BadTraceparent::Malformed => Self::Malformed,
            BadTraceparent::ZeroId => Self::ZeroId,
        }
    }
}

label! {
    /// Why something is not traced that should be.
    Untraced, "reason" {
        /// So many are traced in a second.
        Rate: "rate",
        /// So often in a second clients, and each of them, have their way.
        Forced: "forced",
        /// So many are on their way to sockets.
        InFlight: "in_flight",
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    /// Contexts that were ignored.
    pub ignored: Table<Ignored, Counter>,
    /// What was not traced though its context or the sampler asked for it.
    pub untraced: Table<Untraced, Counter>,
}

impl TraceMetrics {
    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        vec![
            Family::of(
                Kind::Counter,
                "fanfare_traceparents_ignored_total",
                "Values of traceparent, as header or field, that are none and were ignored; what they came with succeeded.",
                &self.ignored,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_traces_dropped_total",
                "Requests, publications and deliveries that were to be traced and were not: more than 1,000 of them in a second, or 125 in an eighth of it (rate), more than 10 a second that clients or callers without a key asked for, or one of a session (forced; those of clients are left to the sampler), or too many that sockets had not taken (in_flight).",
                &self.untraced,
            ),
        ]
    }
}
