//! What arrives on the feed, in which form, and what happens when nobody takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fanfare::broker::{Body, Entry, FEED_EVENTS_MAX, FeedEvent};
use fanfare_protocol::ids::Position;
use futures_util::StreamExt;

use crate::rig::{Peer, Reader, number, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_publishes_arrives_on_another_with_the_same_position() {
    let server = RedisServer::start().await;
    let publisher = Peer::up(server.url()).await;
    let mut listener = Peer::up(server.url()).await;
    let room = topic("room");
    listener.hear(&room).await;
    let mut before = Position::ZERO;
    for n in 1..=3 {
        let published = publisher.publish(&room, n).await.expect("up");
        let FeedEvent::Delivery { topic, entry, .. } = listener.next().await else {
            panic!("expected a delivery");
        };
        assert_eq!((&topic, entry.position), (&room, published.position));
        assert_eq!((entry.prev, number(&entry)), (before, n));
        before = entry.position;
    }
    assert_eq!(publisher.metrics.control.published.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_dispatcher_slows_nobody_and_is_told_one_break() {
    const COUNT: u64 = 20_000;
    let server = RedisServer::start().await;
    let publisher = Peer::up(server.url()).await;
    let mut listener = Peer::up(server.url()).await;
    let room = topic("room");
    listener.hear(&room).await;
    // Nobody reads the listener's feed while all this is published and accepted.
    let is_down = AtomicBool::new(false);
    futures_util::stream::iter(1..=COUNT)
        .map(|n| publisher.publish(&room, n))
        .buffered(500)
        .for_each(|answer| {
            answer.expect("nobody waits for a stalled dispatcher");
            let health = listener.broker.health();
            let is_up = *health.borrow() == fanfare::broker::BrokerHealth::Up;
            is_down.fetch_or(!is_up, Ordering::Relaxed);
            std::future::ready(())
        })
        .await;
    assert!(!is_down.into_inner(), "probes pass beside a full queue");
    let metrics = Arc::clone(&listener.metrics);
    let dropped = &metrics.control.feed_dropped;
    let expected = COUNT - FEED_EVENTS_MAX as u64;
    wait::until_within(PATIENCE, "all to be heard or dropped", async || {
        (dropped.get() >= expected).then_some(())
    })
    .await;

    let mut reader = Reader::new(&room);
    while reader.breaks == 0 {
        assert!(reader.repaired == 0 && reader.read.len() <= FEED_EVENTS_MAX);
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    assert_eq!(reader.read.len() as u64, COUNT);
    assert_eq!(reader.repaired as u64, expected);
    assert_eq!(dropped.get(), expected);
    // The feed goes on as if nothing had been.
    publisher.publish(&room, COUNT + 1).await.expect("up");
    let repaired = reader.repaired;
    while reader.newest() < Some(COUNT + 1) {
        let event = listener.next().await;
        reader.take(&listener, event).await;
    }
    assert_eq!((reader.breaks, reader.repaired), (1, repaired));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_a_newer_release_keeps_its_place() {
    let server = RedisServer::start().await;
    let mut peer = Peer::up(server.url()).await;
    let room = topic("room");
    peer.hear(&room).await;
    let first = peer.publish(&room, 1).await.expect("up").position;
    assert!(matches!(peer.next().await, FeedEvent::Delivery { .. }));
    // What a newer node's script would do: an entry, the last id, the message.
    let newer = Position {
        ms: first.ms + 1_000,
        seq: 7,
    };
    let (id, prev) = (newer.to_string(), first.to_string());
    let key = |suffix: &str| format!("ff:{{160}}{{default:room}}{suffix}");
    let body = "\u{7e}what is this";
    let commands: [&[&str]; 3] = [
        &["XADD", &key(":s"), &id, "p", &prev, "d", body],
        &["SET", &key(":l"), &id],
        &["PUBLISH", &key(""), &format!("{id} {prev} {body}")],
    ];
    for command in commands {
        server.command(command).expect("the server runs");
    }
    let FeedEvent::Delivery { entry, .. } = peer.next().await else {
        panic!("expected a delivery");
    };
    let unreadable = Entry {
        position: newer,
        prev: first,
        body: Body::Unreadable,
    };
    assert_eq!(entry, unreadable);

    let page = fanfare::broker::Page {
        entries_max: 10,
        bytes_max: 1_000,
    };
    let last = peer.publish(&room, 3).await.expect("up").position;
    let since = peer.broker.since(&room, first, crate::rig::HISTORY, page);
    let since = since.await.expect("up");
    assert_eq!((since.gap, since.start, since.last), (None, first, last));
    assert_eq!(since.entries[0], unreadable);
    assert_eq!(number(&since.entries[1]), 3);
    assert_eq!(peer.metrics.control.unreadable_newer.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_topics_stand_again_after_a_cut_and_left_ones_do_not() {
    const COUNT: usize = 2_000;
    let server = RedisServer::start().await;
    let mut peer = Peer::up(server.url()).await;
    let topics: Vec<_> = (0..COUNT).map(|n| topic(&format!("t{n}"))).collect();
    for wished in &topics {
        peer.broker.interest().want(wished.clone());
    }
    let mut confirmed = 0;
    while confirmed < COUNT {
        match peer.next().await {
            FeedEvent::Subscribed(some) => confirmed += some.len(),
            other => panic!("expected confirmations, got {other:?}"),
        }
    }
    peer.broker.interest().unwant(topics[0].clone());
    wait::until_within(PATIENCE, "the topic to leave", async || {
        let line = server.command(&["PUBSUB", "CHANNELS", "ff:{23}{default:t0}"])?;
        (line == "*0").then_some(())
    })
    .await;

    server
        .command(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .expect("the server runs");
    assert!(matches!(peer.next().await, FeedEvent::Break(_)));
    for n in [0, 1, COUNT - 1] {
        peer.publish(&topics[n], 1).await.expect("up");
    }
    for n in [1, COUNT - 1] {
        let FeedEvent::Delivery { topic, .. } = peer.next().await else {
            panic!("expected a delivery");
        };
        assert_eq!(topic, topics[n]);
    }
}
