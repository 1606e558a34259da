//! Partitions whose queues stand still: what waits there is told and counts, whoever can act for them.

use serde_json::{Value, json};

use fanfare_protocol::ids::{Priority, Topic};
use fanfare_testkit::http;
use fanfare_testkit::node::Node;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

use fanfare::redis::Keys;

use crate::processes::{SOME_BEATS, plan, sees};

/// As many as nodes have by themselves.
const PARTITIONS: u32 = 256;
/// `queue.capacity` of nodes that are told nothing.
const CAPACITY: u64 = 50_000;

fn keys() -> Keys {
    Keys::new("ff", PARTITIONS)
}

/// A topic of this partition.
fn topic_in(partition: u32) -> String {
    let mut names = (0..).map(|number| format!("room:{number}"));
    let is_there = |name: &String| {
        let topic = Topic::from_qualified(&format!("default:{name}"));
        topic.expect("a good name").partition(PARTITIONS) == partition
    };
    names.find(is_there).expect("some name")
}

/// Puts a key of another type under this name.
fn spoil(redis: &RedisServer, key: &str) {
    // In one step: nodes write theirs again at once.
    let script = "redis.call('DEL', KEYS[1]) return redis.call('SADD', KEYS[1], 'x')";
    let done = redis.command(&["EVAL", script, "1", key]);
    assert_eq!(done.as_deref(), Some(":1"));
}

async fn sum(nodes: &[Node], metric: &str) -> u64 {
    let mut sum = 0;
    for node in nodes {
        sum += node.metric(metric).await;
    }
    sum
}

async fn queue(node: &Node) -> Value {
    http::get(node.api, "/v1/queue").await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_where_no_node_can_have_the_lease_is_told_by_its_home_and_stands_still() {
    const SPOILT: u32 = 20;
    let redis = RedisServer::start().await;
    let nodes = vec![
        plan(&redis, "a").start().await,
        plan(&redis, "b").start().await,
    ];
    for node in &nodes {
        sees(node, &["a", "b"]).await;
    }
    for partition in 0..SPOILT {
        spoil(&redis, &keys().partition(partition));
    }
    for partition in 0..SPOILT {
        let body = json!({"topic": topic_in(partition), "data": 1, "priority": "critical"});
        let answer = http::post(nodes[0].api, "/v1/queue", &body).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    wait::until_within(SOME_BEATS, "all of it to be told", async || {
        let told = queue(&nodes[1]).await;
        let is_told = told["depth"] == SPOILT && told["oldest_ms"].as_u64() > Some(3_000);
        let blocked = sum(&nodes, "fanfare_queue_blocked_partitions").await;
        let capacity = sum(&nodes, "fanfare_queue_capacity").await;
        let all = (is_told, blocked, capacity);
        (all == (true, u64::from(SPOILT), CAPACITY)).then_some(())
    })
    .await;
    let lines: usize = nodes
        .iter()
        .map(|node| node.log_lines("queue_blocked").len())
        .sum();
    assert!((1..=8).contains(&lines), "{lines} lines");
    // The keys are mended, and it is published.
    for partition in 0..SPOILT {
        let key = keys().partition(partition);
        redis.command(&["DEL", &key]).expect("the server runs");
    }
    wait::until_within(SOME_BEATS, "nothing to stand still", async || {
        let blocked = sum(&nodes, "fanfare_queue_blocked_partitions").await;
        (blocked == 0 && queue(&nodes[0]).await["depth"] == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_still_for_a_foreign_key_counts_against_the_capacity() {
    const SPOILT: u32 = 3;
    let redis = RedisServer::start().await;
    let plan = plan(&redis, "a").env("FANFARE_QUEUE__CAPACITY", "100");
    let node = plan.start().await;
    for partition in 0..SPOILT {
        spoil(&redis, &keys().queue_dead(partition));
        // The first of its stream is to be put aside, and cannot be.
        let stream = keys().queue(partition, Priority::Critical);
        let topic = topic_in(partition);
        let words = [
            "XADD",
            &stream,
            "*",
            "topic",
            &topic,
            "data",
            "1",
            "expires_at",
            "1",
        ];
        redis.command(&words).expect("the server runs");
    }
    let bodies: Vec<_> = (0..SPOILT)
        .map(|partition| json!({"topic": topic_in(partition), "data": 1, "priority": "critical"}))
        .collect();
    let mut accepted = u64::from(SPOILT);
    // For longer than what was taken counts without being told.
    for _ in 0..100 {
        let answer = http::post(node.api, "/v1/queue", &Value::from(bodies.clone())).await;
        let answer = answer.json();
        let results = answer["results"].as_array().expect("results");
        let taken = results
            .iter()
            .filter(|one| one["results"][0]["entry"].is_string());
        accepted += taken.count() as u64;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // About, by how late figures are; 303 without a bound.
    assert!((90..=160).contains(&accepted), "{accepted} accepted of 100");
    let told = wait::until_within(SOME_BEATS, "all of it to be told", async || {
        let told = queue(&node).await;
        (told["depth"] == accepted).then_some(told)
    })
    .await;
    assert!(told["oldest_ms"].as_u64() > Some(5_000), "{told}");
    let all = http::get(node.api, "/v1/queue?partitions=true").await;
    let all = all.json();
    let depths = all["partitions"].as_array().expect("a list");
    let depths = depths.iter().filter_map(|one| one["depth"].as_u64());
    assert_eq!(depths.sum::<u64>(), accepted, "{all}");
    let failed = all["failed"].as_array().map(Vec::len);
    assert_eq!(failed, Some(SPOILT as usize), "{all}");
    let blocked = node.metric("fanfare_queue_blocked_partitions").await;
    assert_eq!(blocked, u64::from(SPOILT));
    assert_eq!(
        node.log_lines("queue_blocked").len(),
        1,
        "one kind of fault"
    );
}
