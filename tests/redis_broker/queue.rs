//! The durable queue over Redis: from enqueuing to the topic, once and in order, by whoever holds it.

use fanfare::broker::FeedEvent;
use fanfare::broker::queue::{End, HeldPartition, PartitionState, once};
use fanfare::broker::unavailable::Unavailable;
use fanfare_protocol::ids::{Priority, Topic};

use crate::queue_rig::{
    TOKEN, batch, depths, due, held, keys, lease, numbers, partition_of, request, topics_apart,
};
use crate::rig::{Peer, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Lets a token hold partitions.
pub(crate) fn hold(server: &RedisServer, partitions: &[u32], token: u64) -> Vec<HeldPartition> {
    for partition in partitions {
        let set = lease(*partition, token);
        let set: Vec<_> = set.iter().map(String::as_str).collect();
        assert_eq!(server.command(&set).as_deref(), Some("+OK"));
    }
    held(partitions, token)
}

/// A server, a broker over it as the user of the documentation, and a topic whose partition is held.
pub(crate) async fn holding(name: &str) -> (RedisServer, Peer, Topic, Vec<HeldPartition>) {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url_of_user()).await;
    let topic = topic(name);
    let held = hold(&server, &[partition_of(&topic)], TOKEN);
    (server, peer, topic, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_is_moved_into_its_topic_and_heard_as_if_it_were_published() {
    for name in ["room", "@ada"] {
        let (server, mut peer, room, held) = holding(name).await;
        peer.hear(&room).await;
        let published = peer.publish(&room, 1).await.expect("up").position;
        let FeedEvent::Delivery { entry: before, .. } = peer.next().await else {
            panic!("expected a delivery");
        };
        let enqueued = peer.enqueued(numbers(&room, 1..2)).await;
        assert!(!enqueued[0].duplicate);
        let (fetched, moved) = peer.turn(&held, 0).await.expect("Redis is there");
        assert_eq!(fetched.entries[0].id.to_string(), enqueued[0].entry);
        assert_eq!(fetched.entries[0].starts, 1);
        let standing = depths(&fetched.partitions[0]);
        assert_eq!(standing.due, [0, 0, 1, 0]);
        let accepted_ms = fetched.entries[0].id.ms;
        assert_eq!(standing.oldest_ms, [None, None, Some(accepted_ms), None]);
        assert_eq!(due(&moved.partitions[0], Priority::Normal), 0);
        let FeedEvent::Delivery { topic, entry, .. } = peer.next().await else {
            panic!("expected a delivery");
        };
        assert_eq!(moved.ends, [End::Published(entry.position)]);
        assert_eq!((&topic, entry.prev), (&room, published));
        assert_eq!(entry.body, before.body);
        assert_eq!(peer.retained_numbers(&room).await, [1, 1]);
        // The stream as `publish.lua` makes it.
        let all = ["XRANGE", &keys().stream(&room), "-", "+"];
        let all = server.ask(&all).expect("the server runs");
        let (one, two) = all.split_at(all.len() / 2);
        let names = |entry: &[String]| entry.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>();
        assert_eq!(names(one), names(two));
        assert_eq!(one[4], two[4], "the same body");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_target_keep_their_order_in_each_priority() {
    const COUNT: u64 = 250;
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let topics = topics_apart(3);
    let partitions: Vec<_> = topics.iter().map(partition_of).collect();
    let held = hold(&server, &partitions, TOKEN);
    let priority = |n: u64| match n % 2 {
        0 => Priority::Low,
        _ => Priority::High,
    };
    let each = (0..COUNT).flat_map(|n| {
        topics
            .iter()
            .map(move |topic| request(topic, n, priority(n)))
    });
    peer.enqueued(each.collect()).await;
    let ends = peer.drained(&held).await;
    assert_eq!(ends.len(), 3 * COUNT as usize);
    assert!(ends.iter().all(|end| matches!(end, End::Published(_))));
    for topic in &topics {
        let retained = peer.retained_numbers(topic).await;
        assert_eq!(retained.len(), COUNT as usize);
        for of in [0, 1] {
            let of: Vec<_> = retained.iter().filter(|n| *n % 2 == of).collect();
            assert!(of.is_sorted(), "{of:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn critical_comes_first_and_each_lower_priority_has_its_share() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let topics = topics_apart(6);
    let partitions: Vec<_> = topics.iter().map(partition_of).collect();
    let held = hold(&server, &partitions, TOKEN);
    let of = |priority, count: u64| {
        let numbers = (0..count).flat_map(|n| topics.iter().map(move |topic| (topic, n)));
        numbers
            .map(|(topic, n)| request(topic, n, priority))
            .collect::<Vec<_>>()
    };
    peer.enqueued(of(Priority::Low, 20)).await;
    peer.enqueued(of(Priority::Critical, 40)).await;
    let fetched = peer.broker.fetch(&held, 2).await.expect("Redis is there");
    let critical = fetched
        .entries
        .iter()
        .filter(|e| e.priority == Priority::Critical);
    let by_stream = |partition| {
        critical
            .clone()
            .filter(|e| e.partition == partition)
            .count()
    };
    let counts: Vec<_> = partitions
        .iter()
        .map(|partition| by_stream(*partition))
        .collect();
    assert_eq!(
        counts,
        [0, 0, 25, 25, 25, 21],
        "the turn begins with the third"
    );
    assert_eq!(fetched.entries.len(), 100);
    let low: Vec<_> = fetched.entries[96..]
        .iter()
        .map(|e| (e.priority, e.partition))
        .collect();
    assert_eq!(low, [(Priority::Low, partitions[2]); 4]);
    let states = fetched.partitions.iter().map(|state| depths(state).due);
    assert!(
        states.clone().all(|due| due == [40, 0, 0, 20]),
        "{:?}",
        states.collect::<Vec<_>>()
    );
    // Long ones are fewer, and none waits for ever.
    let long = |priority| {
        let mut request = request(&topics[0], 0, priority);
        let text = format!("\"{}\"", "x".repeat(200 * 1024));
        request.message.publication.data = fanfare_protocol::data::Data::Json(text.into());
        request
    };
    peer.drained(&held).await;
    peer.enqueued(vec![long(Priority::Critical); 3]).await;
    peer.enqueued(vec![long(Priority::High), long(Priority::Low)])
        .await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("Redis is there");
    let priorities: Vec<_> = fetched.entries.iter().map(|e| e.priority).collect();
    assert_eq!(
        priorities,
        [Priority::Critical, Priority::High, Priority::Low]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enqueued_twice_under_one_key_is_once_in_the_queue() {
    let (server, peer, room, held) = holding("room").await;
    let once = |key: &str, n| {
        let mut request = request(&room, n, Priority::Normal);
        request.idempotency = Some((once::digest("api", key, &room), 60_000));
        request
    };
    let answers = peer
        .enqueued(vec![once("a", 1), once("b", 2), once("a", 3)])
        .await;
    assert_eq!(
        answers.iter().map(|a| a.duplicate).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(answers[0].entry, answers[2].entry);
    let again = peer.enqueued(vec![once("b", 4)]).await;
    assert_eq!(
        (&again[0].entry, again[0].duplicate),
        (&answers[1].entry, true)
    );
    let mut later = once("c", 5);
    let soon = server.ask(&["TIME"]).expect("the server runs")[0]
        .parse::<u64>()
        .expect("seconds");
    later.not_before_ms = Some(soon * 1_000 + 60_000);
    let first = peer.enqueued(vec![later.clone()]).await;
    let again = peer.enqueued(vec![later]).await;
    assert_eq!(
        (&again[0].entry, again[0].duplicate),
        (&first[0].entry, true)
    );
    assert_eq!(peer.drained(&held).await.len(), 2);
    assert_eq!(peer.retained_numbers(&room).await, [1, 2]);
    let depths = peer
        .broker
        .queue_depths(held[0].partition)
        .await
        .expect("up")
        .depths;
    assert_eq!(
        (depths.later, depths.next_due_ms),
        (1, Some(soon * 1_000 + 60_000))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_come_when_they_are_due_in_the_order_of_that_and_of_their_acceptance() {
    let mut server = RedisServer::not_yet().clock_at(1_700_000_000_000);
    server.restart().await;
    let peer = Peer::up(server.url()).await;
    let room = topic("room");
    let held = hold(&server, &[partition_of(&room)], TOKEN);
    let at = |n, ms: u64| {
        let mut request = request(&room, n, Priority::Normal);
        request.not_before_ms = Some(1_700_000_000_000 + ms);
        request
    };
    let later = vec![at(5, 2_000), at(3, 1_000), at(4, 1_000), at(1, 0)];
    let enqueued = peer.enqueued(later).await;
    server.set_clock(1_700_000_000_001);
    peer.enqueued(vec![at(6, 2_000)]).await;
    assert!(
        enqueued[1].entry.starts_with("1700000000000000-"),
        "{enqueued:?}"
    );
    assert!(
        enqueued[3].entry.starts_with("1700000000000-"),
        "it is due: {enqueued:?}"
    );
    assert_eq!(peer.drained(&held).await.len(), 1);
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let standing = depths(&fetched.partitions[0]);
    assert_eq!(
        (standing.later, standing.next_due_ms),
        (4, Some(1_700_000_001_000))
    );
    server.set_clock(1_700_000_001_000);
    let (fetched, _) = peer.turn(&held, 0).await.expect("up");
    assert_eq!(fetched.now_ms, 1_700_000_001_000);
    assert_eq!(fetched.entries.len(), 2);
    // When it was accepted can be read beside it.
    server.set_clock(1_700_000_005_000);
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    assert_eq!(fetched.entries.len(), 2);
    let stream = keys().queue(held[0].partition, Priority::Normal);
    let kept = server.ask(&["XRANGE", &stream, "-", "+"]).expect("up");
    assert_eq!(&kept[3], "a");
    assert_eq!(&kept[4], &enqueued[0].entry);
    peer.drained(&held).await;
    assert_eq!(peer.retained_numbers(&room).await, [1, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_whose_answer_was_lost_doubles_nothing_when_it_is_repeated() {
    let (_server, peer, room, held) = holding("room").await;
    peer.enqueued(numbers(&room, 1..4)).await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let batch = batch(&fetched, &held);
    let moved = peer.broker.move_entries(batch.clone()).await.expect("up");
    assert!(
        moved
            .ends
            .iter()
            .all(|end| matches!(end, End::Published(_)))
    );
    peer.enqueued(numbers(&room, 4..5)).await;
    let again = peer.broker.move_entries(batch).await.expect("up");
    assert_eq!(again.ends, [End::Gone; 3]);
    assert_eq!(due(&again.partitions[0], Priority::Normal), 1);
    peer.drained(&held).await;
    assert_eq!(peer.retained_numbers(&room).await, [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_partition_no_more_changes_nothing_in_it() {
    let (server, peer, room, held) = holding("room").await;
    let other = topics_apart(9)
        .into_iter()
        .find(|t| partition_of(t) != held[0].partition);
    let other = other.expect("another partition");
    let both = [held[0].partition, partition_of(&other)];
    let before = hold(&server, &both, TOKEN);
    peer.enqueued([numbers(&room, 1..3), numbers(&other, 1..3)].concat())
        .await;
    let fetched = peer.broker.fetch(&before, 0).await.expect("up");
    // The lease of one of them is another's now.
    let now = hold(&server, &both[..1], TOKEN + 1);
    let stale = batch(&fetched, &before);
    let moved = peer.broker.move_entries(stale).await.expect("up");
    let of_room = fetched.entries.iter().map(|e| e.partition == both[0]);
    let refused = moved.ends.iter().map(|end| *end == End::Refused);
    assert!(of_room.eq(refused), "{moved:?}");
    assert_eq!(moved.partitions[0], PartitionState::Refused);
    assert_eq!(peer.retained_numbers(&other).await, [1, 2]);
    let fetched = peer.broker.fetch(&before, 0).await.expect("up");
    assert_eq!(fetched.partitions[0], PartitionState::Refused);
    assert!(fetched.entries.is_empty());
    assert_eq!(peer.drained(&now).await.len(), 2);
    assert_eq!(peer.retained_numbers(&room).await, [1, 2]);
    // One that was given back has no owner.
    let given_back = format!("- {} 0", TOKEN + 1);
    let key = keys().partition(both[0]);
    assert_eq!(
        server.command(&["SET", &key, &given_back]).as_deref(),
        Some("+OK")
    );
    let fetched = peer.broker.fetch(&now, 0).await.expect("up");
    assert_eq!(fetched.partitions, [PartitionState::Refused]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn homes_that_end_with_an_entry_at_the_head_are_counted_until_it_is_moved() {
    let (server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    peer.enqueued(numbers(&room, 1..3)).await;
    let starts = async |token| {
        let held = hold(&server, &[partition], token);
        let fetched = peer.broker.fetch(&held, 0).await.expect("up");
        fetched.entries.iter().map(|e| e.starts).collect::<Vec<_>>()
    };
    for (token, count) in [(7, 1), (7, 1), (8, 2), (9, 3), (9, 3)] {
        assert_eq!(starts(token).await, [count, 0]);
    }
    let now = hold(&server, &[partition], 9);
    let fetched = peer.broker.fetch(&now, 0).await.expect("up");
    let mut first = batch(&fetched, &now);
    first.entries.truncate(1);
    peer.broker.move_entries(first).await.expect("up");
    assert_eq!(starts(9).await, [1]);
    assert_eq!(starts(10).await, [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_moved_where_it_was_fetched_or_nowhere() {
    let (mut server, peer, room, held) = holding("room").await;
    peer.enqueued(numbers(&room, 1..3)).await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let stale = batch(&fetched, &held);
    server.kill();
    peer.is_down().await;
    assert!(peer.broker.fetch(&held, 0).await.is_err());
    server.restart().await;
    server.url_of_user();
    peer.is_up().await;
    let moved = peer.broker.move_entries(stale).await;
    assert_eq!(moved, Err(Unavailable::Elsewhere.into()));
    wait::until("the queue to be drained", async || {
        peer.turn(&held, 0).await.ok()
    })
    .await;
    assert_eq!(peer.retained_numbers(&room).await, [1, 2]);
}
