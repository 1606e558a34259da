//! Makes what a configuration says the agreement of its cluster, while no node lives.
//!
//! In: a configuration whose deployments differ from what lies in Redis. Out: its fingerprint in
//! each of them, or why not. Owns its connections for the time of one call. Bounds: so many commands
//! as there are deployments; Redis is waited for at most [`PATIENCE`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::time::timeout;

use super::agreement::Agreement;
use super::fingerprint::Fingerprint;
use super::{RedisBroker, StartError};
use crate::broker::BrokerHealth;
use crate::config;
use crate::redis::RedisError;
use crate::telemetry::metrics::Metrics;

/// How long all deployments may take to be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// The deployments, in the order of the configuration.
    pub deployments: Vec<String>,
    /// Whether all of them had this very agreement before, so that nothing was written.
    pub is_unchanged: bool,
    /// What differed before, in words.
    pub differences: Vec<String>,
}

/// Why nothing was adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The connections cannot be set up.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Not all of Redis can be used.
    #[error("Redis cannot be used: {0}")]
    Away(String),
    /// A command failed.
    #[error("Redis did not do it: {0}")]
    Redis(#[from] RedisError),
    /// These nodes live.
    #[error("nodes of this cluster are running: {}", .0.join(", "))]
    Living(Vec<String>),
    /// The leases of the cluster lie where this configuration does not lead.
    #[error(
        "the leases of this cluster lie in Redis {name} at {hosts}, which the configuration does not list, so it cannot be seen whether nodes live"
    )]
    Elsewhere {
        /// What the cluster calls it.
        name: String,
        /// Where it was.
        hosts: String,
    },
}

/// Writes the fingerprint of this configuration into each of its deployments. `are_all_stopped`:
/// somebody has seen to it that no node runs whose lease cannot be seen from here.
///
/// # Errors
/// [`AdoptError`]; after [`AdoptError::Redis`] some may have been written, and a repeat writes them
/// all.
pub async fn adopt(config: &config::Redis, are_all_stopped: bool) -> Result<Adopted, AdoptError> {
    let (broker, _feed) = RedisBroker::connect(config, Arc::new(Metrics::new(0)))?;
    let adopted = with(&broker, config, are_all_stopped).await;
    broker.stop().await;
    adopted
}

async fn with(
    broker: &RedisBroker,
    config: &config::Redis,
    are_all_stopped: bool,
) -> Result<Adopted, AdoptError> {
    until_up(broker).await?;
    let agreement = broker.agreement(config);
    let living = living(broker).await?;
    if !living.is_empty() {
        return Err(AdoptError::Living(living));
    }
    let found = agreement.read().await;
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    if !are_all_stopped {
        sees_the_leases(found.iter().flatten())?;
    }
    let differences = differences(&agreement, &found);
    let is_unchanged = differences.is_empty() && found.iter().all(Option::is_some);
    if !is_unchanged {
        agreement.overwrite().await?;
    }
    let names = broker.links.deployments().iter();
    Ok(Adopted {
        deployments: names.map(|one| one.url().name.clone()).collect(),
        is_unchanged,
        differences,
    })
}

async fn until_up(broker: &RedisBroker) -> Result<(), AdoptError> {
    let mut health = broker.health();
    let up = health.wait_for(|health| *health == BrokerHealth::Up);
    if matches!(timeout(PATIENCE, up).await, Ok(Ok(_))) {
        return Ok(());
    }
    let why = match &*broker.health().borrow() {
        BrokerHealth::Down(why) | BrokerHealth::Partly(why) | BrokerHealth::ReadOnly(why) => {
            why.clone()
        }
        BrokerHealth::Up => "it did not answer in time".to_owned(),
    };
    Err(AdoptError::Away(why))
}

/// The nodes with a lease, wherever among these deployments the leases were.
async fn living(broker: &RedisBroker) -> Result<Vec<String>, RedisError> {
    let key = broker.keys().nodes();
    let mut living = BTreeSet::new();
    for at in 0..broker.links.deployments().len() {
        let link = broker.links.reach(at, &key)?;
        let time: Vec<u64> = read(link.submit("TIME", Vec::new()).await?)?;
        let now_ms = time.first().copied().unwrap_or_default() * 1_000;
        let range = [format!("({now_ms}").into_bytes(), b"+inf".to_vec()];
        let names: Vec<String> = read(link.command("ZRANGEBYSCORE", &key, &range).await?)?;
        living.extend(names);
    }
    Ok(living.into_iter().collect())
}

fn read<T: fred::types::FromValue>(value: Value) -> Result<T, RedisError> {
    value.convert().map_err(RedisError::Failed)
}

/// Fails where the leases of the cluster that was here lie in none of these deployments.
fn sees_the_leases<'a>(found: impl Iterator<Item = &'a String>) -> Result<(), AdoptError> {
    let elsewhere: Vec<_> = found
        .map(|stored| Fingerprint::first_elsewhere(stored))
        .collect();
    match elsewhere.into_iter().collect::<Option<Vec<_>>>() {
        Some(elsewhere) if !elsewhere.is_empty() => {
            let (name, hosts) = elsewhere.into_iter().next().expect("it is not empty");
            let hosts = hosts.join(", ");
            Err(AdoptError::Elsewhere { name, hosts })
        }
        _ => Ok(()),
    }
}

fn differences(agreement: &Agreement, found: &[Option<String>]) -> Vec<String> {
    let prints = agreement.prints.iter().zip(found);
    let differences =
        prints.filter_map(|(print, stored)| Some(print.differences(stored.as_ref()?)));
    let mut told: Vec<_> = differences.flatten().map(|one| one.to_string()).collect();
    told.sort_unstable();
    told.dedup();
    told
}
