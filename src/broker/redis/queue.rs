//! The durable queue over Redis: which master has a partition's queue, and what the scripts say of it.
//!
//! In: calls of `broker::queue::calls`. Out: their answers. The keys of a partition, its lease and the
//! topics of its targets are in one slot, so each call is one script on one master, by its bulk link;
//! what waits for replicas goes the way of publications that do. Owns what the last fetch saw of each
//! partition: a move looks at those streams alone that it took from. Bounds: those of `broker::queue`
//! and of the links; one [`Depths`] a partition.
//!
//! [`enqueue`] puts entries in, [`fetch`] reads the heads of streams, [`moving`] takes entries out, and
//! [`dead`] is about those that could not be published.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fred::types::Value;
use rustc_hash::FxHashMap;

use super::master::Master;
use super::scripts::Scripts;
use super::{RedisBroker, reply};
use crate::broker::queue::bells::Bells;
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::{
    Counted, Depths, Fetched, FetchedEntry, HeldPartition, PRIORITIES, PartitionState,
};
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, Place};
use crate::redis::{Keys, RedisError, Script};
use fanfare_protocol::ids::Topic;

mod dead;
mod enqueue;
mod fetch;
mod moving;

/// So often a script is loaded for one call, should somebody take it away each time.
const LOADS_MAX: usize = 16;

/// What was seen last of a partition.
#[derive(Debug, Default)]
struct SeenPartition {
    /// Its keys, as they are told.
    keys: Option<Box<[Value; 8]>>,
    token: u64,
    depths: Depths,
    /// No entry that a home before may have had in hand stands at the head of a stream any more.
    is_settled: bool,
    /// Why a move stopped there: until the next fetch nothing is moved, or what is behind an entry that
    /// stands still would come before it.
    stopped: Option<String>,
    /// What was told last of one of its keys.
    told: Option<String>,
    /// The last fetch of it failed.
    is_careful: bool,
}

/// What was seen last of each partition.
#[derive(Debug, Default)]
pub(super) struct Seen {
    partitions: Mutex<FxHashMap<u32, SeenPartition>>,
}

impl Seen {
    /// Whether the heads of this partition may be those of homes before.
    fn is_first(&self, held: &HeldPartition) -> bool {
        let seen = self.lock();
        let found = seen.get(&held.partition);
        !found.is_some_and(|seen| seen.token == held.token && seen.is_settled)
    }

    /// A fetch saw this.
    fn fetched(&self, held: &[HeldPartition], fetched: &mut Fetched, ills: Vec<Option<String>>) {
        let mut seen = self.lock();
        for ((held, state), ill) in held.iter().zip(&mut fetched.partitions).zip(ills) {
            let PartitionState::Held(depths) = state else {
                seen.remove(&held.partition);
                continue;
            };
            let one = seen.entry(held.partition).or_default();
            let is_of_before = one.token == held.token;
            for rank in 0..PRIORITIES.len() {
                // Not looked at, for the bytes of others.
                let of_before = one.depths.oldest_ms[rank].filter(|_| is_of_before);
                if depths.due[rank] > 0 && depths.oldest_ms[rank].is_none() {
                    depths.oldest_ms[rank] = of_before;
                }
            }
            let was_settled = one.is_settled && is_of_before;
            one.tell(held.partition, ill);
            (one.token, one.depths, one.stopped) = (held.token, *depths, None);
            one.is_settled = was_settled || is_settled(held.partition, depths, &fetched.entries);
        }
    }

    /// Whether the next fetch of these reads entries one by one: the last may have failed for their
    /// length.
    fn is_careful(&self, held: &[HeldPartition]) -> bool {
        let seen = self.lock();
        let mut seen = held.iter().filter_map(|held| seen.get(&held.partition));
        seen.any(|one| one.is_careful)
    }

    fn be_careful(&self, held: &[HeldPartition], is_careful: bool) {
        let mut seen = self.lock();
        for held in held {
            if is_careful {
                seen.entry(held.partition).or_default().is_careful = true;
            } else if let Some(one) = seen.get_mut(&held.partition) {
                one.is_careful = false;
            }
        }
    }

    /// Why a move stopped in this partition since the last fetch.
    fn stopped(&self, partition: u32) -> Option<String> {
        self.lock().get(&partition)?.stopped.clone()
    }

    /// A move stopped there, which the consumer tells.
    fn stop(&self, partition: u32, why: &str) {
        let mut seen = self.lock();
        let one = seen.entry(partition).or_default();
        one.stopped = Some(why.to_owned());
    }

    /// A move left this; what it did not look at is as the last fetch saw it.
    fn moved(&self, partition: u32, change: impl FnOnce(&mut Depths)) -> Depths {
        let mut seen = self.lock();
        let depths = &mut seen.entry(partition).or_default().depths;
        change(depths);
        *depths
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<u32, SeenPartition>> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl SeenPartition {
    /// Tells what is ill of one of its keys, once.
    fn tell(&mut self, partition: u32, ill: Option<String>) {
        if let Some(reason) = ill.as_ref().filter(|_| ill != self.told) {
            tracing::warn!(
                event = "queue_key_refused",
                partition,
                reason,
                "a key of a partition's queue cannot be used; what needs it waits"
            );
        }
        self.told = ill;
    }
}

/// Whether the head of each stream that has one was seen, and is this home's first.
fn is_settled(partition: u32, depths: &Depths, entries: &[FetchedEntry]) -> bool {
    let begun = |rank: usize| {
        let mut heads = entries.iter().filter(|entry| entry.starts > 0);
        let head = heads.find(|e| e.partition == partition && e.priority == PRIORITIES[rank]);
        head.is_some_and(|head| head.starts == 1)
    };
    (0..PRIORITIES.len()).all(|rank| depths.due[rank] == 0 || begun(rank))
}

impl RedisBroker {
    /// As [`crate::broker::Broker::queue_call_of`].
    #[must_use]
    pub fn queue_call_of(&self, partition: u32) -> Option<CallOf> {
        let master = self.masters.find_partition(partition).ok()?.master;
        Some(call_of(&master, partition))
    }

    /// As [`crate::broker::Broker::is_queue_away`]: the word of the master that has it, not of all.
    #[must_use]
    pub fn is_queue_away(&self, partition: u32) -> bool {
        let placed = self.masters.find_partition(partition);
        placed.map_or(true, |placed| !placed.master.is_up())
    }

    /// As [`crate::broker::Broker::bells`].
    #[must_use]
    pub fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    /// As [`crate::broker::Broker::queue_depths`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn queue_depths(&self, partition: u32) -> Result<Counted, BrokerError> {
        let keys = keys_of(self.keys(), partition);
        let of = Topic::bell(partition);
        let answer = self
            .ask(&of, |scripts| &scripts.queue_depths, &keys, &[])
            .await?;
        match state(answer, depths)? {
            (PartitionState::Held(depths), ill) => Ok(Counted { depths, ill }),
            (other, _) => Err(BrokerError::Unexpected(format!("{other:?}"))),
        }
    }

    /// The keys of partitions, one after the other. Of one that is held they are made once.
    fn keys_of_held(&self, held: &[HeldPartition]) -> Vec<Value> {
        let mut seen = self.queue_seen.lock();
        let mut keys = Vec::with_capacity(8 * held.len());
        for held in held {
            let one = seen.entry(held.partition).or_default();
            let made = one.keys.get_or_insert_with(|| {
                Box::new(keys_of(self.keys(), held.partition).map(Value::from))
            });
            keys.extend_from_slice(&made[..]);
        }
        keys
    }

    /// The master that has the first of these partitions, and where that is.
    fn place_of_partitions(&self, held: &[HeldPartition]) -> Result<Place, BrokerError> {
        let first = held.first().ok_or(Unavailable::Elsewhere)?;
        let master = self.masters.find_partition(first.partition)?.master;
        Ok(place(&master))
    }

    /// The master that has all these partitions, if it is that of this place.
    fn at(&self, there: Place, held: &[HeldPartition]) -> Result<Arc<Master>, BrokerError> {
        let mut found = None;
        for HeldPartition { partition, .. } in held {
            let master = self.masters.find_partition(*partition)?.master;
            if place(&master) != there {
                return Err(Unavailable::Elsewhere.into());
            }
            found = Some(master);
        }
        found.ok_or_else(|| Unavailable::Elsewhere.into())
    }

    /// Runs a script at this place, or not at all: it is looked for each time that the script is sent.
    async fn run_at(
        &self,
        place: Place,
        held: &[HeldPartition],
        script: fn(&Scripts) -> &Script,
        (keys, args): (Vec<Value>, Vec<Value>),
    ) -> Result<Value, BrokerError> {
        let values = script(&self.at(place, held)?.shared.scripts).call_values(keys, args);
        for _ in 0..LOADS_MAX {
            let master = self.at(place, held)?;
            let link = &master.shared.bulk.link;
            match link.submit("EVALSHA", values.clone()).await {
                Err(RedisError::NoScript(_)) => {
                    link.submit_load(script(&master.shared.scripts)).await?;
                }
                answer => return master.heeding(answer.map_err(BrokerError::from)),
            }
        }
        Err(Unavailable::Scripts.into())
    }
}

fn call_of(master: &Master, partition: u32) -> CallOf {
    CallOf {
        feed: master.number,
        alone: master.shared.owned.is_some().then_some(partition),
    }
}

fn place(master: &Master) -> Place {
    Place {
        feed: master.number,
        continuity: master.shared.continuity.number(),
    }
}

/// The keys of a partition as `queue_part.lua` lists them.
fn keys_of(keys: &Keys, partition: u32) -> [String; 8] {
    let [critical, high, normal, low] = PRIORITIES.map(|of| keys.queue(partition, of));
    [
        keys.partition(partition),
        critical,
        high,
        normal,
        low,
        keys.queue_later(partition),
        keys.queue_dead(partition),
        keys.queue_heads(partition),
    ]
}

/// An argument: the text of a value.
fn arg(value: impl std::fmt::Display) -> Value {
    value.to_string().into()
}

/// How a partition stands, as the scripts tell it: what it has in one text, read by `held`, or why it
/// was left alone. With what is ill of one of its keys, where others could be read.
fn state(
    value: Value,
    held: impl FnOnce(&str) -> Option<Depths>,
) -> Result<(PartitionState, Option<String>), BrokerError> {
    let text = match &value {
        Value::Array(parts) => parts.first().and_then(Value::as_bytes),
        value => value.as_bytes(),
    };
    let second = match &value {
        Value::Array(parts) => parts.get(1).map(words),
        _ => None,
    };
    let state = match (text, second) {
        (Some(b"refused"), None) => return Ok((PartitionState::Refused, None)),
        (Some(b"failed"), Some(why)) => return Ok((PartitionState::Failed(why), None)),
        (text, ill) => {
            let text = text.and_then(|text| str::from_utf8(text).ok());
            text.and_then(held).map(|depths| (depths, ill))
        }
    };
    let (depths, ill) = state.ok_or_else(|| reply::unexpected("state", &value))?;
    Ok((PartitionState::Held(depths), ill))
}

/// As `queue_part.lua` writes them.
fn depths(text: &str) -> Option<Depths> {
    let mut words = text.strip_prefix("held ")?.split(' ');
    let mut depths = Depths::default();
    for due in &mut depths.due {
        *due = words.next()?.parse().ok()?;
    }
    depths.later = words.next()?.parse().ok()?;
    depths.dead = words.next()?.parse().ok()?;
    depths.next_due_ms = match words.next()? {
        "-" => None,
        due => Some(due.parse().ok()?),
    };
    for oldest_ms in &mut depths.oldest_ms {
        *oldest_ms = match words.next()? {
            "-" => None,
            id => Some(id.split_once('-')?.0.parse().ok()?),
        };
    }
    words.next().is_none().then_some(depths)
}

/// What Redis said, for people.
fn words(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}
