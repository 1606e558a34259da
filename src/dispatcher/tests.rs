//! The whole dispatcher over the in-process broker, with workers whose queues the test reads.
//!
//! In: wishes of workers, publications, and a feed that the test can cut or add to. Out: what the
//! workers' queues carry, in order. Every wait has [`PATIENCE`] as its bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use fanfare_testkit::wait::{self, PATIENCE};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::broker::memory::{MemoryBroker, clock::Clock};
use crate::broker::publication::Publication;
use crate::broker::{FEED_EVENTS_MAX, FeedNumber, PublishRequest};
use crate::config::load::defaults;
use crate::worker::handle::INBOUND_MAX;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Position, Priority};

mod failing_over;
mod holding_back;
mod pacing;
mod queueing;
mod simulation;
mod staying;
mod tracing;

/// A topic with history, as every other one here but those in `bare:`.
const ROOM: &str = "room";

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a valid name")
}

fn config() -> Arc<Config> {
    let mut config = defaults();
    let mut open = config.namespaces["default"].clone();
    open.history_entries_max = 10_000;
    let mut bare = open.clone();
    bare.history_entries_max = 0;
    config.namespaces = BTreeMap::from([("default".to_owned(), open), ("bare".to_owned(), bare)]);
    Arc::new(config)
}

fn publication() -> Publication {
    Publication::new(Data::Json(Bytes::from_static(b"1")), 1)
}

async fn publish(broker: &Broker, config: &Config, topic: &Topic) -> Position {
    let retention = retention(&Apps::of(config), topic);
    let request = PublishRequest::new(topic.clone(), publication(), retention);
    let published = broker.publish(request).await;
    published.expect("the broker is up").position
}

/// The cable between broker and dispatcher: while it is cut, deliveries are thrown away.
#[derive(Debug, Default)]
struct Cable {
    is_cut: AtomicBool,
    lost: AtomicUsize,
}

impl Cable {
    async fn carry(&self, mut from: Feed, to: mpsc::Sender<FeedEvent>) {
        while let Some(event) = from.recv().await {
            let is_delivery = matches!(event, FeedEvent::Delivery { .. });
            if is_delivery && self.is_cut.load(Ordering::SeqCst) {
                self.lost.fetch_add(1, Ordering::SeqCst);
            } else if to.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// See the module.
struct Rig {
    broker: Arc<Broker>,
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    interest: Arc<WorkerInterest>,
    workers: Vec<mpsc::Receiver<Inbound>>,
    /// Into the dispatcher's feed, beside what the broker sends.
    feed: mpsc::Sender<FeedEvent>,
    cable: Arc<Cable>,
    _tasks: JoinSet<()>,
}

impl Rig {
    fn start(workers_count: usize) -> Self {
        let metrics = Arc::new(Metrics::new(workers_count));
        let tracer = Tracer::without_exporter(Arc::clone(&metrics.trace));
        Self::traced_by(tracer, metrics)
    }

    /// With one worker, where others may revoke.
    fn revoking(revocations: Revocations) -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let tracer = Tracer::without_exporter(Arc::clone(&metrics.trace));
        Self::with(tracer, metrics, revocations)
    }

    fn traced_by(tracer: Tracer, metrics: Arc<Metrics>) -> Self {
        Self::with(tracer, metrics, Revocations::default())
    }

    fn with(tracer: Tracer, metrics: Arc<Metrics>, revocations: Revocations) -> Self {
        let workers_count = metrics.workers.len();
        let config = config();
        let (memory, from_broker) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
        let broker = Arc::new(Broker::Memory(memory));
        let mut tasks = JoinSet::new();
        let running = Arc::clone(&broker);
        tasks.spawn(async move {
            if let Broker::Memory(memory) = &*running {
                memory.run().await;
            }
        });
        let (feed, to_dispatcher) = mpsc::channel(FEED_EVENTS_MAX);
        let cable = Arc::new(Cable::default());
        let (carrying, to) = (Arc::clone(&cable), feed.clone());
        tasks.spawn(async move { carrying.carry(from_broker, to).await });
        let interest = Arc::new(WorkerInterest::default());
        let (handles, workers) = (0..workers_count)
            .map(|_| WorkerHandle::new(Arc::default()))
            .unzip();
        let dispatcher = Dispatcher::new(
            Arc::clone(&broker),
            Arc::clone(&config),
            Arc::clone(&metrics),
            Arc::clone(&interest),
            handles,
            Arc::default(),
        )
        .traced_by(Arc::new(tracer))
        .ringing(revocations);
        tasks.spawn(dispatcher.run(to_dispatcher));
        Self {
            broker,
            config,
            metrics,
            interest,
            workers,
            feed,
            cable,
            _tasks: tasks,
        }
    }

    async fn publish(&self, topic: &Topic) -> Position {
        publish(&self.broker, &self.config, topic).await
    }

    async fn publish_count(&self, topic: &Topic, count: usize) -> Vec<Position> {
        let mut positions = Vec::new();
        for _ in 0..count {
            positions.push(self.publish(topic).await);
        }
        positions
    }

    /// Publishes while the cable is cut.
    async fn lose(&self, topic: &Topic, count: usize) -> Vec<Position> {
        let lost_before = self.cable.lost.load(Ordering::SeqCst);
        self.cable.is_cut.store(true, Ordering::SeqCst);
        let positions = self.publish_count(topic, count).await;
        let are_lost = |_: &_| self.cable.lost.load(Ordering::SeqCst) == lost_before + count;
        self.until("the deliveries are lost", are_lost).await;
        self.cable.is_cut.store(false, Ordering::SeqCst);
        positions
    }

    /// What the worker is told next.
    async fn told(&mut self, worker: usize) -> Inbound {
        let told = timeout(PATIENCE, self.workers[worker].recv()).await;
        told.expect("told in time").expect("the dispatcher runs")
    }

    /// Wishes, and waits for the answer.
    async fn join(&mut self, worker: usize, topic: &Topic) -> Position {
        let wished = self.interest.want((worker, topic.clone()));
        match self.told(worker).await {
            Inbound::Joined {
                topic: joined,
                position,
                wish,
            } if joined == *topic && wish == wished => position,
            other => panic!("expected to be joined, got {other:?}"),
        }
    }

    /// The worker wishes no more, and the dispatcher has taken that.
    async fn leave(&mut self, worker: usize, topic: &Topic) {
        self.interest.unwant((worker, topic.clone()));
        // Wishes are taken together or in order: this one's answer comes after the other was taken.
        let other = self::topic("behind-it");
        self.join(worker, &other).await;
        self.interest.unwant((worker, other));
    }

    /// The next is this delivery, made upon that one.
    async fn gets(&mut self, worker: usize, prev: Position, position: Position) {
        match self.told(worker).await {
            Inbound::Deliver(outgoing) => {
                assert_eq!((outgoing.prev, outgoing.position), (prev, position));
            }
            other => panic!("expected {position}, got {other:?}"),
        }
    }

    /// The next are exactly these, each made upon the one before. Returns the last.
    async fn gets_all(
        &mut self,
        worker: usize,
        after: Position,
        positions: &[Position],
    ) -> Position {
        let mut prev = after;
        for position in positions {
            self.gets(worker, prev, *position).await;
            prev = *position;
        }
        prev
    }

    async fn until(&self, what: &str, holds: impl Fn(&Metrics) -> bool) {
        wait::until(what, async || holds(&self.metrics)).await;
    }
}

#[tokio::test]
async fn a_worker_is_told_where_it_joined_and_gets_exactly_what_lies_above() {
    let mut rig = Rig::start(1);
    let room = topic(ROOM);
    let before = rig.publish_count(&room, 3).await;
    let joined = rig.join(0, &room).await;
    assert_eq!(joined, before[2]);
    let after = rig.publish_count(&room, 100).await;
    rig.gets_all(0, joined, &after).await;
    assert_eq!(rig.metrics.control.gaps.get(), 0);
}

#[tokio::test]
async fn an_empty_topic_is_joined_at_its_beginning() {
    let mut rig = Rig::start(1);
    let room = topic(ROOM);
    assert_eq!(rig.join(0, &room).await, Position::ZERO);
    let first = rig.publish(&room).await;
    rig.gets(0, Position::ZERO, first).await;
}

#[tokio::test]
async fn a_join_amid_publications_misses_and_doubles_nothing() {
    let mut rig = Rig::start(1);
    let room = topic(ROOM);
    rig.interest.want((0, room.clone()));
    let mut all = Vec::new();
    for _ in 0..200 {
        all.push(rig.publish(&room).await);
        tokio::task::yield_now().await;
    }
    let Inbound::Joined { position, .. } = rig.told(0).await else {
        panic!("the first word is the answer to the join");
    };
    let above = all.partition_point(|p| *p <= position);
    rig.gets_all(0, position, &all[above..]).await;
}

#[tokio::test]
async fn a_second_worker_joins_where_the_topic_stands_by_then() {
    let mut rig = Rig::start(2);
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    let first = rig.publish_count(&room, 3).await;
    let stands = rig.gets_all(0, start, &first).await;
    assert_eq!(rig.join(1, &room).await, stands);
    let second = rig.publish_count(&room, 3).await;
    rig.gets_all(0, stands, &second).await;
    rig.gets_all(1, stands, &second).await;
}

#[tokio::test]
async fn a_worker_that_left_gets_nothing_while_another_stays() {
    let mut rig = Rig::start(2);
    let room = topic(ROOM);
    rig.join(0, &room).await;
    let start = rig.join(1, &room).await;
    rig.leave(0, &room).await;
    let position = rig.publish(&room).await;
    rig.gets(1, start, position).await;
    assert!(rig.workers[0].try_recv().is_err());
}

#[tokio::test]
async fn a_topic_that_the_last_worker_left_is_forgotten_and_can_be_joined_anew() {
    let mut rig = Rig::start(2);
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    let first = rig.publish(&room).await;
    rig.gets(0, start, first).await;
    rig.leave(0, &room).await;
    rig.until("no topic is left", |m| m.control.topics.get() == 0)
        .await;

    let missed = rig.publish_count(&room, 2).await;
    // Whatever the feed had of it would come before this answer.
    let other = topic("other");
    rig.join(0, &other).await;
    assert!(rig.workers.iter_mut().all(|w| w.try_recv().is_err()));

    assert_eq!(rig.join(1, &room).await, missed[1]);
    let next = rig.publish(&room).await;
    rig.gets(1, missed[1], next).await;
    assert!(rig.workers[0].try_recv().is_err());
}

#[tokio::test]
async fn whoever_leaves_and_comes_right_back_is_joined_and_misses_nothing() {
    let mut rig = Rig::start(1);
    let room = topic(ROOM);
    rig.join(0, &room).await;
    for _ in 0..50 {
        rig.interest.unwant((0, room.clone()));
        tokio::task::yield_now().await;
        let position = rig.join(0, &room).await;
        let next = rig.publish(&room).await;
        rig.gets(0, position, next).await;
    }
    assert_eq!(rig.metrics.control.gaps.get(), 0);
}

#[tokio::test]
async fn a_worker_with_a_full_queue_is_told_the_newest_while_another_gets_everything() {
    let mut rig = Rig::start(2);
    let room = topic(ROOM);
    rig.join(0, &room).await;
    let mut stands = rig.join(1, &room).await;
    let start = stands;
    let over = 10;
    let mut all = Vec::new();
    for _ in 0..INBOUND_MAX + over {
        all.push(rig.publish(&room).await);
        rig.gets(1, stands, all[all.len() - 1]).await;
        stands = all[all.len() - 1];
    }
    rig.until("one topic is owed", |m| m.control.owed.get() == 1)
        .await;
    rig.gets_all(0, start, &all[..INBOUND_MAX]).await;
    match rig.told(0).await {
        Inbound::Behind {
            topic,
            newest,
            dropped,
            urgency,
            void_above: None,
        } => assert_eq!(
            (topic, newest, dropped, urgency),
            (room.clone(), stands, over as u64, Priority::Normal)
        ),
        other => panic!("expected to be told that it is behind, got {other:?}"),
    }
    rig.until("nothing is owed", |m| m.control.owed.get() == 0)
        .await;
    let next = rig.publish(&room).await;
    rig.gets(0, stands, next).await;
    rig.gets(1, stands, next).await;
}

#[tokio::test]
async fn what_is_owed_is_not_left_to_the_tick_of_an_idle_dispatcher() {
    let mut rig = Rig::start(1);
    let count: u64 = 16;
    let rooms: Vec<_> = (0..count).map(|n| topic(&format!("room{n}"))).collect();
    for room in &rooms {
        rig.join(0, room).await;
    }
    rig.publish_count(&rooms[0], INBOUND_MAX).await;
    for room in &rooms {
        rig.publish(room).await;
    }
    rig.until("all are owed", |m| m.control.owed.get() == count)
        .await;
    let all_paid = async {
        for left in (0..count).rev() {
            // Room for one, and nothing but time that tells the dispatcher.
            rig.told(0).await;
            rig.until("one is paid", |m| m.control.owed.get() == left)
                .await;
        }
    };
    // Sixteen short ticks, or as many long ones.
    let paid = timeout(10 * IDLE_TICK, all_paid).await;
    paid.expect("each was paid at a short tick");
}

#[tokio::test]
async fn what_a_broken_feed_lost_is_delivered_after_the_break_and_nothing_twice() {
    let mut rig = Rig::start(2);
    let (room, quiet) = (topic(ROOM), topic("quiet"));
    let start = rig.join(0, &room).await;
    rig.join(1, &quiet).await;
    let first = rig.publish_count(&room, 5).await;
    let stands = rig.gets_all(0, start, &first).await;

    let lost = rig.lose(&room, 600).await;
    rig.feed
        .send(FeedEvent::Break(FeedNumber::default()))
        .await
        .expect("it runs");
    let stands = rig.gets_all(0, stands, &lost).await;
    let next = rig.publish(&room).await;
    rig.gets(0, stands, next).await;

    let control = &rig.metrics.control;
    assert_eq!(control.feed_breaks.get(), 1);
    assert!(control.repaired.get() > 0);
    assert_eq!(control.gaps.get(), 0);
    assert!(rig.workers[1].try_recv().is_err());
}

#[tokio::test]
async fn a_break_checks_every_topic_and_does_not_leave_that_to_the_sweep() {
    let mut rig = Rig::start(1);
    // The sweep takes a minute for so many; the test's patience is a third of that.
    let rooms: Vec<_> = (0..120).map(|n| topic(&format!("room-{n}"))).collect();
    for room in &rooms {
        rig.join(0, room).await;
    }
    let mut missing = BTreeSet::new();
    for room in &rooms {
        missing.extend(rig.lose(room, 1).await);
    }
    rig.feed
        .send(FeedEvent::Break(FeedNumber::default()))
        .await
        .expect("it runs");
    let all = async {
        while !missing.is_empty() {
            match rig.told(0).await {
                Inbound::Deliver(outgoing) => assert!(missing.remove(&outgoing.position)),
                other => panic!("expected what was lost, got {other:?}"),
            }
        }
    };
    timeout(PATIENCE, all).await.expect("repaired by the break");
}

#[tokio::test]
async fn a_hole_without_a_break_is_repaired_by_the_next_delivery() {
    let mut rig = Rig::start(1);
    let room = topic(ROOM);
    let start = rig.join(0, &room).await;
    let mut expected = rig.lose(&room, 3).await;
    expected.push(rig.publish(&room).await);
    let stands = rig.gets_all(0, start, &expected).await;
    let next = rig.publish(&room).await;
    rig.gets(0, stands, next).await;
}

#[tokio::test]
async fn without_history_what_the_feed_lost_is_told_as_a_gap() {
    let mut rig = Rig::start(1);
    let bare = topic("bare:room");
    let start = rig.join(0, &bare).await;
    let lost = rig.lose(&bare, 3).await;
    rig.feed
        .send(FeedEvent::Break(FeedNumber::default()))
        .await
        .expect("it runs");
    // The sweep may come between and tell a part of it first.
    let mut stands = start;
    while stands < lost[2] {
        match rig.told(0).await {
            Inbound::Gap { from, to, .. } if from == stands => stands = to,
            other => panic!("expected a gap after {stands}, got {other:?}"),
        }
    }
    assert_eq!(stands, lost[2]);
    let next = rig.publish(&bare).await;
    rig.gets(0, lost[2], next).await;
}
