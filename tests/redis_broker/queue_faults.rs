//! What stands in the way of the queue: foreign keys, entries that nobody can read, a full Redis, lost
//! scripts, missing rights, replicas. Each is told in its place, and the rest goes on.

use fanfare::broker::BrokerError;
use fanfare::broker::queue::entry;
use fanfare::broker::queue::{
    Content, DEAD_MAX, End, Judged, MoveBatch, PartitionState, Verdict, Why,
};
use fanfare::broker::unavailable::Unavailable;
use fanfare::config::Replicas;
use fanfare_protocol::ids::{Position, Priority, Topic};

use crate::failures::without_scripts;
use crate::queue::{hold, holding};
use crate::queue_rig::{
    TOKEN, batch, depths, due, keys, numbers, partition_of, request, topics_apart,
};
use crate::replicas::{master_and_replica, until_followed};
use crate::rig::{Peer, REPLICAS_PATIENCE, topic};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Two more topics of the same partition.
pub(crate) fn neighbours(of: &Topic) -> [Topic; 2] {
    let topics = (0..).map(|n| topic(&format!("next-{n}")));
    let mut found = topics.filter(|topic| partition_of(topic) == partition_of(of));
    [found.next(), found.next()].map(|topic| topic.expect("some name"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_under_a_topic_makes_a_dead_letter_and_holds_up_nobody() {
    let (server, peer, room, held) = holding("room").await;
    let [next, odd] = neighbours(&room);
    for (key, value) in [
        (keys().stream(&room), "no stream"),
        (keys().last(&odd), "no id"),
    ] {
        assert_eq!(
            server.command(&["SET", &key, value]).as_deref(),
            Some("+OK")
        );
    }
    let entries =
        [(&room, 1), (&odd, 1), (&next, 1), (&room, 2)].map(|(t, n)| numbers(t, n..n + 1));
    let names = peer.enqueued(entries.concat()).await;
    let ends = peer.drained(&held).await;
    assert!(
        matches!(
            ends[..],
            [End::Failed, End::Failed, End::Published(_), End::Failed]
        ),
        "{ends:?}"
    );
    assert_eq!(peer.retained_numbers(&next).await, [1]);
    let partition = held[0].partition;
    let letters = peer
        .broker
        .dead_letters(partition, None, 10)
        .await
        .expect("up");
    assert_eq!(letters.len(), 3);
    let letter = &letters[0];
    assert_eq!(
        (letter.why, letter.priority),
        (Why::Failed, Priority::Normal)
    );
    assert!(letter.error.contains("WRONGTYPE"), "{}", letter.error);
    assert_eq!(letter.entry, names[0].entry);
    let kept = entry::decode(&letter.kept).expect("it is kept whole");
    assert_eq!(kept, numbers(&room, 1..2)[0].message);
    let after = peer
        .broker
        .dead_letters(partition, Some(letter.id), 10)
        .await;
    assert_eq!(after.expect("up"), letters[1..]);
    let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(peer.broker.drop_dead(partition, &ids).await, Ok(3));
    assert_eq!(peer.broker.drop_dead(partition, &ids).await, Ok(0));
    let depths = peer.broker.queue_depths(partition).await.expect("up");
    assert_eq!((depths.dead, depths.due), (0, [0; 4]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_key_under_a_queue_is_told_of_its_partition_and_others_go_on() {
    let server = RedisServer::start().await;
    let peer = Peer::up(server.url()).await;
    let topics = topics_apart(6);
    let partitions: Vec<_> = topics.iter().map(partition_of).collect();
    let held = hold(&server, &partitions, TOKEN);
    let foreign = [
        keys().queue(partitions[0], Priority::Normal),
        keys().queue_later(partitions[1]),
        keys().queue_dead(partitions[2]),
        keys().queue_heads(partitions[3]),
        keys().partition(partitions[4]),
    ];
    let each = |n: u64| {
        topics
            .iter()
            .map(move |topic| request(topic, n, Priority::Normal))
    };
    peer.enqueued(each(1).collect()).await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    for key in &foreign {
        server.command(&["DEL", key]).expect("the server runs");
        assert_eq!(server.command(&["SADD", key, "x"]).as_deref(), Some(":1"));
    }
    // Of the batch of before, those that need such a key are left alone.
    let moved = peer
        .broker
        .move_entries(batch(&fetched, &held))
        .await
        .expect("up");
    let failed = |states: &[PartitionState]| {
        let is_failed = |(state, key): (&PartitionState, &String)| match state {
            PartitionState::Failed(why) => {
                assert!(why.contains("WRONGTYPE") && why.contains(key), "{why}");
                true
            }
            _ => false,
        };
        let keys = foreign.iter().chain([&foreign[0]]);
        states.iter().zip(keys).map(is_failed).collect::<Vec<_>>()
    };
    assert_eq!(
        failed(&moved.partitions),
        [true, false, false, false, true, false]
    );
    // What is behind one that was not taken is not tried.
    let low = request(&topics[0], 3, Priority::Low);
    let requests = [each(2).collect(), vec![low]].concat();
    let answers = peer.broker.enqueue(requests).await;
    assert!(
        matches!(&answers[0], Err(BrokerError::Unexpected(why)) if why.contains(&foreign[0])),
        "{answers:?}"
    );
    assert!(answers[1..6].iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(answers[6], Err(Unavailable::NotTried.into()));
    // What does not need such a key goes on, also at a home that has to look for those before it.
    for peer in [&peer, &Peer::up(server.url()).await] {
        let fetched = peer.broker.fetch(&held, 0).await.expect("up");
        assert_eq!(
            failed(&fetched.partitions),
            [false, false, false, false, true, false]
        );
        assert_eq!(depths(&fetched.partitions[0]).due, [0; 4]);
        assert_eq!(fetched.entries.len(), 4);
    }
    // Whoever asks how much there is learns which key does not tell.
    let told = peer.broker.queue_depths(partitions[1]).await.unwrap_err();
    assert!(told.to_string().contains(&foreign[1]), "{told}");
    assert_eq!(peer.retained_numbers(&topics[5]).await, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_dead_letters_make_room_and_are_counted() {
    let (_server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    let mut dropped = 0;
    peer.enqueued(numbers(&room, 0..300)).await;
    for from in 0.. {
        let fetched = peer.broker.fetch(&held, from).await.expect("up");
        if fetched.entries.is_empty() {
            break;
        }
        let mut batch = batch(&fetched, &held);
        for judged in &mut batch.entries {
            let Verdict::Publish { message, .. } = &judged.verdict else {
                panic!("it can be read");
            };
            judged.verdict = Verdict::Bury {
                why: Why::Expired,
                error: "too late".to_owned(),
                kept: entry::encode(message).into(),
            };
        }
        let moved = peer.broker.move_entries(batch).await.expect("up");
        assert!(moved.ends.iter().all(|end| *end == End::Buried));
        dropped += moved.dead_dropped;
    }
    assert_eq!(dropped, 300 - DEAD_MAX as u64);
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = peer
            .broker
            .dead_letters(partition, after, 100)
            .await
            .expect("up");
        let Some(last) = page.last() else {
            break;
        };
        after = Some(last.id);
        seen.extend(page);
    }
    assert_eq!(seen.len(), DEAD_MAX);
    assert!(
        seen.iter()
            .all(|letter| letter.why == Why::Expired && letter.error == "too late")
    );
    let first = entry::decode(&seen[0].kept).expect("it is kept");
    assert_eq!(first, numbers(&room, 44..45)[0].message);
    let highest = Position {
        ms: u64::MAX,
        seq: u64::MAX,
    };
    let none = peer.broker.dead_letters(partition, Some(highest), 10).await;
    assert_eq!(none, Ok(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_backend_wrote_itself_is_read_as_it_is() {
    let (server, peer, room, held) = holding("room").await;
    let stream = keys().queue(held[0].partition, Priority::High);
    let add = |fields: &[&str]| {
        let words = [&["XADD", &stream, "*"][..], fields].concat();
        server.command(&words).expect("the server runs");
    };
    add(&["topic", "room", "data", "1"]);
    add(&["topic", "room"]);
    let many: Vec<_> = (0..20_000).map(|n| n.to_string()).collect();
    add(&many.iter().map(String::as_str).collect::<Vec<_>>());
    let long = "x".repeat(18 * 1024 * 1024);
    add(&["e", &long]);
    add(&["e", "not a message"]);
    add(&["topic", "room", "data", "2"]);
    let (mut contents, mut ends, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for from in 0..3 {
        let (fetched, moved) = peer.turn(&held, from).await.expect("up");
        counts.push(fetched.entries.len());
        contents.extend(fetched.entries.into_iter().map(|e| e.content));
        ends.extend(moved.ends);
        assert_eq!(
            due(&moved.partitions[0], Priority::High),
            6 - ends.len() as u64
        );
    }
    assert_eq!(counts, [3, 1, 2], "one that is too large ends a fetch");
    assert!(matches!(&contents[0], Content::Fields(fields) if fields.len() == 2));
    let fields_bytes = many.iter().map(String::len).sum();
    let oversized = |fields, bytes| Content::Oversized { fields, bytes };
    assert_eq!(contents[2], oversized(10_000, fields_bytes));
    assert_eq!(contents[3], oversized(1, 1 + long.len()));
    assert!(matches!(&contents[4], Content::Blob(blob) if &blob[..] == b"not a message"));
    assert_eq!(ends.iter().filter(|end| **end == End::Buried).count(), 4);
    assert_eq!(peer.retained_numbers(&room).await, [1, 2]);
    // Neither is what somebody else has put among those that are to come later.
    let later = keys().queue_later(held[0].partition);
    for member in ["", "x", "1234567890123456zzzzzzzz7blob"] {
        server
            .command(&["ZADD", &later, "5.5", member])
            .expect("the server runs");
    }
    assert_eq!(peer.drained(&held).await, [End::Buried; 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_takes_no_entries_and_what_it_has_is_moved() {
    let (server, peer, room, held) = holding("room").await;
    peer.enqueued(numbers(&room, 1..60)).await;
    let set = |value| server.command(&["CONFIG", "SET", "maxmemory", value]);
    assert_eq!(set("1mb").as_deref(), Some("+OK"));
    match peer
        .broker
        .enqueue(numbers(&room, 60..62))
        .await
        .swap_remove(0)
    {
        Err(BrokerError::Refused(refusal)) => assert_eq!(refusal.word, "OOM"),
        other => panic!("expected a refusal, got {other:?}"),
    }
    assert_eq!(peer.drained(&held).await.len(), 59);
    assert_eq!(
        peer.retained_numbers(&room).await,
        (1..60).collect::<Vec<_>>()
    );
    let depths = peer
        .broker
        .queue_depths(held[0].partition)
        .await
        .expect("it can be read");
    assert_eq!(depths.due, [0; 4]);
    assert_eq!(set("0").as_deref(), Some("+OK"));
    peer.is_up().await;
    peer.enqueued(numbers(&room, 60..62)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_scripts_cost_no_entry() {
    let (server, peer, room, held) = holding("room").await;
    let work = async {
        for n in 0..200 {
            peer.enqueued(numbers(&room, n..n + 1)).await;
            if n % 10 == 9 {
                peer.drained(&held).await;
            }
        }
    };
    without_scripts(&server, work).await;
    assert_eq!(
        peer.retained_numbers(&room).await,
        (0..200).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_publish_loses_no_entry() {
    let (server, peer, room, held) = holding("room").await;
    peer.enqueued(numbers(&room, 1..4)).await;
    let rule = |rule: &str| {
        let set = server.command(&["ACL", "SETUSER", "fanfare", rule]);
        assert_eq!(set.as_deref(), Some("+OK"));
    };
    for (forbid, allow) in [
        ("-publish", "+publish"),
        ("-xadd", "+xadd"),
        ("-set", "+set"),
    ] {
        let fetched = peer.broker.fetch(&held, 0).await.expect("up");
        let batch = batch(&fetched, &held);
        rule(forbid);
        let moved = peer.broker.move_entries(batch).await;
        let Err(BrokerError::Refused(refusal)) = moved else {
            panic!("expected a refusal, got {moved:?}");
        };
        assert_eq!(refusal.word, "NOPERM", "{forbid}");
        rule(allow);
        peer.is_up().await;
    }
    assert_eq!(peer.drained(&held).await.len(), 3);
    assert_eq!(peer.retained_numbers(&room).await, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_wait_for_replicas_are_answered_when_those_have_them() {
    let (master, replica) = master_and_replica().await;
    let peer = Peer::replicated(master.url(), 1).await;
    let room = topic("room");
    let held = hold(&master, &[partition_of(&room)], TOKEN);
    let wanting = |from: u64, min| {
        let mut requests = numbers(&room, from..from + 3);
        for request in &mut requests {
            request.replicas = Replicas {
                min,
                timeout: REPLICAS_PATIENCE,
            };
        }
        requests
    };
    let enqueued = without_scripts(&master, peer.enqueued(wanting(1, 1))).await;
    assert_eq!(enqueued.len(), 3);
    let stream = keys().queue(held[0].partition, Priority::Normal);
    // Without a look at whether it followed: it was waited for.
    assert_eq!(replica.command(&["XLEN", &stream]).as_deref(), Some(":3"));
    let too_few = peer.broker.enqueue(wanting(9, 2)).await;
    let why = Unavailable::TooFewFollow { count: 1, min: 2 };
    assert_eq!(too_few[0], Err(why.into()));
    assert_eq!(peer.drained(&held).await.len(), 3);
    assert_eq!(peer.retained_numbers(&room).await, [1, 2, 3]);
    until_followed(&master, &replica).await;
    replica.signal("STOP");
    let unconfirmed = peer.broker.enqueue(wanting(4, 1)).await;
    assert!(
        matches!(unconfirmed[0], Err(BrokerError::Unconfirmed(_))),
        "{unconfirmed:?}"
    );
    replica.signal("CONT");
    assert_eq!(peer.drained(&held).await.len(), 3);
    // A node that knows of no replicas promises none.
    let other = Peer::up(master.url()).await;
    let refused = other.broker.enqueue(wanting(7, 1)).await;
    assert_eq!(refused[0], Err(Unavailable::NotReplicated.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_nothing_is_done_and_that_is_said() {
    let (mut server, peer, room, held) = holding("room").await;
    let partition = held[0].partition;
    server.kill();
    peer.is_down().await;
    // Each link finds out by itself: until then what it was given has an outcome that is unknown.
    let all_away = wait::until_within(PATIENCE, "all links to be away", async || {
        let answers = peer.broker.enqueue(numbers(&room, 1..3)).await;
        let fetched = peer.broker.fetch(&held, 0).await;
        let letters = peer.broker.dead_letters(partition, None, 1).await;
        let answers = answers.into_iter().map(|answer| answer.err());
        let all: Vec<_> = answers.chain([fetched.err(), letters.err()]).collect();
        let is_away = |error: &Option<BrokerError>| {
            matches!(error, Some(BrokerError::Unavailable(Unavailable::Away(_))))
        };
        all.iter().all(is_away).then_some(())
    });
    all_away.await;
    server.restart().await;
    server.url_of_user();
    peer.is_up().await;
    let fetched = peer.broker.fetch(&held, 0).await.expect("up");
    let nothing = MoveBatch {
        place: fetched.place,
        held: held.clone(),
        entries: Vec::<Judged>::new(),
    };
    let moved = peer.broker.move_entries(nothing).await.expect("up");
    assert_eq!(depths(&moved.partitions[0]), depths(&fetched.partitions[0]));
    let none = peer.broker.fetch(&[], 0).await;
    assert_eq!(none, Err(Unavailable::Elsewhere.into()));
}
