//! What the home of a partition asks of Redis: its lease, and its index under that lease.
//!
//! In: `partitions`, which takes, extends and gives back leases; `reaper`, which reads an index and
//! takes entries out of it. Out: what Redis decided, by its own clock. Nothing is kept here.
//! Keys: `ff:part:{N}` (`OWNER TOKEN END`, never expires) and `ff:ti:{N}` (the index that
//! `occupancy_store` writes), which share a tag. Each script that acts for a partition compares
//! the token first, so that a home that was paused and has been replaced does nothing. Bounds:
//! one call looks at about [`ENTRIES_PER_CALL`] entries of an index.

use std::time::Duration;

use super::lease_store::apart;
use crate::protocol::ids::Owner;
use crate::redis::keyspace::Keyspace;
use crate::redis::{Keys, RedisError, Script};

/// About so many entries of an index are looked at in one call: well under a millisecond of Redis.
const ENTRIES_PER_CALL: usize = 250;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    /// Redis is away or refused. What was asked may have been done.
    #[error("Redis did not answer for a partition")]
    Redis(#[source] RedisError),
    /// Somebody took the lease since: this node must not act for the partition any more.
    #[error("another node has the partition")]
    Refused,
    /// Not what these scripts answer: another program uses the keys.
    #[error("unexpected answer for a partition")]
    Unexpected,
}

/// What became of the wish for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bid {
    /// It is this node's.
    Held {
        /// What every script that acts for the partition shows.
        token: u64,
    },
    /// Another node has it.
    Other {
        /// So long, unless it gives it back.
        left: Duration,
    },
}

/// A part of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPart {
    /// `app:topic OWNER` of owners that were not named as living.
    pub entries: Vec<String>,
    /// Where to go on; `None`: this was the last part.
    pub next: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct PartitionStore {
    keyspace: Keyspace,
    keys: Keys,
    lead: Script,
    release: Script,
    index: Script,
    unindex: Script,
}

impl PartitionStore {
    /// Leases under these names.
    #[must_use]
    pub fn new(keyspace: impl Into<Keyspace>, keys: Keys) -> Self {
        Self {
            keyspace: keyspace.into(),
            keys,
            lead: Script::new(include_str!("scripts/lead.lua")),
            release: Script::new(include_str!("scripts/release.lua")),
            index: Script::new(include_str!("scripts/index.lua")),
            unindex: Script::new(include_str!("scripts/unindex.lua")),
        }
    }

    /// Takes or extends the lease. Cancel-safe: if the answer is lost, the next call finds what
    /// this one did.
    ///
    /// # Errors
    /// [`PartitionError`], but never refused.
    pub async fn lead(
        &self,
        partition: u32,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Bid, PartitionError> {
        let args = [text(owner), text(lease.as_millis()), text(apart())];
        let keys = [self.keys.partition(partition)];
        let answer = self.eval(&self.lead, &keys, &args).await?;
        read_bid(&answer).ok_or(PartitionError::Unexpected)
    }

    /// Gives the lease back, so that the next home need not wait for its end.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub async fn release(&self, partition: u32, token: u64) -> Result<(), PartitionError> {
        let keys = [self.keys.partition(partition)];
        self.act(&self.release, &keys, &[text(token)]).await?;
        Ok(())
    }

    /// Reads a part of the index, after `cursor` or from the start. Each entry that is there all
    /// the while comes at least once until the last part.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub async fn index(
        &self,
        partition: u32,
        token: u64,
        cursor: Option<String>,
        living: &[String],
    ) -> Result<IndexPart, PartitionError> {
        let cursor = cursor.unwrap_or_else(|| "0".to_owned());
        let mut args = vec![text(token), text(cursor), text(ENTRIES_PER_CALL)];
        args.extend(living.iter().map(text));
        let answer = self.act(&self.index, &self.both(partition), &args).await?;
        let (next, entries) = answer.split_first().ok_or(PartitionError::Unexpected)?;
        Ok(IndexPart {
            entries: entries.to_vec(),
            next: Some(next.clone()).filter(|next| next != "0"),
        })
    }

    /// Takes entries out of the index; those of one part at most.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub async fn unindex(
        &self,
        partition: u32,
        token: u64,
        entries: &[String],
    ) -> Result<(), PartitionError> {
        let mut args = vec![text(token)];
        args.extend(entries.iter().map(text));
        let keys = self.both(partition);
        self.act(&self.unindex, &keys, &args).await?;
        Ok(())
    }

    fn both(&self, partition: u32) -> [String; 2] {
        let index = self.keys.topics_index(partition);
        [self.keys.partition(partition), index]
    }

    /// Runs a script that compares the token, and returns what follows its verdict.
    async fn act(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Vec<String>, PartitionError> {
        let mut answer = self.eval(script, keys, args).await?;
        match answer.first().map(String::as_str) {
            Some("held") => Ok(answer.split_off(1)),
            Some("refused") => Err(PartitionError::Refused),
            _ => Err(PartitionError::Unexpected),
        }
    }

    async fn eval(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Vec<String>, PartitionError> {
        let answer = self.keyspace.eval(script, keys, args).await;
        let answer = answer.map_err(PartitionError::Redis)?;
        answer.convert().map_err(|_| PartitionError::Unexpected)
    }
}

/// Reads the answer of `lead.lua`.
fn read_bid(answer: &[String]) -> Option<Bid> {
    match answer {
        [outcome, token] if outcome == "held" => Some(Bid::Held {
            token: token.parse().ok()?,
        }),
        [outcome, _, left_ms] if outcome == "other" => Some(Bid::Other {
            left: Duration::from_millis(left_ms.parse().ok()?),
        }),
        _ => None,
    }
}

fn text(value: impl std::fmt::Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[&str]) -> Option<Bid> {
        read_bid(&answer.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_lease_is_read_with_its_token_or_its_end_and_anything_else_is_refused() {
        assert_eq!(read(&["held", "8"]), Some(Bid::Held { token: 8 }));
        let left = Duration::from_millis(1_200);
        assert_eq!(read(&["other", "b~4", "1200"]), Some(Bid::Other { left }));
        for strange in [&["held"][..], &["held", "x"], &["other", "b~4", ""], &[]] {
            assert_eq!(read(strange), None, "{strange:?}");
        }
    }
}
