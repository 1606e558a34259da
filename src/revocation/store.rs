//! Where revocations lie for the whole cluster: in Redis, or in the process of a node alone.
//!
//! In: entries to add, merged by maximum in one step; the number after which changes are asked for.
//! Out: what the store decided, and pages of changes. Owns no entries of its own. Bounds:
//! [`super::ENTRIES_MAX`] entries, [`super::reader::PAGE`] rows an answer.
//!
//! Keys: `ff:{rv}:h` (name to what it says), `ff:{rv}:at` (names by the number of their last change),
//! `ff:{rv}:u` (names by their end), `ff:{rv}:m` (sum of prints, last number, what is forgotten). One
//! tag, so that one script changes all of them, and no partition: with several deployments of Redis
//! they lie in the first one, as all that belongs to the cluster and to no topic.

use std::sync::Arc;

use super::adding::{Added, Adding};
use super::memory::MemoryStore;
use super::reader::{PAGE, Page};
use super::{Mark, Row};
use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis is away or refused. What was asked may have been done.
    #[error("Redis did not carry out the script of revocations")]
    Redis(#[source] RedisError),
    /// Not what these scripts answer: another program uses the keys.
    #[error("unexpected answer to the script of revocations")]
    Unexpected,
}

/// See the module.
#[derive(Debug, Clone)]
pub enum Store {
    /// In Redis.
    Redis(Arc<RedisStore>),
    /// In this process.
    Memory(Arc<MemoryStore>),
}

impl Store {
    /// The store of a cluster.
    #[must_use]
    pub fn redis(keyspace: impl Into<Keyspace>, keys: &Keys) -> Self {
        Self::Redis(Arc::new(RedisStore {
            keyspace: keyspace.into(),
            add: Script::new(include_str!("scripts/add.lua")),
            read: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../broker/scripts/frozen.lua"),
                include_str!("scripts/read.lua")
            )),
            keys: keys.revocations(),
        }))
    }

    /// That of a node alone.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Adds entries. Safe to repeat. If it is dropped, they may have been added.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add(&self, adding: &Adding) -> Result<Added, StoreError> {
        match self {
            Self::Redis(redis) => redis.add(adding).await,
            Self::Memory(memory) => Ok(memory.add(adding)),
        }
    }

    /// What changed after this number. Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, since: u64) -> Result<Page, StoreError> {
        match self {
            Self::Redis(redis) => redis.read(since).await,
            Self::Memory(memory) => Ok(memory.read(since)),
        }
    }
}

/// The entries in Redis.
#[derive(Debug)]
pub struct RedisStore {
    keyspace: Keyspace,
    add: Script,
    read: Script,
    keys: [String; 4],
}

impl RedisStore {
    async fn add(&self, adding: &Adding) -> Result<Added, StoreError> {
        let mut args = vec![
            text(adding.most),
            text(adding.kept_ms),
            text(adding.above),
            text(rand::random::<u16>() % 1_024),
        ];
        let or_default = |number: Option<u64>| number.map_or_else(Vec::new, text);
        for asked in &adding.asked {
            args.push(asked.name.as_bytes().to_vec());
            args.push(or_default(asked.issued_before));
            args.push(or_default(asked.until_ms));
        }
        let answer = self.keyspace.eval(&self.add, &self.keys, &args).await;
        let answer: Vec<String> = answer.and_then(read).map_err(StoreError::Redis)?;
        let number = answer.get(1).and_then(|number| number.parse().ok());
        match (answer.first().map(String::as_str), number) {
            (Some("stored"), Some(issued_before)) => Ok(Added::Stored(issued_before)),
            (Some("full"), Some(count)) => Ok(Added::Full(count)),
            _ => Err(StoreError::Unexpected),
        }
    }

    async fn read(&self, since: u64) -> Result<Page, StoreError> {
        let args = [text(since), text(PAGE)];
        let answer = self.keyspace.eval(&self.read, &self.keys, &args).await;
        let answer: Vec<String> = answer.and_then(read).map_err(StoreError::Redis)?;
        let (head, rows) = answer.split_first_chunk().ok_or(StoreError::Unexpected)?;
        let number = |text: &String| text.parse().map_err(|_| StoreError::Unexpected);
        let [now_ms, count, sum, forgot_ms]: &[String; 4] = head;
        let rows = rows.chunks_exact(2).map(|row| row_of(&row[0], &row[1]));
        Ok(Page {
            now_ms: number(now_ms)?,
            count: number(count)?,
            sum: number(sum)?,
            forgot_ms: number(forgot_ms)?,
            rows: rows.collect::<Option<_>>().ok_or(StoreError::Unexpected)?,
        })
    }
}

fn row_of(name: &str, value: &str) -> Option<Row> {
    let mut numbers = value.split(' ').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    Some(Row {
        name: name.into(),
        mark: Mark {
            issued_before: next()?,
            until_ms: next()?,
        },
        at: next()?,
    })
}
