//! The queues of all partitions of the in-process broker, and what they weigh together.
//!
//! In: entries and changes of one partition at a time, under the broker's lock. Out: the answers of the
//! change. Owner of the order of acceptance of what is to come later. Bounds: as many partitions as
//! there are; their memory is counted here and bounded by whoever puts something in ([`super`]). Dead
//! letters and idempotency keys make room for entries; what waits makes room for nothing.

use std::collections::HashMap;

use bytes::Bytes;

use super::heads::heads;
use super::once::Once;
use super::partition::{LaterName, PartitionQueue, queued_bytes};
use crate::broker::queue::bells::Ring;
use crate::broker::queue::{Depths, FetchedEntry, HeldPartition};
use fanfare_protocol::ids::{Priority, Topic};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker::memory) struct Queues {
    partitions: HashMap<u32, PartitionQueue>,
    /// What waits in [`Self::partitions`] weighs so much, and their dead letters.
    waiting_bytes: usize,
    dead_bytes: usize,
    once: Once,
    /// When the last of those that are to come later was accepted, in microseconds; always rising.
    accepted_us: u64,
}

/// An entry on its way into its queue.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    pub(super) priority: Priority,
    pub(super) blob: Bytes,
    pub(super) not_before_ms: Option<u64>,
    pub(super) idempotency: Option<(String, u64)>,
}

impl Offer {
    /// About how much memory it will take up.
    pub(super) fn bytes(&self) -> usize {
        let key = self.idempotency.as_ref().map_or(0, |_| Once::KEY_BYTES);
        queued_bytes(&self.blob) + key
    }
}

impl Queues {
    /// About how much memory they take up.
    pub(in crate::broker::memory) fn bytes(&self) -> usize {
        self.waiting_bytes + self.dead_bytes + self.once.bytes()
    }

    /// About how much memory what waits takes up.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// How many entries wait, and how many dead letters there are.
    pub(super) fn count(&mut self, now_ms: u64) -> (usize, u64) {
        let queues = self.partitions.values_mut();
        let counts = queues.map(|queue| (queue.waiting_count(), queue.depths(now_ms).dead));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Frees so many bytes, as far as there is anything that can go: dead letters, the oldest first,
    /// then idempotency keys, those that end first. Returns how many of each went.
    pub(super) fn let_go(&mut self, bytes: usize) -> (u64, u64) {
        let bytes_max = self.bytes().saturating_sub(bytes);
        let (mut letters_count, mut keys_count) = (0, 0);
        while self.bytes() > bytes_max && self.dead_bytes > 0 {
            let oldest = |(partition, queue): (&u32, &PartitionQueue)| {
                queue.oldest_dead().map(|id| (id, *partition))
            };
            let Some((_, partition)) = self.partitions.iter().filter_map(oldest).min() else {
                break;
            };
            self.change(partition, PartitionQueue::drop_oldest_dead);
            letters_count += 1;
        }
        while self.bytes() > bytes_max && self.once.forget_first() {
            keys_count += 1;
        }
        (letters_count, keys_count)
    }

    /// The entry that its idempotency key was given before.
    pub(super) fn duplicate_of(&self, offer: &Offer, now_ms: u64) -> Option<&str> {
        let (digest, _) = offer.idempotency.as_ref()?;
        self.once.get(digest, now_ms)
    }

    /// Puts an entry into its queue. Returns its name, and how its partition's bell rings.
    pub(super) fn put(&mut self, offer: Offer, now_ms: u64) -> (String, Option<Ring>) {
        self.partitions.entry(offer.partition).or_default();
        let Offer { priority, blob, .. } = offer;
        let later_ms = offer.not_before_ms.filter(|due_ms| *due_ms > now_ms);
        let (entry, rings) = match later_ms {
            None => {
                let put = |queue: &mut PartitionQueue| queue.put(priority, blob, now_ms);
                let (id, rings) = self.change(offer.partition, put);
                (id.to_string(), rings)
            }
            Some(due_ms) => {
                let accepted_us = now_ms.saturating_mul(1_000).max(self.accepted_us + 1);
                self.accepted_us = accepted_us;
                let name = LaterName {
                    accepted_us,
                    random: rand::random(),
                };
                let put =
                    |queue: &mut PartitionQueue| queue.put_later(due_ms, name, priority, blob);
                let is_first = self.change(offer.partition, put);
                let rings = is_first.then(|| Ring::of(priority));
                (name.to_string(), rings)
            }
        };
        if let Some((digest, life_ms)) = offer.idempotency {
            // It outlives the wait: whoever repeats it must not find it gone before its entry came.
            let wait_ms = later_ms.map_or(0, |due_ms| due_ms - now_ms);
            let life_ms = life_ms.saturating_add(wait_ms);
            self.once.remember(digest, entry.clone(), now_ms, life_ms);
        }
        (entry, rings)
    }

    /// Changes or asks the queue of a partition; one into which nothing was ever put is empty.
    pub(super) fn change<T: Default>(
        &mut self,
        partition: u32,
        change: impl FnOnce(&mut PartitionQueue) -> T,
    ) -> T {
        let Some(queue) = self.partitions.get_mut(&partition) else {
            return T::default();
        };
        let (waiting, dead) = (queue.waiting_bytes(), queue.dead_bytes());
        let answer = change(queue);
        self.waiting_bytes = self.waiting_bytes - waiting + queue.waiting_bytes();
        self.dead_bytes = self.dead_bytes - dead + queue.dead_bytes();
        answer
    }

    /// What waits in a partition.
    pub(super) fn depths(&mut self, partition: u32, now_ms: u64) -> Depths {
        self.change(partition, |queue| queue.depths(now_ms))
    }

    /// The heads of the streams of these partitions.
    pub(super) fn heads(&self, held: &[HeldPartition], from: u64) -> Vec<FetchedEntry> {
        let known = held.iter().filter_map(|held| {
            let queue = self.partitions.get(&held.partition)?;
            Some((held.partition, queue))
        });
        heads(&known.collect::<Vec<_>>(), from)
    }

    /// Frees idempotency keys that have ended, so many at most; returns whether there may be more.
    pub(super) fn sweep_keys(&mut self, now_ms: u64, count_max: usize) -> bool {
        self.once.sweep(now_ms, count_max)
    }

    /// Frees what else is over its life.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let partitions: Vec<u32> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.change(partition, |queue| queue.sweep(now_ms));
        }
    }
}
