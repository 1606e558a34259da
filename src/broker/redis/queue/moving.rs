//! Takes entries out of their streams and publishes or buries each.
//!
//! In: a batch as it was fetched, each entry with its verdict. Out: what became of each, and how the
//! partitions stand; by one script, on the master and in the continuity that they were fetched from, or
//! not at all. Where a move stopped, nothing of the partition is moved before it is fetched again. Owns
//! nothing. Bounds: those of the batch.

use fred::types::Value;

use super::super::{RedisBroker, reply};
use super::fetch::of_each;
use super::{arg, state, words};
use crate::broker::channel_context;
use crate::broker::queue::entry::Parts;
use crate::broker::queue::{
    DEAD_LIFE_MS, DEAD_MAX, End, HeldPartition, Judged, MoveBatch, Moved, PRIORITIES,
    PartitionState, Verdict, Why, rank,
};
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, Place};
use crate::redis::Keys;
use crate::redis::publication_keys::PublicationKeys;
use crate::redis::script::text;
use fanfare_protocol::ids::TopicKind;

/// How an entry goes to the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// As it was judged.
    Judged,
    /// To be buried, because its topic is forbidden.
    Forbidden,
    /// Not at all: a move has stopped in its partition.
    Waits,
}

/// Entries, each with the place of its partition.
struct Moving {
    entries: Vec<(usize, Judged, Fate)>,
}

impl Moving {
    fn new(
        held: &[HeldPartition],
        stops: &[Option<String>],
        entries: Vec<Judged>,
    ) -> Result<Self, BrokerError> {
        let each = entries.into_iter().map(|judged| {
            let at = held.iter().position(|h| h.partition == judged.partition);
            let at = at.ok_or(Unavailable::Elsewhere)?;
            let fate = match stops[at] {
                Some(_) => Fate::Waits,
                None => Fate::Judged,
            };
            Ok((at, judged, fate))
        });
        Ok(Self {
            entries: each.collect::<Result<_, BrokerError>>()?,
        })
    }

    /// What became of each, by what the script said of those that it was told of.
    fn ends(&self, said: Vec<Value>) -> Result<Vec<End>, BrokerError> {
        let told = self
            .entries
            .iter()
            .filter(|(_, _, fate)| *fate != Fate::Waits);
        if said.len() != told.count() {
            return Err(BrokerError::Unexpected("ends of entries".to_owned()));
        }
        let mut said = said.into_iter();
        let each = self.entries.iter().map(|(_, _, fate)| {
            let end = match fate {
                Fate::Waits => return Ok(End::Refused),
                _ => end(&said.next().unwrap_or(Value::Null))?,
            };
            Ok(match (fate, end) {
                (Fate::Forbidden, End::Buried) => End::Failed,
                (_, end) => end,
            })
        });
        each.collect()
    }
}

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
        let stops: Vec<_> = held
            .iter()
            .map(|held| self.queue_seen.stopped(held.partition))
            .collect();
        let mut moving = Moving::new(&held, &stops, entries)?;
        let call = self.move_call(place, &held, &moving)?;
        let answer = self
            .run_at(place, &held, |scripts| &scripts.queue_move, call)
            .await;
        let answer = match answer {
            Err(BrokerError::Refused(refusal))
                if refusal.word == "NOPERM" && self.forbid(place, &held, &mut moving).await? =>
            {
                let call = self.move_call(place, &held, &moving)?;
                self.run_at(place, &held, |scripts| &scripts.queue_move, call)
                    .await?
            }
            answer => answer?,
        };
        let [dropped, partitions, ends] = reply::parts(answer)?;
        let ends = moving.ends(reply::list(ends)?)?;
        let states = reply::list(partitions)?.into_iter().zip(&held).zip(stops);
        let states = states.map(|((value, held), stop)| match stop {
            Some(why) => Ok(PartitionState::Failed(why)),
            None => self.left(held.partition, value),
        });
        Ok(Moved {
            ends,
            partitions: of_each(states.collect::<Result<_, _>>()?, &held)?,
            dead_dropped: reply::number(&dropped)?,
        })
    }

    /// Keys and arguments of the script.
    fn move_call(
        &self,
        place: Place,
        held: &[HeldPartition],
        moving: &Moving,
    ) -> Result<(Vec<Value>, Vec<Value>), BrokerError> {
        let master = self.at(place, held)?;
        let mut call = (self.keys_of_held(held), Vec::new());
        call.1.extend([held.len(), DEAD_MAX].map(arg));
        call.1.push(arg(DEAD_LIFE_MS));
        call.1.extend(held.iter().map(|held| arg(held.token)));
        for (at, judged, fate) in &moving.entries {
            if *fate != Fate::Waits {
                // The keys of its database, which channels have in their names.
                let carries = self.carrying.is_on();
                add(&mut call, &master.shared.keys, (*at, carries), judged);
            }
        }
        Ok(call)
    }

    /// After a move that was refused as a whole, of which nothing was done: what is of topics that this
    /// user may not write is to be buried. Returns whether there is any.
    async fn forbid(
        &self,
        place: Place,
        held: &[HeldPartition],
        moving: &mut Moving,
    ) -> Result<bool, BrokerError> {
        let master = self.at(place, held)?;
        let mut args = Vec::new();
        for (_, judged, _) in &moving.entries {
            if let Verdict::Publish { message, .. } = &judged.verdict {
                let names = &master.shared.keys;
                let used = PublicationKeys::new(names, &message.topic, judged.partition, None);
                let used = used.as_slice().iter().map(|key| Value::from(key.concat()));
                args.extend(used.chain([arg("")]).take(4));
            }
        }
        let call = (Vec::new(), args);
        let answer = self
            .run_at(place, held, |scripts| &scripts.queue_may, call)
            .await?;
        let mut said = reply::list(answer)?.into_iter();
        let mut is_any = false;
        for (_, judged, fate) in &mut moving.entries {
            let Verdict::Publish { parts, .. } = &judged.verdict else {
                continue;
            };
            let error = said.next().map(|said| words(&said)).unwrap_or_default();
            if !error.is_empty() && *fate != Fate::Waits {
                let Parts { head, body, tail } = parts;
                let kept = [&head[..], &body[..], &tail[..]].concat().into();
                let why = Why::Failed;
                judged.verdict = Verdict::Bury { why, error, kept };
                *fate = Fate::Forbidden;
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// How a partition stands after the move: of the streams that entries were of it is told how long
    /// they are; what else there is, and how old, is as the last fetch saw it.
    fn left(&self, partition: u32, value: Value) -> Result<PartitionState, BrokerError> {
        let (state, _) = state(value, |text| {
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
        })?;
        if let PartitionState::Failed(why) = &state {
            self.queue_seen.stop(partition, why);
        }
        Ok(state)
    }
}

/// An entry, as the script is told of it: in one text what becomes of it, and its body.
fn add(
    (keys, args): &mut (Vec<Value>, Vec<Value>),
    names: &Keys,
    (at, carries_context): (usize, bool),
    judged: &Judged,
) {
    let Judged {
        partition,
        priority,
        id,
        verdict,
    } = judged;
    let (at, partition, rank) = (at + 1, *partition, rank(*priority));
    match verdict {
        Verdict::Publish {
            message,
            parts: Parts { head, body, tail },
            retention,
            trace,
            ..
        } => {
            let topic = &message.topic;
            let used = PublicationKeys::new(names, topic, partition, None);
            keys.extend(used.as_slice().iter().map(|key| Value::from(key.concat())));
            let inbox = u8::from(topic.kind() == TopicKind::Inbox);
            let (random, life) = (rand::random::<u32>(), retention.last_life_ms());
            let (entries, age, head_len) = (retention.entries_max, retention.age_ms, head.len());
            let trace = trace.as_ref().filter(|_| carries_context);
            let context = trace.map(channel_context::encode);
            let context = context.as_ref().map_or(&[][..], |context| context);
            let context_len = context.len();
            let mut how = text(format_args!(
                "publish {at} {rank} {id} {inbox} {random} {entries} {age} {life} {context_len} {head_len} "
            ));
            how.extend_from_slice(context);
            how.extend_from_slice(head);
            how.extend_from_slice(tail);
            args.extend([Value::Bytes(how.into()), Value::Bytes(body.clone())]);
        }
        Verdict::Bury { why, error, kept } => {
            let why = why.as_str();
            let how = arg(format_args!("bury {at} {rank} {id} {why} {error}"));
            args.extend([how, Value::Bytes(kept.clone())]);
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
