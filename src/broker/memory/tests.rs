//! What the in-process broker frees at its end, and forgets before that when there is no room.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::broker::OVERLAP_MS;
use crate::broker::publication::Publication;
use fanfare_protocol::data::Data;
use fanfare_protocol::event::{GapReason, Member};
use fanfare_protocol::ids::{App, NodeId, Owner};

const HOUR_MS: u64 = 3_600_000;

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a valid name")
}

fn request(name: &str, entries_max: u32, key: Option<&str>) -> PublishRequest {
    let publication = Publication::new(Data::Json(Bytes::from_static(b"1")), 0);
    let retention = Retention {
        entries_max,
        age_ms: HOUR_MS,
    };
    PublishRequest {
        idempotency: key.map(|key| (key.to_owned(), 3 * HOUR_MS)),
        ..PublishRequest::new(topic(name), publication, retention)
    }
}

/// The names of the topics that take up memory.
fn kept(broker: &MemoryBroker) -> Vec<String> {
    let mut names: Vec<_> = broker.lock().topics.keys().map(Topic::to_string).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn a_sweep_forgets_a_topic_when_nothing_of_it_is_alive() {
    let now_ms = Arc::new(AtomicU64::new(1_732_190_000_000));
    let (broker, _feed) = MemoryBroker::new(
        Clock::Manual(Arc::clone(&now_ms)),
        Arc::new(Metrics::new(0)),
    );
    let member = Member {
        user: None,
        session: SessionId(1),
        info: None,
    };
    let owner = Owner {
        node: NodeId::new("node-a").expect("a valid name"),
        incarnation: 1,
    };
    for request in [
        request("keyed", 0, Some("k")),
        request("kept", 10, None),
        request("plain", 0, None),
    ] {
        broker.publish(request).await.expect("never fails");
    }
    broker
        .enter(&topic("room"), &member, &owner, 1)
        .await
        .expect("never fails");
    broker.apply(FxHashMap::from_iter([(
        topic("wanted"),
        Some(WishNumber(1)),
    )]));
    let advance_and_sweep = async |by_ms| {
        now_ms.fetch_add(by_ms, Ordering::Relaxed);
        broker.sweep().await;
        kept(&broker)
    };

    let all = ["%room", "kept", "keyed", "plain", "wanted"];
    assert_eq!(advance_and_sweep(HOUR_MS).await, all);
    assert_eq!(
        advance_and_sweep(1).await,
        ["%room", "kept", "keyed", "wanted"]
    );
    assert_eq!(
        advance_and_sweep(HOUR_MS).await,
        ["%room", "keyed", "wanted"]
    );
    assert_eq!(advance_and_sweep(HOUR_MS).await, ["%room", "wanted"]);

    let room = topic("room");
    let left = broker.leave(&room, member.session, &owner, 1);
    left.await.expect("never fails");
    broker.apply(FxHashMap::from_iter([(topic("wanted"), None)]));
    assert_eq!(advance_and_sweep(0).await, ["%room"]);
    assert_eq!(advance_and_sweep(2 * HOUR_MS + 1).await, [""; 0]);
}

/// Publishes without end on topics that only this call knows, until so many were tried.
async fn flood(broker: &MemoryBroker, count: usize, body_bytes: usize, is_one_topic: bool) {
    for n in 0..count {
        let name = if is_one_topic {
            "one".to_owned()
        } else {
            format!("t{n}")
        };
        let key = format!("key-{n}");
        let mut request = request(&name, 1_000_000, Some(&key));
        let data = format!("\"{}\"", "x".repeat(body_bytes));
        request.publication.data = Data::Json(data.into());
        broker.publish(request).await.expect("there is room");
    }
}

const BOUND: usize = 4 << 20;

fn bounded(bytes_max: usize) -> (MemoryBroker, Feed, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new(0));
    let (broker, feed) = MemoryBroker::bounded(Clock::System, bytes_max, Arc::clone(&metrics));
    (broker, feed, metrics)
}

const KEEP: Retention = Retention {
    entries_max: 1_000_000,
    age_ms: HOUR_MS,
};

const PAGE: Page = Page {
    entries_max: 10,
    bytes_max: 1 << 20,
};

#[tokio::test]
async fn topics_keys_and_bytes_without_end_stay_within_the_bound() {
    for (count, body_bytes, is_one_topic) in
        [(20_000, 1, false), (20_000, 1, true), (500, 60_000, true)]
    {
        let (broker, _feed, metrics) = bounded(BOUND);
        flood(&broker, count, body_bytes, is_one_topic).await;
        let state = broker.lock();
        let weights = state
            .topics
            .iter()
            .map(|(topic, state)| state.weight() + topic.name().len());
        assert_eq!(
            state.room.bytes(),
            weights.sum::<usize>(),
            "nothing is counted twice"
        );
        assert!(state.room.bytes() <= BOUND, "{}", state.room.bytes());
        assert!(
            state.room.bytes() > BOUND / 2,
            "no more is forgotten than must be"
        );
        assert_eq!(
            metrics.control.embedded_bytes.get(),
            state.room.bytes() as u64
        );
        let forgotten = &metrics.control;
        assert!(forgotten.forgotten_entries.get() > 0);
        assert!(forgotten.forgotten_keys.get() > 0);
        assert_eq!(forgotten.forgotten_topics.get() > 0, !is_one_topic);
    }
}

#[tokio::test]
async fn what_was_forgotten_is_told_as_retention_and_no_id_comes_twice() {
    let (broker, _feed, _) = bounded(BOUND);
    let first = request("old", 10, None);
    let old = broker.publish(first).await.expect("there is room").position;
    broker.apply(FxHashMap::from_iter([(topic("used"), Some(WishNumber(1)))]));
    let used = broker.publish(request("used", 10, None)).await;
    let used = used.expect("there is room").position;
    flood(&broker, 20_000, 1, false).await;
    assert!(!kept(&broker).contains(&"old".to_owned()));
    // A topic with sessions outlives those without, and so does what it keeps.
    let page = broker
        .since(&topic("used"), Position::ZERO, KEEP, PAGE)
        .await;
    assert_eq!(page.expect("never fails").entries[0].position, used);

    let ask = async || {
        let page = broker.since(&topic("old"), old, KEEP, PAGE).await;
        page.expect("never fails")
    };
    let page = ask().await;
    assert_eq!(page.gap, Some(GapReason::Retention));
    assert!(page.last >= old && page.entries.is_empty());
    let again = broker.publish(request("old", 10, None)).await;
    let again = again.expect("there is room").position;
    assert!(again > page.last);
    let page = ask().await;
    assert_eq!(page.gap, Some(GapReason::Retention));
    assert_eq!(page.entries[0].position, again);
    // Whoever begins now follows on without a gap.
    let joined = broker
        .last(&topic("new"), KEEP, true)
        .await
        .expect("never fails");
    let next = broker
        .publish(request("new", 10, None))
        .await
        .expect("there is room");
    let page = broker
        .since(&topic("new"), joined.expect("the floor"), KEEP, PAGE)
        .await;
    let page = page.expect("never fails");
    assert_eq!((page.gap, page.last), (None, next.position));
}

#[tokio::test]
async fn what_a_failover_took_is_read_again_from_before_it() {
    let begin_ms = 1_732_190_000_000;
    let now_ms = Arc::new(AtomicU64::new(begin_ms));
    let clock = Clock::Manual(Arc::clone(&now_ms));
    let (broker, _feed) = MemoryBroker::new(clock, Arc::new(Metrics::new(0)));
    let mut at = Vec::new();
    for passed_ms in [0, 1, OVERLAP_MS, OVERLAP_MS + 1] {
        now_ms.store(begin_ms + passed_ms, Ordering::Relaxed);
        let published = broker.publish(request("t", 10, None)).await;
        at.push(published.expect("there is room").position);
    }
    let retention = request("t", 10, None).retention;
    for (near, begins) in [(at[2], Position::ZERO), (at[3], at[0])] {
        // Of the same millisecond, and never given.
        let since = Position {
            seq: near.seq + 1,
            ..near
        };
        let page = broker.since(&topic("t"), since, retention, PAGE).await;
        let page = page.expect("never fails");
        assert_eq!(page.gap, Some(GapReason::Failover));
        assert_eq!((page.start, page.last), (begins, at[3]));
    }
}

#[tokio::test]
async fn where_only_topics_in_use_are_left_new_ones_are_refused() {
    let (broker, _feed, metrics) = bounded(1 << 20);
    let wishes = (0..5_000).map(|n| (topic(&format!("w{n}")), Some(WishNumber(n))));
    broker.apply(wishes.collect());
    let health = broker.health();
    assert_eq!(*health.borrow(), BrokerHealth::Up);
    let refused = broker.publish(request("unknown", 10, None)).await;
    assert_eq!(refused, Err(Unavailable::MemoryFull.into()));
    let full = BrokerHealth::Partly(Unavailable::MemoryFull.to_string());
    assert_eq!(*health.borrow(), full);
    assert_eq!(metrics.control.refused_memory.get(), 1);
    // Those in use go on being published to, without history.
    let published = broker
        .publish(request("w1", 10, None))
        .await
        .expect("it is known");
    let page = broker.since(&topic("w1"), Position::ZERO, KEEP, PAGE).await;
    let page = page.expect("never fails");
    assert_eq!(
        (page.gap, page.last),
        (Some(GapReason::Retention), published.position)
    );
    broker.apply(
        (0..5_000)
            .map(|n| (topic(&format!("w{n}")), None))
            .collect(),
    );
    broker
        .publish(request("unknown", 10, None))
        .await
        .expect("there is room again");
    // Somebody was refused a moment ago: that is one episode, however often room comes and goes.
    broker.sweep().await;
    assert_eq!(*health.borrow(), full);
    broker.sweep().await;
    assert_eq!(*health.borrow(), BrokerHealth::Up);
}
