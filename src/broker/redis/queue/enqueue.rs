//! Puts entries into their queues.
//!
//! In: entries in any order, of any targets. Out: one answer each. Those that may share a call are a
//! group, whose calls follow each other, so that entries of one target keep their order; groups go side
//! by side. Owns nothing. Bounds: [`ENQUEUE_MAX`] entries and [`CALL_BYTES_MAX`] bytes a call, one entry
//! apart, and [`GROUPS_AT_ONCE`] calls.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use futures_util::StreamExt as _;
use rustc_hash::{FxHashMap, FxHashSet};

use super::super::master::Master;
use super::super::{RedisBroker, reply};
use super::{call_of, words};
use crate::broker::BrokerError;
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::{ENQUEUE_MAX, EnqueueRequest, Enqueued, PRIORITIES, entry, rank};
use crate::broker::unavailable::Unavailable;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError};
use fanfare_protocol::ids::Topic;

/// Bytes of one call, at least one entry apart: a few milliseconds of Redis.
const CALL_BYTES_MAX: usize = 1024 * 1024;
/// Calls of one request that are under way.
const GROUPS_AT_ONCE: usize = 16;
/// Keys of each partition.
const PARTITION_KEYS: usize = 6;

type Answer = Result<Enqueued, BrokerError>;

/// An entry with its place in the request, and its partition.
struct Waiting {
    at: usize,
    partition: u32,
    request: EnqueueRequest,
}

/// Entries that may share a call, and by whose replicas they must be had.
struct Group {
    master: Arc<Master>,
    entries: Vec<Waiting>,
}

/// What a group is known by.
type GroupKey = (CallOf, u32, Duration);

impl RedisBroker {
    /// As [`crate::broker::Broker::enqueue`].
    pub async fn enqueue(&self, requests: Vec<EnqueueRequest>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let mut groups: FxHashMap<GroupKey, Group> = FxHashMap::default();
        // Each partition is looked for once, or two entries of a target might go different ways.
        let mut found: FxHashMap<u32, Result<Arc<Master>, RedisError>> = FxHashMap::default();
        for (at, request) in requests.into_iter().enumerate() {
            let partition = self.keys().partition_of(&request.message.topic);
            let find = || Ok(self.masters.find_partition(partition)?.master);
            match found.entry(partition).or_insert_with(find) {
                Ok(master) => {
                    let replicas = request.replicas;
                    let key = (call_of(master, partition), replicas.min, replicas.timeout);
                    let group = groups.entry(key).or_insert_with(|| Group {
                        master: Arc::clone(master),
                        entries: Vec::new(),
                    });
                    group.entries.push(Waiting {
                        at,
                        partition,
                        request,
                    });
                }
                Err(error) => answers[at] = Some(Err(error.clone().into())),
            }
        }
        let groups = groups.into_values().map(enqueue_group);
        let mut running = futures_util::stream::iter(groups).buffer_unordered(GROUPS_AT_ONCE);
        while let Some(done) = running.next().await {
            for (at, answer) in done {
                answers[at] = Some(answer);
            }
        }
        let unanswered = || Err(BrokerError::Unexpected("no answer to an entry".to_owned()));
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(unanswered))
            .collect()
    }
}

/// One call after the other. What failed takes later entries of its target with it: repeated, it would
/// come behind them.
async fn enqueue_group(group: Group) -> Vec<(usize, Answer)> {
    let Group {
        master,
        mut entries,
    } = group;
    let mut answers = Vec::with_capacity(entries.len());
    let mut failed: FxHashSet<Topic> = FxHashSet::default();
    // A call names fewer partitions that way. Those of one keep their order.
    entries.sort_by_key(|waiting| waiting.partition);
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let mut call = Call::new(&master.shared.keys);
        let mut called = Vec::new();
        while call.has_room()
            && let Some(waiting) = entries.next()
        {
            if failed.contains(&waiting.request.message.topic) {
                answers.push((waiting.at, Err(Unavailable::NotTried.into())));
                continue;
            }
            call.add(&waiting);
            called.push(waiting);
        }
        let Some(first) = called.first() else {
            break;
        };
        let replicas = first.request.replicas;
        let (keys, args) = call.finish();
        let answer = master.heeding(master.enqueue(&keys, args, replicas).await);
        let said = answer.and_then(|answer| read(answer, called.len(), &master));
        let said = said.unwrap_or_else(|error| vec![Err(error); called.len()]);
        for (waiting, answer) in called.into_iter().zip(said) {
            if answer.is_err() {
                failed.insert(waiting.request.message.topic);
            }
            answers.push((waiting.at, answer));
        }
    }
    answers
}

/// What `queue_enqueue.lua` is told.
struct Call<'a> {
    names: &'a Keys,
    /// By partition, how many keys are before its own.
    bases: FxHashMap<u32, usize>,
    keys: Vec<String>,
    once_keys: Vec<String>,
    args: Vec<Vec<u8>>,
    bytes: usize,
    /// The last entry of each target, counted from 1.
    last: FxHashMap<Topic, usize>,
    count: usize,
}

impl<'a> Call<'a> {
    fn new(names: &'a Keys) -> Self {
        Self {
            names,
            bases: FxHashMap::default(),
            keys: Vec::new(),
            once_keys: Vec::new(),
            args: Vec::new(),
            bytes: 0,
            last: FxHashMap::default(),
            count: 0,
        }
    }

    fn has_room(&self) -> bool {
        self.count < ENQUEUE_MAX && self.bytes < CALL_BYTES_MAX
    }

    fn add(&mut self, waiting: &Waiting) {
        let Waiting {
            partition, request, ..
        } = waiting;
        let EnqueueRequest {
            message,
            not_before_ms,
            idempotency,
            ..
        } = request;
        self.count += 1;
        let place = self.base(*partition) + 2 + rank(message.publication.priority);
        let due_ms = not_before_ms.unwrap_or(0);
        let before = self.last.insert(message.topic.clone(), self.count);
        let once = idempotency.as_ref().filter(|(_, life_ms)| *life_ms > 0);
        let how = if once.is_none() && due_ms == 0 && before.is_none() {
            text(place)
        } else {
            let life_ms = once.map_or(0, |(_, life_ms)| *life_ms);
            let (has_key, before) = (u8::from(once.is_some()), before.unwrap_or(0));
            text(format_args!(
                "{place} {has_key} {life_ms} {due_ms} {before}"
            ))
        };
        if let Some((digest, _)) = once {
            let key = self.names.queue_once(*partition, digest);
            self.once_keys.push(key);
        }
        let blob = entry::encode(message);
        self.bytes += blob.len();
        self.args.extend([how, blob]);
    }

    /// How many keys stand before those of a partition.
    fn base(&mut self, partition: u32) -> usize {
        let before = self.keys.len();
        let base = *self.bases.entry(partition).or_insert(before);
        if base == before {
            let names = self.names;
            self.keys.push(names.channel(&Topic::bell(partition)));
            let streams = PRIORITIES.map(|priority| names.queue(partition, priority));
            self.keys.extend(streams);
            self.keys.push(names.queue_later(partition));
        }
        base
    }

    fn finish(self) -> (Vec<String>, Vec<Vec<u8>>) {
        // With the number of the entry they name one that is to come later.
        let random: [u8; 7] = rand::random();
        let mut args = vec![text(self.keys.len() / PARTITION_KEYS), random.to_vec()];
        args.extend(self.args);
        let mut keys = self.keys;
        keys.extend(self.once_keys);
        (keys, args)
    }
}

/// The answers to so many entries.
fn read(value: Value, count: usize, master: &Master) -> Result<Vec<Answer>, BrokerError> {
    let parts = reply::list(value)?;
    if parts.len() != count {
        return Err(reply::unexpected("answers", &Value::Array(parts)));
    }
    let one = |value: Value| {
        let Value::Array(parts) = &value else {
            return Ok(Enqueued {
                entry: words(&value),
                duplicate: false,
            });
        };
        match (parts.first().and_then(Value::as_bytes), parts.get(1)) {
            (Some(b"duplicate"), Some(entry)) => Ok(Enqueued {
                entry: words(entry),
                duplicate: true,
            }),
            (Some(b"untried"), _) => Err(Unavailable::NotTried.into()),
            (Some(b"failed"), Some(why)) => {
                master.heeding(Err(RedisError::told(&words(why)).into()))
            }
            _ => Err(reply::unexpected("answer", &value)),
        }
    };
    Ok(parts.into_iter().map(one).collect())
}

const _: () = assert!(
    ENQUEUE_MAX <= u8::MAX as usize,
    "they are counted by a byte"
);
