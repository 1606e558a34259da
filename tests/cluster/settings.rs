//! Settings that nodes have otherwise than others: what they say of them with their heartbeats, and
//! what they tell.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::others::{told, until_metric};
use crate::processes::{PROCESS_LEASE, plan, sees};
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;

const DIFFERING: &str = "fanfare_cluster_nodes_differing";

/// How a node is started with so many namespaces, each with a history of so many entries.
fn keeping(redis: &RedisServer, name: &str, namespaces: usize, entries_max: u32) -> Plan {
    let file = format!("{namespaces}-{entries_max}.toml");
    let path = redis.directory().join(file);
    let mut text = String::new();
    for nth in 0..namespaces {
        let section = format!("[namespaces.chat{nth}]\nhistory_entries_max = {entries_max}\n");
        text.write_str(&section).expect("a text grows");
    }
    std::fs::write(&path, text).expect("a file can be written");
    plan(redis, name).flag(&format!("--config={}", path.display()))
}

/// What `/health/detailed` says of the settings.
async fn settings(node: &Node) -> (bool, String) {
    let answer = http::get(node.api, "/health/detailed").await.json();
    let components = answer["components"].as_array().expect("a list");
    let found = components.iter().find(|part| part["name"] == "settings");
    let part = found.unwrap_or_else(|| panic!("no settings in {answer}"));
    let healthy = part["healthy"].as_bool().expect("a flag");
    (healthy, part["detail"].as_str().expect("a text").to_owned())
}

/// A node of an earlier release, as it stands in Redis, with a lease that outlasts the test.
fn lists_an_older_node(redis: &RedisServer, name: &str, says: &Value) {
    let says = says.to_string();
    for words in [
        &["HSET", "{ff:nodes}:i", name, "1732190000000000 0abc"][..],
        &["HSET", "{ff:nodes}:d", name, &says],
        &["ZADD", "{ff:nodes}", "99999999999999", name],
    ] {
        assert!(redis.command(words).is_some(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_keep_something_else_tell_it_until_they_keep_the_same() {
    let redis = RedisServer::start().await;
    let a = keeping(&redis, "a", 1, 900).start().await;
    let says = json!({"beats": 1, "state": "ready", "version": "0.0.9"});
    lists_an_older_node(&redis, "older", &says);
    sees(&a, &["a", "older"]).await;
    let mut b = keeping(&redis, "b", 1, 0).start().await;
    let what = "namespaces.chat0.history_entries_max";
    for (node, text) in [(&a, "0 at b, 900 here"), (&b, "900 at a, 0 here")] {
        let fields = ["nodes_count", "differences"];
        let lines = told(node, "settings_differed", 1, &fields).await;
        let [count, differences] = &lines[0][..] else {
            panic!("{lines:?}");
        };
        assert_eq!(count, "1");
        assert!(
            differences.contains(&format!("{what}: {text}")),
            "{differences}"
        );
        assert_eq!(node.metric(DIFFERING).await, 1);
        let (healthy, detail) = settings(node).await;
        assert!(!healthy && detail.contains(differences), "{detail}");
        assert!(node.is_ready().await, "settings may be on their way");
    }
    assert!(b.terminate().await.success());
    let b = keeping(&redis, "b", 1, 900).start().await;
    sees(&a, &["a", "b", "older"]).await;
    told(&a, "settings_agreed", 1, &[]).await;
    for node in [&a, &b] {
        until_metric(node, DIFFERING, 0).await;
        let same = "the same at 1 of 2 other nodes; not said by 1 of an earlier release";
        assert_eq!(settings(node).await, (true, same.to_owned()));
    }
    assert_eq!(a.log_lines("settings_differed").len(), 1);
    assert!(b.log_lines("settings_differed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_do_not_grow_with_what_a_node_keeps_and_differences_are_named_all_the_same() {
    let redis = RedisServer::start().await;
    let a = keeping(&redis, "a", 1, 900).start().await;
    let _b = keeping(&redis, "b", 32, 900).start().await;
    sees(&a, &["a", "b"]).await;
    let said = ["a", "b"].map(|name| {
        let said = redis.ask(&["HGET", "{ff:nodes}:d", name]);
        said.expect("Redis answers").remove(0).len()
    });
    // Whatever a node keeps; half of it is how it does.
    assert!(said.iter().all(|bytes| *bytes < 1_024), "{said:?}");
    let lines = told(&a, "settings_differed", 1, &["differences"]).await;
    let what = "namespaces.chat1.history_entries_max: 900 at b, 1000 here";
    assert!(lines[0][0].contains(what), "{lines:?}");
    // What is kept apart ends with the nodes that say it.
    let texts = redis.ask(&["KEYS", "{ff:nodes}:s:*"]).expect("a list");
    assert_eq!(texts.len(), 2);
    for text in texts {
        let ends_s = redis.command(&["TTL", &text]).expect("an answer");
        let ends_s: i64 = ends_s.trim_start_matches(':').parse().expect("a number");
        assert!(ends_s > 0, "{text} ends in {ends_s} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_another_lease_tell_it() {
    let redis = RedisServer::start().await;
    let a = plan(&redis, "a").start().await;
    let lease_ms = (PROCESS_LEASE * 10).as_millis().to_string();
    let b = plan(&redis, "b").env("FANFARE_REDIS__LEASE_MS", &lease_ms);
    let b = b.start().await;
    sees(&a, &["a", "b"]).await;
    let here = PROCESS_LEASE.as_millis();
    for (node, text) in [
        (&a, format!("redis.lease_ms: {lease_ms} at b, {here} here")),
        (&b, format!("redis.lease_ms: {here} at a, {lease_ms} here")),
    ] {
        let lines = told(node, "settings_differed", 1, &["differences"]).await;
        assert_eq!(lines, [[text]]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_rolled_out_node_by_node_is_told_once() {
    let redis = RedisServer::start().await;
    let a = plan(&redis, "a").start().await;
    // Of the release that says it with its heartbeats.
    let says = json!({"beats": 1, "state": "ready", "keeps": "@session:77"});
    for count in 1..=5 {
        lists_an_older_node(&redis, &format!("n{count}"), &says);
        until_metric(&a, DIFFERING, count).await;
    }
    // And one of them comes and goes.
    for count in [4, 5, 4, 5] {
        let words = match count {
            4 => ["ZREM", "{ff:nodes}", "n5"].to_vec(),
            _ => ["ZADD", "{ff:nodes}", "99999999999999", "n5"].to_vec(),
        };
        assert!(redis.command(&words).is_some());
        until_metric(&a, DIFFERING, count).await;
    }
    let lines = told(&a, "settings_differed", 1, &["differences"]).await;
    assert!(
        lines[0][0].contains("session.idempotency_s: 77 at n1, 300 here"),
        "{lines:?}"
    );
    let (_, detail) = settings(&a).await;
    let names = "n1, n2, n3 and 2 more nodes";
    assert!(detail.contains(names), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_let_others_in_tell_it_until_the_last_has_read_the_change() {
    let redis = RedisServer::start().await;
    let write = |name: &str, leeway_s: u32, rule: &str| {
        let path = redis.directory().join(name);
        let text =
            format!("[auth]\nleeway_s = {leeway_s}\n[namespaces.chat]\nsubscribe = \"{rule}\"\n");
        std::fs::write(&path, text).expect("a file can be written");
        format!("--config={}", path.display())
    };
    let start =
        async |name: &'static str, flag: String| plan(&redis, name).flag(&flag).start().await;
    let a = start("a", write("a.toml", 5, "anyone")).await;
    let b = start("b", write("b.toml", 300, "anyone")).await;
    sees(&a, &["a", "b"]).await;
    let lines = told(&a, "settings_differed", 1, &["differences"]).await;
    assert_eq!(lines, [["auth.leeway_s: 300 at b, 5 here"]]);
    write("b.toml", 5, "anyone");
    b.signal("HUP");
    b.until_told("configuration_reloaded").await;
    until_metric(&a, DIFFERING, 0).await;
    until_metric(&b, DIFFERING, 0).await;
    let c = start("c", write("c.toml", 5, "nobody")).await;
    until_metric(&c, DIFFERING, 2).await;
    let (_, detail) = settings(&c).await;
    let rule = "namespaces.chat.subscribe: anyone at a, b, nobody here";
    assert!(detail.contains(rule), "{detail}");
}
