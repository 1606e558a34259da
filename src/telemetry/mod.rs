//! What the node tells its operator: counters and gauges here, log lines in [`logs`].
//!
//! In: every stage counts into the struct that it was given at start. Out: one list of [`family`]s,
//! which [`text`] writes for Prometheus. No globals but the one log of the
//! process; labels are closed sets ([`labels`]), never a topic, a user or an address.

pub mod alerts;
pub mod api_metrics;
pub mod app_metrics;
pub mod authorizer_metrics;
mod busy;
pub mod counter;
pub mod emf;
pub mod episode;
pub mod exemplar;
pub mod facts;
pub mod family;
pub mod fields;
pub mod gate;
pub mod histogram;
pub mod history;
mod instruments;
pub mod labels;
pub mod limits;
pub mod lines;
pub mod logs;
pub mod metrics;
pub mod otlp;
pub mod otlp_metrics;
pub mod process;
pub mod queue_metrics;
pub mod revocation_metrics;
pub mod text;
pub mod token_metrics;
pub mod trace;

/// What is counted of this process' log.
fn log_counters() -> &'static metrics::LogCounters {
    &lines::room().counters
}
