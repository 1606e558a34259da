//! Makes what a configuration says the agreement of its cluster, while no node lives.
//!
//! In: a configuration whose deployments differ from what lies in Redis. Out: its fingerprint in
//! each of them, or why not. Owns its connections for the time of one call. Bounds: a few
//! commands a deployment and a node with a lease; Redis is waited for at most [`PATIENCE`], a sign of
//! life of nodes whose leases are over for a lease, at most [`LEASE_MAX`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::agreement::Agreement;
use super::fingerprint::{Difference, Fingerprint};
use super::{RedisBroker, StartError};
use crate::broker::BrokerHealth;
use crate::config;
use crate::redis::RedisError;
use crate::redis::holders::{holder_of, read};
use crate::redis::keyspace::Keyspace;
use crate::telemetry::metrics::Metrics;

/// How long all deployments may take to be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest lease that can be configured, and so the longest wait for a sign of life.
const LEASE_MAX: Duration = Duration::from_secs(60);

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
    /// What lies there was written by another release.
    #[error(
        "what lies under the prefix {prefix} is of a release with another key layout, which is not changed and not read ({difference})"
    )]
    Layout {
        /// The configured prefix.
        prefix: String,
        /// In words.
        difference: Difference,
    },
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
    // It publishes nothing, so replicas are none of its business.
    let settings = config::Redis {
        replicas_min: 0,
        ..config.clone()
    };
    let (broker, _feed) = RedisBroker::connect(&settings, Arc::new(Metrics::new(0)))?;
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
    let living = living(broker, config.lease).await?;
    if !living.is_empty() {
        return Err(AdoptError::Living(living));
    }
    let found = agreement.read().await;
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    let prints = agreement.prints.iter().zip(&found);
    let mut layouts = prints.filter_map(|(print, stored)| print.other_layout(stored.as_ref()?));
    if let Some(difference) = layouts.next() {
        let prefix = config.prefix.clone();
        return Err(AdoptError::Layout { prefix, difference });
    }
    if !are_all_stopped {
        sees_the_leases(found.iter().flatten())?;
    }
    let differences = differences(&agreement, &found);
    let is_unchanged = differences.is_empty() && found.iter().all(Option::is_some);
    if !is_unchanged {
        agreement.overwrite().await?;
    }
    let names = broker.masters.deployments().iter();
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

/// A name and the deployment in which its lease is.
type Place = (usize, String);

/// What the leases of the cluster say, wherever among these deployments they are.
#[derive(Debug, Default)]
struct Leases {
    /// Holders whose lease is not over.
    lasting: BTreeSet<String>,
    /// What the others said of themselves. They live if they say something else within a lease:
    /// where Redis was away their leases go on with the next heartbeat.
    over: BTreeMap<Place, String>,
    /// How long a lease lasts.
    lease: Duration,
}

/// The nodes that live. Waits a lease where that is not known otherwise.
async fn living(broker: &RedisBroker, lease: Duration) -> Result<Vec<String>, RedisError> {
    let before = leases(broker).await?;
    let mut living = before.lasting;
    if living.is_empty() && !before.over.is_empty() {
        // Nodes may be configured for another lease than the one that is adopted.
        sleep(before.lease.max(lease).min(LEASE_MAX)).await;
        let now = leases(broker).await?;
        living = now.lasting;
        let spoke = |(place, said): &(Place, String)| before.over.get(place) != Some(said);
        living.extend(
            now.over
                .into_iter()
                .filter(spoke)
                .map(|((_, name), _)| name),
        );
    }
    Ok(living.into_iter().collect())
}

async fn leases(broker: &RedisBroker) -> Result<Leases, RedisError> {
    let (key, details) = (broker.keys().nodes(), broker.keys().node_details());
    let heartbeat = broker.keys().node_heartbeat();
    let mut leases = Leases::default();
    for at in 0..broker.masters.deployments().len() {
        let link = broker.masters.reach(at, &key)?;
        let last: Option<String> = read(link.command("GET", &heartbeat, &[]).await?)?;
        let last_ms = last.and_then(|last| last.split(' ').next()?.parse::<f64>().ok());
        let time: Vec<u64> = read(link.submit("TIME", Vec::new()).await?)?;
        let [seconds, micros] = [0, 1].map(|at| time.get(at).copied().unwrap_or_default() as f64);
        let now_ms = seconds * 1_000.0 + micros / 1_000.0;
        let range = [b"(0".to_vec(), b"+inf".to_vec()];
        let names: Vec<String> = read(link.command("ZRANGEBYSCORE", &key, &range).await?)?;
        let keyspace = Keyspace::from(link);
        for name in names {
            let Some(holder) = holder_of(&keyspace, &key, &details, &name).await? else {
                continue;
            };
            // The heartbeat that was the last gave its node a whole lease.
            let left_ms = holder.lease_end_ms - last_ms.unwrap_or(holder.lease_end_ms);
            let lease = Duration::try_from_secs_f64(left_ms / 1_000.0).unwrap_or_default();
            leases.lease = leases.lease.max(lease);
            if holder.lease_end_ms > now_ms {
                leases.lasting.insert(name);
            } else {
                leases.over.insert((at, name), holder.said);
            }
        }
    }
    Ok(leases)
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
