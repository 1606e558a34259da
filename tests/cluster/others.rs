//! What nodes tell of each other: who came and who has gone, and how old that is.

use serde_json::Value;

use crate::processes::{PROCESS_LEASE, SOME_BEATS, owner_of, plan, sees};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

/// Waits until a node has so many lines of this event, and returns what they say in these fields.
pub(crate) async fn told(
    node: &Node,
    event: &str,
    count: usize,
    fields: &[&str],
) -> Vec<Vec<String>> {
    let lines = wait::until_within(SOME_BEATS, event, async || {
        let lines = node.log_lines(event);
        (lines.len() >= count).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), count, "{lines:?}");
    let field = |line: &Value, name: &str| match log_field(line, name) {
        Some(Value::String(text)) => text.clone(),
        other => other.map(ToString::to_string).unwrap_or_default(),
    };
    let said = |line: &Value| fields.iter().map(|name| field(line, name)).collect();
    lines.iter().map(said).collect()
}

/// `fresh` and `age_ms` of each node that this one shows.
async fn ages(node: &Node) -> Vec<(bool, u64)> {
    let answer = http::get(node.api, "/v1/nodes").await.json();
    let nodes = answer["nodes"].as_array().expect("a list").iter();
    let age = |node: &Value| (node["fresh"].as_bool(), node["age_ms"].as_u64());
    nodes
        .map(age)
        .map(|(fresh, age_ms)| (fresh.expect("a flag"), age_ms.expect("an age")))
        .collect()
}

async fn until_all_are(node: &Node, fresh: bool) {
    wait::until_within(SOME_BEATS, "all to be fresh, or none", async || {
        let ages = ages(node).await;
        ages.iter().all(|(f, _)| *f == fresh).then_some(())
    })
    .await;
}

pub(crate) async fn until_metric(node: &Node, name: &str, value: u64) {
    wait::until_within(SOME_BEATS, name, async || {
        (node.metric(name).await == value).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_which_others_came_and_which_have_gone_and_why() {
    let redis = RedisServer::start().await;
    let a = plan(&redis, "a").start().await;
    let mut b = plan(&redis, "b").start().await;
    sees(&a, &["a", "b"]).await;
    let mut lives = vec![owner_of("b", &a).await];
    b.signal("STOP");
    sees(&a, &["a"]).await;
    b.signal("CONT");
    sees(&a, &["a", "b"]).await;
    lives.push(owner_of("b", &a).await);
    until_metric(&b, "fanfare_incarnation_changes_total", 1).await;
    assert!(b.terminate().await.success());

    let came = told(&a, "node_joined", 2, &["other", "incarnation"]).await;
    let came: Vec<_> = came.iter().map(|said| said.join("~")).collect();
    assert_eq!(came, lives);
    let gone = told(&a, "node_gone", 2, &["other", "incarnation", "reason"]).await;
    let gone: Vec<_> = gone.iter().map(|said| said.join("~")).collect();
    let [first, second] = [&lives[0], &lives[1]];
    assert_eq!(
        gone,
        [format!("{first}~lease_ended"), format!("{second}~left")]
    );
    // Whoever finds others has seen none of them come, and nobody tells of itself.
    assert!(b.log_lines("node_joined").is_empty(), "{}", b.log_text());
    assert_eq!(a.metric("fanfare_incarnation_changes_total").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_come_or_go_at_once_are_told_by_their_number() {
    let redis = RedisServer::start().await;
    let a = plan(&redis, "a").start().await;
    // One step each, so that no heartbeat sees a part of them.
    const COME: &str = "for n = 1, 21 do
        redis.call('HSET', '{ff:nodes}:i', 'n' .. n, '1732190000000000 0abc')
        redis.call('ZADD', '{ff:nodes}', '99999999999999', 'n' .. n)
    end";
    const GO: &str = "for n = 1, 21 do redis.call('ZREM', '{ff:nodes}', 'n' .. n) end";
    let counts = ["came_count", "gone_count", "nodes_count"];
    assert!(redis.ask(&["EVAL", COME, "0"]).is_some());
    let changed = told(&a, "nodes_changed", 1, &counts).await;
    assert_eq!(changed[0], ["21", "0", "22"]);
    assert!(redis.ask(&["EVAL", GO, "0"]).is_some());
    let changed = told(&a, "nodes_changed", 2, &counts).await;
    assert_eq!(changed[1], ["0", "21", "1"]);
    for event in ["node_joined", "node_gone"] {
        assert!(a.log_lines(event).is_empty(), "{}", a.log_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_nodes_grows_old_while_redis_is_away() {
    let mut redis = RedisServer::start().await;
    let a = plan(&redis, "a").start().await;
    let mut b = plan(&redis, "b").start().await;
    sees(&a, &["a", "b"]).await;
    until_all_are(&a, true).await;
    redis.kill();
    b.kill();

    until_all_are(&a, false).await;
    let lease_ms = u64::try_from(PROCESS_LEASE.as_millis()).expect("short");
    let age_s = a.measure("fanfare_cluster_view_age_seconds").await;
    let ages = ages(&a).await;
    assert_eq!(ages.len(), 2, "the last view stays");
    assert!(ages.iter().all(|(_, ms)| *ms >= lease_ms), "{ages:?}");
    assert!(age_s >= PROCESS_LEASE.as_secs_f64(), "{age_s}");
    let missed = a
        .metric("fanfare_heartbeats_total{result=\"missed\"}")
        .await;
    assert!(missed > 0);

    redis.restart().await;
    sees(&a, &["a"]).await;
    until_all_are(&a, true).await;
    let gone = told(&a, "node_gone", 1, &["other", "reason"]).await;
    assert_eq!(gone, [["b", "lease_ended"]]);
}
