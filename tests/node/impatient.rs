//! Callers who go away before Redis has answered: what they asked for is in the numbers all the same.
//!
//! In: a node over a Redis that is stopped for a while, an HTTP caller and a session that end
//! meanwhile. Out: the counters and the log of the node.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, wait};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const GONE: &str = "fanfare_api_requests_total{route=\"/v1/publish\",status=\"499\"}";

async fn node(redis: &RedisServer) -> Node {
    Plan::clustered("one", &redis.url())
        .env("FANFARE_LOG__SLOW_MS", "200")
        .env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", "10000")
        .env("FANFARE_REDIS__LEASE_MS", "30000")
        .env("FANFARE_REDIS__PROBE_FRESH_MS", "60000")
        .start()
        .await
}

/// Waits until a metric has this value.
async fn until(node: &Node, name: &str, value: u64) {
    wait::until(name, async || {
        let text = http::get(node.api, "/metrics").await.text();
        let found = fanfare_testkit::node::sample(&text, name);
        (found == Some(value)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_caller_went_away_is_counted_and_told() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    redis.signal("STOP");
    let mut caller = TcpStream::connect(node.api).await.expect("it listens");
    let body = json!({"topic": "chat:t", "data": 1}).to_string();
    let head = format!(
        "POST /v1/publish HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        http::DEV_KEY,
        body.len()
    );
    caller.write_all(head.as_bytes()).await.expect("it reads");
    // Longer than what is told as slow.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(caller);
    until(&node, GONE, 1).await;
    until(&node, "fanfare_publish_unawaited_total", 1).await;
    until(&node, "fanfare_publish_seconds_count", 1).await;
    let lines = node.until_told("request_slowed").await;
    assert_eq!(log_field(&lines[0], "status"), Some(&json!(499)));
    // Nothing that is published is heard.
    wait::until("the feed to lag", async || {
        let lag = node.measure("fanfare_feed_lag_seconds").await;
        (lag > 3.0).then_some(())
    })
    .await;
    redis.signal("CONT");
}

#[tokio::test]
async fn a_command_whose_session_ended_is_counted_and_told() {
    let redis = RedisServer::start().await;
    let node = node(&redis).await;
    let url = node.connect_url("?user=ada");
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    let read = node.metric("fanfare_bytes_read_total").await;
    redis.signal("STOP");
    let publish = json!({"type": "publish", "topic": "chat:t", "data": 1});
    talk.command(publish).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(talk);
    until(&node, "fanfare_command_seconds_count{type=\"publish\"}", 1).await;
    until(&node, "fanfare_publish_unawaited_total", 1).await;
    let lines = node.until_told("command_slowed").await;
    assert_eq!(log_field(&lines[0], "command"), Some(&json!("publish")));
    assert!(node.metric("fanfare_bytes_read_total").await > read);
    redis.signal("CONT");
}
