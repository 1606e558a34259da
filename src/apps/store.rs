//! Where the apps lie that the API was given: in Redis, or in the process of a node alone.
//!
//! In: an app with its JSON, or its removal. Out: all apps, where anything has changed since the last
//! reading. Owns no apps of its own. Bounds: [`APPS_MAX`] apps, [`BYTES_MAX`] of names and JSON together;
//! what is beyond is not stored, and not read either where another program has put it there.
//!
//! Keys: `ff:{apps}` (name to JSON) and `ff:{apps}:v` (how often that was changed). One tag, so that one
//! script changes both, and no partition: with several deployments of Redis they lie in the first one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::config::app_reader::APPS_MAX;
use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};

/// Most bytes of all stored apps, names and JSON.
pub const BYTES_MAX: usize = 8 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Redis is away or refused. What was asked may have been done.
    #[error("Redis did not carry out the script of apps")]
    Redis(#[source] RedisError),
    /// Not what these scripts answer: another program uses the keys.
    #[error("unexpected answer to the script of apps")]
    Unexpected,
}

/// What came of storing an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is stored.
    Stored,
    /// It was stored already, just so.
    Same,
    /// So many apps are there, and no more can be.
    TooMany(u64),
    /// All together would have so many bytes.
    TooLarge(u64),
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Nothing has changed.
    Same,
    /// These are all, with the number by which the next change is known.
    All {
        /// See there.
        number: Box<str>,
        /// Names with what is stored under them; whether that is anything is not known.
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Nothing was ever stored, or Redis lost it.
    Nothing,
    /// More apps than may be: so many.
    TooMany(u64),
    /// More bytes than may be: so many.
    TooLarge(u64),
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
            put: Script::new(include_str!("scripts/put.lua")),
            remove: Script::new(include_str!("scripts/remove.lua")),
            read: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../broker/scripts/frozen.lua"),
                include_str!("scripts/read.lua")
            )),
            keys: keys.apps(),
        }))
    }

    /// That of a node alone.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Stores the JSON of an app over what was there. Safe to repeat. If it is dropped, it may have been
    /// stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, name: &str, json: &str) -> Result<Put, StoreError> {
        match self {
            Self::Redis(redis) => redis.put(name, json).await,
            Self::Memory(memory) => Ok(memory.put(name, json)),
        }
    }

    /// Removes an app. False: there was none. If it is dropped, it may have been removed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        match self {
            Self::Redis(redis) => redis.remove(name).await,
            Self::Memory(memory) => Ok(memory.remove(name)),
        }
    }

    /// All apps, unless the last change has this number; `None` reads in any case. Cancel-safe: it
    /// changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, known: Option<&str>) -> Result<Page, StoreError> {
        match self {
            Self::Redis(redis) => redis.read(known).await,
            Self::Memory(memory) => Ok(memory.read(known)),
        }
    }
}

/// The apps in Redis.
#[derive(Debug)]
pub struct RedisStore {
    keyspace: Keyspace,
    put: Script,
    remove: Script,
    read: Script,
    keys: [String; 2],
}

impl RedisStore {
    async fn put(&self, name: &str, json: &str) -> Result<Put, StoreError> {
        let args = [text(name), text(json), text(APPS_MAX), text(BYTES_MAX)];
        let answer = self.eval(&self.put, &args).await?;
        let (word, number) = (word(answer.first())?, answer.get(1));
        match &*word {
            "stored" => Ok(Put::Stored),
            "same" => Ok(Put::Same),
            "many" => Ok(Put::TooMany(count(number)?)),
            "large" => Ok(Put::TooLarge(count(number)?)),
            _ => Err(StoreError::Unexpected),
        }
    }

    async fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let name = [text(name)];
        let answer = self.keyspace.eval(&self.remove, &self.keys, &name).await;
        let removed: u64 = answer.and_then(read).map_err(StoreError::Redis)?;
        Ok(removed > 0)
    }

    async fn read(&self, known: Option<&str>) -> Result<Page, StoreError> {
        let args = [
            text(known.unwrap_or_default()),
            text(APPS_MAX),
            text(BYTES_MAX),
        ];
        let answer = self.eval(&self.read, &args).await?;
        match &*word(answer.first())? {
            "same" => Ok(Page::Same),
            "lost" => Ok(Page::Nothing),
            "many" => Ok(Page::TooMany(count(answer.get(1))?)),
            "large" => Ok(Page::TooLarge(count(answer.get(1))?)),
            "all" => {
                let rows = answer.get(2..).unwrap_or_default().chunks_exact(2);
                let rows = rows.map(|row| (row[0].to_vec(), row[1].to_vec()));
                Ok(Page::All {
                    number: word(answer.get(1))?,
                    rows: rows.collect(),
                })
            }
            _ => Err(StoreError::Unexpected),
        }
    }

    async fn eval(&self, script: &Script, args: &[Vec<u8>]) -> Result<Vec<Bytes>, StoreError> {
        let answer = self.keyspace.eval(script, &self.keys, args).await;
        answer.and_then(read).map_err(StoreError::Redis)
    }
}

fn word(value: Option<&Bytes>) -> Result<Box<str>, StoreError> {
    let word = value.map(|bytes| String::from_utf8_lossy(bytes));
    word.map(Into::into).ok_or(StoreError::Unexpected)
}

fn count(value: Option<&Bytes>) -> Result<u64, StoreError> {
    word(value)?.parse().map_err(|_| StoreError::Unexpected)
}

/// The apps of a node without Redis, under a lock that is held for one call.
#[derive(Debug, Default)]
pub struct MemoryStore {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    number: u64,
    apps: BTreeMap<String, String>,
}

impl MemoryStore {
    fn put(&self, name: &str, json: &str) -> Put {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let old = held.apps.get(name);
        if old.is_some_and(|old| old == json) {
            return Put::Same;
        }
        if old.is_none() && held.apps.len() >= APPS_MAX {
            return Put::TooMany(held.apps.len() as u64);
        }
        let others = held.apps.iter().filter(|(other, _)| *other != name);
        let others: usize = others.map(|(name, json)| name.len() + json.len()).sum();
        let bytes = others + name.len() + json.len();
        if bytes > BYTES_MAX {
            return Put::TooLarge(bytes as u64);
        }
        held.number += 1;
        held.apps.insert(name.to_owned(), json.to_owned());
        Put::Stored
    }

    fn remove(&self, name: &str) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let was_there = held.apps.remove(name).is_some();
        held.number += u64::from(was_there);
        was_there
    }

    fn read(&self, known: Option<&str>) -> Page {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.number == 0 {
            return Page::Nothing;
        }
        let number = held.number.to_string();
        if known == Some(number.as_str()) {
            return Page::Same;
        }
        let rows = held.apps.iter();
        let rows = rows.map(|(name, json)| (name.clone().into_bytes(), json.clone().into_bytes()));
        Page::All {
            number: number.into(),
            rows: rows.collect(),
        }
    }
}
