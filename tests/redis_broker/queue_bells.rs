//! The doorbell of a partition: it rings when a stream that was empty has an entry, and whenever a ring
//! may have been missed.

use std::collections::BTreeMap;
use std::time::Duration;

use fanfare::broker::Broker;
use fanfare::broker::queue::bells::Ring;
use fanfare_protocol::ids::{Priority, Topic};
use tokio::time::timeout;

use crate::queue::{hold, holding};
use crate::queue_rig::{TOKEN, numbers, partition_of, request};
use crate::rig::{Peer, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::PATIENCE;

/// What rings next.
async fn heard(peer: &Peer) -> BTreeMap<u32, Ring> {
    let heard = timeout(PATIENCE, peer.broker.bells().heard()).await;
    heard.expect("a bell rings in time")
}

async fn is_silent(peer: &Peer) {
    let heard = timeout(Duration::from_millis(300), peer.broker.bells().heard()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bell_rings_for_what_comes_into_an_empty_stream_and_after_each_break() {
    let (server, mut peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    let rung = |ring| BTreeMap::from([(partition, ring)]);
    let (unsaid, lower) = (rung(Ring::Unsaid), rung(Ring::Lower));
    peer.broker.interest().want(Topic::bell(partition));
    assert_eq!(heard(&peer).await, unsaid, "once when it is heard");
    is_silent(&peer).await;
    peer.enqueued(numbers(&room, 1..3)).await;
    assert_eq!(heard(&peer).await, lower);
    peer.enqueued(numbers(&room, 3..4)).await;
    is_silent(&peer).await;
    peer.enqueued(vec![request(&room, 4, Priority::Low)]).await;
    assert_eq!(heard(&peer).await, lower, "another stream");
    let seconds = server.ask(&["TIME"]).expect("up")[0]
        .parse::<u64>()
        .expect("seconds");
    let later = |ms| {
        let mut request = request(&room, 5, Priority::Low);
        request.not_before_ms = Some(seconds * 1_000 + ms);
        vec![request]
    };
    peer.enqueued(later(60_000)).await;
    assert_eq!(
        heard(&peer).await,
        lower,
        "the first of those that come later"
    );
    peer.enqueued(later(90_000)).await;
    is_silent(&peer).await;
    peer.enqueued(later(30_000)).await;
    assert_eq!(heard(&peer).await, lower, "it comes before the others");
    peer.drained(&held).await;
    let cut = server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(cut.as_deref(), Some(":1"));
    assert_eq!(heard(&peer).await, unsaid, "it may have been missed");
    peer.enqueued(numbers(&room, 6..7)).await;
    assert_eq!(heard(&peer).await, lower);

    // The message of a ring is the most urgent priority that it is for. What says nothing, as nodes of
    // before do and backends may, may be for anything.
    let critical = request(&room, 7, Priority::Critical);
    let low = request(&room, 8, Priority::Low);
    peer.enqueued(vec![low, critical]).await;
    assert_eq!(heard(&peer).await, rung(Ring::Critical));
    let channel = format!("ff:{{{partition}}}:bell");
    for (message, ring) in [
        ("", Ring::Unsaid),
        ("high", Ring::Lower),
        ("critical", Ring::Critical),
    ] {
        let heard_by = server.ask(&["PUBLISH", &channel, message]);
        assert_eq!(heard_by, Some(vec!["1".to_owned()]), "{message}");
        assert_eq!(heard(&peer).await, rung(ring), "{message}");
    }

    // Nobody is told of bells as of topics.
    peer.hear(&topic("other")).await;
    assert!(peer.feed.try_recv().is_err());
    peer.broker.interest().unwant(Topic::bell(partition));
    peer.broker.interest().want(Topic::bell(partition));
    assert_eq!(heard(&peer).await, unsaid, "it is heard anew");
    peer.hear(&topic("another")).await;
    assert!(peer.feed.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bells_of_a_database_are_heard_there_alone() {
    let server = RedisServer::start().await;
    let [first, second] = [0, 3].map(|n| format!("{}/{n}", server.url()));
    let (first, second) = tokio::join!(Peer::up(first), Peer::up(second));
    let room = topic("room");
    let partition = partition_of(&room);
    for peer in [&first, &second] {
        peer.broker.interest().want(Topic::bell(partition));
        heard(peer).await;
    }
    second.enqueued(numbers(&room, 1..2)).await;
    heard(&second).await;
    is_silent(&first).await;
    hold(&server, &[partition], TOKEN);
    let counted = first.broker.queue_depths(partition).await.expect("up");
    assert_eq!(counted.depths.due, [0; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_calls_the_broker_hears_bells_by_their_partitions() {
    let (_server, peer, room, held) = holding("room").await;
    let Peer {
        broker,
        feed,
        metrics,
    } = peer;
    let Ok(broker) = std::sync::Arc::try_unwrap(broker) else {
        panic!("one owner");
    };
    let broker = Broker::Redis(broker);
    let partition = held[0].partition;
    broker.hear_bell(partition, true);
    let bell = timeout(PATIENCE, broker.bells().heard()).await;
    assert!(bell.expect("in time").contains_key(&partition));
    broker.enqueue(numbers(&room, 1..2)).await;
    let bell = timeout(PATIENCE, broker.bells().heard()).await;
    assert!(bell.expect("in time").contains_key(&partition));
    assert_eq!(
        broker.queue_call_of(partition).map(|call| call.alone),
        Some(None)
    );
    broker.hear_bell(partition, false);
    drop((feed, metrics));
}
