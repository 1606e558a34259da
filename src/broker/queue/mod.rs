//! What the durable queue asks of the broker: to enqueue, to fetch the heads of streams, to move them
//! into their topics, and to keep what cannot be moved.
//!
//! In: entries on their way from backends to topics. Out: one answer for each. Both engines keep, for
//! each partition, a stream for each priority, what is to come later, and dead letters; a move takes an
//! entry out of its stream and publishes it in one step. Who does it, when and for which partitions is
//! decided in `queue`. Bounds: [`ENQUEUE_MAX`], [`FETCH_MAX`], [`FETCH_BYTES_MAX`], [`MOVE_MAX`],
//! [`PARTITIONS_PER_CALL`], [`DEAD_MAX`].

use bytes::Bytes;

use super::Place;
use crate::config::{Replicas, Retention};
use crate::telemetry::trace::context::TraceContext;
use fanfare_protocol::ids::{Position, Priority, Topic};

pub mod bells;
pub mod calls;
pub mod entry;
pub mod once;

use entry::{Parts, QueuedMessage};

/// Entries that one call enqueues.
pub const ENQUEUE_MAX: usize = 100;
/// Entries of one fetch.
pub const FETCH_MAX: usize = 100;
/// Entries of one stream in one fetch.
pub const FETCH_OF_STREAM_MAX: usize = 25;
/// Of these a fetch takes at least so many of each lower priority that has any.
pub const FETCH_SHARE: usize = 4;
/// Bytes of one fetch, at least one entry of each priority apart.
pub const FETCH_BYTES_MAX: usize = 256 * 1024;
/// Entries of one move.
pub const MOVE_MAX: usize = 25;
/// Entries that become due in one fetch, for each partition.
pub const DUE_MAX: usize = 25;
/// Partitions of one call; in a Redis Cluster it is one.
pub const PARTITIONS_PER_CALL: usize = 32;
/// Dead letters that a partition keeps; the oldest makes room.
pub const DEAD_MAX: usize = 256;
/// How long a partition keeps a dead letter: 30 days.
pub const DEAD_LIFE_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// How far ahead of Redis' clock an entry may be due: 30 days.
pub const LATER_MAX_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// So many homes in a row may end with an entry at the head of its stream before it is put aside.
pub const STARTS_MAX: u32 = 3;

/// The priorities in the order in which they are moved.
pub const PRIORITIES: [Priority; 4] = [
    Priority::Critical,
    Priority::High,
    Priority::Normal,
    Priority::Low,
];

/// The place of a priority in [`PRIORITIES`].
#[must_use]
pub fn rank(priority: Priority) -> usize {
    3 - priority as usize
}

/// One entry on its way into the queue: one target.
#[derive(Debug, Clone)]
pub struct EnqueueRequest {
    /// What is to be published, and where.
    pub message: QueuedMessage,
    /// Not before this time of Redis' clock, unix milliseconds; `None`: at once.
    pub not_before_ms: Option<u64>,
    /// Who must have it before it is answered.
    pub replicas: Replicas,
    /// [`once::digest`], and how long it is remembered in milliseconds.
    pub idempotency: Option<(String, u64)>,
}

/// The queue has the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// Its name: `MS-SEQ` of its stream; of one that is to come later its time of acceptance in
    /// microseconds and a random number. It names the entry in answers and logs.
    pub entry: String,
    /// It had been enqueued before under the same idempotency key; this is that entry.
    pub duplicate: bool,
}

/// A partition for which this node may act, and the token that proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldPartition {
    /// Which.
    pub partition: u32,
    /// The token of its lease.
    pub token: u64,
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    /// Where it was fetched: it is moved there or not at all.
    pub place: Place,
    /// Redis' clock, unix milliseconds.
    pub now_ms: u64,
    /// One for each partition that was asked for, in their order.
    pub partitions: Vec<PartitionState>,
    /// The heads of the streams, in the order in which they are to be moved: critical first, of one
    /// stream in its own order.
    pub entries: Vec<FetchedEntry>,
}

/// How a partition stands after a fetch or a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// This node may act for it.
    Held(Depths),
    /// Another node has the lease.
    Refused,
    /// What Redis said of it alone, for people: a key of another type, for example. Nothing of it was
    /// fetched.
    Failed(String),
}

/// What waits in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depths {
    /// Due entries by priority, as [`PRIORITIES`] has them.
    pub due: [u64; 4],
    /// Entries that are to come later.
    pub later: u64,
    /// Dead letters.
    pub dead: u64,
    /// When the next of those that are to come later is due, unix milliseconds.
    pub next_due_ms: Option<u64>,
    /// When the oldest due entry was accepted or became due, by priority.
    pub oldest_ms: [Option<u64>; 4],
}

/// An entry at the head of its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedEntry {
    /// Its partition.
    pub partition: u32,
    /// The stream that it stands in.
    pub priority: Priority,
    /// Its id there.
    pub id: Position,
    /// What it carries.
    pub content: Content,
    /// How many homes have had it at the head of its stream without moving it, this one included;
    /// 0 where it is not at the head.
    pub starts: u32,
}

/// What an entry carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Bytes of [`entry::encode`].
    Blob(Bytes),
    /// Fields that a backend wrote with `XADD`.
    Fields(Vec<(Bytes, Bytes)>),
    /// More fields or bytes than are read: how many of each.
    Oversized {
        /// Fields.
        fields: usize,
        /// Bytes.
        bytes: usize,
    },
}

/// One call that moves entries out of their streams.
#[derive(Debug, Clone)]
pub struct MoveBatch {
    /// Where they were fetched.
    pub place: Place,
    /// The partitions that they are of.
    pub held: Vec<HeldPartition>,
    /// In the order of the fetch; at most [`MOVE_MAX`].
    pub entries: Vec<Judged>,
}

/// An entry and what is to become of it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its partition.
    pub partition: u32,
    /// Its stream.
    pub priority: Priority,
    /// Its id there.
    pub id: Position,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What is to become of an entry.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is published, without an idempotency key, and waits for no replica: what a failover takes it
    /// takes together with the removal, and it is moved again. Should its topic refuse it, it becomes
    /// a dead letter as it is.
    Publish {
        /// What and where.
        message: Box<QueuedMessage>,
        /// The same as bytes.
        parts: Parts,
        /// How much the topic keeps.
        retention: Retention,
        /// By which its trace goes on, where it is traced.
        trace: Option<TraceContext>,
        /// It came as fields (`XADD`), and nobody has decided whether it is traced; about what came by
        /// the API that was done with its request.
        came_as_fields: bool,
    },
    /// It becomes a dead letter.
    Bury {
        /// Why.
        why: Why,
        /// The same for people.
        error: String,
        /// What is kept of it: bytes of [`entry::encode`] or [`entry::encode_fields`].
        kept: Bytes,
    },
}

/// Why an entry became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It cannot be read, or has an impossible field.
    BadEntry,
    /// It stands in the stream of another partition than its target's.
    WrongPartition,
    /// Its data is longer than `session.message_bytes_max`, or it has too many fields.
    TooLarge,
    /// It was not moved before its `expires_at`.
    Expired,
    /// Its topic cannot be written: a key of another type.
    Failed,
    /// The node ended, or panicked, whenever it tried.
    Crashed,
    /// Its app is not known.
    UnknownApp,
}

impl Why {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::BadEntry,
        Self::WrongPartition,
        Self::TooLarge,
        Self::Expired,
        Self::Failed,
        Self::Crashed,
        Self::UnknownApp,
    ];

    /// As answers, metrics and Redis have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadEntry => "bad_entry",
            Self::WrongPartition => "wrong_partition",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::UnknownApp => "unknown_app",
        }
    }

    /// Reads [`Self::as_str`].
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == text)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// One for each entry, in their order.
    pub ends: Vec<End>,
    /// One for each partition, in their order. Streams that no entry was of, and what is to come later,
    /// may be as the last fetch saw them.
    pub partitions: Vec<PartitionState>,
    /// Dead letters that were dropped to make room for newer ones.
    pub dead_dropped: u64,
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was published, and stands there.
    Published(Position),
    /// It is a dead letter now, as its verdict said.
    Buried,
    /// Its topic refused it, and it is a dead letter now.
    Failed,
    /// It was moved before, by a call whose answer did not come, or another home.
    Gone,
    /// Nothing: another node has the partition, or a key of it is of a foreign type, as its state says.
    Refused,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its partition.
    pub partition: u32,
    /// Its id among the dead letters of the partition.
    pub id: Position,
    /// The stream that it stood in.
    pub priority: Priority,
    /// Its id there.
    pub entry: String,
    /// Why.
    pub why: Why,
    /// The same for people.
    pub error: String,
    /// What was kept of it.
    pub kept: Bytes,
}

/// When an entry was accepted, unix milliseconds, as its name ([`Enqueued::entry`]) says; `None`: it is
/// no name of an entry.
#[must_use]
pub fn accepted_ms(name: &str) -> Option<u64> {
    let (begin, end) = name.split_once('-')?;
    // Of one that is to come later it begins with 16 digits, of a stream with 13, for longer than there
    // will be Redis.
    let is_later = begin.len() == 16 && end.len() == 16;
    match is_later {
        true => begin
            .parse::<u64>()
            .ok()
            .map(|accepted_us| accepted_us / 1_000),
        false => name.parse().ok().map(|id: Position| id.ms),
    }
}

/// The target of an entry decides its partition.
#[must_use]
pub fn partition_of(topic: &Topic, partitions_count: u32) -> u32 {
    topic.partition(partitions_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_its_entry_was_accepted() {
        for (name, accepted) in [
            ("1796003610012740-01ba4f00c0ffee99", Some(1_796_003_610_012)),
            ("1796003611510-0", Some(1_796_003_611_510)),
            (
                "1796003611510-18446744073709551615",
                Some(1_796_003_611_510),
            ),
            ("", None),
            ("orders:7", None),
            ("179600361001274x-01ba4f00c0ffee99", None),
        ] {
            assert_eq!(accepted_ms(name), accepted, "{name}");
        }
    }
}
