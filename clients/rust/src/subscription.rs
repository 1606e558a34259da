//! What a client gets of one topic: messages, what is missing of them, and the end.
//!
//! In: [`Item`]s by the client's task. Out: [`Subscription::next`]. Owner: the user of the crate;
//! dropping it leaves the topic. Bounds: [`ITEMS_MAX`] items wait, or [`ITEMS_BYTES_MAX`]; beyond,
//! the topic is left and joined again where it was as soon as half of them are taken
//! ([`Item::Overflowed`]).

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fanfare_protocol::event::{Message, Presence};
use fanfare_protocol::ids::Position;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};

use crate::error::ConnectionError;

/// Most items that wait for the reader of a subscription.
pub const ITEMS_MAX: usize = 1_000;
/// Most bytes of messages that wait for it, as they had on the wire.
pub const ITEMS_BYTES_MAX: usize = 16 << 20;
/// A topic that was left because its reader is slow is joined again when so many more have room.
pub(crate) const ROOM_TO_RESUME: usize = ITEMS_MAX / 2;

/// Something that a subscription tells.
#[derive(Debug)]
pub enum Item {
    /// A message. Its `data` is read by `message.data.read::<T>()`, or taken raw by `bytes()`.
    Message(Message),
    /// Members came or went; only where the topic was joined with `presence`.
    Presence(Presence),
    /// Something will not come.
    Gap(Gap),
    /// The reader was slower than the topic: [`ITEMS_MAX`] items or [`ITEMS_BYTES_MAX`] waited, so
    /// the topic was left, and joined again behind the last of them. Nothing is missing, unless a
    /// gap follows; one does where the topic keeps no history, and of members where the topic was
    /// joined with `presence`.
    Overflowed {
        /// How often it has happened to this subscription.
        times: u64,
    },
    /// Nothing more comes.
    Ended(Ended),
}

/// What will not come: everything above `from`, up to and including `to`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    /// `presence`: it is one of changes of members. Absent: of messages.
    pub of: Option<String>,
    /// The last position before it.
    pub from: Option<Position>,
    /// The last position in it.
    pub to: Option<Position>,
    /// `slow`, `retention`, `failover` or `lost` by the contract; `lost` also where this client was
    /// away and what came meanwhile is not kept (messages of topics without history, changes of
    /// members); `unreadable` where this client cannot read what a newer server sent.
    pub reason: String,
    /// How many messages, where that was counted.
    pub dropped: Option<u64>,
}

/// Why nothing more comes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Ended {
    /// The server took the subscription away.
    #[error("the server ended the subscription: {code}: {message}")]
    Unsubscribed {
        /// The error code of the contract.
        code: String,
        /// The server's sentence.
        message: String,
    },
    /// The client does not come back: the server said so, or refuses every token.
    #[error("the client has ended, because it may not come back as it is: {0}")]
    SentAway(Arc<ConnectionError>),
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// What the two ends of a subscription share beside its queue.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Set before the queue ends.
    pub(crate) ended: OnceLock<Ended>,
    /// The topic was left, because the queue was full.
    pub(crate) is_held: AtomicBool,
    /// Bytes that wait.
    pub(crate) bytes: AtomicUsize,
    /// Behind the last item that the reader took.
    taken: Mutex<Option<Position>>,
}

/// An item and its bytes.
pub(crate) type Queued = (Item, usize);

impl Shared {
    /// Whether so many more bytes have room. One item has it always.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let waiting = self.bytes.load(Ordering::SeqCst);
        waiting == 0 || waiting + bytes <= ITEMS_BYTES_MAX
    }

    /// Behind the last item that the reader took.
    pub(crate) fn taken(&self) -> Option<Position> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, item: &Item, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        let place = match item {
            Item::Message(message) => message.position,
            Item::Gap(gap) if gap.of.is_none() => gap.to,
            _ => None,
        };
        if place.is_some() {
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = place;
        }
    }
}

/// A joined topic. See the module.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) topic: String,
    pub(crate) queue: mpsc::Receiver<Queued>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) is_over: bool,
    /// As long as there is a subscription, there is a client.
    pub(crate) _client: Box<dyn Any + Send + Sync>,
}

impl Subscription {
    /// Which topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What comes next. The last item is [`Item::Ended`], and after it there is `None`.
    ///
    /// # Cancel safety
    /// Safe: no item is lost.
    pub async fn next(&mut self) -> Option<Item> {
        if let Some((item, bytes)) = self.queue.recv().await {
            self.shared.take(&item, bytes);
            let has_room = self.queue.max_capacity() - self.queue.len() >= ROOM_TO_RESUME;
            if has_room && self.shared.is_held.load(Ordering::SeqCst) {
                self.wake.notify_one();
            }
            return Some(item);
        }
        if std::mem::replace(&mut self.is_over, true) {
            return None;
        }
        let ended = self.shared.ended.get().cloned();
        Some(Item::Ended(ended.unwrap_or(Ended::Closed)))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.close();
        self.wake.notify_one();
    }
}
