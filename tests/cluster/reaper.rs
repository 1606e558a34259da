//! The reaper: what a dead node left is removed once, and watchers are told once.

use std::collections::BTreeSet;
use std::time::Duration;

use fanfare::broker::publication::encode_member;
use fanfare::cluster::partition_store::{LeaseAnswer, PartitionError, PartitionStore};
use fanfare::cluster::ring::Ring;
use fanfare::redis::{Keys, RedisLink};
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{NodeId, SessionId};
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::processes::{
    Members, REAPED_WITHIN, SOME_BEATS, Watcher, keys_of, listed, nothing_left, owner_of, plan,
    sees,
};
use crate::rig::{self, PARTITIONS, link, topic};
use crate::scripts::answering;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use fanfare_testkit::wait::until_equal;

#[tokio::test]
async fn members_of_a_killed_node_leave_once_and_nothing_of_it_is_left() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let start = |name: &'static str| plan(&redis, name).start();
    let (one, two, mut three) = tokio::join!(start("one"), start("two"), start("three"));
    for node in [&one, &two, &three] {
        sees(node, &["one", "two", "three"]).await;
    }
    let mut watchers = [
        Watcher::start(&one, Encoding::Json, "room").await,
        Watcher::start(&two, Encoding::MsgPack, "room").await,
    ];
    let mut lost = Members::enter(&three, "room", 5).await;
    for (number, talk) in lost.talks.iter_mut().enumerate() {
        for room in 0..20 {
            let topic = format!("room:{number}-{room}");
            talk.ok(json!({"type": "subscribe", "topic": topic, "presence": room % 2 == 0}))
                .await;
        }
    }
    for watcher in &mut watchers {
        watcher.meets(&lost).await;
    }
    let owner = owner_of("three", &one).await;
    assert!(!keys_of(&link, &owner).await.is_empty(), "it is everywhere");
    assert_eq!(occupied(&one).await.len(), 101);

    three.kill();
    for watcher in &mut watchers {
        watcher
            .until(REAPED_WITHIN, "the members to leave", |seen| {
                seen.left.len() >= 5
            })
            .await;
    }
    nothing_left(&link, &owner).await;
    assert_eq!(occupied(&two).await, [("room".to_owned(), 2)]);
    let last = Members::enter(&two, "room", 1).await;
    for watcher in &mut watchers {
        let (joined, left) = watcher.up_to(&last).await;
        assert_eq!(joined, [""; 0]);
        assert_eq!(left, Vec::from_iter(lost.sessions.clone()), "each once");
    }
    let members = listed(&one, "room").await;
    assert_eq!(members.len(), 3);
    assert!(members.is_disjoint(&lost.sessions));
    let reaped = |node| metric(node, "topic");
    assert_eq!(
        reaped(&one).await + reaped(&two).await,
        101 + 5 + 1,
        "with inboxes and everyone"
    );
    let reaped = |node| metric(node, "member");
    assert_eq!(reaped(&one).await + reaped(&two).await, 5 + 50);
}

async fn metric(node: &fanfare_testkit::node::Node, kind: &str) -> u64 {
    let name = format!("fanfare_reaped_total{{kind=\"{kind}\"}}");
    node.metric(&name).await
}

/// Plain topics with sessions, and how many.
async fn occupied(node: &fanfare_testkit::node::Node) -> Vec<(String, u64)> {
    let answer = http::get(node.api, "/v1/topics?limit=1000").await.json();
    let topics = answer["topics"].as_array().expect("a page of topics");
    let one = |topic: &Value| {
        let name = topic["topic"].as_str().expect("a name").to_owned();
        (name, topic["sessions"].as_u64().expect("a count"))
    };
    let plain = topics
        .iter()
        .map(one)
        .filter(|(name, _)| !name.starts_with('@'));
    plain.collect()
}

#[tokio::test]
async fn the_last_node_of_a_cluster_leaves_its_rest_to_the_next_that_comes() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let mut one = plan(&redis, "one").start().await;
    let lost = Members::enter(&one, "room", 2).await;
    let owner = owner_of("one", &one).await;
    one.kill();
    let two = plan(&redis, "two").start().await;
    let mut watcher = Watcher::start(&two, Encoding::Json, "room").await;
    nothing_left(&link, &owner).await;
    let last = Members::enter(&two, "room", 1).await;
    let (_, left) = watcher.up_to(&last).await;
    assert_eq!(left, Vec::from_iter(lost.sessions), "told once, if late");
}

#[tokio::test]
async fn much_that_was_left_is_removed_in_bounded_steps() {
    much_that_was_left(2_000, 500).await;
}

#[tokio::test]
#[ignore = "long: scripts/test-long runs it"]
async fn fifty_thousand_that_were_left_are_removed_in_bounded_steps() {
    let _turn = turns::heavy().await;
    much_that_was_left(30_000, 20_000).await;
}

/// So many members of one topic, and so many topics with one member each.
async fn much_that_was_left(members: u64, topics: u64) {
    let redis = RedisServer::start().await;
    let link = answering(&redis).await;
    leave_behind(&link, "ghost~1", "big", members).await;
    for number in 0..topics {
        leave_behind(&link, "ghost~1", &format!("room:{number}"), 1).await;
    }
    let node = plan(&redis, "one").start().await;
    let mut beside = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json)
        .await
        .0;
    beside
        .ok(json!({"type": "subscribe", "topic": "beside"}))
        .await;
    let began = std::time::Instant::now();
    let patience = SOME_BEATS + Duration::from_millis(members + topics);
    wait::until_within(patience, "everything to be removed", async || {
        // The node goes on delivering meanwhile.
        beside
            .ok(json!({"type": "publish", "topic": "beside", "data": 1, "echo": true}))
            .await;
        beside.message("beside").await;
        // What the node counts lacks what it was not told of in time.
        keys_of(&link, "ghost~1").await.is_empty().then_some(())
    })
    .await;
    println!(
        "{members} members and {topics} topics were removed in {:?}",
        began.elapsed()
    );
    assert!(metric(&node, "member").await <= members + topics);
    let scans = calls_count(&link, "hscan").await;
    assert!(scans > members / 200 + topics, "{scans} steps");
}

/// How often Redis has done this.
async fn calls_count(link: &RedisLink, command: &str) -> u64 {
    let stats = link.command("INFO", "commandstats", &[]).await.unwrap();
    let stats: String = stats.convert().unwrap();
    let begin = format!("cmdstat_{command}:calls=");
    let count = stats.lines().find_map(|line| line.strip_prefix(&begin));
    count.unwrap().split(',').next().unwrap().parse().unwrap()
}

/// Many times what finds room at once, in indexes of a few parts each.
#[tokio::test]
async fn what_finds_no_room_is_found_again_without_reading_all_anew() {
    const TOPICS: u64 = 12_000;
    const INDEXES: u32 = 32;
    const PARTS: u32 = 3;
    let redis = RedisServer::start().await;
    let link = answering(&redis).await;
    let names = (0..).map(|number| format!("room:{number}"));
    let names = names.filter(|name| topic(name).partition(PARTITIONS) < INDEXES);
    let names = futures_util::stream::iter(names.take(TOPICS as usize));
    let left = names.map(async |name| leave_behind(&link, "ghost~1", &name, 1).await);
    left.buffer_unordered(64).collect::<Vec<_>>().await;
    let began = std::time::Instant::now();
    // Nothing is read again because a busy machine was late.
    let _node = plan(&redis, "one")
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "10000")
        .env("FANFARE_REDIS__LEASE_MS", "25000")
        .start()
        .await;
    let patience = SOME_BEATS + Duration::from_millis(TOPICS);
    wait::until_within(patience, "everything to be removed", async || {
        let left = redis.ask(&["KEYS", "ff:ti:*"])?;
        left.is_empty().then_some(())
    })
    .await;
    // Each index at the begin and every minute; what was turned away a few times.
    let reads = calls_count(&link, "zscan").await;
    let every_minute = (1 + began.elapsed().as_secs()) * u64::from(PARTITIONS).div_ceil(60);
    let most = u64::from(PARTITIONS + 3 * INDEXES * PARTS) + every_minute;
    println!("{reads} reads of at most {most}");
    assert!(reads <= most, "{reads} reads");
}

/// What a node that died long ago left in a topic.
pub(crate) async fn leave_behind(link: &RedisLink, owner: &str, name: &str, members: u64) {
    const SCRIPT: &str = "
        for n = 1, tonumber(ARGV[2]) do
          local session = string.format('%032x', n)
          redis.call('HSET', KEYS[1], session, ARGV[1] .. ' 1 1 ' .. ARGV[3])
          redis.call('ZADD', KEYS[4], 0, session)
        end
        redis.call('HSET', KEYS[5], ARGV[1], ARGV[2])
        redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
        redis.call('ZADD', KEYS[3], 0, ARGV[4] .. ' ' .. ARGV[1])";
    let (keys, room) = (Keys::new("ff", PARTITIONS), topic(name));
    let member = Member {
        user: None,
        session: SessionId(1),
        info: None,
    };
    let args = [
        b"5".to_vec(),
        keys.hash(&room.presence()).into_bytes(),
        keys.occupancy(&room).into_bytes(),
        keys.topics_index(room.partition(PARTITIONS)).into_bytes(),
        keys.member_names(&room.presence()).into_bytes(),
        keys.member_counts(&room.presence()).into_bytes(),
        owner.as_bytes().to_vec(),
        members.to_string().into_bytes(),
        encode_member(&member),
        room.qualified().as_bytes().to_vec(),
    ];
    link.command("EVAL", SCRIPT, &args).await.unwrap();
}

/// A topic whose members are no hash cannot be cleaned.
#[tokio::test]
async fn a_topic_that_cannot_be_cleaned_holds_up_no_other() {
    let redis = RedisServer::start().await;
    let link = answering(&redis).await;
    // More than one part of one index.
    let names = (0..).map(|number| format!("room:{number}"));
    let names = names.filter(|name| topic(name).partition(PARTITIONS) == 7);
    let names: Vec<_> = names.take(600).collect();
    for name in &names {
        leave_behind(&link, "ghost~1", name, 1).await;
    }
    let bad = Keys::new("ff", PARTITIONS).hash(&topic(&names[0]).presence());
    for words in [&["DEL", &bad][..], &["SET", &bad, "no hash"]] {
        redis.ask(words).unwrap();
    }
    let node = plan(&redis, "one").start().await;
    let index = Keys::new("ff", PARTITIONS).topics_index(7);
    // What the node has counted may lack a call whose answer was lost.
    let left = || Some(redis.ask(&["ZRANGE", &index, "0", "-1"])?.len());
    wait::until_within(SOME_BEATS, "all others to be cleaned", async || {
        (left()? == 1).then_some(())
    })
    .await;
    wait::until_within(SOME_BEATS, "the bad one to be told", async || {
        (node.metric("fanfare_reaping_failing").await == 1).then_some(())
    })
    .await;
    let told = node.log_lines("reaping_failed");
    let says_why = |line: &Value| line.to_string().contains("WRONGTYPE");
    assert!(told.iter().any(says_why), "{told:?}");
    redis.ask(&["DEL", &bad]).unwrap();
    wait::until_within(SOME_BEATS, "the bad one, once it is good", async || {
        (left()? == 0).then_some(())
    })
    .await;
    wait::until_within(SOME_BEATS, "that to be told", async || {
        let is_told = !node.log_lines("reaping_recovered").is_empty();
        let is_over = node.metric("fanfare_reaping_failing").await == 0;
        (is_told && is_over).then_some(())
    })
    .await;
}

#[tokio::test]
async fn members_of_the_dead_leave_also_where_memory_is_used_up() {
    let redis = RedisServer::start().await;
    let start = |name: &'static str| plan(&redis, name).start();
    let (one, mut two) = tokio::join!(start("one"), start("two"));
    sees(&one, &["one", "two"]).await;
    let mut watcher = Watcher::start(&one, Encoding::Json, "room").await;
    let lost = Members::enter(&two, "room", 3).await;
    watcher.meets(&lost).await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    two.kill();
    watcher
        .until(REAPED_WITHIN, "the members to leave", |seen| {
            seen.left.len() >= 3
        })
        .await;
    assert_eq!(
        BTreeSet::from_iter(watcher.left.clone()),
        lost.sessions,
        "each is told"
    );
}

#[tokio::test]
async fn what_an_earlier_life_left_waits_for_the_next_to_have_written_it() {
    let redis = RedisServer::start().await;
    let link = answering(&redis).await;
    // Two topics of one partition, whose home will be the node that is started.
    let ring = Ring::new(
        &["back", "one"].map(|name| NodeId::new(name).unwrap()),
        PARTITIONS,
    );
    let one = NodeId::new("one").unwrap();
    let partition = ring.partitions_of(&one).next().unwrap();
    let names = (0..).map(|number| format!("room:{number}"));
    let mut names = names.filter(|name| topic(name).partition(PARTITIONS) == partition);
    let [written, left]: [String; 2] = std::array::from_fn(|_| names.next().unwrap());
    leave_behind(&link, "back~1", &written, 5).await;
    leave_behind(&link, "gone~1", &left, 3).await;
    let details = |settled: u64| {
        let details = json!({"settled": settled}).to_string();
        let words = ["HSET", "{ff:nodes}:d", "back", &details];
        redis.ask(&words).unwrap();
    };
    // It has a lease for as long as the test lasts, and its members are not written yet.
    details(1);
    redis
        .ask(&["ZADD", "{ff:nodes}", "9999999999999", "back"])
        .unwrap();
    redis
        .ask(&["HSET", "{ff:nodes}:i", "back", "2 ab"])
        .unwrap();
    let node = plan(&redis, "one").start().await;
    sees(&node, &["back", "one"]).await;
    wait::until_within(SOME_BEATS, "what is gone to be removed", async || {
        (metric(&node, "member").await >= 3).then_some(())
    })
    .await;
    let members = Keys::new("ff", PARTITIONS).hash(&topic(&written).presence());
    assert_eq!(redis.ask(&["HLEN", &members]).unwrap(), ["5"]);
    assert_eq!(metric(&node, "member").await, 3);
    details(2);
    wait::until_within(SOME_BEATS, "what is nobody's any more", async || {
        (metric(&node, "member").await == 8).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_home_that_was_replaced_reads_and_removes_nothing() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let keys = Keys::new("ff", PARTITIONS);
    let store = PartitionStore::new(std::sync::Arc::clone(&link), keys.clone());
    let [old, new] = ["a~5", "b~6"].map(|owner| owner.parse().unwrap());
    let ended = Duration::ZERO;
    let lead = async |owner| rig::lead(&store, 3, owner, ended).await;
    until_equal(true, || async { lead(&old).await.is_ok() }).await;
    // A lease of no length ends within a millisecond.
    let token = async |owner| {
        wait::until("the lease to end", async || {
            match lead(owner).await.unwrap() {
                LeaseAnswer::Held { token } => Some(token),
                LeaseAnswer::Other { .. } => None,
            }
        })
        .await
    };
    let (before, live) = (token(&old).await, ["live~2".to_owned()]);
    let entries = ["default:t ghost~1", "default:t live~2"].map(String::from);
    for entry in &entries {
        let entry = [b"0".to_vec(), entry.clone().into_bytes()];
        link.command("ZADD", &keys.topics_index(3), &entry)
            .await
            .unwrap();
    }
    let part = store.index(3, before, None, &live).await.unwrap();
    assert_eq!(part.entries, entries[..1], "who lives is not named");
    assert_eq!(part.next, None);
    let now = token(&new).await;
    let refused = |answer: Result<(), PartitionError>| {
        assert!(matches!(answer, Err(PartitionError::Refused)), "{answer:?}");
    };
    refused(store.index(3, before, None, &live).await.map(drop));
    refused(store.unindex(3, before, &part.entries).await);
    assert_eq!(store.index(3, now, None, &live).await.unwrap(), part);
    store.unindex(3, now, &part.entries).await.unwrap();
    let left = store.index(3, now, None, &[]).await.unwrap().entries;
    assert_eq!(BTreeSet::from_iter(left), [entries[1].clone()].into());
}
