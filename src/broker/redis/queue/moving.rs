//! Takes entries out of their streams and publishes or buries each.
//!
//! In: a batch as it was fetched, each entry with its verdict. Out: what became of each, and how the
//! partitions stand; by one script, on the master and in the continuity that they were fetched from, or
//! not at all. Owns nothing. Bounds: those of the batch.

use fred::types::Value;

use super::super::{RedisBroker, reply};
use super::fetch::of_each;
use super::{keys_of_all, optional, state};
use crate::broker::BrokerError;
use crate::broker::queue::entry::{self, Parts};
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
        let mut call = (keys_of_all(keys, &held), Vec::new());
        let numbers = [held.len(), DEAD_MAX].map(text);
        call.1.extend(numbers);
        call.1.push(text(DEAD_LIFE_MS));
        call.1.extend(held.iter().map(|held| text(held.token)));
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

    /// How a partition stands after the move: of the streams that entries were of it is told, of the
    /// others it is known.
    fn left(&self, partition: u32, value: Value) -> Result<PartitionState, BrokerError> {
        let parts = reply::list(value)?;
        let (Some(b"held"), [_, dead, streams @ ..]) =
            (parts.first().and_then(Value::as_bytes), &parts[..])
        else {
            return state(Value::Array(parts));
        };
        let dead = optional(dead).map(reply::number).transpose()?;
        let mut told = Vec::with_capacity(streams.len() / 3);
        for stream in streams.chunks_exact(3) {
            let rank = usize::try_from(reply::number(&stream[0])?).ok();
            let rank = rank.filter(|rank| *rank < PRIORITIES.len());
            let rank = rank.ok_or_else(|| reply::unexpected("rank", &stream[0]))?;
            let oldest = optional(&stream[2]).map(reply::position).transpose()?;
            told.push((rank, reply::number(&stream[1])?, oldest));
        }
        let depths = self.queue_seen.moved(partition, |depths| {
            depths.dead = dead.unwrap_or(depths.dead);
            for (rank, length, oldest) in told {
                depths.due[rank] = length;
                depths.oldest_ms[rank] = oldest.map(|id| id.ms);
            }
        });
        Ok(PartitionState::Held(depths))
    }
}

/// An entry, as the script is told of it.
fn add((keys, args): &mut (Vec<String>, Vec<Vec<u8>>), names: &Keys, at: usize, judged: Judged) {
    let Judged {
        partition,
        priority,
        id,
        verdict,
    } = judged;
    let mut begin = |what: &str, is_inbox: bool| {
        args.push(what.into());
        args.extend([text(at + 1), text(rank(priority)), text(id)]);
        args.push(text(u8::from(is_inbox)));
    };
    match verdict {
        Verdict::Publish { message, retention } => {
            let topic = &message.topic;
            begin("publish", topic.kind() == TopicKind::Inbox);
            let used = PublicationKeys::new(names, topic, partition, None);
            keys.extend(used.as_slice().iter().map(|key| key.concat()));
            let Parts { head, body, tail } = entry::encode_parts(&message);
            args.push(body);
            args.extend([
                text(rand::random::<u32>()),
                text(retention.entries_max),
                text(retention.age_ms),
                text(retention.last_life_ms()),
            ]);
            args.extend([head, tail]);
        }
        Verdict::Bury { why, error, kept } => {
            begin("bury", false);
            args.extend([text(why.as_str()), text(error), kept.to_vec()]);
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
