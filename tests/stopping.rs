//! How a node leaves: what its sessions are told, in which order, and how the process ends.

mod support;

use std::time::Duration;

use serde_json::json;
use support::http;
use support::node::Plan;
use support::raw::{Handshake, Raw};
use support::talk::{Talk, WIRES, Wire};

#[tokio::test]
async fn a_node_that_is_asked_to_leave_tells_its_sessions_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let plan = Plan::dev().env("FANFARE_DRAIN__WINDOW_MS", "500");
        let mut node = plan.start().await;
        let mut sessions = Vec::new();
        for wire in WIRES {
            let url = node.connect_url("?user=ada");
            sessions.push(Talk::welcomed(&url, wire).await.0);
        }
        node.signal(signal);
        for talk in &mut sessions {
            let drain = talk.event_of("drain").await;
            assert!(drain["reconnect_after_ms"].is_u64(), "{drain}");
            assert_eq!(talk.close_code().await, Some(4100));
        }
        assert_eq!(node.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_leaving_node_is_not_ready_takes_nobody_in_and_answers_those_inside() {
    let plan = Plan::dev().env("FANFARE_DRAIN__DELAY_MS", "3000");
    let mut node = plan.env("FANFARE_DRAIN__WINDOW_MS", "500").start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Wire::Json).await;
    // Connected before the listener closes, asking after it.
    let mut late = Raw::open(node.public).await;
    node.signal("TERM");
    node.until_unready().await;
    assert_eq!(http::get(node.api, "/health/live").await.status, 200);
    late.send(&Handshake::to("/v1/connect?user=late").bytes())
        .await;
    let head = late.head().await.expect("an answer");
    assert_eq!(head.status, 503);
    assert!(head.header("retry-after").is_some(), "{head:?}");
    talk.ok(json!({"type": "subscribe", "topic": "t"})).await;
    talk.publish("t", json!(1)).await;
    assert_eq!(talk.close_code().await, Some(4100));
    assert_eq!(node.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once_with_130() {
    let mut node = Plan::dev()
        .env("FANFARE_DRAIN__DELAY_MS", "600000")
        .start()
        .await;
    node.signal("TERM");
    node.until_unready().await;
    let asked = std::time::Instant::now();
    node.signal("INT");
    assert_eq!(node.ended().await.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(5));
}
