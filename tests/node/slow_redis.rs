//! What a node does while Redis is slow, or away for long: measurements, which assert what must
//! hold and print the figures (docs/reliability.md has them).
//!
//! In: a node with twenty thousand topics over a Redis of its own, or two deployments. Out:
//! questions a topic, CPU a minute, and how long sessions and leaves take. No time is asserted.

use std::time::{Duration, Instant};

use fanfare::broker::redis::shards::Shards;
use fanfare_protocol::form::Encoding;
use fanfare_protocol::ids::{App, Topic};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::process::cpu;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use serde_json::json;

/// Topics of one session; all sessions together have 20,000.
const TOPICS_EACH: usize = 100;
const SESSIONS: usize = 200;
/// A tenth of the time for Redis.
const RUNS: Duration = Duration::from_millis(10);
const RESTS: Duration = Duration::from_millis(90);
const SLOW_FOR: Duration = Duration::from_secs(45);
const MINUTE: Duration = Duration::from_secs(60);
const MINUTES_AWAY: usize = 10;
/// Longest wait for anything here.
const LONG: Duration = Duration::from_secs(180);

/// Sessions that read what they are told, and answer pings.
async fn crowd(node: &Node) -> Vec<tokio::task::JoinHandle<Vec<serde_json::Value>>> {
    let mut readers = Vec::new();
    for session in 0..SESSIONS {
        let url = node.connect_url(&format!("?user=u{session}"));
        let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
        talk.be_patient(MINUTE * 60);
        let mut ids = Vec::new();
        for topic in 0..TOPICS_EACH {
            let topic = format!("t{session}-{topic}");
            let command = json!({"type": "subscribe", "topic": topic});
            ids.push(talk.command(command).await);
        }
        for id in ids {
            assert_eq!(talk.answer(id).await["type"], "ok");
        }
        readers.push(tokio::spawn(async move {
            let mut told = Vec::new();
            while let Some(event) = talk.next().await {
                if event["type"] == "end" {
                    break;
                }
                told.push(event);
            }
            told
        }));
    }
    readers
}

/// What must not have moved: turns of circuits, incarnation.
async fn calm(node: &Node) -> (u64, u64, String) {
    let opened = node
        .metric("fanfare_redis_circuit_transitions_total{to=\"open\"}")
        .await;
    let half = node
        .metric("fanfare_redis_circuit_transitions_total{to=\"half_open\"}")
        .await;
    let nodes = http::get(node.api, "/v1/nodes").await.json();
    (opened, half, nodes["nodes"][0]["incarnation"].to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: see docs/reliability.md"]
async fn a_slow_redis_is_asked_at_most_twice_a_topic() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &redis.url()).start().await;
    let readers = crowd(&node).await;
    let topics = node.metric("fanfare_topics").await;
    let before = calm(&node).await;
    let asked = node.metric("fanfare_questions_total").await;
    let errors = node.metric("fanfare_question_errors_total").await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let begun = Instant::now();
    while begun.elapsed() < SLOW_FOR {
        redis.signal("STOP");
        tokio::time::sleep(RESTS).await;
        redis.signal("CONT");
        tokio::time::sleep(RUNS).await;
    }
    let waiting = node.metric("fanfare_questions_waiting").await;
    wait::until_within(LONG, "all questions to be answered", async || {
        (node.metric("fanfare_questions_waiting").await == 0).then_some(())
    })
    .await;
    let asked = node.metric("fanfare_questions_total").await - asked;
    let errors = node.metric("fanfare_question_errors_total").await - errors;
    println!(
        "{topics} topics, Redis at a tenth for {SLOW_FOR:?}: {asked} questions, {errors} without \
         an answer; {waiting} waited at the end of it, none {:.1?} later",
        begun.elapsed().saturating_sub(SLOW_FOR)
    );
    assert_eq!(calm(&node).await, before, "circuits and the lease");
    assert!(asked <= 2 * topics, "{asked} questions for {topics} topics");
    for reader in readers {
        assert!(!reader.is_finished(), "a session ended");
        reader.abort();
    }
}

/// What a minute costs the node.
async fn a_minute(node: &Node, what: &str) {
    let before = cpu(node.pid());
    tokio::time::sleep(MINUTE).await;
    let took = cpu(node.pid()) - before;
    let mib = node.resident_bytes() / 1_048_576;
    println!("{what}: {took:?} of CPU, {mib} MiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: see docs/reliability.md"]
async fn an_outage_costs_no_more_in_its_tenth_minute() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    let node = Plan::clustered("one", &redis.url()).start().await;
    let readers = crowd(&node).await;
    let lives = calm(&node).await.2;
    a_minute(&node, "with Redis").await;
    redis.signal("STOP");
    for minute in 1..=MINUTES_AWAY {
        a_minute(&node, &format!("without, minute {minute}")).await;
    }
    let (before, begun) = (cpu(node.pid()), Instant::now());
    redis.signal("CONT");
    node.until_ready().await;
    let ready = begun.elapsed();
    wait::until_within(LONG, "all questions to be answered", async || {
        (node.metric("fanfare_questions_waiting").await == 0).then_some(())
    })
    .await;
    println!(
        "back: ready after {ready:?}, nothing in doubt after {:?}, {:?} of CPU until then",
        begun.elapsed(),
        cpu(node.pid()) - before
    );
    assert_eq!(calm(&node).await.2, lives, "the same life");
    for reader in readers {
        assert!(!reader.is_finished(), "a session ended");
        reader.abort();
    }
}

const PARTITIONS: u32 = 256;

fn partition(name: &str) -> u32 {
    let topic = Topic::new(&App::default_app(), name).expect("a name");
    topic.partition(PARTITIONS)
}

/// Two deployments, of which the second has `@`; topics that the first has with their members.
fn spread() -> ([String; 2], Vec<String>) {
    let first = "first".to_owned();
    let names = (0..1_000)
        .map(|n| [first.clone(), format!("second{n}")])
        .find(|names| Shards::new(names, PARTITIONS).of(partition("@")) == 1)
        .expect("one of a thousand fits");
    let shards = Shards::new(&names, PARTITIONS);
    let at_first = |name: &String| shards.of(partition(name)) == 0;
    let topics = (0..64).map(|n| format!("room{n}")).filter(at_first);
    let topics = topics.collect();
    (names, topics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: see docs/reliability.md"]
async fn sessions_open_and_leaves_are_told_while_everyone_is_away() {
    let _turn = turns::heavy().await;
    const ROUNDS: usize = 60;
    let (first, second) = (RedisServer::start().await, RedisServer::start().await);
    let (names, topics) = spread();
    let shards = Shards::new(&names, PARTITIONS);
    let url = format!("{}?name={}", first.url(), names[0]);
    let shard = format!("{}?name={}", second.url(), names[1]);
    let plan = Plan::clustered("one", &url).env("FANFARE_REDIS__SHARDS", &shard);
    let node = plan.start().await;
    // Whose inbox is at the first; an inbox that is away is told as such.
    let user = (0..64)
        .map(|n| format!("u{n}"))
        .find(|user| shards.of(partition(&format!("@{user}"))) == 0)
        .expect("one of 64");
    let (mut watcher, _) =
        Talk::welcomed(&node.connect_url(&format!("?user={user}")), Encoding::Json).await;
    watcher.be_patient(LONG);
    for topic in &topics {
        let command = json!({"type": "subscribe", "topic": topic, "presence": true});
        watcher.ok(command).await;
    }
    for when in ["all there", "`@` away"] {
        if when == "`@` away" {
            second.signal("STOP");
        }
        let (mut opens, mut leaves) = (Vec::new(), Vec::new());
        let begun = Instant::now();
        for round in 0..ROUNDS {
            let topic = &topics[round % topics.len()];
            let opening = Instant::now();
            let (mut talk, welcome) =
                Talk::welcomed(&node.connect_url(&format!("?user={user}")), Encoding::Json).await;
            opens.push((opening.elapsed(), begun.elapsed()));
            let session = welcome["session"].clone();
            let command = json!({"type": "subscribe", "topic": topic, "presence": true});
            talk.ok(command).await;
            let leaving = Instant::now();
            drop(talk);
            watcher
                .event(|event| event["topic"] == **topic && event["left"][0]["session"] == session)
                .await;
            leaves.push((leaving.elapsed(), begun.elapsed()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for (what, times) in [("open", &mut opens), ("leave told", &mut leaves)] {
            times.sort();
            let (slowest, at) = times[ROUNDS - 1];
            println!(
                "{when}: {what} {:.1?} in the median, {slowest:.1?} at most ({at:.1?} after it \
                 began)",
                times[ROUNDS / 2].0
            );
        }
    }
}
