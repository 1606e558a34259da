//! Dead letters of a partition: read and dropped.
//!
//! In: questions of the API. Out: what stands in the stream of dead letters, which `queue_move.lua`
//! writes. Owns nothing. Bounds: as many as asked for, read in
//! steps of about [`READ_BYTES_MAX`].

use fred::types::Value;

use super::super::{RedisBroker, reply};
use super::words;
use crate::broker::BrokerError;
use crate::broker::queue::{DeadLetter, PRIORITIES, Why};
use crate::redis::script::text;
use fanfare_protocol::ids::{Position, Priority};

/// Bytes that are asked for at once, if letters are about as long as those before.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Letters that are asked for at once.
const STEP_MAX: usize = 100;

impl RedisBroker {
    /// As [`crate::broker::Broker::dead_letters`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn dead_letters(
        &self,
        partition: u32,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        const HIGHEST: Position = Position {
            ms: u64::MAX,
            seq: u64::MAX,
        };
        let mut after = after;
        let mut found: Vec<DeadLetter> = Vec::new();
        let mut step = 1;
        // Redis refuses bounds beyond which no id can be.
        while found.len() < limit && after != Some(HIGHEST) {
            let at_most = step.min(limit - found.len());
            let values = self.some_letters(partition, after, at_most).await?;
            let is_last = values.len() < at_most;
            let mut longest = 1;
            for value in values {
                longest = bytes_of(&value).max(longest);
                let one = letter(partition, value)?;
                after = Some(one.id);
                found.push(one);
            }
            if is_last {
                break;
            }
            step = (READ_BYTES_MAX / longest).clamp(1, STEP_MAX);
        }
        Ok(found)
    }

    async fn some_letters(
        &self,
        partition: u32,
        after: Option<Position>,
        count: usize,
    ) -> Result<Vec<Value>, BrokerError> {
        let after = after.map_or_else(|| text("-"), |after| text(format_args!("({after}")));
        let args = [after, text("+"), text("COUNT"), text(count)];
        let master = self.masters.find_partition(partition)?.master;
        let (link, key) = (&master.shared.bulk.link, self.keys().queue_dead(partition));
        let answer = link.command("XRANGE", &key, &args).await;
        reply::list(master.heeding(answer.map_err(BrokerError::from))?)
    }

    /// As [`crate::broker::Broker::drop_dead`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn drop_dead(
        &self,
        partition: u32,
        letters: &[Position],
    ) -> Result<u64, BrokerError> {
        if letters.is_empty() {
            return Ok(0);
        }
        let ids: Vec<_> = letters.iter().map(text).collect();
        let master = self.masters.find_partition(partition)?.master;
        let (link, key) = (&master.shared.bulk.link, self.keys().queue_dead(partition));
        let answer = link.command("XDEL", &key, &ids).await;
        reply::number(&master.heeding(answer.map_err(BrokerError::from))?)
    }
}

/// So many bytes has what Redis sent.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Array(parts) => parts.iter().map(bytes_of).sum(),
        value => value.as_bytes().map_or(0, <[u8]>::len),
    }
}

/// A dead letter. What a newer release, or somebody else, has written otherwise is told as far as it can
/// be read: a page must not end before such a one.
fn letter(partition: u32, value: Value) -> Result<DeadLetter, BrokerError> {
    let [id, fields] = reply::parts(value)?;
    let fields = reply::list(fields)?;
    let field = |name: &[u8]| {
        let mut pairs = fields.chunks_exact(2);
        pairs.find_map(|pair| (pair[0].as_bytes() == Some(name)).then_some(&pair[1]))
    };
    let told = |name| field(name).map(words).unwrap_or_default();
    let rank = field(b"q").and_then(Value::as_u64);
    let priority = rank.and_then(|rank| PRIORITIES.get(usize::try_from(rank).ok()?));
    Ok(DeadLetter {
        partition,
        id: reply::position(&id)?,
        priority: priority.copied().unwrap_or(Priority::Normal),
        entry: told(b"id"),
        why: Why::of(&told(b"why")).unwrap_or(Why::BadEntry),
        error: told(b"error"),
        kept: match field(b"e") {
            Some(kept) => reply::bytes(kept.clone())?,
            None => bytes::Bytes::new(),
        },
    })
}
