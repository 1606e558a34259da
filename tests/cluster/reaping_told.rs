//! What operators are told of reaping: which failure is whose, and what is no recovery.

use serde_json::Value;

use crate::processes::{Members, SOME_BEATS, nothing_left, owner_of, plan, sees};
use crate::reaper::leave_behind;
use crate::rig::{PARTITIONS, link, topic};
use crate::scripts::answering;
use fanfare::redis::Keys;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;

const FAILING: &str = "fanfare_reaping_failing";

/// A part of a node as `/health/detailed` shows it: whether it does well, and what it says.
async fn component(node: &Node, name: &str) -> (bool, String) {
    let answer = http::get(node.api, "/health/detailed").await.json();
    let components = answer["components"].as_array().expect("a list");
    let component = components.iter().find(|part| part["name"] == name);
    let component = component.unwrap_or_else(|| panic!("no {name} in {answer}"));
    let detail = component["detail"].as_str().expect("a text").to_owned();
    (component["healthy"] == true, detail)
}

async fn until(what: &str, so: impl AsyncFn() -> bool) {
    wait::until_within(SOME_BEATS, what, so).await;
}

fn told(line: &Value, field: &str) -> String {
    log_field(line, field).map_or_else(String::new, |value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

#[tokio::test]
async fn a_redis_that_is_away_is_no_member_that_cannot_be_removed_and_its_end_no_recovery() {
    let redis = RedisServer::start().await;
    let node = plan(&redis, "one").start().await;
    until("all to be held", async || {
        node.metric("fanfare_partitions").await == u64::from(PARTITIONS)
    })
    .await;
    redis.signal("STOP");
    until("the indexes not to be read", async || {
        !node.log_lines("index_reading_failed").is_empty()
    })
    .await;
    until("the leases to end", async || {
        node.metric("fanfare_partitions").await == 0
    })
    .await;
    until("that to be told", async || {
        !node.log_lines("partition_leases_missed").is_empty()
    })
    .await;
    assert!(node.metric(FAILING).await > 0, "nothing has mended it");
    for event in ["reaping_failed", "reaping_recovered", "reaping_moved"] {
        assert!(node.log_lines(event).is_empty(), "{}", node.log_text());
    }
    let (is_healthy, detail) = component(&node, "reaping").await;
    assert!(
        !is_healthy && detail.contains("redis at 127.0.0.1"),
        "{detail}"
    );

    redis.signal("CONT");
    node.until_told("partition_leases_answered").await;
    node.until_told("reaping_recovered").await;
    assert_eq!(node.metric(FAILING).await, 0);
    assert!(component(&node, "reaping").await.0);
}

#[tokio::test]
async fn each_new_reason_is_told_with_what_it_is_about() {
    let redis = RedisServer::start().await;
    let link = answering(&redis).await;
    leave_behind(&link, "ghost~1", "room:1", 1).await;
    let keys = Keys::new("ff", PARTITIONS);
    let bad = keys.hash(&topic("room:1").presence());
    for words in [&["DEL", &bad][..], &["SET", &bad, "no hash"]] {
        redis.ask(words).unwrap();
    }
    let node = plan(&redis, "one").start().await;
    let first = node.until_told("reaping_failed").await.remove(0);
    let partition = topic("room:1").partition(PARTITIONS).to_string();
    let server = format!("127.0.0.1:{}", redis.port());
    for (field, expected) in [
        ("partition", partition.as_str()),
        ("topic", "default:room:1"),
        ("owner", "ghost~1"),
        ("server", &server),
    ] {
        assert_eq!(told(&first, field), expected, "{first}");
    }
    assert!(told(&first, "error").contains("WRONGTYPE"), "{first}");

    // Another reason, before anything is well again.
    let index = keys.topics_index(topic("room:1").partition(PARTITIONS));
    redis.ask(&["SET", &index, "no index"]).unwrap();
    let second = wait::until_within(SOME_BEATS, "the other reason", async || {
        node.log_lines("index_reading_failed").pop()
    })
    .await;
    assert_eq!(told(&second, "partition"), partition, "{second}");
    assert_eq!(node.metric(FAILING).await, 1);
    let (is_healthy, detail) = component(&node, "reaping").await;
    let says = "default:room:1 of ghost~1";
    assert!(!is_healthy && detail.contains(says), "{detail}");

    redis.ask(&["DEL", &index, &bad]).unwrap();
    until("all to be cleaned", async || {
        node.metric(FAILING).await == 0
    })
    .await;
    node.until_told("reaping_recovered").await;
}

#[tokio::test]
async fn a_node_that_gets_no_lease_of_a_partition_says_so() {
    let redis = RedisServer::start().await;
    for words in [
        &["ACL", "SETUSER", "default", "resetkeys", "~ff:{*"][..],
        &[
            "ACL",
            "SETUSER",
            "default",
            "~{ff:nodes}*",
            "~ff:ti:*",
            "~ff:fp",
        ],
    ] {
        redis.ask(words).unwrap();
    }
    let node = plan(&redis, "one").start().await;
    let line = node.until_told("partition_leases_missed").await.remove(0);
    assert_eq!(told(&line, "count"), PARTITIONS.to_string(), "{line}");
    assert!(told(&line, "reason").contains("NOPERM"), "{line}");
    let (is_healthy, detail) = component(&node, "partitions").await;
    assert!(!is_healthy, "{detail}");
    assert!(
        detail.starts_with("0 of 256 held, 256 not answered for"),
        "{detail}"
    );

    redis
        .ask(&["ACL", "SETUSER", "default", "allkeys"])
        .unwrap();
    node.until_told("partition_leases_answered").await;
    let well = (true, "256 of 256 held".to_owned());
    until("all to be held", async || {
        component(&node, "partitions").await == well
    })
    .await;
}

/// Nobody looks at once for what a node left that says it left nothing.
#[tokio::test]
async fn a_node_that_cannot_take_back_a_member_does_not_say_that_it_left_nothing() {
    let redis = RedisServer::start().await;
    let link = link(redis.port());
    let one = plan(&redis, "one").start().await;
    let mut gone = Vec::new();
    for is_bad in [false, true] {
        let mut two = plan(&redis, "two").start().await;
        sees(&one, &["one", "two"]).await;
        let _members = Members::enter(&two, "room", 1).await;
        let owner = owner_of("two", &one).await;
        let members = Keys::new("ff", PARTITIONS).hash(&topic("room").presence());
        if is_bad {
            for words in [&["DEL", &members][..], &["SET", &members, "no hash"]] {
                redis.ask(words).unwrap();
            }
        }
        assert!(two.terminate().await.success());
        gone = wait::until_within(SOME_BEATS, "the node to be gone", async || {
            let lines = one.log_lines("node_gone");
            (lines.len() == 1 + usize::from(is_bad)).then_some(lines)
        })
        .await;
        if is_bad {
            redis.ask(&["DEL", &members]).unwrap();
            one.until_told("remains_reaped").await;
        } else {
            nothing_left(&link, &owner).await;
        }
    }
    let reasons: Vec<_> = gone.iter().map(|line| told(line, "reason")).collect();
    assert_eq!(reasons, ["left", "lease_ended"]);
}
