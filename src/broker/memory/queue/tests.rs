//! What only the in-process engine shows: its sweep, a clock that steps back, its bells.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::broker::Feed;
use crate::broker::memory::clock::Clock;
use crate::broker::publication::Publication;
use crate::broker::queue::bells::Ring;
use crate::broker::queue::entry::QueuedMessage;
use crate::broker::queue::{Content, DEAD_LIFE_MS, DUE_MAX, Why};
use crate::config::{Replicas, Retention};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Priority};

mod room;

const BEGIN_MS: u64 = 1_732_190_000_000;
const HOUR_MS: u64 = 3_600_000;

const KEEP: Retention = Retention {
    entries_max: 1_000_000,
    age_ms: HOUR_MS,
};

struct Rig {
    broker: MemoryBroker,
    now_ms: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    _feed: Feed,
}

impl Rig {
    fn bounded(bytes_max: usize) -> Self {
        let now_ms = Arc::new(AtomicU64::new(BEGIN_MS));
        let clock = Clock::Manual(Arc::clone(&now_ms));
        let metrics = Arc::new(Metrics::new(0));
        let (broker, feed) = MemoryBroker::bounded(clock, bytes_max, Arc::clone(&metrics));
        Self {
            broker,
            now_ms,
            metrics,
            _feed: feed,
        }
    }

    fn unbounded() -> Self {
        Self::bounded(usize::MAX)
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<Enqueued, BrokerError> {
        self.broker.enqueue(vec![request]).await.remove(0)
    }

    async fn fetch(&self, topic: &Topic) -> Fetched {
        let fetched = self.broker.fetch(&[held(topic)], 0).await;
        fetched.expect("never fails")
    }

    /// Moves what a fetch brings, by these verdicts.
    async fn move_head(&self, topic: &Topic, judge: impl Fn(&Bytes) -> Verdict) -> Moved {
        let fetched = self.fetch(topic).await;
        let entries = fetched.entries.iter().map(|entry| {
            let Content::Blob(blob) = &entry.content else {
                panic!("expected a blob");
            };
            Judged {
                partition: entry.partition,
                priority: entry.priority,
                id: entry.id,
                verdict: judge(blob),
            }
        });
        let batch = MoveBatch {
            place: fetched.place,
            held: vec![held(topic)],
            entries: entries.collect(),
        };
        self.broker.move_entries(batch).await.expect("never fails")
    }

    async fn depths(&self, topic: &Topic) -> Depths {
        let depths = self.broker.queue_depths(topic.partition(256)).await;
        depths.expect("never fails").depths
    }

    /// Which partitions were rung for since the last look, and how.
    fn rung(&self) -> Vec<(u32, Ring)> {
        let heard = self.broker.bells().heard().now_or_never();
        heard.unwrap_or_default().into_iter().collect()
    }

    fn bytes(&self) -> usize {
        let state = self.broker.lock();
        assert!(state.queues.bytes() <= state.room.bytes());
        state.queues.bytes()
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a valid name")
}

fn held(topic: &Topic) -> HeldPartition {
    HeldPartition {
        partition: topic.partition(256),
        token: 0,
    }
}

fn message(topic: &Topic, body_bytes: usize) -> QueuedMessage {
    let data = format!("\"{}\"", "x".repeat(body_bytes));
    QueuedMessage {
        topic: topic.clone(),
        publication: Publication::new(Data::Json(data.into()), 0),
        expires_ms: None,
        traceparent: None,
    }
}

fn request(topic: &Topic, body_bytes: usize) -> EnqueueRequest {
    EnqueueRequest {
        message: message(topic, body_bytes),
        not_before_ms: None,
        replicas: Replicas::default(),
        idempotency: None,
    }
}

fn keyed(topic: &Topic, digest: &str) -> EnqueueRequest {
    EnqueueRequest {
        idempotency: Some((digest.to_owned(), HOUR_MS)),
        ..request(topic, 1)
    }
}

fn later(topic: &Topic, due_ms: u64) -> EnqueueRequest {
    EnqueueRequest {
        not_before_ms: Some(due_ms),
        ..request(topic, 1)
    }
}

fn publish(blob: &Bytes) -> Verdict {
    let (message, parts) = entry::decode_parts(blob).expect("what was enqueued");
    Verdict::Publish {
        message: Box::new(message),
        parts,
        retention: KEEP,
        trace: None,
        came_as_fields: false,
    }
}

fn bury(blob: &Bytes) -> Verdict {
    Verdict::Bury {
        why: Why::Expired,
        error: "late".to_owned(),
        kept: blob.clone(),
    }
}

#[tokio::test]
async fn keys_and_dead_letters_weigh_until_a_sweep_after_their_life() {
    let rig = Rig::unbounded();
    let one = topic("one");
    for n in 0..600 {
        let enqueued = rig.enqueue(keyed(&one, &format!("digest-{n}"))).await;
        assert!(!enqueued.expect("there is room").duplicate);
    }
    let with_entries = rig.bytes();
    let mut ends = Vec::new();
    while rig.depths(&one).await.due[2] > 0 {
        ends.extend(rig.move_head(&one, bury).await.ends);
    }
    assert_eq!(ends, [End::Buried; 600]);
    assert!(rig.bytes() < with_entries);
    let advance_and_sweep = async |by_ms| {
        rig.now_ms.fetch_add(by_ms, Ordering::Relaxed);
        rig.broker.sweep().await;
        rig.bytes()
    };
    let with_keys = advance_and_sweep(HOUR_MS).await;
    let repeated = rig.enqueue(keyed(&one, "digest-7")).await;
    assert!(repeated.expect("there is room").duplicate);
    let dead = advance_and_sweep(1).await;
    assert!(dead < with_keys);
    assert_eq!(advance_and_sweep(DEAD_LIFE_MS - HOUR_MS - 1).await, dead);
    assert_eq!(rig.depths(&one).await.dead, 256);
    // They end by themselves, and not by the sweep.
    rig.now_ms.fetch_add(1, Ordering::Relaxed);
    assert_eq!(rig.depths(&one).await.dead, 0);
    assert_eq!(advance_and_sweep(0).await, 0);
    let again = rig.enqueue(keyed(&one, "digest-7")).await;
    assert!(!again.expect("there is room").duplicate);
}

#[tokio::test]
async fn ids_rise_and_acceptance_keeps_its_order_while_the_clock_steps_back() {
    let rig = Rig::unbounded();
    let one = topic("one");
    let enqueue = async |request| {
        let enqueued = rig.enqueue(request).await;
        enqueued.expect("there is room").entry
    };
    let mut names = vec![enqueue(request(&one, 1)).await];
    rig.now_ms.store(BEGIN_MS - HOUR_MS, Ordering::Relaxed);
    names.push(enqueue(request(&one, 1)).await);
    let due_ms = BEGIN_MS - HOUR_MS;
    for body_bytes in [3, 4] {
        rig.now_ms.fetch_sub(1, Ordering::Relaxed);
        let mut request = later(&one, due_ms);
        request.message = message(&one, body_bytes);
        names.push(enqueue(request).await);
    }
    assert_eq!(rig.fetch(&one).await.entries.len(), 2);
    rig.now_ms.store(due_ms, Ordering::Relaxed);
    let fetched = rig.fetch(&one).await.entries;
    let ids: Vec<_> = fetched.iter().map(|entry| entry.id).collect();
    let expected = [0, 1, 2, 3].map(|seq| Position { ms: BEGIN_MS, seq });
    assert_eq!(ids, expected);
    assert_eq!(names[..2], [ids[0].to_string(), ids[1].to_string()]);
    assert_ne!(names[2], names[3]);
    let lengths = fetched.iter().map(|entry| match &entry.content {
        Content::Blob(blob) => entry::decode(blob).expect("what was enqueued"),
        other => panic!("expected a blob, got {other:?}"),
    });
    let lengths: Vec<_> = lengths.map(|message| message.publication.data).collect();
    assert_eq!(
        lengths[2..],
        [message(&one, 3), message(&one, 4)].map(|m| m.publication.data)
    );
    // An id is not given again after its stream was empty.
    rig.move_head(&one, publish).await;
    enqueue(request(&one, 1)).await;
    let next = Position {
        ms: BEGIN_MS,
        seq: 4,
    };
    assert_eq!(rig.fetch(&one).await.entries[0].id, next);
}

#[tokio::test]
async fn bells_ring_for_an_empty_stream_and_for_what_is_due_first() {
    let rig = Rig::unbounded();
    let one = topic("one");
    let ring = |ring| vec![(one.partition(256), ring)];
    let lower = ring(Ring::Lower);
    let low = || {
        let mut request = request(&one, 1);
        request.message.publication.priority = Priority::Low;
        request
    };
    let critical = |mut request: EnqueueRequest| {
        request.message.publication.priority = Priority::Critical;
        request
    };
    for (request, rings) in [
        (request(&one, 1), &lower),
        (request(&one, 1), &vec![]),
        (low(), &lower),
        (low(), &vec![]),
        (critical(request(&one, 1)), &ring(Ring::Critical)),
        (critical(request(&one, 1)), &vec![]),
        (later(&one, BEGIN_MS + 5), &lower),
        (later(&one, BEGIN_MS + 5), &vec![]),
        (later(&one, BEGIN_MS + 9), &vec![]),
        (critical(later(&one, BEGIN_MS + 4)), &ring(Ring::Critical)),
    ] {
        rig.enqueue(request).await.expect("there is room");
        assert_eq!(&rig.rung(), rings);
    }
    rig.move_head(&one, publish).await;
    assert!(rig.rung().is_empty());
    rig.enqueue(low()).await.expect("there is room");
    assert_eq!(rig.rung(), lower);
    // What became due meanwhile may be of any priority.
    rig.now_ms.fetch_add(5, Ordering::Relaxed);
    rig.enqueue(low()).await.expect("there is room");
    assert_eq!(rig.rung(), ring(Ring::Unsaid));
    // The most urgent of a request counts, whatever stands behind it.
    rig.move_head(&one, publish).await;
    let both = vec![critical(request(&one, 1)), low()];
    rig.broker.enqueue(both).await;
    assert_eq!(rig.rung(), ring(Ring::Critical));
}

#[tokio::test]
async fn a_fetch_lets_so_many_become_due_and_tells_of_the_rest() {
    let rig = Rig::unbounded();
    let one = topic("one");
    for _ in 0..=DUE_MAX {
        let enqueued = rig.enqueue(later(&one, BEGIN_MS + 1)).await;
        enqueued.expect("there is room");
    }
    rig.now_ms.fetch_add(1, Ordering::Relaxed);
    let fetched = rig.fetch(&one).await;
    let PartitionState::Held(depths) = fetched.partitions[0] else {
        panic!("a node alone holds all");
    };
    assert_eq!((depths.due[2], depths.later), (DUE_MAX as u64, 1));
    assert_eq!(depths.next_due_ms, Some(BEGIN_MS + 1));
    // The next one brings the last of them behind the others.
    for left in [1, 0] {
        rig.move_head(&one, publish).await;
        let depths = rig.depths(&one).await;
        assert_eq!((depths.due[2], depths.later), (left, 0));
    }
}

#[tokio::test]
async fn what_may_be_published_now_follows_all_that_became_due_before_it() {
    let rig = Rig::unbounded();
    let one = topic("one");
    let sized = |body_bytes, not_before_ms| EnqueueRequest {
        not_before_ms,
        ..request(&one, body_bytes)
    };
    let count = 2 * DUE_MAX;
    for n in 0..count {
        let enqueued = rig.enqueue(sized(n, Some(BEGIN_MS + 5))).await;
        enqueued.expect("there is room");
    }
    rig.now_ms.fetch_add(10, Ordering::Relaxed);
    for (n, not_before_ms) in [(0, None), (1, Some(BEGIN_MS)), (2, Some(BEGIN_MS + 10))] {
        let enqueued = rig.enqueue(sized(count + n, not_before_ms)).await;
        enqueued.expect("there is room");
    }
    let depths = rig.depths(&one).await;
    assert_eq!((depths.due[2], depths.later), (count as u64 + 3, 0));
    let mut lengths = Vec::new();
    while rig.depths(&one).await.due[2] > 0 {
        let entries = rig.fetch(&one).await.entries;
        lengths.extend(entries.iter().map(|entry| match &entry.content {
            Content::Blob(blob) => entry::decode(blob).expect("what was enqueued"),
            other => panic!("expected a blob, got {other:?}"),
        }));
        rig.move_head(&one, publish).await;
    }
    let lengths = lengths.iter().map(|m| m.publication.data.bytes().len() - 2);
    assert!(lengths.eq(0..count + 3));
}

#[tokio::test]
async fn a_key_outlives_the_wait_of_its_entry() {
    let rig = Rig::unbounded();
    let one = topic("one");
    let due_ms = BEGIN_MS + 7 * 24 * HOUR_MS;
    let delayed = || EnqueueRequest {
        not_before_ms: Some(due_ms),
        ..keyed(&one, "digest")
    };
    let first = rig.enqueue(delayed()).await.expect("there is room");
    for (now_ms, is_known) in [
        (due_ms, true),
        (due_ms + HOUR_MS, true),
        (due_ms + HOUR_MS + 1, false),
    ] {
        rig.now_ms.store(now_ms, Ordering::Relaxed);
        rig.broker.sweep().await;
        let again = rig.enqueue(delayed()).await.expect("there is room");
        assert_eq!(
            (again.entry == first.entry, again.duplicate),
            (is_known, is_known)
        );
    }
}

#[tokio::test]
async fn partitions_are_as_many_as_they_are_told_to_be() {
    let (broker, _feed) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(0)));
    let broker = broker.with_partitions(4);
    let one = (0..).map(|n| topic(&format!("t{n}")));
    let one = one.into_iter().find(|topic| topic.partition(256) > 3);
    let one = one.expect("most of them");
    let answers = broker.enqueue(vec![request(&one, 1)]).await;
    assert!(answers[0].is_ok());
    let depths = broker.queue_depths(one.partition(4)).await;
    assert_eq!(depths.expect("never fails").depths.due, [0, 0, 1, 0]);
}
