//! The few words in which the cases of the queue speak to a broker.
//!
//! In: a rig. Out: entries put in, fetched and moved, by as many calls as the engine needs: in a Redis
//! Cluster each partition has one of its own.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare::broker::queue::calls::CallOf;
use fanfare::broker::queue::entry::{self, QueuedMessage};
use fanfare::broker::queue::{
    Content, Depths, ENQUEUE_MAX, End, EnqueueRequest, Enqueued, Fetched, FetchedEntry,
    HeldPartition, Judged, MOVE_MAX, MoveBatch, Moved, PartitionState, Verdict, Why, partition_of,
};
use fanfare::broker::{Broker, BrokerError, Place};
use fanfare::cluster::partition_store::{LeaseAnswer, PartitionStore};
use fanfare::config::{self, Replicas};
use fanfare_protocol::ids::{NodeId, Owner, Position, Priority, Topic};

use crate::rig::{HISTORY, Rig, publication, topic};
use fanfare_testkit::wait::{self, PATIENCE};

/// The partition of a topic.
pub(crate) fn partition(topic: &Topic) -> u32 {
    partition_of(topic, config::load::defaults().redis.partitions)
}

/// Topics of so many partitions, one of each.
pub(crate) fn topics_apart(count: usize) -> Vec<Topic> {
    let mut found = BTreeMap::new();
    for topic in (0..).map(|n| topic(&format!("queue:{n}"))) {
        if found.len() == count {
            break;
        }
        found.entry(partition(&topic)).or_insert(topic);
    }
    found.into_values().collect()
}

/// A JSON value for a topic.
pub(crate) fn queued(topic: &Topic, priority: Priority, json: &str) -> EnqueueRequest {
    let mut publication = publication(json);
    publication.priority = priority;
    EnqueueRequest {
        message: QueuedMessage {
            topic: topic.clone(),
            publication,
            expires_ms: None,
            traceparent: None,
        },
        not_before_ms: None,
        replicas: Replicas::default(),
        idempotency: None,
    }
}

/// `1`, `2`, … for a topic.
pub(crate) fn queued_count(topic: &Topic, priority: Priority, count: u32) -> Vec<EnqueueRequest> {
    let each = |n: u32| queued(topic, priority, &n.to_string());
    (1..=count).map(each).collect()
}

/// What an entry carries.
pub(crate) fn message_of(entry: &FetchedEntry) -> QueuedMessage {
    match &entry.content {
        Content::Blob(blob) => entry::decode(blob).expect("what was enqueued"),
        other => panic!("expected a blob, got {other:?}"),
    }
}

/// The JSON value that an entry carries.
pub(crate) fn json_of(entry: &FetchedEntry) -> String {
    let data = message_of(entry).publication.data;
    let (fanfare_protocol::data::Data::Json(data) | fanfare_protocol::data::Data::MsgPack(data)) =
        data;
    String::from_utf8(data.to_vec()).expect("JSON")
}

/// Bytes that an entry carries.
pub(crate) fn bytes_of(entry: &FetchedEntry) -> usize {
    match &entry.content {
        Content::Blob(blob) => blob.len(),
        other => panic!("expected a blob, got {other:?}"),
    }
}

/// An entry that is to be published as it is.
pub(crate) fn publish(entry: &FetchedEntry) -> Judged {
    let message = message_of(entry);
    let verdict = Verdict::Publish {
        parts: entry::encode_parts(&message),
        message: Box::new(message),
        retention: HISTORY,
        trace: None,
        came_as_fields: false,
    };
    judged(entry, verdict)
}

/// An entry that is to become a dead letter.
pub(crate) fn bury(entry: &FetchedEntry, why: Why, error: &str) -> Judged {
    let Content::Blob(blob) = &entry.content else {
        panic!("expected a blob, got {:?}", entry.content);
    };
    let (error, kept) = (error.to_owned(), Bytes::clone(blob));
    judged(entry, Verdict::Bury { why, error, kept })
}

fn judged(entry: &FetchedEntry, verdict: Verdict) -> Judged {
    Judged {
        partition: entry.partition,
        priority: entry.priority,
        id: entry.id,
        verdict,
    }
}

/// Depths of a partition that is held.
pub(crate) fn depths_of(state: &PartitionState) -> Depths {
    match state {
        PartitionState::Held(depths) => *depths,
        other => panic!("expected a partition that is held, got {other:?}"),
    }
}

/// The only partition of a fetch.
pub(crate) fn only(mut fetched: Vec<Fetched>) -> Fetched {
    assert_eq!(fetched.len(), 1);
    fetched.remove(0)
}

impl Rig {
    /// Holds partitions as their home does.
    pub(crate) async fn hold(&self, partitions: &[u32]) -> Vec<HeldPartition> {
        let mut held = Vec::new();
        for partition in partitions.iter().copied() {
            let token = self.token_of(partition).await;
            held.push(HeldPartition { partition, token });
        }
        held
    }

    async fn token_of(&self, partition: u32) -> u64 {
        let Broker::Redis(broker) = &*self.broker else {
            return 0;
        };
        let store = PartitionStore::new(broker.bulk(), broker.keys().clone());
        let owner = Owner {
            node: NodeId::new("home").expect("a valid name"),
            incarnation: 1,
        };
        wait::until("the lease of a partition", async || {
            let answer = store.lead(&[partition], &owner, 10 * PATIENCE).await;
            match answer.into_iter().next() {
                Some(Ok(LeaseAnswer::Held { token })) => Ok(token),
                other => Err(other),
            }
        })
        .await
    }

    /// Enqueues all of them, in calls as large as they may be.
    pub(crate) async fn enqueue(&self, requests: Vec<EnqueueRequest>) -> Vec<Enqueued> {
        let mut enqueued = Vec::new();
        for some in requests.chunks(ENQUEUE_MAX) {
            enqueued.extend(self.enqueue_some(some.to_vec()).await);
        }
        enqueued
    }

    /// What was surely not done is tried again, as [`Rig::submit`] does.
    async fn enqueue_some(&self, requests: Vec<EnqueueRequest>) -> Vec<Enqueued> {
        let count = requests.len();
        let answers = wait::until("the broker to take them", async || {
            let answers = self.broker.enqueue(requests.clone()).await;
            assert_eq!(answers.len(), count);
            let is_away =
                |answer: &Result<_, _>| matches!(answer, Err(BrokerError::Unavailable(_)));
            match answers.iter().all(is_away) {
                true => Err(answers),
                false => Ok(answers),
            }
        })
        .await;
        let each = answers
            .into_iter()
            .map(|answer| answer.expect("it is taken"));
        each.collect()
    }

    /// Enqueues one.
    pub(crate) async fn enqueue_one(&self, request: EnqueueRequest) -> Enqueued {
        self.enqueue(vec![request]).await.remove(0)
    }

    /// These partitions by the calls that they share.
    fn calls(&self, held: &[HeldPartition]) -> BTreeMap<CallOf, Vec<HeldPartition>> {
        let mut calls = BTreeMap::<CallOf, Vec<HeldPartition>>::new();
        for held in held {
            let call = self.broker.queue_call_of(held.partition);
            let call = call.expect("some master has it");
            calls.entry(call).or_default().push(*held);
        }
        calls
    }

    /// In which of these partitions a glance finds something.
    pub(crate) async fn glance(&self, held: &[HeldPartition]) -> Vec<u32> {
        let mut found = Vec::new();
        for held in self.calls(held).into_values() {
            let is_something = wait::until("the broker to answer", async || {
                self.broker.glance(&held).await
            });
            let each = held.iter().zip(is_something.await);
            found.extend(each.filter(|(_, is)| *is).map(|(held, _)| held.partition));
        }
        found.sort_unstable();
        found
    }

    /// Fetches from these partitions, by as many calls as it takes.
    pub(crate) async fn fetch(&self, held: &[HeldPartition], from: u64) -> Vec<Fetched> {
        let mut all = Vec::new();
        for (call, held) in self.calls(held) {
            let fetched = wait::until("the broker to answer", async || {
                self.broker.fetch(&held, from).await
            });
            let fetched = fetched.await;
            assert_eq!(fetched.place.feed, call.feed);
            assert_eq!(fetched.partitions.len(), held.len());
            all.push(fetched);
        }
        all
    }

    /// Moves entries of one call, all of them with one answer each.
    pub(crate) async fn move_all(
        &self,
        place: Place,
        held: &[HeldPartition],
        entries: Vec<Judged>,
    ) -> Vec<Moved> {
        let mut all = Vec::new();
        for some in entries.chunks(MOVE_MAX) {
            let is_of = |of: &&HeldPartition| some.iter().any(|e| e.partition == of.partition);
            let held: Vec<_> = held.iter().filter(is_of).copied().collect();
            let batch = MoveBatch {
                place,
                held: held.clone(),
                entries: some.to_vec(),
            };
            let moved = self.broker.move_entries(batch).await;
            let moved = moved.expect("the broker is up");
            assert_eq!(moved.ends.len(), some.len());
            assert_eq!(moved.partitions.len(), held.len());
            all.push(moved);
        }
        all
    }

    /// Publishes what a fetch brought; returns the positions.
    pub(crate) async fn publish_all(
        &self,
        held: &[HeldPartition],
        fetched: &Fetched,
    ) -> Vec<Position> {
        let entries = fetched.entries.iter().map(publish).collect();
        let moved = self.move_all(fetched.place, held, entries).await;
        let ends = moved.into_iter().flat_map(|moved| moved.ends);
        let position = |end| match end {
            End::Published(position) => position,
            other => panic!("expected a publication, got {other:?}"),
        };
        ends.map(position).collect()
    }

    /// What waits in a partition, as anybody may ask.
    pub(crate) async fn depths(&self, partition: u32) -> Depths {
        let depths = self.broker.queue_depths(partition).await;
        depths.expect("the broker is up")
    }
}
