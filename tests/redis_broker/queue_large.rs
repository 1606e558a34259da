//! Entries and dead letters of many bytes: how much Redis reads of them at once, and that what a node may
//! have accepted comes whole.

use fanfare::broker::queue::{Content, EnqueueRequest};
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{Priority, Topic};

use crate::queue::{hold, holding};
use crate::queue_rig::{TOKEN, depths, keys, numbers, partition_of, request, topics_apart};
use crate::rig::Peer;
use fanfare_testkit::redis_server::RedisServer;

const MIB: usize = 1024 * 1024;

/// How often a command ran since this was asked last.
fn runs_of(server: &RedisServer, command: &str) -> u64 {
    let info = server.ask(&["INFO", "commandstats"]).expect("up");
    server.command(&["CONFIG", "RESETSTAT"]).expect("up");
    let head = format!("cmdstat_{command}:calls=");
    let of_it = |text: &String| {
        let at = text.find(&head)? + head.len();
        text[at..].split(',').next()?.parse().ok()
    };
    info.iter().find_map(of_it).unwrap_or(0)
}

fn long(topic: &Topic, bytes: usize) -> EnqueueRequest {
    let mut request = request(topic, 0, Priority::Normal);
    request.message.publication.data = Data::Json(format!("\"{}\"", "x".repeat(bytes)).into());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_entries_that_are_too_large_redis_reads_one_at_a_time() {
    let (server, peer, _, held) = holding("room").await;
    let stream = keys().queue(held[0].partition, Priority::Low);
    let text = "x".repeat(18 * MIB);
    for _ in 0..3 {
        server
            .command(&["XADD", &stream, "*", "e", &text])
            .expect("up");
    }
    runs_of(&server, "xrange");
    for left in [3, 2, 1] {
        let (fetched, _) = peer.turn(&held, 0).await.expect("up");
        assert_eq!(fetched.entries.len(), 1);
        assert!(matches!(
            fetched.entries[0].content,
            Content::Oversized { .. }
        ));
        assert_eq!(depths(&fetched.partitions[0]).due, [0, 0, 0, left]);
        assert_eq!(runs_of(&server, "xrange"), 1, "and that is one entry");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_whose_entries_have_no_room_are_not_read() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let topics = topics_apart(16);
    let partitions: Vec<_> = topics.iter().map(partition_of).collect();
    let held = hold(&server, &partitions, TOKEN);
    for topic in &topics {
        peer.enqueued(vec![long(topic, 300 * 1024); 2]).await;
    }
    runs_of(&server, "xrange");
    for from in 0..16 {
        let (fetched, _) = peer.turn(&held, from).await.expect("up");
        let of: Vec<_> = fetched.entries.iter().map(|e| e.partition).collect();
        assert_eq!(
            of,
            [partitions[from as usize]],
            "one comes, and the turn goes on"
        );
        // That one, its next, and one look at how old the others are.
        assert!(runs_of(&server, "xrange") <= 3);
    }
    // What is not looked at is as old as it was.
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let seen = fetched
        .partitions
        .iter()
        .filter(|state| depths(state).oldest_ms[2].is_some());
    assert!(seen.count() > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_any_node_may_have_accepted_comes_whole() {
    let (_server, peer, room, held) = holding("room").await;
    peer.enqueued(vec![long(&room, 16 * MIB - 2)]).await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let Content::Blob(blob) = &fetched.entries[0].content else {
        panic!("expected all of it");
    };
    assert!(blob.len() > 16 * MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_fetch_that_failed_entries_are_read_one_by_one() {
    let (mut server, peer, room, held) = holding("room").await;
    peer.enqueued(numbers(&room, 0..9)).await;
    runs_of(&server, "xrange");
    assert_eq!(
        peer.broker.fetch(&held, 0).await.expect("up").entries.len(),
        9
    );
    assert_eq!(runs_of(&server, "xrange"), 2);
    server.kill();
    peer.is_down().await;
    assert!(peer.broker.fetch(&held, 0).await.is_err());
    server.restart().await;
    server.url_of_user();
    peer.is_up().await;
    for runs in [9, 2] {
        runs_of(&server, "xrange");
        let fetched = peer.broker.fetch(&held, 0).await.expect("up");
        assert_eq!(fetched.entries.len(), 9);
        assert_eq!(runs_of(&server, "xrange"), runs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_that_become_due_come_a_few_at_a_time() {
    let (server, peer, room, held) = holding("room").await;
    let past = |mut request: EnqueueRequest| {
        request.not_before_ms = Some(1);
        request
    };
    let later = keys().queue_later(held[0].partition);
    for n in 0..8 {
        let member = format!("170000000000000{n}aaaaaaaa2{}", "x".repeat(MIB / 2));
        server.command(&["ZADD", &later, "5", &member]).expect("up");
    }
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let standing = depths(&fetched.partitions[0]);
    assert_eq!((standing.due[2], standing.later), (2, 6));
    // And within a call that enqueues: as many as have room.
    peer.enqueued(vec![past(request(&room, 1, Priority::Low))])
        .await;
    let standing = peer
        .broker
        .queue_depths(held[0].partition)
        .await
        .expect("up")
        .depths;
    assert_eq!((standing.due, standing.later), ([0, 0, 4, 0], 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_read_in_steps_of_some_bytes() {
    let (server, peer, _, held) = holding("room").await;
    let dead = keys().queue_dead(held[0].partition);
    let text = "x".repeat(MIB);
    for _ in 0..13 {
        server
            .command(&["XADD", &dead, "*", "e", &text, "why", "failed"])
            .expect("up");
    }
    runs_of(&server, "xrange");
    for (limit, count, runs) in [(100, 13, 6), (4, 4, 2), (1, 1, 1)] {
        let letters = peer
            .broker
            .dead_letters(held[0].partition, None, limit)
            .await;
        let letters = letters.expect("up");
        assert_eq!(letters.len(), count);
        assert!(letters.is_sorted_by_key(|letter| letter.id));
        assert_eq!(
            runs_of(&server, "xrange"),
            runs,
            "the first alone, then three at once"
        );
    }
}
