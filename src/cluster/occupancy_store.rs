//! Occupancy in Redis: per topic a hash of counts, per partition an index of who has which topic.
//!
//! In: batches of changes and questions from `occupancy`, and what `reaper` found. Out: what stands
//! in Redis. Nothing is kept here. Keys: `ff:{N}{app:topic}:o` (owner → local sessions) and
//! `ff:ti:{N}` (sorted set of `app:topic OWNER`, all of score 0: in the order of topics, because no
//! name holds a byte below the space). They share a slot, and are written by plain commands all the
//! same: the index before the first count, in one command for many topics, and removed after the
//! last, so that a count without its index cannot be. Bounds: [`CALLS_IN_FLIGHT_MAX`] calls at once a batch,
//! [`ENTRIES_PER_CALL_MAX`] entries in each; an index is read in parts of [`ENTRIES_PER_PART_MAX`].

use std::collections::{BTreeMap, HashMap};

use fred::types::{FromValue, Value};
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};

use super::due::Lane;
use super::occupancy_buffer::{Change, ChangeKind};
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError};
use fanfare_protocol::ids::{App, Owner, Topic};

/// Calls of one batch that wait for Redis at the same time.
const CALLS_IN_FLIGHT_MAX: usize = 64;
/// Entries of one index that one call adds or removes, far below what would hold up others.
const ENTRIES_PER_CALL_MAX: usize = 500;

/// Entries of one index that are read in one call.
pub(super) const ENTRIES_PER_PART_MAX: usize = 250;

/// Why occupancy is not known.
#[derive(Debug, thiserror::Error)]
pub enum OccupancyError {
    /// Redis is away or refused.
    #[error("Redis did not say where topics are occupied")]
    Redis(#[source] RedisError),
    /// Not what is in these keys: another program uses them.
    #[error("unexpected answer to a question for occupancy")]
    Unexpected,
    /// Redis answers too slowly for a page.
    #[error("occupancy could not be read in time")]
    Late,
}

/// See the module.
#[derive(Debug)]
pub(super) struct OccupancyStore {
    keyspace: Keyspace,
    keys: Keys,
    partitions_count: u32,
}

impl OccupancyStore {
    pub(super) fn new(keyspace: Keyspace, keys: Keys, partitions_count: u32) -> Self {
        Self {
            keyspace,
            keys,
            partitions_count,
        }
    }

    /// Writes a batch. Running it again is safe.
    ///
    /// # Errors
    /// [`WriteFailures`]: the changes that may be in Redis, in part or not at all.
    pub(super) async fn write(
        &self,
        owner: &Owner,
        changes: &[Change],
    ) -> Result<(), WriteFailures> {
        let mut failures = WriteFailures::default();
        let appearing = |change: &&Change| matches!(change.kind, ChangeKind::Appear(_));
        let appearing = changes.iter().filter(appearing);
        let calls = self.index_calls("ZADD", owner, appearing);
        failures.run(calls).await;

        let indexed = changes.iter().filter(|change| !failures.has(change));
        let calls = indexed.map(|change| self.count_call(owner, change));
        let calls = calls.collect();
        failures.run(calls).await;

        let vanished = |change: &&Change| change.kind == ChangeKind::Vanish;
        let vanished = changes.iter().filter(vanished);
        let vanished = vanished.filter(|change| !failures.has(change));
        let calls = self.index_calls("ZREM", owner, vanished);
        failures.run(calls).await;

        match failures.cause {
            None => Ok(()),
            Some(_) => Err(failures),
        }
    }

    /// In which lane a topic is written: by the server that has its index and its count.
    pub(super) fn lane_of(&self, topic: &Topic) -> Lane {
        let partition = topic.partition(self.partitions_count);
        self.keyspace.server_of(&self.keys.topics_index(partition))
    }

    /// A part of what a partition's index has of an app, whose topics stand together, in their order.
    pub(super) async fn indexed(
        &self,
        partition: u32,
        app: &App,
        from: &Begin,
        entries_max: usize,
    ) -> Result<Part, OccupancyError> {
        let from = match from {
            Begin::Start => format!("[{app}:"),
            Begin::Topic(topic) => format!("[{}!", topic.qualified()),
            Begin::Entry(entry) => format!("({entry}"),
        };
        let entries_max = entries_max.clamp(1, ENTRIES_PER_PART_MAX);
        // The character behind the colon.
        let to = format!("({app};");
        let args = [&from, &to, "LIMIT", "0", &entries_max.to_string()];
        let args = args.map(|arg| arg.as_bytes().to_vec());
        let key = self.keys.topics_index(partition);
        let entries: Vec<String> = self.ask("ZRANGEBYLEX", &key, &args).await?;
        let next = entries.last().filter(|_| entries.len() == entries_max);
        Ok(Part {
            next: next.cloned().map(Begin::Entry),
            entries: entries.iter().filter_map(|e| read_entry(e)).collect(),
        })
    }

    /// Takes a dead owner's count away. Its index stays until the caller has all that is left.
    pub(super) async fn forget(&self, topic: &Topic, owner: &Owner) -> Result<(), OccupancyError> {
        let key = self.keys.occupancy(topic);
        let answer = self.keyspace.command("HDEL", &key, &[text(owner)]).await;
        answer.map_err(OccupancyError::Redis)?;
        Ok(())
    }

    /// All counts of a topic.
    pub(super) async fn counted(&self, topic: &Topic) -> Result<Vec<(Owner, u64)>, OccupancyError> {
        let counts: HashMap<String, u64> = self
            .ask("HGETALL", &self.keys.occupancy(topic), &[])
            .await?;
        Ok(counts
            .iter()
            .filter_map(|(owner, &sessions)| Some((owner.parse().ok()?, sessions)))
            .collect())
    }

    fn count_call(&self, owner: &Owner, change: &Change) -> Call {
        let key = self.keys.occupancy(&change.topic).into();
        let owner = owner.to_string().into();
        let answer = match change.kind {
            ChangeKind::Appear(0) | ChangeKind::Count(0) | ChangeKind::Vanish => {
                self.keyspace.submit("HDEL", vec![key, owner])
            }
            ChangeKind::Appear(n) | ChangeKind::Count(n) => {
                let args = vec![key, owner, n.to_string().into()];
                self.keyspace.submit("HSET", args)
            }
        };
        Call {
            topics: vec![change.topic.clone()],
            answer,
        }
    }

    /// Calls that add or remove index entries, grouped by partition.
    fn index_calls<'a>(
        &self,
        command: &'static str,
        owner: &Owner,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Vec<Call> {
        let mut by_partition: BTreeMap<u32, Vec<&Topic>> = BTreeMap::new();
        for Change { topic, .. } in changes {
            let partition = topic.partition(self.partitions_count);
            by_partition.entry(partition).or_default().push(topic);
        }
        let mut calls = Vec::new();
        for (partition, topics) in by_partition {
            for topics in topics.chunks(ENTRIES_PER_CALL_MAX) {
                let mut args = vec![self.keys.topics_index(partition).into()];
                for topic in topics {
                    if command == "ZADD" {
                        args.push("0".into());
                    }
                    args.push(entry(topic, owner).into());
                }
                calls.push(Call {
                    topics: topics.iter().copied().cloned().collect(),
                    answer: self.keyspace.submit(command, args),
                });
            }
        }
        calls
    }

    async fn ask<T: FromValue>(
        &self,
        command: &'static str,
        key: &str,
        args: &[Vec<u8>],
    ) -> Result<T, OccupancyError> {
        let answer = self.keyspace.command(command, key, args).await;
        let answer = answer.map_err(OccupancyError::Redis)?;
        answer.convert().map_err(|_| OccupancyError::Unexpected)
    }
}

/// Where a part of an index begins.
#[derive(Debug, Clone)]
pub(super) enum Begin {
    /// With the first entry.
    Start,
    /// After all of this topic.
    Topic(Topic),
    /// After this entry.
    Entry(String),
}

/// A part of an index.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) entries: Vec<(Owner, Topic)>,
    /// Where to go on; `None`: this was the last part.
    pub(super) next: Option<Begin>,
}

/// An entry of an index.
fn entry(topic: &Topic, owner: &Owner) -> String {
    format!("{} {owner}", topic.qualified())
}

/// Reads an entry of an index.
pub(super) fn read_entry(entry: &str) -> Option<(Owner, Topic)> {
    let (topic, owner) = entry.split_once(' ')?;
    Some((owner.parse().ok()?, Topic::from_qualified(topic)?))
}

/// One command and the topics that depend on it.
struct Call {
    topics: Vec<Topic>,
    answer: BoxFuture<'static, Result<Value, RedisError>>,
}

/// What of a batch may not be in Redis.
#[derive(Debug, Default)]
pub(super) struct WriteFailures {
    /// The topics, and why.
    pub(super) topics: HashMap<Topic, RedisError>,
    /// The first cause; one is enough to say that Redis is away.
    pub(super) cause: Option<RedisError>,
}

impl WriteFailures {
    /// Makes the calls, so many at a time, and notes which failed.
    async fn run(&mut self, calls: Vec<Call>) {
        let mut answers = stream::iter(calls)
            .map(|call| async { (call.topics, call.answer.await) })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX);
        while let Some((topics, answer)) = answers.next().await {
            if let Err(error) = answer {
                let failed = topics.into_iter().map(|topic| (topic, error.clone()));
                self.topics.extend(failed);
                self.cause.get_or_insert(error);
            }
        }
    }

    fn has(&self, change: &Change) -> bool {
        self.topics.contains_key(&change.topic)
    }
}
