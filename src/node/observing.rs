//! What the node tells a collector: traces, and what it measures.
//!
//! In: the configuration. Out: what decides what is traced, and the thread that sends. Owner of nothing.

use std::sync::Arc;

use super::{StartError, directory};
use crate::broker::Broker;
use crate::cluster::membership::Membership;
use crate::config::Config;
use crate::tasks;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::{self, Otlp};
use crate::telemetry::trace::tracer::{TraceSettings, Tracer};

/// What decides what is traced; its spans go nowhere yet.
pub(super) fn tracer(config: &Config, metrics: &Arc<Metrics>) -> Arc<Tracer> {
    let settings = TraceSettings::from(&config.telemetry.traces);
    Arc::new(Tracer::new(None, settings, Arc::clone(&metrics.trace)))
}

/// Starts what is sent to a collector, on a thread of its own where there is anything.
pub(super) fn start_otlp(
    config: &Config,
    metrics: &Arc<Metrics>,
    membership: Membership,
    broker: &Arc<Broker>,
) -> Result<Otlp, StartError> {
    let (read, broker) = (Arc::clone(metrics), Arc::clone(broker));
    let read = Box::new(move || {
        read.view_age
            .set(membership.now().age_at(tokio::time::Instant::now()));
        read.feed_lag.set(directory::feed_lag(&broker));
        read.families()
    });
    let (otlp, work) = otlp::start(config, metrics, read).map_err(StartError::System)?;
    if let Some(work) = work {
        // What is not sent is no reason to serve nobody.
        tasks::contained_thread("telemetry", move || work.run()).map_err(StartError::System)?;
    }
    Ok(otlp)
}
