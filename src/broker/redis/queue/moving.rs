//! Takes entries out of their streams and publishes or buries each.
//!
//! In: a batch as it was fetched, each entry with its verdict. Out: what became of each, and how the
//! partitions stand; by one script, on the master and in the continuity that they were fetched from, or
//! not at all. Owns nothing. Bounds: those of the batch.

use fred::types::Value;

use super::super::{RedisBroker, reply};
use super::fetch::of_each;
use super::{arg, state};
use crate::broker::BrokerError;
use crate::broker::queue::entry::Parts;
use crate::broker::queue::{
    DEAD_LIFE_MS, DEAD_MAX, End, Judged, MoveBatch, Moved, PRIORITIES, PartitionState, Verdict,
    rank,
};
use crate::broker::unavailable::Unavailable;
use crate::redis::Keys;
use crate::redis::publication_keys::PublicationKeys;
use crate::redis::script::text;
use fanfare_protocol::ids::TopicKind;

impl RedisBroker {
    /// As [`crate::broker::Broker::move_entries`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn move_entries(&self, batch: MoveBatch) -> Result<Moved, BrokerError> {
        let MoveBatch {
            place,
            held,
            entries,
        } = batch;
        let master = self.at(place, &held)?;
        // Those of its database, which channels have in their names.
        let keys = &master.shared.keys;
        let mut call = (self.keys_of_held(&held), Vec::new());
        call.1.extend([held.len(), DEAD_MAX].map(arg));
        call.1.push(arg(DEAD_LIFE_MS));
        call.1.extend(held.iter().map(|held| arg(held.token)));
        let count = entries.len();
        for judged in entries {
            let at = held.iter().position(|h| h.partition == judged.partition);
            let at = at.ok_or(Unavailable::Elsewhere)?;
            add(&mut call, keys, at, judged);
        }
        let answer = self
            .run_at(place, &held, |scripts| &scripts.queue_move, call)
            .await?;
        let [dropped, partitions, ends] = reply::parts(answer)?;
        let ends: Vec<_> = reply::list(ends)?
            .iter()
            .map(end)
            .collect::<Result<_, _>>()?;
        if ends.len() != count {
            return Err(BrokerError::Unexpected("ends of entries".to_owned()));
        }
        let states = reply::list(partitions)?.into_iter().zip(&held);
        let states = states.map(|(value, held)| self.left(held.partition, value));
        Ok(Moved {
            ends,
            partitions: of_each(states.collect::<Result<_, _>>()?, &held)?,
            dead_dropped: reply::number(&dropped)?,
        })
    }

    /// How a partition stands after the move: of the streams that entries were of it is told how long
    /// they are; what else there is, and how old, is as the last fetch saw it.
    fn left(&self, partition: u32, value: Value) -> Result<PartitionState, BrokerError> {
        state(value, |text| {
            let mut words = text.strip_prefix("held ")?.split(' ');
            let dead = match words.next()? {
                "-" => None,
                dead => Some(dead.parse().ok()?),
            };
            let mut lengths = Vec::new();
            while let Some(rank) = words.next() {
                let rank: usize = rank.parse().ok()?;
                let length = words.next()?.parse().ok()?;
                lengths.push((rank, length));
            }
            if lengths.iter().any(|(rank, _)| *rank >= PRIORITIES.len()) {
                return None;
            }
            Some(self.queue_seen.moved(partition, |depths| {
                depths.dead = dead.unwrap_or(depths.dead);
                for (rank, length) in lengths {
                    depths.due[rank] = length;
                    depths.oldest_ms[rank] = depths.oldest_ms[rank].filter(|_| length > 0);
                }
            }))
        })
    }
}

/// An entry, as the script is told of it: in one text what becomes of it, and its body.
fn add((keys, args): &mut (Vec<Value>, Vec<Value>), names: &Keys, at: usize, judged: Judged) {
    let Judged {
        partition,
        priority,
        id,
        verdict,
    } = judged;
    let (at, rank) = (at + 1, rank(priority));
    match verdict {
        Verdict::Publish {
            message,
            parts: Parts { head, body, tail },
            retention,
        } => {
            let topic = &message.topic;
            let used = PublicationKeys::new(names, topic, partition, None);
            keys.extend(used.as_slice().iter().map(|key| Value::from(key.concat())));
            let inbox = u8::from(topic.kind() == TopicKind::Inbox);
            let (random, life) = (rand::random::<u32>(), retention.last_life_ms());
            let (entries, age, head_len) = (retention.entries_max, retention.age_ms, head.len());
            let mut how = text(format_args!(
                "publish {at} {rank} {id} {inbox} {random} {entries} {age} {life} {head_len} "
            ));
            how.extend_from_slice(&head);
            how.extend_from_slice(&tail);
            args.extend([Value::Bytes(how.into()), Value::Bytes(body)]);
        }
        Verdict::Bury { why, error, kept } => {
            let why = why.as_str();
            let how = arg(format_args!("bury {at} {rank} {id} {why} {error}"));
            args.extend([how, Value::Bytes(kept)]);
        }
    }
}

fn end(value: &Value) -> Result<End, BrokerError> {
    Ok(match value.as_bytes() {
        Some(b"buried") => End::Buried,
        Some(b"failed") => End::Failed,
        Some(b"gone") => End::Gone,
        Some(b"refused") => End::Refused,
        _ => End::Published(reply::position(value)?),
    })
}
