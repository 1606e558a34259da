//! What nodes tell of each other: who came and who has gone, how old that is, and who keeps or promises
//! something else.

use serde_json::{Value, json};

use crate::processes::{PROCESS_LEASE, SOME_BEATS, owner_of, plan, sees};
use crate::support::http;
use crate::support::node::{Node, Plan, log_field};
use crate::support::redis_server::RedisServer;
use crate::support::wait;

/// Waits until a node has so many lines of this event, and returns what they say in these fields.
async fn told(node: &Node, event: &str, count: usize, fields: &[&str]) -> Vec<Vec<String>> {
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

async fn until_metric(node: &Node, name: &str, value: u64) {
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
    let ages = ages(&a).await;
    assert_eq!(ages.len(), 2, "the last view stays");
    assert!(ages.iter().all(|(_, ms)| *ms >= lease_ms), "{ages:?}");
    assert!(a.metric("fanfare_cluster_view_age_ms").await >= lease_ms);
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

/// How a node is started whose namespace `chat` has a history of so many entries.
fn keeping(redis: &RedisServer, name: &str, entries_max: u32) -> Plan {
    let path = redis.directory().join(format!("{entries_max}.toml"));
    let text = format!("[namespaces.chat]\nhistory_entries_max = {entries_max}\n");
    std::fs::write(&path, text).expect("a file can be written");
    plan(redis, name).flag(&format!("--config={}", path.display()))
}

/// What `/health/detailed` says of the namespaces.
async fn namespaces(node: &Node) -> (bool, String) {
    let answer = http::get(node.api, "/health/detailed").await.json();
    let components = answer["components"].as_array().expect("a list");
    let found = components.iter().find(|part| part["name"] == "namespaces");
    let part = found.unwrap_or_else(|| panic!("no namespaces in {answer}"));
    let healthy = part["healthy"].as_bool().expect("a flag");
    (healthy, part["detail"].as_str().expect("a text").to_owned())
}

/// A node of the release before, as it stands in Redis, with a lease that outlasts the test.
fn lists_an_older_node(redis: &RedisServer) {
    let says = json!({"beats": 1, "state": "ready", "version": "0.0.9"}).to_string();
    for words in [
        &["HSET", "{ff:nodes}:i", "older", "1732190000000000 0abc"][..],
        &["HSET", "{ff:nodes}:d", "older", &says],
        &["ZADD", "{ff:nodes}", "99999999999999", "older"],
    ] {
        assert!(redis.command(words).is_some(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_keep_something_else_tell_it_until_they_keep_the_same() {
    const DIFFERING: &str = "fanfare_cluster_nodes_differing";
    let redis = RedisServer::start().await;
    let a = keeping(&redis, "a", 900).start().await;
    lists_an_older_node(&redis);
    sees(&a, &["a", "older"]).await;
    let mut b = keeping(&redis, "b", 0).start().await;
    let what = "namespaces.chat.history_entries_max";
    for (node, text) in [(&a, "0 at b, 900 here"), (&b, "900 at a, 0 here")] {
        let lines = told(
            node,
            "namespaces_differed",
            1,
            &["nodes_count", "differences"],
        )
        .await;
        let [count, differences] = &lines[0][..] else {
            panic!("{lines:?}");
        };
        assert_eq!(count, "1");
        assert!(
            differences.contains(&format!("{what}: {text}")),
            "{differences}"
        );
        assert_eq!(node.metric(DIFFERING).await, 1);
        let (healthy, detail) = namespaces(node).await;
        assert!(!healthy && detail.contains(differences), "{detail}");
        assert!(node.is_ready().await, "settings may be on their way");
    }
    assert!(b.terminate().await.success());
    let b = keeping(&redis, "b", 900).start().await;
    sees(&a, &["a", "b", "older"]).await;
    told(&a, "namespaces_agreed", 1, &[]).await;
    for node in [&a, &b] {
        until_metric(node, DIFFERING, 0).await;
        let same = "the same at 1 of 2 other nodes; not said by 1 of an earlier release";
        assert_eq!(namespaces(node).await, (true, same.to_owned()));
    }
    assert_eq!(a.log_lines("namespaces_differed").len(), 1);
    assert!(b.log_lines("namespaces_differed").is_empty());
}
