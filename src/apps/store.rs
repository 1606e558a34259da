//! Where the apps lie that the API was given: in Redis, or in the process of a node alone.
//!
//! In: an app with its JSON, or its removal. Out: what is said of all apps, where anything has changed
//! since the last reading, and the JSON of some. Owns no apps of its own. Bounds: [`APPS_MAX`] apps,
//! [`BYTES_MAX`] of names and JSON together; what is beyond is not stored, and not read either where
//! another program has put it there. Of removals [`REMOVALS_MAX`] are kept, for [`REMOVALS_KEPT`].
//!
//! An app has a life: the number of the change that made it. It keeps that while it is put again, and has
//! another one after it was removed. A removal leaves a mark, so that whoever misses an app knows whether
//! it was removed or lost.
//!
//! Keys: `ff:{apps}` (name to JSON), `:v` (number of the last change), `:l` (lives), `:r` (removals) and
//! `:a` (about all). One tag, so that one script changes all, and no partition: with several deployments
//! of Redis they lie in the first one. The release before knows the first two only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use crate::config::app_reader::APPS_MAX;
use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};

/// Most bytes of all stored apps, names and JSON.
pub const BYTES_MAX: usize = 8 << 20;
/// Most removals that are remembered.
pub const REMOVALS_MAX: usize = 1_000;
/// For how long they are.
pub const REMOVALS_KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Most apps whose JSON is read at once.
pub const ROWS_MAX: usize = 64;
/// Most bytes of them, one app apart.
pub const ROWS_BYTES_MAX: usize = 1 << 20;
/// Numbers of one millisecond, of which a change takes one at random.
const NUMBERS_OF_MS: u16 = 1_024;

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

/// By what a stored app is told from others of its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of the change that made it; 0: the release before did.
    pub life: u64,
    /// The number of its last change; 0: the release before made it.
    pub number: u64,
}

/// What whoever stores an app knows of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Before {
    /// The life in which it knows the app.
    pub life: Option<u64>,
    /// Up to which number it has read.
    pub read_to: u64,
}

/// What came of storing an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is stored.
    Stored(Mark),
    /// It was stored already: just so, or it was to be put back.
    Same(Mark),
    /// It was to be put back, and somebody has removed it.
    Removed,
    /// So many apps are there, and no more can be.
    TooMany(u64),
    /// All together would have so many bytes.
    TooLarge(u64),
}

/// What is said of a stored app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name; whether that is one is not known.
    pub name: Vec<u8>,
    /// How long its JSON is.
    pub bytes: usize,
    /// See there.
    pub mark: Mark,
}

/// What is said of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The number of the last change, by which the next one is known. Empty: nothing was ever stored, or
    /// all was lost.
    pub number: Box<str>,
    /// How many changes were made by nodes of the release before, which leave no marks.
    pub others: u64,
    /// Removals up to this number are forgotten.
    pub forgot: u64,
    /// The names of apps that were removed, and the numbers of their removals.
    pub removed: Vec<(Vec<u8>, u64)>,
    /// Those that are there.
    pub rows: Vec<Row>,
}

impl Index {
    /// The number of the last change; 0 where another program has written something else.
    #[must_use]
    pub fn read_to(&self) -> u64 {
        self.number.parse().unwrap_or_default()
    }
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Nothing has changed.
    Same,
    /// See there.
    All(Index),
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
            put: Script::new(concat!(
                "#!lua\n",
                include_str!("scripts/changes.lua"),
                include_str!("scripts/put.lua")
            )),
            remove: Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!("scripts/changes.lua"),
                include_str!("scripts/remove.lua")
            )),
            read: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../broker/scripts/frozen.lua"),
                include_str!("scripts/changes.lua"),
                include_str!("scripts/read.lua")
            )),
            rows: Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!("../broker/scripts/frozen.lua"),
                include_str!("scripts/changes.lua"),
                include_str!("scripts/rows.lua")
            )),
            keys: keys.apps(),
        }))
    }

    /// That of a node alone.
    #[must_use]
    pub fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Whether others may have stored something that was not read yet.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Stores the JSON of an app over what was there. Where nothing is there, it has the life in which it
    /// is known, unless it was removed since. Safe to repeat. If it is dropped, it may have been stored.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put(&self, name: &str, json: &[u8], before: Before) -> Result<Put, StoreError> {
        match self {
            Self::Redis(redis) => redis.put(name, json, before, false).await,
            Self::Memory(memory) => Ok(memory.put(name, json)),
        }
    }

    /// Puts an app back that the store has lost: what is there, or was removed, stays so. Safe to repeat.
    /// If it is dropped, it may have been put back.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_back(
        &self,
        name: &str,
        json: &[u8],
        before: Before,
    ) -> Result<Put, StoreError> {
        match self {
            Self::Redis(redis) => redis.put(name, json, before, true).await,
            // It loses nothing.
            Self::Memory(_) => Ok(Put::Removed),
        }
    }

    /// Removes an app, also one that was lost, where the caller knows it. False: there was none. If it is
    /// dropped, it may have been removed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(&self, name: &str, is_known: bool) -> Result<bool, StoreError> {
        match self {
            Self::Redis(redis) => redis.remove(name, is_known).await,
            Self::Memory(memory) => Ok(memory.remove(name)),
        }
    }

    /// What is said of all apps, unless the last change has this number and there are so many of them;
    /// `None` reads in any case. Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn read(&self, known: Option<(&str, usize)>) -> Result<Page, StoreError> {
        match self {
            Self::Redis(redis) => redis.read(known).await,
            Self::Memory(memory) => Ok(memory.read(known)),
        }
    }

    /// The JSON of apps, as many as one call may ask for; `None` for one that is not there any more.
    /// Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rows(&self, names: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        match self {
            Self::Redis(redis) => redis.rows(names).await,
            Self::Memory(memory) => Ok(memory.rows(names)),
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
    rows: Script,
    keys: [String; 5],
}

impl RedisStore {
    async fn put(
        &self,
        name: &str,
        json: &[u8],
        Before { life, read_to }: Before,
        is_lost: bool,
    ) -> Result<Put, StoreError> {
        let args = [
            text(name),
            json.to_vec(),
            text(APPS_MAX),
            text(BYTES_MAX),
            text(rand::random_range(0..NUMBERS_OF_MS)),
            life.map_or_else(Vec::new, text),
            text(read_to),
            text(u8::from(is_lost)),
        ];
        let answer = self.eval(&self.put, &args).await?;
        let mark = || {
            Ok(Mark {
                life: count(answer.get(1))?,
                number: count(answer.get(2))?,
            })
        };
        match &*word(answer.first())? {
            "stored" => Ok(Put::Stored(mark()?)),
            "same" => Ok(Put::Same(mark()?)),
            "removed" => Ok(Put::Removed),
            "many" => Ok(Put::TooMany(count(answer.get(1))?)),
            "large" => Ok(Put::TooLarge(count(answer.get(1))?)),
            _ => Err(StoreError::Unexpected),
        }
    }

    async fn remove(&self, name: &str, is_known: bool) -> Result<bool, StoreError> {
        let args = [
            text(name),
            text(rand::random_range(0..NUMBERS_OF_MS)),
            text(u8::from(is_known)),
            text(REMOVALS_MAX),
            text(REMOVALS_KEPT.as_millis()),
        ];
        let answer = self.keyspace.eval(&self.remove, &self.keys, &args).await;
        let removed: u64 = answer.and_then(read).map_err(StoreError::Redis)?;
        Ok(removed > 0)
    }

    async fn read(&self, known: Option<(&str, usize)>) -> Result<Page, StoreError> {
        let (number, apps) = known.unwrap_or_default();
        let args = [text(number), text(apps), text(APPS_MAX), text(BYTES_MAX)];
        let answer = self.eval(&self.read, &args).await?;
        match &*word(answer.first())? {
            "same" => Ok(Page::Same),
            "many" => Ok(Page::TooMany(count(answer.get(1))?)),
            "large" => Ok(Page::TooLarge(count(answer.get(1))?)),
            "all" => Ok(Page::All(index(&answer)?)),
            _ => Err(StoreError::Unexpected),
        }
    }

    async fn rows(&self, names: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let answer = self.eval(&self.rows, names).await?;
        let rows = answer.chunks_exact(2);
        let rows: Vec<_> = rows
            .map(|row| (&*row[0] == b"1").then(|| row[1].clone()))
            .collect();
        match rows.len() == names.len() {
            true => Ok(rows),
            false => Err(StoreError::Unexpected),
        }
    }

    async fn eval(&self, script: &Script, args: &[Vec<u8>]) -> Result<Vec<Bytes>, StoreError> {
        let answer = self.keyspace.eval(script, &self.keys, args).await;
        answer.and_then(read).map_err(StoreError::Redis)
    }
}

/// What `read.lua` answers.
fn index(answer: &[Bytes]) -> Result<Index, StoreError> {
    const HEAD: usize = 5;
    let removals = usize::try_from(count(answer.get(4))?).map_err(|_| StoreError::Unexpected)?;
    let rest = answer.get(HEAD..).unwrap_or_default();
    let parts = removals
        .checked_mul(2)
        .and_then(|count| rest.split_at_checked(count));
    let (removed, rows) = parts.ok_or(StoreError::Unexpected)?;
    let removed = removed.chunks_exact(2);
    let removed = removed.map(|pair| Ok((pair[0].to_vec(), count(pair.get(1))?)));
    let rows = rows.chunks_exact(4).map(|row| {
        Ok(Row {
            name: row[0].to_vec(),
            bytes: usize::try_from(count(row.get(1))?).map_err(|_| StoreError::Unexpected)?,
            mark: Mark {
                life: count(row.get(2))?,
                number: count(row.get(3))?,
            },
        })
    });
    Ok(Index {
        number: word(answer.get(1))?,
        others: count(answer.get(2))?,
        forgot: count(answer.get(3))?,
        removed: removed.collect::<Result<_, _>>()?,
        rows: rows.collect::<Result<_, _>>()?,
    })
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
    apps: BTreeMap<String, (Bytes, Mark)>,
}

impl MemoryStore {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, name: &str, json: &[u8]) -> Put {
        let mut held = self.held();
        let old = held.apps.get(name).cloned();
        match &old {
            Some((old, mark)) if old == json => return Put::Same(*mark),
            None if held.apps.len() >= APPS_MAX => return Put::TooMany(held.apps.len() as u64),
            _ => {}
        }
        let others = held.apps.iter().filter(|(other, _)| *other != name);
        let others: usize = others
            .map(|(name, (json, _))| name.len() + json.len())
            .sum();
        let bytes = others + name.len() + json.len();
        if bytes > BYTES_MAX {
            return Put::TooLarge(bytes as u64);
        }
        held.number += 1;
        let number = held.number;
        let mark = Mark {
            life: old.map_or(number, |(_, mark)| mark.life),
            number,
        };
        let json = Bytes::copy_from_slice(json);
        held.apps.insert(name.to_owned(), (json, mark));
        Put::Stored(mark)
    }

    fn remove(&self, name: &str) -> bool {
        let mut held = self.held();
        let was_there = held.apps.remove(name).is_some();
        held.number += u64::from(was_there);
        was_there
    }

    fn read(&self, known: Option<(&str, usize)>) -> Page {
        let held = self.held();
        let number = held.number.to_string();
        if known == Some((number.as_str(), held.apps.len())) {
            return Page::Same;
        }
        let rows = held.apps.iter().map(|(name, (json, mark))| Row {
            name: name.clone().into_bytes(),
            bytes: json.len(),
            mark: *mark,
        });
        Page::All(Index {
            number: number.into(),
            // It loses nothing, so what is not there was removed.
            forgot: u64::MAX,
            rows: rows.collect(),
            ..Index::default()
        })
    }

    fn rows(&self, names: &[Vec<u8>]) -> Vec<Option<Bytes>> {
        let held = self.held();
        let row = |name: &Vec<u8>| {
            let (json, _) = held.apps.get(std::str::from_utf8(name).ok()?)?;
            Some(json.clone())
        };
        names.iter().map(row).collect()
    }
}
