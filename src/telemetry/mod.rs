//! What the node tells its operator: counters and gauges here, log lines in [`logs`].
//!
//! In: every stage counts into the struct that it was given at start. Out: Prometheus text (and
//! later OTLP, from the same instruments). No globals but the one log of the
//! process; labels are closed sets, never a topic, a user or an address.

pub mod counter;
pub mod episode;
pub mod lines;
pub mod logs;
pub mod metrics;
pub mod process;
pub mod queue_metrics;

/// What is counted of this process' log.
fn log_counters() -> &'static metrics::LogCounters {
    &lines::queue().counters
}
