//! The durable queue of the in-process broker: the same calls, and nothing outlives the process.
//!
//! In: entries from the API, fetches and moves of this node's consumer. Out: the answers of the Redis
//! scripts; what is moved is published as any publication is, so sessions hear it. Owner of the
//! queues, under the broker's lock. A node alone holds every partition, by the token 0 or any other.
//! Bounds: the queues' bytes are a part of `memory.bytes_max`, and at most a half of it: dead letters,
//! idempotency keys and older history make room for entries, and where that does not help an entry is
//! refused. Nothing that waits is forgotten. What is moved out needs no room: it leaves about as much
//! as it takes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::state::State;
use super::{MemoryBroker, SWEEP_TOPICS_MAX};
use crate::broker::queue::bells::{Bells, Ring};
use crate::broker::queue::calls::CallOf;
use crate::broker::queue::entry::QueuedMessage;
use crate::broker::queue::{
    DUE_MAX, DeadLetter, Depths, End, EnqueueRequest, Enqueued, Fetched, HeldPartition, Judged,
    MoveBatch, Moved, PartitionState, Verdict, entry, partition_of,
};
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, FeedNumber, Place, PublishRequest};
use fanfare_protocol::ids::{Position, Topic};

mod heads;
mod once;
mod partition;
pub(super) mod queues;

use queues::{Offer, Queues};

/// The one place there is.
const PLACE: Place = Place {
    feed: FeedNumber(0),
    continuity: 0,
};

/// The calls have the signatures of the Redis engine; here none of them waits.
#[allow(clippy::unused_async)]
impl MemoryBroker {
    /// As [`crate::broker::Broker::enqueue`].
    ///
    /// # Errors
    /// For an entry: [`Unavailable::QueueMemoryFull`], [`Unavailable::QueueMemoryTaken`], or
    /// [`Unavailable::NotTried`].
    pub async fn enqueue(
        &self,
        requests: Vec<EnqueueRequest>,
    ) -> Vec<Result<Enqueued, BrokerError>> {
        let now_ms = self.clock.now_ms();
        let offers: Vec<Offer> = requests.into_iter().map(|one| self.offer(one)).collect();
        let (mut refused, mut rung) = (HashSet::<Topic>::new(), BTreeMap::new());
        let mut why_refused = None;
        let mut answers = Vec::with_capacity(offers.len());
        let mut state = self.lock();
        for offer in offers {
            let topic = offer.topic.clone();
            let enqueued = match refused.contains(&topic) {
                true => Err(Unavailable::NotTried),
                false => state.enqueue(offer, now_ms, &mut rung),
            };
            if let Err(why) = &enqueued {
                why_refused.get_or_insert_with(|| why.clone());
                refused.insert(topic);
            }
            answers.push(enqueued.map_err(BrokerError::from));
        }
        drop(state);
        for (partition, ring) in rung {
            self.bells.ring(partition, ring);
        }
        if let Some(why) = why_refused {
            self.tell_room(Some(why));
        }
        answers
    }

    fn offer(&self, request: EnqueueRequest) -> Offer {
        let message = request.message;
        Offer {
            partition: partition_of(&message.topic, self.partitions_count),
            priority: message.publication.priority,
            blob: entry::encode(&message).into(),
            not_before_ms: request.not_before_ms,
            idempotency: request.idempotency,
            topic: message.topic,
        }
    }

    /// As [`crate::broker::Broker::queue_call_of`]: all of them may share a call.
    #[must_use]
    pub fn queue_call_of(&self, _partition: u32) -> Option<CallOf> {
        Some(CallOf {
            feed: PLACE.feed,
            alone: None,
        })
    }

    /// As [`crate::broker::Broker::fetch`].
    ///
    /// # Errors
    /// None.
    pub async fn fetch(&self, held: &[HeldPartition], from: u64) -> Result<Fetched, BrokerError> {
        let now_ms = self.clock.now_ms();
        let mut state = self.lock();
        let partitions = state.queues(|queues| {
            for of in held {
                queues.change(of.partition, |queue| queue.let_due(now_ms, DUE_MAX));
            }
            states(queues, held, now_ms)
        });
        Ok(Fetched {
            place: PLACE,
            now_ms,
            partitions,
            entries: state.queues.heads(held, from),
        })
    }

    /// As [`crate::broker::Broker::move_entries`].
    ///
    /// # Errors
    /// None.
    pub async fn move_entries(&self, batch: MoveBatch) -> Result<Moved, BrokerError> {
        let now_ms = self.clock.now_ms();
        let mut dead_dropped = 0;
        let mut state = self.lock();
        let entries = batch.entries.into_iter();
        let ends = entries.map(|judged| state.move_entry(judged, now_ms, &mut dead_dropped));
        let ends = ends.collect();
        let partitions = state.queues(|queues| states(queues, &batch.held, now_ms));
        state.make_room();
        Ok(Moved {
            ends,
            partitions,
            dead_dropped,
        })
    }

    /// As [`crate::broker::Broker::queue_depths`].
    ///
    /// # Errors
    /// None.
    pub async fn queue_depths(&self, partition: u32) -> Result<Depths, BrokerError> {
        Ok(self.ask_queue(partition, Queues::depths))
    }

    /// As [`crate::broker::Broker::glance`].
    #[must_use]
    pub fn glance(&self, held: &[HeldPartition]) -> Vec<bool> {
        let depths = held
            .iter()
            .map(|held| self.ask_queue(held.partition, Queues::depths));
        let is_something = |depths: Depths| depths.due.iter().sum::<u64>() + depths.later > 0;
        depths.map(is_something).collect()
    }

    /// As [`crate::broker::Broker::dead_letters`].
    ///
    /// # Errors
    /// None.
    pub async fn dead_letters(
        &self,
        partition: u32,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        Ok(self.ask_queue(partition, |queues, partition, now_ms| {
            queues.change(partition, |queue| queue.dead_letters(after, limit, now_ms))
        }))
    }

    /// As [`crate::broker::Broker::drop_dead`].
    ///
    /// # Errors
    /// None.
    pub async fn drop_dead(
        &self,
        partition: u32,
        letters: &[Position],
    ) -> Result<u64, BrokerError> {
        Ok(self.ask_queue(partition, |queues, partition, now_ms| {
            queues.change(partition, |queue| queue.drop_dead(letters, now_ms))
        }))
    }

    /// As [`crate::broker::Broker::bells`].
    #[must_use]
    pub fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    fn ask_queue<T>(&self, partition: u32, ask: impl FnOnce(&mut Queues, u32, u64) -> T) -> T {
        let now_ms = self.clock.now_ms();
        self.lock().queues(|queues| ask(queues, partition, now_ms))
    }

    /// Tells what of the queue ends with the process.
    pub fn tell_lost(&self) {
        let now_ms = self.clock.now_ms();
        let (waiting_count, dead_count) = self.lock().queues.count(now_ms);
        if waiting_count > 0 || dead_count > 0 {
            tracing::warn!(
                event = "queue_lost",
                waiting_count,
                dead_count,
                "entries that waited in the queue, and dead letters, end with this process: there is no Redis that has them"
            );
        }
    }

    /// Frees what of the queues is over its life, a few keys at a time.
    pub(super) async fn sweep_queues(&self, now_ms: u64) {
        let some = |queues: &mut Queues| queues.sweep_keys(now_ms, SWEEP_TOPICS_MAX);
        while self.lock().queues(some) {
            tokio::task::yield_now().await;
        }
        self.lock().queues(|queues| queues.sweep(now_ms));
    }
}

/// A node alone holds all of them.
fn states(queues: &mut Queues, held: &[HeldPartition], now_ms: u64) -> Vec<PartitionState> {
    let depths = held.iter().map(|of| queues.depths(of.partition, now_ms));
    depths.map(PartitionState::Held).collect()
}

impl State {
    /// Changes the queues and weighs them anew.
    fn queues<T>(&mut self, change: impl FnOnce(&mut Queues) -> T) -> T {
        let before = self.queues.bytes();
        let answer = change(&mut self.queues);
        self.room.weigh(before, self.queues.bytes());
        answer
    }

    /// Puts an entry into its queue, or says why there is no room for it.
    fn enqueue(
        &mut self,
        offer: Offer,
        now_ms: u64,
        rung: &mut BTreeMap<u32, Ring>,
    ) -> Result<Enqueued, Unavailable> {
        if let Some(entry) = self.queues.duplicate_of(&offer, now_ms) {
            return Ok(Enqueued {
                entry: entry.to_owned(),
                duplicate: true,
            });
        }
        if let Err(why) = self.find_room(offer.bytes()) {
            self.has_refused = Some(why.clone());
            return Err(why);
        }
        let partition = offer.partition;
        let (entry, rings) = self.queues(|queues| queues.put(offer, now_ms));
        if let Some(ring) = rings {
            let most = rung.entry(partition).or_default();
            *most = ring.max(*most);
        }
        Ok(Enqueued {
            entry,
            duplicate: false,
        })
    }

    /// Makes room for so much more that is to wait: the queue's own letters and keys, and older
    /// history, go for it.
    fn find_room(&mut self, bytes: usize) -> Result<(), Unavailable> {
        let most = self.room.bytes_max() / 2;
        if self.queues.waiting_bytes() + bytes > most {
            return Err(Unavailable::QueueMemoryFull);
        }
        self.let_go((self.queues.bytes() + bytes).saturating_sub(most));
        self.room.weigh(0, bytes);
        self.make_room();
        if self.room.is_short() {
            self.let_go(self.room.bytes() - self.room.bytes_max());
        }
        let is_short = self.room.is_short();
        self.room.weigh(bytes, 0);
        match is_short {
            true => Err(Unavailable::QueueMemoryTaken),
            false => Ok(()),
        }
    }

    /// Lets so many bytes of letters and keys go, and counts them.
    fn let_go(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let (letters_count, keys_count) = self.queues(|queues| queues.let_go(bytes));
        self.metrics.queue.dead_dropped.add(letters_count);
        self.metrics.control.forgotten_keys.add(keys_count);
    }

    /// Claims an entry and does with it what was decided.
    fn move_entry(&mut self, judged: Judged, now_ms: u64, dead_dropped: &mut u64) -> End {
        let Judged {
            partition,
            priority,
            id,
            verdict,
        } = judged;
        let claimed = self.queues(|queues| {
            let claim = |queue: &mut partition::PartitionQueue| queue.claim(priority, id);
            queues.change(partition, claim)
        });
        let Some(name) = claimed else {
            return End::Gone;
        };
        let (why, error, kept) = match verdict {
            Verdict::Bury { why, error, kept } => (why, error, kept),
            Verdict::Publish {
                message,
                retention,
                trace,
                ..
            } => {
                let QueuedMessage {
                    topic, publication, ..
                } = *message;
                let request = PublishRequest {
                    trace,
                    ..PublishRequest::new(topic.clone(), publication, retention)
                };
                let published = self.change(&topic, now_ms, |state, sender| {
                    MemoryBroker::append_to(state, sender, request, now_ms)
                });
                return End::Published(published.position);
            }
        };
        let letter = DeadLetter {
            partition,
            id: Position::ZERO,
            priority,
            entry: name,
            why,
            error,
            kept,
        };
        *dead_dropped += self.queues(|queues| {
            let bury = |queue: &mut partition::PartitionQueue| queue.bury(letter, now_ms);
            queues.change(partition, bury)
        });
        End::Buried
    }
}

#[cfg(test)]
mod tests;
