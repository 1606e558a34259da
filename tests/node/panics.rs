//! What a panic ends: a session alone, or the process with a reason; and nothing stays behind.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan, log_field};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::json;

/// A node of which a part panics so long after that part began.
fn plan(plan: Plan, part: &str, ms: u64) -> Plan {
    plan.env("PLANTED_PANIC", &format!("{part}@{ms}"))
}

async fn ends_with_a_reason(mut node: Node, part: &str) {
    let patience = Duration::from_secs(60);
    assert_eq!(node.ended_within(patience).await.code(), Some(70), "{part}");
    let lines = node.log_lines("vital_part_ended");
    let [line] = &lines[..] else {
        panic!("{part}: {}", node.log_text());
    };
    let said = log_field(line, "part").expect("the part");
    assert!(
        said.as_str().is_some_and(|said| said.contains(part)),
        "{line}"
    );
    assert_eq!(log_field(line, "reason"), Some(&json!("planted")));
    let reported = node.log_lines("panic_reported");
    assert!(!reported.is_empty(), "{part}");
}

#[tokio::test]
async fn the_end_of_a_vital_part_ends_the_process_with_a_reason() {
    for part in ["worker-1", "dispatcher", "presence", "accept"] {
        let node = plan(Plan::dev(), part, 1_000).start_unready().await;
        ends_with_a_reason(node, part).await;
    }
    let redis = RedisServer::start().await;
    for part in ["feed", "publisher", "membership"] {
        let node = plan(Plan::clustered("one", &redis.url()), part, 1_000);
        ends_with_a_reason(node.start_unready().await, part).await;
    }
}

#[tokio::test]
async fn a_session_that_panics_leaves_nothing_behind() {
    let node = plan(Plan::dev(), "session", 1_000).start().await;
    let (mut ada, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let subscribe = json!({"type": "subscribe", "topic": "t", "presence": true});
    ada.ok(subscribe).await;
    assert_eq!(ada.close_code().await, Some(4_104));
    wait::until("nothing to be left", async || {
        let left = [
            node.metric("fanfare_sessions").await,
            node.metric("fanfare_subscriptions").await,
        ];
        (left == [0, 0]).then_some(())
    })
    .await;
    let ends = "fanfare_sessions_closed_total{reason=\"internal\"}";
    assert_eq!(node.metric(ends).await, 1);
    assert_eq!(node.until_told("task_panicked").await.len(), 1);
    assert!(node.is_ready().await);
    // The next one is served, and finds nobody in the topic.
    let (mut bob, _) = Talk::welcomed(&node.connect_url("?user=bob"), Encoding::Json).await;
    let members = bob.ok(json!({"type": "presence", "topic": "t"})).await;
    assert_eq!(members["count"], 0);
}
