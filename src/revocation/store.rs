//! Where revocations lie for the whole cluster: in Redis, or in the process of a node alone.
//!
//! In: entries to add, merged by maximum in one step; the number after which changes are asked for.
//! Out: what the store decided, and pages of changes. Owns no entries of its own. Bounds:
//! [`super::ENTRIES_MAX`] entries, [`super::reader::PAGE`] rows an answer.
//!
//! Keys: `ff:{rv}:h` (name to what it says), `ff:{rv}:at` (names by the number of their last change),
//! `ff:{rv}:u` (names by their end), `ff:{rv}:m` (sum of prints, last number, what is forgotten). One
//! tag, so that one script changes all of them, and no partition: with several deployments of Redis
//! they lie in the first one, as all that belongs to the cluster and to no topic. An entry that cannot
//! be read (other hands were there) is named and left out: it keeps nobody from reading the others.

use std::sync::Arc;

use super::adding::{Added, Adding, Mended, Mending};
use super::memory::MemoryStore;
use super::reader::{PAGE, Page};
use super::{AHEAD_MAX_S, Mark, Row};
use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};

/// The store goes through all that it has at most once in so long: Redis does nothing else meanwhile,
/// with as many entries as there may be for 1.4 s.
const MENDED_APART_MS: u64 = 3_000;
/// Numbers of Lua are exact below this.
const NUMBERS: u64 = 1 << 53;

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

impl StoreError {
    /// Whether the store was reached and cannot carry it out: to wait does not help.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Redis(RedisError::Failed(_)) | Self::Unexpected)
    }
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
            mend: Script::new(include_str!("scripts/mend.lua")),
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

    /// Lets the store go through all that it has, and put right what is not as it left it. Safe to
    /// repeat, and for many at once. If it is dropped, that may have been done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn mend(&self, mending: &Mending) -> Result<Mended, StoreError> {
        match self {
            Self::Redis(redis) => redis.mend(mending).await,
            Self::Memory(memory) => Ok(memory.mend(mending)),
        }
    }
}

/// The entries in Redis.
#[derive(Debug)]
pub struct RedisStore {
    keyspace: Keyspace,
    add: Script,
    read: Script,
    mend: Script,
    keys: [String; 4],
}

impl RedisStore {
    async fn add(&self, adding: &Adding) -> Result<Added, StoreError> {
        let mut args = vec![
            text(adding.most),
            text(adding.kept_ms),
            text(adding.above),
            text(rand::random::<u16>() % 1_024),
            text(adding.clock_s),
            text(AHEAD_MAX_S),
            text(adding.leeway_s),
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
        let answer: Vec<Vec<u8>> = answer.and_then(read).map_err(StoreError::Redis)?;
        page_of(&answer).ok_or(StoreError::Unexpected)
    }

    async fn mend(&self, mending: &Mending) -> Result<Mended, StoreError> {
        let seen = mending.seen.map(|(count, sum)| [text(count), text(sum)]);
        let mut args = Vec::from(seen.unwrap_or_default());
        args.extend([text(MENDED_APART_MS), text(mending.kept_ms)]);
        args.extend(mending.unreadable.iter().cloned());
        let answer = self.keyspace.eval(&self.mend, &self.keys, &args).await;
        let answer: Vec<Vec<u8>> = answer.and_then(read).map_err(StoreError::Redis)?;
        let words: Vec<_> = answer
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        match &words[..] {
            [word] if word == "changed" || word == "soon" => Ok(Mended::Left),
            [word, dropped, names @ ..] if word == "mended" => {
                let dropped = dropped.parse().map_err(|_| StoreError::Unexpected)?;
                Ok(Mended::Done(
                    dropped,
                    names.iter().map(|name| name.to_string()).collect(),
                ))
            }
            _ => Err(StoreError::Unexpected),
        }
    }
}

/// What `read.lua` answered.
fn page_of(answer: &[Vec<u8>]) -> Option<Page> {
    let (head, found) = answer.split_first_chunk()?;
    let [now_ms, count, sum, forgot_ms, kept_ms]: &[Vec<u8>; 5] = head;
    let mut page = Page {
        now_ms: number(now_ms)?,
        count: number(count)?,
        sum: number(sum)?,
        forgot_ms: number(forgot_ms)?,
        kept_ms: number(kept_ms)?,
        ..Page::default()
    };
    for found in found.chunks_exact(3) {
        let (name, at, value) = (&found[0], number(&found[1])?, &found[2]);
        page.found += 1;
        page.up_to = page.up_to.max(Some(at));
        match row_of(name, at, value) {
            Some(row) => page.rows.push(row),
            None => page.unreadable.push(name.clone()),
        }
    }
    Some(page)
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `mend.lua` has the same rule, except for names that are no text.
fn row_of(name: &[u8], at: u64, value: &[u8]) -> Option<Row> {
    let mut numbers = std::str::from_utf8(value).ok()?.split(' ').map(|text| {
        let number = text.parse::<u64>().ok();
        number.filter(|number| *number < NUMBERS && number.to_string() == text)
    });
    let mut next = || numbers.next().flatten();
    let row = Row {
        name: std::str::from_utf8(name).ok()?.into(),
        mark: Mark {
            issued_before: next()?,
            until_ms: next()?,
        },
        at: next().filter(|number| *number == at)?,
    };
    numbers.next().is_none().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_cannot_be_read_keeps_nobody_from_reading_the_others() {
        let good: &[u8] = b"u default ada";
        let answer: Vec<&[u8]> = vec![
            b"9",
            b"4",
            b"7",
            b"1",
            b"5",
            good,
            b"3",
            b"10 20 3",
            b"\xff",
            b"4",
            b"10 20 4",
            b"u default eve",
            b"5",
            b"banana",
            b"u default bob",
            b"6",
            b"",
        ];
        let answer: Vec<_> = answer.into_iter().map(<[u8]>::to_vec).collect();
        let page = page_of(&answer).expect("it is an answer");
        let names: Vec<_> = page.rows.iter().map(|row| &*row.name).collect();
        assert_eq!(names, ["u default ada"]);
        assert_eq!((page.found, page.up_to), (4, Some(6)));
        let unreadable: [&[u8]; 3] = [b"\xff", b"u default eve", b"u default bob"];
        assert_eq!(page.unreadable, unreadable);
        assert!(page_of(&answer[..4]).is_none());
    }

    #[test]
    fn an_entry_is_three_numbers_as_the_scripts_write_them() {
        assert!(row_of(b"a default", 3, b"1 2 3").is_some());
        for other in [
            "",
            "1 2",
            "1 2 4",
            "1 2 3 4",
            "01 2 3",
            "1  2 3",
            "1 9007199254740992 3",
            "-1 2 3",
        ] {
            assert!(
                row_of(b"a default", 3, other.as_bytes()).is_none(),
                "{other}"
            );
        }
    }
}
