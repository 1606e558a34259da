//! A queue over one Redis as the consumer of a node uses it: partitions are held by tokens that the test
//! gives, and every entry that can be read is published.
//!
//! In: a broker, where Redis is. Out: requests, batches and drained queues with everything but the point
//! of a case filled in.

use fanfare::broker::BrokerError;
use fanfare::broker::publication::Publication;
use fanfare::broker::queue::entry::{self, QueuedMessage};
use fanfare::broker::queue::{
    Content, Depths, End, EnqueueRequest, Enqueued, Fetched, FetchedEntry, HeldPartition, Judged,
    MoveBatch, Moved, PRIORITIES, PartitionState, Verdict, Why,
};
use fanfare::config::Replicas;
use fanfare::redis::Keys;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{Priority, Topic};

use crate::rig::{HISTORY, Peer, topic};

/// The token by which tests hold partitions where it is no matter.
pub(crate) const TOKEN: u64 = 7;

/// The keys of a node with usual settings.
pub(crate) fn keys() -> Keys {
    Keys::new("ff", 256)
}

/// The partition of a topic.
pub(crate) fn partition_of(topic: &Topic) -> u32 {
    keys().partition_of(topic)
}

/// A number for a target.
pub(crate) fn message(target: &Topic, n: u64, priority: Priority) -> QueuedMessage {
    let data = Data::Json(n.to_string().into());
    let mut publication = Publication::new(data, 1_700_000_000_000);
    publication.priority = priority;
    QueuedMessage {
        topic: target.clone(),
        publication,
        expires_ms: None,
        traceparent: None,
    }
}

/// The same on its way into the queue.
pub(crate) fn request(target: &Topic, n: u64, priority: Priority) -> EnqueueRequest {
    EnqueueRequest {
        message: message(target, n, priority),
        not_before_ms: None,
        replicas: Replicas::default(),
        idempotency: None,
    }
}

/// Numbers for a target, of the usual priority.
pub(crate) fn numbers(target: &Topic, numbers: std::ops::Range<u64>) -> Vec<EnqueueRequest> {
    let each = numbers.map(|n| request(target, n, Priority::Normal));
    each.collect()
}

/// Topics of which each has a partition of its own.
pub(crate) fn topics_apart(count: usize) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for n in 0.. {
        let next = topic(&format!("apart-{n}"));
        let is_new = |other: &Topic| partition_of(other) != partition_of(&next);
        if topics.iter().all(is_new) {
            topics.push(next);
        }
        if topics.len() == count {
            break;
        }
    }
    topics
}

/// What SET is told for this token to hold the partition.
pub(crate) fn lease(partition: u32, token: u64) -> [String; 3] {
    let lease = format!("one~1 {token} 9999999999999");
    ["SET".to_owned(), keys().partition(partition), lease]
}

/// These partitions by that token.
pub(crate) fn held(partitions: &[u32], token: u64) -> Vec<HeldPartition> {
    let one = |partition: &u32| HeldPartition {
        partition: *partition,
        token,
    };
    partitions.iter().map(one).collect()
}

/// The verdict of a node without any limits.
pub(crate) fn judge(fetched: &FetchedEntry) -> Judged {
    let read = match &fetched.content {
        Content::Blob(blob) => entry::decode(blob).map_err(|error| error.to_string()),
        Content::Fields(fields) => {
            entry::of_fields(fields, fetched.id, fetched.priority, |_| false)
        }
        Content::Oversized { fields, .. } => Err(format!("{fields} fields")),
    };
    let verdict = match read {
        Ok(message) => Verdict::Publish {
            parts: entry::encode_parts(&message),
            message: Box::new(message),
            retention: HISTORY,
            trace: None,
            came_as_fields: false,
        },
        Err(error) => Verdict::Bury {
            why: Why::BadEntry,
            error,
            kept: entry::encode_fields(&[]).into(),
        },
    };
    Judged {
        partition: fetched.partition,
        priority: fetched.priority,
        id: fetched.id,
        verdict,
    }
}

/// All that was fetched, to be moved.
pub(crate) fn batch(fetched: &Fetched, held: &[HeldPartition]) -> MoveBatch {
    MoveBatch {
        place: fetched.place,
        held: held.to_vec(),
        entries: fetched.entries.iter().map(judge).collect(),
    }
}

/// How a partition stands that is held.
pub(crate) fn depths(state: &PartitionState) -> Depths {
    match state {
        PartitionState::Held(depths) => *depths,
        other => panic!("expected a partition that is held, got {other:?}"),
    }
}

/// The only number of due entries of a partition, by priority.
pub(crate) fn due(state: &PartitionState, priority: Priority) -> u64 {
    let rank = PRIORITIES.iter().position(|of| *of == priority);
    depths(state).due[rank.expect("a priority")]
}

impl Peer {
    /// Enqueues what is taken as a whole.
    pub(crate) async fn enqueued(&self, requests: Vec<EnqueueRequest>) -> Vec<Enqueued> {
        let answers = self.broker.enqueue(requests).await;
        answers
            .into_iter()
            .map(|answer| answer.expect("Redis takes it"))
            .collect()
    }

    /// One fetch, and one move of what it brought.
    pub(crate) async fn turn(
        &self,
        held: &[HeldPartition],
        from: u64,
    ) -> Result<(Fetched, Moved), BrokerError> {
        let fetched = self.broker.fetch(held, from).await?;
        let moved = self.broker.move_entries(batch(&fetched, held)).await?;
        Ok((fetched, moved))
    }

    /// Turns until nothing is left; what became of all entries.
    pub(crate) async fn drained(&self, held: &[HeldPartition]) -> Vec<End> {
        let mut ends = Vec::new();
        for from in 0.. {
            let (fetched, moved) = self.turn(held, from).await.expect("Redis is there");
            if fetched.entries.is_empty() {
                break;
            }
            ends.extend(moved.ends);
        }
        ends
    }

    /// The numbers that a topic retains.
    pub(crate) async fn retained_numbers(&self, topic: &Topic) -> Vec<u64> {
        let retained = self.retained(topic).await;
        retained.into_iter().map(|(_, n)| n).collect()
    }
}
