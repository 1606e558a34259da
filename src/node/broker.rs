//! Which broker the node has: Redis where that is configured, else the one inside the process.
//!
//! In: the configuration. Out: the broker, with its tasks started, and its feed. Owner of nothing.

use std::sync::Arc;

use super::StartError;
use crate::broker::memory::MemoryBroker;
use crate::broker::memory::clock::Clock;
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, Feed};
use crate::config::Config;
use crate::tasks;
use crate::telemetry::metrics::Metrics;

/// Starts it.
///
/// # Errors
/// The broker over Redis cannot begin.
pub(super) fn start(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Arc<Broker>, Feed), StartError> {
    if config.redis.url.is_some() {
        metrics.control.broker_redis.set(1);
        let (redis, feed) = RedisBroker::start(&config.redis, Arc::clone(metrics))?;
        return Ok((Arc::new(Broker::Redis(redis)), feed));
    }
    metrics.control.broker_embedded.set(1);
    let bytes_max = usize::try_from(config.memory.bytes_max).unwrap_or(usize::MAX);
    let (memory, feed) = MemoryBroker::bounded(Clock::System, bytes_max, Arc::clone(metrics));
    let memory = memory.with_partitions(config.redis.partitions);
    let broker = Arc::new(Broker::Memory(memory));
    let runs = Arc::clone(&broker);
    tasks::vital("memory_broker", async move {
        if let Broker::Memory(memory) = &*runs {
            memory.run().await;
        }
    });
    Ok((broker, feed))
}
