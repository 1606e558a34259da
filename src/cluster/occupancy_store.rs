//! Occupancy in Redis: per topic a hash of counts, per partition an index of who has which topic.
//!
//! In: batches of changes and questions from `occupancy`. Out: what stands in Redis. Nothing is
//! kept here. Keys: `ff:{app:topic}:o` (owner → local sessions) and `ff:np:{N}` (set of
//! `OWNER app:topic`). The two live in different slots, so no script can hold both: the index is
//! written before the first count and removed after the last, and a count without its index
//! cannot be. Bounds: [`CALLS_IN_FLIGHT_MAX`] calls at once, [`ENTRIES_PER_CALL_MAX`] entries in
//! each; an index is read whole, about topics × nodes / partitions entries.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fred::types::FromValue;
use futures_util::{StreamExt, stream};

use super::levels::{Change, ChangeKind};
use crate::protocol::ids::{Owner, Topic};
use crate::redis::{Keys, RedisError, RedisLink};

/// Calls of one batch that wait for Redis at the same time.
const CALLS_IN_FLIGHT_MAX: usize = 64;
/// Entries of one index that one call adds or removes, far below what would hold up others.
const ENTRIES_PER_CALL_MAX: usize = 500;

/// Why occupancy is not known.
#[derive(Debug, thiserror::Error)]
pub enum OccupancyError {
    /// Redis is away or refused.
    #[error("Redis did not say where topics are occupied")]
    Redis(#[source] RedisError),
    /// Not what stands in these keys: another program uses them.
    #[error("unexpected answer to a question for occupancy")]
    Unexpected,
}

/// See the module.
#[derive(Debug)]
pub(super) struct OccupancyStore {
    link: Arc<RedisLink>,
    keys: Keys,
    partitions_count: u32,
}

impl OccupancyStore {
    pub(super) fn new(link: Arc<RedisLink>, keys: Keys, partitions_count: u32) -> Self {
        Self {
            link,
            keys,
            partitions_count,
        }
    }

    /// Writes a batch. Running it again is safe.
    ///
    /// # Errors
    /// [`WriteFailures`]: the changes that may stand in Redis, in part or not at all.
    pub(super) async fn write(
        &self,
        owner: &Owner,
        changes: &[Change],
    ) -> Result<(), WriteFailures> {
        let mut failures = WriteFailures::default();
        let appearing = |change: &&Change| matches!(change.kind, ChangeKind::Appear(_));
        let appearing = changes.iter().filter(appearing).map(|c| &c.topic);
        self.change_index("SADD", owner, appearing, &mut failures)
            .await;

        let indexed: Vec<_> = changes
            .iter()
            .filter(|change| !failures.topics.contains(&change.topic))
            .collect();
        let answers: Vec<_> = stream::iter(indexed)
            .map(|change| async move { (change, self.change_count(owner, change).await) })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX)
            .collect()
            .await;
        let mut vanished = Vec::new();
        for (change, answer) in answers {
            match answer {
                Err(error) => failures.note(std::iter::once(&change.topic), error),
                Ok(()) if change.kind == ChangeKind::Vanish => vanished.push(&change.topic),
                Ok(()) => {}
            }
        }
        self.change_index("SREM", owner, vanished.into_iter(), &mut failures)
            .await;
        match failures.cause {
            None => Ok(()),
            Some(_) => Err(failures),
        }
    }

    /// Everything in a partition's index.
    pub(super) async fn indexed(
        &self,
        partition: u32,
    ) -> Result<Vec<(Owner, Topic)>, OccupancyError> {
        let key = self.keys.node_presence(partition);
        let entries: Vec<String> = self.ask("SMEMBERS", &key).await?;
        Ok(entries
            .iter()
            .filter_map(|entry| {
                let (owner, topic) = entry.split_once(' ')?;
                Some((owner.parse().ok()?, Topic::from_qualified(topic)?))
            })
            .collect())
    }

    /// All counts of a topic.
    pub(super) async fn counted(&self, topic: &Topic) -> Result<Vec<(Owner, u64)>, OccupancyError> {
        let counts: HashMap<String, u64> = self.ask("HGETALL", &self.keys.occupancy(topic)).await?;
        Ok(counts
            .iter()
            .filter_map(|(owner, &sessions)| Some((owner.parse().ok()?, sessions)))
            .collect())
    }

    async fn change_count(&self, owner: &Owner, change: &Change) -> Result<(), RedisError> {
        let key = self.keys.occupancy(&change.topic);
        let owner = owner.to_string().into_bytes();
        match change.kind {
            ChangeKind::Appear(n) | ChangeKind::Count(n) => {
                let args = [owner, n.to_string().into_bytes()];
                self.link.command("HSET", &key, &args).await?
            }
            ChangeKind::Vanish => self.link.command("HDEL", &key, &[owner]).await?,
        };
        Ok(())
    }

    /// Adds or removes index entries, grouped by partition.
    async fn change_index<'a>(
        &self,
        command: &'static str,
        owner: &Owner,
        topics: impl Iterator<Item = &'a Topic>,
        failures: &mut WriteFailures,
    ) {
        let mut by_partition: BTreeMap<u32, Vec<&Topic>> = BTreeMap::new();
        for topic in topics {
            let partition = topic.partition(self.partitions_count);
            by_partition.entry(partition).or_default().push(topic);
        }
        let calls = by_partition.iter().flat_map(|(partition, topics)| {
            topics
                .chunks(ENTRIES_PER_CALL_MAX)
                .map(|topics| (*partition, topics))
        });
        let answers: Vec<_> = stream::iter(calls)
            .map(|(partition, topics)| async move {
                let key = self.keys.node_presence(partition);
                let entry = |topic: &&Topic| format!("{owner} {}", topic.qualified()).into_bytes();
                let args: Vec<_> = topics.iter().map(entry).collect();
                (topics, self.link.command(command, &key, &args).await)
            })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX)
            .collect()
            .await;
        for (topics, answer) in answers {
            if let Err(error) = answer {
                failures.note(topics.iter().copied(), error);
            }
        }
    }

    async fn ask<T: FromValue>(
        &self,
        command: &'static str,
        key: &str,
    ) -> Result<T, OccupancyError> {
        let answer = self.link.command(command, key, &[]).await;
        let answer = answer.map_err(OccupancyError::Redis)?;
        answer.convert().map_err(|_| OccupancyError::Unexpected)
    }
}

/// What of a batch may not stand in Redis.
#[derive(Debug, Default)]
pub(super) struct WriteFailures {
    /// The topics.
    pub(super) topics: HashSet<Topic>,
    /// The first cause; one is enough to say that Redis is away.
    pub(super) cause: Option<RedisError>,
}

impl WriteFailures {
    fn note<'a>(&mut self, topics: impl Iterator<Item = &'a Topic>, cause: RedisError) {
        self.topics.extend(topics.cloned());
        self.cause.get_or_insert(cause);
    }
}
