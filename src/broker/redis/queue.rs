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
use crate::broker::queue::{Depths, HeldPartition, PRIORITIES, PartitionState};
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

/// What was seen last of each partition.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<FxHashMap<u32, Depths>>);

impl Seen {
    /// A fetch saw this.
    fn fetched(&self, held: &[HeldPartition], states: &[PartitionState]) {
        let mut seen = self.lock();
        for (held, state) in held.iter().zip(states) {
            match state {
                PartitionState::Held(depths) => seen.insert(held.partition, *depths),
                PartitionState::Refused | PartitionState::Failed(_) => seen.remove(&held.partition),
            };
        }
    }

    /// A move left this; what it did not look at is as the last fetch saw it.
    fn moved(&self, partition: u32, change: impl FnOnce(&mut Depths)) -> Depths {
        let mut seen = self.lock();
        let depths = seen.entry(partition).or_default();
        change(depths);
        *depths
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<u32, Depths>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisBroker {
    /// As [`crate::broker::Broker::queue_call_of`].
    #[must_use]
    pub fn queue_call_of(&self, partition: u32) -> Option<CallOf> {
        let master = self.masters.find_partition(partition).ok()?.master;
        Some(call_of(&master, partition))
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
    pub async fn queue_depths(&self, partition: u32) -> Result<Depths, BrokerError> {
        let keys = keys_of(self.keys(), partition);
        let of = Topic::bell(partition);
        let answer = self
            .ask(&of, |scripts| &scripts.queue_depths, &keys, &[])
            .await?;
        match state(answer)? {
            PartitionState::Held(depths) => Ok(depths),
            other => Err(BrokerError::Unexpected(format!("{other:?}"))),
        }
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
        (keys, args): (Vec<String>, Vec<Vec<u8>>),
    ) -> Result<Value, BrokerError> {
        let values = script(&self.at(place, held)?.shared.scripts).call_args(&keys, args);
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

/// The same of several, one after the other.
fn keys_of_all(keys: &Keys, held: &[HeldPartition]) -> Vec<String> {
    let each = held.iter().map(|held| keys_of(keys, held.partition));
    each.flatten().collect()
}

/// How a partition stands, as the scripts tell it.
fn state(value: Value) -> Result<PartitionState, BrokerError> {
    let parts = reply::list(value)?;
    match (parts.first().and_then(Value::as_bytes), &parts[..]) {
        (Some(b"refused"), _) => Ok(PartitionState::Refused),
        (Some(b"failed"), [_, why]) => Ok(PartitionState::Failed(words(why))),
        (
            Some(b"held"),
            [
                _,
                critical,
                high,
                normal,
                low,
                later,
                dead,
                next_due,
                oldest @ ..,
            ],
        ) if oldest.len() == PRIORITIES.len() => {
            let mut depths = Depths {
                later: reply::number(later)?,
                dead: reply::number(dead)?,
                next_due_ms: optional(next_due).map(reply::number).transpose()?,
                ..Depths::default()
            };
            for (rank, length) in [critical, high, normal, low].into_iter().enumerate() {
                depths.due[rank] = reply::number(length)?;
                let id = optional(&oldest[rank]).map(reply::position).transpose()?;
                depths.oldest_ms[rank] = id.map(|id| id.ms);
            }
            Ok(PartitionState::Held(depths))
        }
        _ => Err(reply::unexpected("state", &Value::Array(parts))),
    }
}

/// How several stand.
fn states(value: Value) -> Result<Vec<PartitionState>, BrokerError> {
    reply::list(value)?.into_iter().map(state).collect()
}

/// A part of an answer; none where it is an empty text.
fn optional(value: &Value) -> Option<&Value> {
    (value.as_bytes() != Some(b"")).then_some(value)
}

/// What Redis said, for people.
fn words(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}
