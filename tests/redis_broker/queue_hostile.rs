//! What others do to the keys of the queue, and rights that end at some topics: nothing is lost, nothing
//! is in two places, nothing overtakes, and what does not need the key goes on.

use fanfare::broker::BrokerError;
use fanfare::broker::queue::{End, HeldPartition, MoveBatch, PartitionState, Why};
use fanfare_protocol::ids::{Priority, Topic};

use crate::queue::{hold, holding};
use crate::queue_faults::neighbours;
use crate::queue_rig::{TOKEN, batch, depths, due, keys, numbers, partition_of, request};
use crate::rig::{Peer, topic};
use fanfare_testkit::redis_server::RedisServer;

/// Behind this id a stream takes nothing.
const HIGHEST: &str = "18446744073709551615-18446744073709551615";

fn told(server: &RedisServer, words: &[&str]) -> String {
    server.command(words).expect("the server runs")
}

/// The milliseconds of the server's clock.
fn now_ms(server: &RedisServer) -> u64 {
    let time = server.ask(&["TIME"]).expect("the server runs");
    let part = |n: usize| time[n].parse::<u64>().expect("a number");
    part(0) * 1_000 + part(1) / 1_000
}

async fn whys(peer: &Peer, partition: u32) -> Vec<Why> {
    let letters = peer.broker.dead_letters(partition, None, 100).await;
    letters
        .expect("up")
        .iter()
        .map(|letter| letter.why)
        .collect()
}

/// An entry that cannot be read.
fn add_bad(server: &RedisServer, partition: u32, priority: Priority) {
    let stream = keys().queue(partition, priority);
    told(server, &["XADD", &stream, "*", "topic", "room"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_the_user_may_not_write_is_buried_and_nothing_of_it_published() {
    let narrow_channels = "resetchannels &ff:probe:* &ff:ctl* &ff:*:bell &ff:{*}{default:next-*";
    let narrow_keys = "resetkeys ~ff:q:* ~ff:part:* ~{ff:* ~ff:{*}{default:next-*";
    for (narrow, word) in [(narrow_channels, "channel"), (narrow_keys, "key")] {
        let (server, peer, room, held) = holding("room").await;
        let [next, _] = neighbours(&room);
        let entries = [&room, &next, &room, &next].into_iter().zip(1..);
        let entries = entries.map(|(topic, n)| request(topic, n, Priority::Normal));
        peer.enqueued(entries.collect()).await;
        let rules = [
            &["ACL", "SETUSER", "fanfare"],
            &narrow.split(' ').collect::<Vec<_>>()[..],
        ];
        assert_eq!(told(&server, &rules.concat()), "+OK");
        let ends = peer.drained(&held).await;
        let [
            End::Failed,
            End::Published(_),
            End::Failed,
            End::Published(_),
        ] = ends[..]
        else {
            panic!("expected those of the topic alone to fail, got {ends:?}");
        };
        assert_eq!(peer.retained_numbers(&next).await, [2, 4]);
        assert_eq!(told(&server, &["EXISTS", &keys().stream(&room)]), ":0");
        let letters = peer.broker.dead_letters(held[0].partition, None, 9).await;
        let letters = letters.expect("up");
        assert_eq!(letters.len(), 2);
        assert!(
            letters.iter().all(|letter| letter.error.contains(word)),
            "{letters:?}"
        );
        let kept = fanfare::broker::queue::entry::decode(&letters[0].kept);
        assert_eq!(kept.expect("it is kept whole").topic, room);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_neither_published_nor_buried_stays_where_it_is_and_stops_its_stream_alone() {
    let (server, peer, room, held) = holding("room").await;
    let [next, _] = neighbours(&room);
    let partition = held[0].partition;
    let dead = keys().queue_dead(partition);
    let normal = keys().queue(partition, Priority::Normal);
    told(&server, &["SET", &dead, "foreign"]);
    told(&server, &["SET", &keys().stream(&room), "foreign"]);
    peer.enqueued(numbers(&room, 1..3)).await;
    peer.enqueued(numbers(&next, 1..3)).await;
    peer.enqueued(vec![request(&next, 9, Priority::Low)]).await;
    add_bad(&server, partition, Priority::High);
    for turn in 0..2 {
        let fetched = peer.broker.fetch(&held, 0).await.expect("up");
        let MoveBatch {
            place,
            held,
            mut entries,
        } = batch(&fetched, &held);
        let later = entries.split_off(entries.len() - 2 - (1 - turn));
        let some = |entries| MoveBatch {
            place,
            held: held.clone(),
            entries,
        };
        let moved = peer.broker.move_entries(some(entries)).await.expect("up");
        assert!(
            moved.ends.iter().all(|end| *end == End::Refused),
            "{moved:?}"
        );
        let PartitionState::Failed(why) = &moved.partitions[0] else {
            panic!("expected a failure, got {moved:?}");
        };
        assert!(why.contains("WRONGTYPE") && why.contains(&dead), "{why}");
        // What is behind them in the same fetch would overtake.
        let moved = peer.broker.move_entries(some(later)).await.expect("up");
        assert!(
            moved.ends.iter().all(|end| *end == End::Refused),
            "{moved:?}"
        );
        assert_eq!(told(&server, &["XLEN", &normal]), ":4");
    }
    // In one move the other streams go on.
    let (_, moved) = peer.turn(&held, 0).await.expect("up");
    let published = moved
        .ends
        .iter()
        .filter(|end| matches!(end, End::Published(_)));
    assert_eq!(published.count(), 1);
    assert_eq!(peer.retained_numbers(&next).await, [9]);
    told(&server, &["DEL", &dead, &keys().stream(&room)]);
    peer.drained(&held).await;
    assert_eq!(peer.retained_numbers(&room).await, [1, 2]);
    assert_eq!(peer.retained_numbers(&next).await, [9, 1, 2]);
    assert_eq!(whys(&peer, partition).await, [Why::BadEntry]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_bury_loses_nothing_and_doubles_nothing() {
    let (server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    let [next, _] = neighbours(&room);
    add_bad(&server, partition, Priority::High);
    peer.enqueued(numbers(&room, 1..2)).await;
    peer.enqueued(vec![request(&next, 2, Priority::Low)]).await;
    let rule = |rules: &[&str]| {
        let set = [&["ACL", "SETUSER", "fanfare"], rules].concat();
        assert_eq!(told(&server, &set), "+OK");
    };
    let streams = ["high", "normal", "low"].map(|name| format!("~ff:q:{{{partition}}}:{name}"));
    let [high, normal, low] = &streams;
    let topics = "~ff:{*}{default:next-*";
    // Dead letters may be read and not written.
    rule(&[
        "resetkeys",
        high,
        normal,
        low,
        "~ff:part:*",
        "~{ff:*",
        topics,
        "%R~ff:*",
    ]);
    for _ in 0..2 {
        let moved = peer.turn(&held, 0).await;
        assert!(matches!(moved, Err(BrokerError::Refused(_))), "{moved:?}");
    }
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        let stream = keys().queue(partition, priority);
        assert_eq!(told(&server, &["XLEN", &stream]), ":1");
    }
    // They may be added and not taken back.
    rule(&["~ff:*"]);
    let xdel = format!("(+xdel {low})");
    rule(&["-xdel", "clearselectors", &xdel]);
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let mut bad = batch(&fetched, &held);
    bad.entries.truncate(1);
    let moved = peer.broker.move_entries(bad).await.expect("up");
    assert_eq!(moved.ends, [End::Refused]);
    assert_eq!(whys(&peer, partition).await, []);
    rule(&["+xdel", "clearselectors"]);
    peer.drained(&held).await;
    assert_eq!(whys(&peer, partition).await, [Why::BadEntry]);
    assert_eq!(peer.retained_numbers(&room).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_with_the_highest_id_holds_up_its_stream_until_it_is_moved_and_no_other() {
    let (server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    let low = keys().queue(partition, Priority::Low);
    told(
        &server,
        &["XADD", &low, HIGHEST, "topic", "room", "data", "1"],
    );
    let soon_ms = now_ms(&server) + 50;
    let at = |n, priority| {
        let mut request = request(&room, n, priority);
        request.not_before_ms = Some(soon_ms);
        request
    };
    let delayed = [
        at(2, Priority::Low),
        at(3, Priority::Low),
        at(9, Priority::Critical),
    ];
    peer.enqueued(delayed.to_vec()).await;
    let refused = peer
        .broker
        .enqueue(vec![request(&room, 8, Priority::Low)])
        .await;
    let why = format!("{refused:?}");
    assert!(why.contains("exhausted") && why.contains(&low), "{why}");
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let (fetched, moved) = peer.turn(&held, 0).await.expect("up");
    assert_eq!(
        fetched.entries.len(),
        2,
        "the critical one, and that of the highest id"
    );
    let standing = depths(&fetched.partitions[0]);
    assert_eq!(standing.later, 2);
    let again_ms = standing.next_due_ms.expect("they are tried again");
    assert!(again_ms > fetched.now_ms, "and not at once for ever");
    assert_eq!(due(&moved.partitions[0], Priority::Low), 0);
    peer.enqueued(vec![request(&room, 4, Priority::Low)]).await;
    peer.drained(&held).await;
    assert_eq!(peer.retained_numbers(&room).await, [9, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_far_ahead_has_ids_of_the_clock_when_it_is_empty() {
    let (server, peer, room, held) = holding("room").await;
    let low = keys().queue(held[0].partition, Priority::Low);
    // Far ahead, and not at its end: ids are of now again when it was empty.
    told(
        &server,
        &[
            "XADD",
            &low,
            "9999999999999-0",
            "topic",
            "room",
            "data",
            "5",
        ],
    );
    let ahead = peer.enqueued(vec![request(&room, 6, Priority::Low)]).await;
    assert_eq!(ahead[0].entry, "9999999999999-1");
    peer.drained(&held).await;
    let after = peer.enqueued(vec![request(&room, 7, Priority::Low)]).await;
    let after_ms: u64 = after[0]
        .entry
        .split('-')
        .next()
        .expect("ms")
        .parse()
        .expect("a number");
    assert!(after_ms.abs_diff(now_ms(&server)) < 60_000, "{after:?}");
    // Empty, as a node of before left it.
    told(&server, &["DEL", &low]);
    told(&server, &["XADD", &low, HIGHEST, "x", "y"]);
    told(&server, &["XDEL", &low, HIGHEST]);
    peer.enqueued(vec![request(&room, 8, Priority::Low)]).await;
    peer.drained(&held).await;
    assert_eq!(peer.retained_numbers(&room).await, [5, 6, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_with_the_highest_id_takes_no_entry_away() {
    let (server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    let dead = keys().queue_dead(partition);
    told(&server, &["XADD", &dead, "5-5", "why", "crashed"]);
    told(&server, &["XADD", &dead, HIGHEST, "why", "too_large"]);
    told(&server, &["SET", &keys().stream(&room), "foreign"]);
    add_bad(&server, partition, Priority::Normal);
    peer.enqueued(numbers(&room, 1..2)).await;
    // Put there anew: an age of 30 days takes away the first.
    assert_eq!(peer.drained(&held).await, [End::Buried, End::Failed]);
    assert_eq!(
        whys(&peer, partition).await,
        [Why::TooLarge, Why::BadEntry, Why::Failed]
    );
    let last = peer
        .broker
        .dead_letters(partition, None, 9)
        .await
        .expect("up");
    assert!(last[2].id.ms.abs_diff(now_ms(&server)) < 60_000, "{last:?}");
    assert_eq!(
        peer.metrics.queue.dead_dropped.get(),
        1,
        "that of age is counted"
    );
}

/// A server whose clock is set, and a partition that is held.
async fn at_a_set_time() -> (RedisServer, Peer, Topic, Vec<HeldPartition>) {
    let mut server = RedisServer::not_yet().clock_at(1_700_000_000_000);
    server.restart().await;
    let peer = Peer::up(server.url()).await;
    let room = topic("room");
    let held = hold(&server, &[partition_of(&room)], TOKEN);
    (server, peer, room, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_accepted_after_the_due_time_of_others_is_published_behind_them() {
    let (server, peer, room, held) = at_a_set_time().await;
    let [next, _] = neighbours(&room);
    let at = |topic: &Topic, n, ms: u64| {
        let mut request = request(topic, n, Priority::Normal);
        request.not_before_ms = Some(1_700_000_000_000 + ms);
        request
    };
    // More than come at once, and of another topic.
    peer.enqueued((0..30).map(|n| at(&next, n, 1_000)).collect())
        .await;
    for (some, ms) in [(0..90, 1), (90..180, 2)] {
        server.set_clock(1_700_000_000_000 + ms);
        peer.enqueued(some.map(|n| at(&room, n, 1_000)).collect())
            .await;
    }
    server.set_clock(1_700_000_001_000);
    let after = vec![at(&room, 180, 900), request(&room, 181, Priority::Normal)];
    let names = peer.enqueued(after).await;
    assert!(
        names
            .iter()
            .all(|one| one.entry.starts_with("1700000001000000-")),
        "{names:?}"
    );
    server.set_clock(1_700_000_001_001);
    let names = peer
        .enqueued(vec![
            at(&room, 182, 1_000),
            request(&room, 183, Priority::Normal),
        ])
        .await;
    assert!(
        names
            .iter()
            .all(|one| one.entry.starts_with("1700000001001000-")),
        "{names:?}"
    );
    server.set_clock(1_700_000_001_002);
    let names = peer
        .enqueued(vec![request(&room, 184, Priority::Normal)])
        .await;
    assert!(
        names[0].entry.starts_with("1700000001002-"),
        "all have come: {names:?}"
    );
    peer.drained(&held).await;
    assert_eq!(
        peer.retained_numbers(&room).await,
        (0..185).collect::<Vec<_>>()
    );
    assert_eq!(
        peer.retained_numbers(&next).await,
        (0..30).collect::<Vec<_>>()
    );
}
