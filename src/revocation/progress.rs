//! How far each node has read, told beside its heartbeats: a small key of each node in Redis.
//!
//! In: up to which change this node has read. Out: what others said of that, for whoever waits for them.
//! A heartbeat says the same, but its answer tells of all nodes that changed: where every node sent one
//! for each revocation, nodes squared would be told. Here a node writes one key, and only who waits
//! reads them. Owns nothing. Bounds: one key a node, which ends [`KEPT`] after it was written; one
//! command to write it, and one to read those of all nodes.
//!
//! Keys: `ff:{rv}:r:NODE`, with the incarnation of the life that wrote it, so that nothing is taken from
//! an earlier one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::ids::Owner;

use crate::redis::holders::read;
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};

/// For so long what was said can be read: long enough for a call that repeats an earlier one, and for
/// the heartbeat of a large cluster that says the same.
const KEPT: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug, Clone)]
pub struct Progress {
    keyspace: Keyspace,
    keys: Keys,
    tell: Arc<Script>,
}

impl Progress {
    /// Beside the revocations under these names.
    #[must_use]
    pub fn new(keyspace: impl Into<Keyspace>, keys: &Keys) -> Self {
        Self {
            keyspace: keyspace.into(),
            keys: keys.clone(),
            tell: Arc::new(Script::new(include_str!("scripts/tell.lua"))),
        }
    }

    /// Says that this life has read up to this change. Safe to repeat. If it is dropped, it may have
    /// been said.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn tell(&self, me: &Owner, read_to: u64) -> Result<(), RedisError> {
        let key = [self.keys.revocations_read(&me.node)];
        let said = format!("{} {read_to}", me.incarnation);
        let args = [said.into_bytes(), text(KEPT.as_millis())];
        self.keyspace.eval(&self.tell, &key, &args).await.map(drop)
    }

    /// Up to which change these lives have read, of those who said so. Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// [`RedisError`].
    pub async fn told(&self, lives: &[Owner]) -> Result<HashMap<Owner, u64>, RedisError> {
        let keys = lives
            .iter()
            .map(|life| self.keys.revocations_read(&life.node));
        let mut keys = keys.map(String::into_bytes);
        let Some(first) = keys.next() else {
            return Ok(HashMap::new());
        };
        let first = String::from_utf8_lossy(&first).into_owned();
        let others: Vec<_> = keys.collect();
        let answer = self.keyspace.command("MGET", &first, &others).await;
        let said: Vec<Option<Vec<u8>>> = answer.and_then(read)?;
        let told = lives.iter().zip(said).filter_map(|(life, said)| {
            let read_to = read_by(life.incarnation, &said?)?;
            Some((life.clone(), read_to))
        });
        Ok(told.collect())
    }
}

/// What this incarnation said; `None`: another one did, or it is no such text.
fn read_by(incarnation: u64, said: &[u8]) -> Option<u64> {
    let (by, read_to) = std::str::from_utf8(said).ok()?.split_once(' ')?;
    let by: u64 = by.parse().ok()?;
    read_to.parse().ok().filter(|_| by == incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_life_or_another_program_wrote_says_nothing() {
        assert_eq!(read_by(7, b"7 12"), Some(12));
        for other in ["6 12", "8 12", "7", "7 ", "7 12 3", "7 -1", "", "banana"] {
            assert_eq!(read_by(7, other.as_bytes()), None, "{other}");
        }
        assert_eq!(read_by(7, b"7 \xff"), None);
    }
}
