//! Reads the heads of the streams of some partitions.
//!
//! In: partitions of one master that this node holds. Out: how each stands, and entries in the order in
//! which they are to be moved; by one script. Owns nothing. Bounds: those that the script is given,
//! [`FIELDS_READ_MAX`], [`ENTRY_BYTES_MAX`] and [`STEP_MAX`]; where the last fetch failed, one entry a
//! step. Beside [`FETCH_BYTES_MAX`] each priority that has any entries brings one, however long.

use std::collections::HashSet;

use bytes::Bytes;
use fred::types::Value;
use futures_util::future::join_all;

use super::super::{RedisBroker, reply};
use super::{arg, depths, state};
use crate::broker::BrokerError;
use crate::broker::queue::{
    Content, DEAD_LIFE_MS, DUE_MAX, FETCH_BYTES_MAX, FETCH_MAX, FETCH_OF_STREAM_MAX, FETCH_SHARE,
    Fetched, FetchedEntry, HeldPartition, PRIORITIES, PartitionState,
};

/// Most fields of an entry that are read: twice as many as it may have, so that those a little over are
/// told by their names.
const FIELDS_READ_MAX: usize = 64;
/// Most bytes of an entry that are read: more than any that a node takes, whatever its
/// `session.message_bytes_max` is or was (at most 16 MiB), with what stands around the data.
const ENTRY_BYTES_MAX: usize = 17 * 1024 * 1024;
/// Most entries of one step of a fetch. How long they are is known when they have been read.
const STEP_MAX: usize = 8;

impl RedisBroker {
    /// As [`crate::broker::Broker::fetch`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn fetch(&self, held: &[HeldPartition], from: u64) -> Result<Fetched, BrokerError> {
        // Before it is asked: an answer from after a loss is then moved nowhere.
        let place = self.place_of_partitions(held)?;
        let turn = from % u64::try_from(held.len()).unwrap_or(1).max(1);
        let mut args = vec![
            arg(turn),
            arg(FETCH_MAX),
            arg(FETCH_OF_STREAM_MAX),
            arg(FETCH_SHARE),
            arg(FETCH_BYTES_MAX),
            arg(DUE_MAX),
            arg(DEAD_LIFE_MS),
            arg(FIELDS_READ_MAX),
            arg(ENTRY_BYTES_MAX),
            arg(if self.queue_seen.is_careful(held) {
                1
            } else {
                STEP_MAX
            }),
        ];
        for held in held {
            let is_first = self.queue_seen.is_first(held);
            args.extend([arg(held.token), arg(u8::from(is_first))]);
        }
        let call = (self.keys_of_held(held), args);
        let answer = self
            .run_at(place, held, |scripts| &scripts.queue_fetch, call)
            .await;
        // It may have taken too long.
        self.queue_seen.be_careful(held, answer.is_err());
        let [now, partitions, entries, dropped] = reply::parts(answer?)?;
        let states = reply::list(partitions)?.into_iter();
        let states = states.map(|value| state(value, depths));
        let states: Vec<_> = states.collect::<Result<_, _>>()?;
        let (states, ills): (Vec<_>, Vec<_>) = states.into_iter().unzip();
        let entries = reply::list(entries)?.into_iter();
        let mut fetched = Fetched {
            place,
            now_ms: reply::number(&now)?,
            partitions: of_each(states, held)?,
            entries: entries
                .map(|value| entry(held, value))
                .collect::<Result<_, _>>()?,
        };
        self.metrics
            .queue
            .dead_dropped
            .add(reply::number(&dropped)?);
        self.queue_seen.fetched(held, &mut fetched, ills);
        Ok(fetched)
    }

    /// As [`crate::broker::Broker::glance`]. Commands that Redis runs by itself: a script that looks at 32
    /// empty partitions takes Redis six times as long.
    pub async fn glance(&self, held: &[HeldPartition]) -> Option<Vec<bool>> {
        let master = self.place_of_partitions(held);
        let master = master.and_then(|place| self.at(place, held)).ok()?;
        let keys = self.keys_of_held(held);
        let mut read = ["COUNT", "1", "STREAMS"]
            .map(Value::from_static_str)
            .to_vec();
        let mut later = Vec::with_capacity(held.len());
        for keys in keys.chunks_exact(KEYS_OF_PARTITION) {
            read.extend_from_slice(&keys[STREAMS]);
            later.push(keys[LATER].clone());
        }
        let zero = Value::from_static_str("0");
        read.extend(std::iter::repeat_n(zero, STREAMS.len() * held.len()));
        let link = &master.shared.bulk.link;
        let (read, exist) = tokio::join!(
            link.submit("XREAD", read),
            link.submit("EXISTS", later.clone())
        );
        // A key of a foreign type, a user who may not: a fetch will say it.
        let (Ok(read), Ok(Value::Integer(exist))) = (read, exist) else {
            return None;
        };
        let streams = names(read)?;
        let mut is_something: Vec<_> = keys
            .chunks_exact(KEYS_OF_PARTITION)
            .map(|keys| keys[STREAMS].iter().any(|key| has(&streams, key)))
            .collect();
        // Seldom: entries to come, in a partition that had none.
        if exist > 0 {
            let asked = later
                .into_iter()
                .map(|key| link.submit("EXISTS", vec![key]));
            let answers = join_all(asked).await;
            for (is_something, answer) in is_something.iter_mut().zip(answers) {
                *is_something |= !matches!(answer, Ok(Value::Integer(0)));
            }
        }
        Some(is_something)
    }
}

/// Where the keys of a partition stand among those of a call.
const KEYS_OF_PARTITION: usize = 8;
const STREAMS: std::ops::Range<usize> = 1..5;
const LATER: usize = 5;

/// The streams of an answer to XREAD, as a list of pairs or as a map.
fn names(answer: Value) -> Option<HashSet<Bytes>> {
    match answer {
        Value::Null => Some(HashSet::new()),
        Value::Map(map) => Some(
            map.inner()
                .into_keys()
                .map(|key| key.as_bytes().to_vec().into())
                .collect(),
        ),
        Value::Array(pairs) => {
            let names = pairs.into_iter().map(|pair| match pair {
                Value::Array(mut pair) if !pair.is_empty() => pair.swap_remove(0).into_bytes(),
                _ => None,
            });
            names.collect()
        }
        _ => None,
    }
}

fn has(names: &HashSet<Bytes>, key: &Value) -> bool {
    key.as_bytes().is_some_and(|key| names.contains(key))
}

/// One for each partition, or no answer at all.
pub(super) fn of_each(
    states: Vec<PartitionState>,
    held: &[HeldPartition],
) -> Result<Vec<PartitionState>, BrokerError> {
    match states.len() == held.len() {
        true => Ok(states),
        false => Err(BrokerError::Unexpected("states of partitions".to_owned())),
    }
}

fn entry(held: &[HeldPartition], value: Value) -> Result<FetchedEntry, BrokerError> {
    let mut parts = reply::list(value)?;
    let bytes = match parts.len() {
        6 => parts.pop(),
        _ => None,
    };
    let [at, rank, id, starts, fields] = reply::parts(Value::Array(parts))?;
    let place = |value: &Value| -> Result<usize, BrokerError> {
        usize::try_from(reply::number(value)?).map_err(|_| reply::unexpected("place", value))
    };
    let partition = held.get(place(&at)?);
    let priority = PRIORITIES.get(place(&rank)?);
    Ok(FetchedEntry {
        partition: partition
            .ok_or_else(|| reply::unexpected("partition", &at))?
            .partition,
        priority: *priority.ok_or_else(|| reply::unexpected("priority", &rank))?,
        id: reply::position(&id)?,
        content: match bytes {
            Some(bytes) => Content::Oversized {
                fields: place(&fields)?,
                bytes: place(&bytes)?,
            },
            None => content(fields)?,
        },
        starts: u32::try_from(reply::number(&starts)?).unwrap_or(u32::MAX),
    })
}

/// A blob stands alone, or with the name that it had when it was to come later.
fn content(fields: Value) -> Result<Content, BrokerError> {
    let fields = reply::list(fields)?.into_iter().map(reply::bytes);
    let fields = fields.collect::<Result<Vec<Bytes>, _>>()?;
    Ok(match &fields[..] {
        [e, blob] if &e[..] == b"e" => Content::Blob(blob.clone()),
        [e, blob, a, _] if &e[..] == b"e" && &a[..] == b"a" => Content::Blob(blob.clone()),
        fields => {
            let pairs = fields.chunks_exact(2);
            Content::Fields(
                pairs
                    .map(|pair| (pair[0].clone(), pair[1].clone()))
                    .collect(),
            )
        }
    })
}
