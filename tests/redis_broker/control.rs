//! Control messages as nodes of this release wrote them, and as later ones may.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::Plan;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::{http, wait};

const RECORDED: &str = include_str!("../recorded/control_v1.jsonl");

/// Sends bytes to every node, as another node would: behind a number of their own.
fn send(redis: &RedisServer, message: &str) {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
    let message = format!("{number:016x} {message}");
    let heard = redis.command(&["PUBLISH", "ff:ctl", &message]);
    assert_eq!(heard.as_deref(), Some(":1"), "one node listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_obeys_the_recorded_messages_and_skips_what_later_releases_may_send() {
    let redis = RedisServer::start().await;
    let mut node = Plan::clustered("node-2", &redis.url()).start().await;
    let (mut ada, _) = Talk::welcomed(&node.connect_url("?user=auth0|x"), Encoding::Json).await;
    let ignored = "fanfare_control_ignored_total";
    let strange = [
        r#"{"v":2,"from":"node-9~1","kind":"disconnect","who":["auth0|x"]}"#,
        r#"{"v":1,"from":"node-9~1","kind":"dance","user":"auth0|x"}"#,
        r#"{"v":1,"from":"node-9~1","kind":"disconnect","app":"default","user":"auth0|x","code":4999}"#,
        "hello",
    ];
    for message in strange {
        send(&redis, message);
    }
    wait::until("what is strange to be counted", async || {
        (node.metric(ignored).await == strange.len() as u64).then_some(())
    })
    .await;
    ada.ok(json!({"type": "subscribe", "topic": "t"})).await;

    let mut recorded = RECORDED.lines();
    let disconnect = recorded.next().expect("the first message");
    // A later release adds a field.
    send(&redis, &disconnect.replace('}', ",\"why\":\"asked\"}"));
    assert_eq!(ada.close_code().await, Some(4002));
    for message in recorded {
        send(&redis, message);
    }
    // The last one asks this node to leave.
    assert!(node.ended().await.success());
    assert!(http::try_get(node.api, "/health/live").await.is_none());
}
