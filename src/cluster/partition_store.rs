//! What the home of a partition asks of Redis: its lease, and its index under that lease.
//!
//! In: `partitions`, which takes, extends and gives back leases; `reaper`, which reads an index and
//! takes entries out of it. Out: what Redis decided, by its own clock. Nothing is kept here.
//! Keys: `ff:part:{N}` (`OWNER TOKEN END`, never expires), `ff:ti:{N}` (the index that
//! `occupancy_store` writes) and `ff:q:{N}:heads` (of the queue), which share a tag. Each script that acts for a partition compares
//! the token first, so that a home that was paused and has been replaced does nothing. Leases alone
//! are asked for together, those of one master in one call, whichever slots they lie in: each is
//! judged by itself there. Bounds: one call looks at about [`ENTRIES_PER_CALL`] entries of an index,
//! or at [`LEASES_PER_CALL`] leases.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lease_store::apart;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};
use fanfare_protocol::ids::Owner;

/// About so many entries of an index are looked at in one call: well under a millisecond of Redis.
const ENTRIES_PER_CALL: usize = 250;

/// Leases that are asked for in one call, which takes Redis some 0.1 ms.
const LEASES_PER_CALL: usize = 64;

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
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

impl PartitionError {
    /// Whether it may be otherwise where the partition is asked for alone: its slot is moving or has
    /// moved, or the server does not let a script have several slots.
    #[must_use]
    pub fn is_of_many(&self) -> bool {
        matches!(self, Self::Unexpected | Self::Redis(RedisError::Failed(_)))
    }
}

/// What became of the wish for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseAnswer {
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

/// The script of leases, after this first line.
macro_rules! leading {
    ($head:literal) => {
        Script::new(concat!($head, include_str!("scripts/lead.lua")))
    };
}

/// See the module.
#[derive(Debug)]
pub struct PartitionStore {
    keyspace: Keyspace,
    keys: Keys,
    lead: Script,
    lead_many: Script,
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
            lead: leading!("#!lua flags=allow-oom\n"),
            // Each key is judged by itself, so it may be in any slot that the server has.
            lead_many: leading!("#!lua flags=allow-oom,allow-cross-slot-keys\n"),
            release: Script::new(include_str!("scripts/release.lua")),
            index: Script::new(include_str!("scripts/index.lua")),
            unindex: Script::new(include_str!("scripts/unindex.lua")),
        }
    }

    /// For each master the calls by which these are asked for: those of `alone` one by one, the
    /// others together.
    #[must_use]
    pub fn calls(&self, wanted: &BTreeSet<u32>, alone: &BTreeSet<u32>) -> Vec<Vec<Vec<u32>>> {
        let mut masters = BTreeMap::<_, Vec<u32>>::new();
        for partition in wanted {
            let master = self.keyspace.server_of(&self.keys.partition(*partition));
            masters.entry(master).or_default().push(*partition);
        }
        let calls = |partitions: Vec<u32>| -> Vec<Vec<u32>> {
            let (alone, together): (Vec<_>, Vec<_>) =
                partitions.into_iter().partition(|p| alone.contains(p));
            let together = together.chunks(LEASES_PER_CALL).map(<[u32]>::to_vec);
            together.chain(alone.into_iter().map(|p| vec![p])).collect()
        };
        masters.into_values().map(calls).collect()
    }

    /// Takes or extends the leases of some partitions of one master, by one call. Each has an answer
    /// of its own, in their order. Cancel-safe: if the answer is lost, the next call finds what this
    /// one did.
    pub async fn lead(
        &self,
        partitions: &[u32],
        owner: &Owner,
        lease: Duration,
    ) -> Vec<Result<LeaseAnswer, PartitionError>> {
        let keys = partitions.iter().map(|p| self.keys.partition(*p)).collect();
        match self.ask_to_lead(keys, owner, lease).await {
            Ok(bids) if bids.len() == partitions.len() => {
                bids.iter().map(|bid| read_bid(bid)).collect()
            }
            Ok(_) => vec![Err(PartitionError::Unexpected); partitions.len()],
            Err(error) => vec![Err(error); partitions.len()],
        }
    }

    async fn ask_to_lead(
        &self,
        keys: Vec<String>,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Vec<String>, PartitionError> {
        let mut args = vec![text(owner), text(lease.as_millis()), text(apart())];
        if let [_] = &*keys {
            return self.eval(&self.lead, &keys, &args).await;
        }
        let first = keys.first().cloned().unwrap_or_default();
        args.extend(keys.into_iter().map(String::into_bytes));
        let answer = self.keyspace.eval_beside(&first, &self.lead_many, &args);
        let answer = answer.await.map_err(PartitionError::Redis)?;
        answer.convert().map_err(|_| PartitionError::Unexpected)
    }

    /// Gives the lease back, so that the next home need not wait for its end.
    ///
    /// # Errors
    /// [`PartitionError`].
    pub async fn release(&self, partition: u32, token: u64) -> Result<(), PartitionError> {
        let keys = [
            self.keys.partition(partition),
            self.keys.queue_heads(partition),
        ];
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

/// Reads what `lead.lua` answers about one partition.
fn read_bid(answer: &str) -> Result<LeaseAnswer, PartitionError> {
    let bid = match answer.split_once(' ') {
        Some(("held", token)) => token.parse().ok().map(|token| LeaseAnswer::Held { token }),
        Some(("other", left_ms)) => left_ms.parse().ok().map(|left_ms| LeaseAnswer::Other {
            left: Duration::from_millis(left_ms),
        }),
        Some(("failed", why)) => return Err(PartitionError::Redis(RedisError::told(why))),
        _ => None,
    };
    bid.ok_or(PartitionError::Unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_read_with_its_token_or_its_end_and_anything_else_is_refused() {
        let read = |answer| read_bid(answer).ok();
        assert_eq!(read("held 8"), Some(LeaseAnswer::Held { token: 8 }));
        let left = Duration::from_millis(1_200);
        assert_eq!(read("other 1200"), Some(LeaseAnswer::Other { left }));
        for strange in ["held", "held x", "other ", "other -1", "free 8", ""] {
            let answer = read_bid(strange);
            assert!(
                matches!(answer, Err(PartitionError::Unexpected)),
                "{strange:?}"
            );
        }
    }

    #[test]
    fn what_one_lease_met_is_told_as_redis_says_it() {
        for why in [
            "ERR Script attempted to access a non local key in a cluster node",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ] {
            let error = read_bid(&format!("failed {why}")).unwrap_err();
            assert!(error.is_of_many(), "{error:?}");
            let PartitionError::Redis(error) = error else {
                panic!("{error:?}");
            };
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
