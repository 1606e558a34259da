//! The calls of the queue, handed to the engine.
//!
//! In: `queue`, which works for the partitions that this node holds, and the API. Out: the answers of
//! whichever engine there is. Owns nothing; bounds are those of [`super`].

use std::sync::Arc;

use super::bells::Bells;
use super::{
    DeadLetter, Depths, EnqueueRequest, Enqueued, Fetched, HeldPartition, MoveBatch, Moved,
};
use crate::broker::{Broker, BrokerError, FeedNumber};
use fanfare_protocol::ids::{Position, Topic};

/// Which partitions may share a call: those for which this is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallOf {
    /// The master that has them.
    pub feed: FeedNumber,
    /// The partition itself, where each needs a call of its own.
    pub alone: Option<u32>,
}

/// Hands a call to the engine.
macro_rules! engine {
    ($self:ident, $broker:ident => $call:expr) => {
        match $self {
            Broker::Memory($broker) => $call,
            Broker::Redis($broker) => $call,
        }
    };
}

impl Broker {
    /// Puts entries into the queue, those of one target in their order. One answer for each, in their
    /// order: where one of a target failed, later ones of that target are not tried.
    pub async fn enqueue(
        &self,
        requests: Vec<EnqueueRequest>,
    ) -> Vec<Result<Enqueued, BrokerError>> {
        engine!(self, broker => broker.enqueue(requests).await)
    }

    /// Which partitions may be fetched together with this one; `None` while no master has it.
    #[must_use]
    pub fn queue_call_of(&self, partition: u32) -> Option<CallOf> {
        engine!(self, broker => broker.queue_call_of(partition))
    }

    /// Lets what is due become so, and reads the heads of the streams of these partitions, which share
    /// a call. Nothing is taken out. `from` is where the turn of streams begins: a place among them.
    ///
    /// # Errors
    /// [`BrokerError`]: nothing is known of any of them.
    pub async fn fetch(&self, held: &[HeldPartition], from: u64) -> Result<Fetched, BrokerError> {
        engine!(self, broker => broker.fetch(held, from).await)
    }

    /// In which of these partitions, which share a call, entries are, due or to come: one answer each;
    /// `None` where that cannot be told, which fetching will explain. Cheaper than a fetch, and says
    /// nothing of leases.
    pub async fn glance(&self, held: &[HeldPartition]) -> Option<Vec<bool>> {
        match self {
            Self::Memory(broker) => Some(broker.glance(held)),
            Self::Redis(broker) => broker.glance(held).await,
        }
    }

    /// Takes entries out of their streams and publishes or buries each, in one step. What is not there
    /// any more is left alone.
    ///
    /// # Errors
    /// [`BrokerError`]; after `Unknown` it may have been done, in part or whole. Whatever it says,
    /// fetching again tells what is left.
    pub async fn move_entries(&self, batch: MoveBatch) -> Result<Moved, BrokerError> {
        engine!(self, broker => broker.move_entries(batch).await)
    }

    /// What waits in a partition, whoever holds it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn queue_depths(&self, partition: u32) -> Result<Depths, BrokerError> {
        engine!(self, broker => broker.queue_depths(partition).await)
    }

    /// Dead letters of a partition after one of them, the oldest first.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn dead_letters(
        &self,
        partition: u32,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, BrokerError> {
        engine!(self, broker => broker.dead_letters(partition, after, limit).await)
    }

    /// Drops dead letters of a partition. Returns how many were there.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn drop_dead(
        &self,
        partition: u32,
        letters: &[Position],
    ) -> Result<u64, BrokerError> {
        engine!(self, broker => broker.drop_dead(partition, letters).await)
    }

    /// Rings when something new may wait in a partition for which [`Self::hear_bell`] was called.
    #[must_use]
    pub fn bells(&self) -> &Arc<Bells> {
        engine!(self, broker => broker.bells())
    }

    /// Hears the bell of this partition, or no more. It rings once when it is heard, and whenever it
    /// may have been missed.
    pub fn hear_bell(&self, partition: u32, is_heard: bool) {
        let Self::Redis(broker) = self else {
            return; // The engine in the process hears every bell.
        };
        let (interest, bell) = (broker.interest(), Topic::bell(partition));
        if is_heard {
            interest.want(bell);
        } else {
            interest.unwant(bell);
        }
    }
}
