//! How a node leaves: what its sessions are told, in which order, and how the process ends.

use std::time::{SystemTime, UNIX_EPOCH};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Plan, log_field};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::json;

#[tokio::test]
async fn a_node_that_is_asked_to_leave_tells_its_sessions_and_ends_with_0() {
    for signal in ["TERM", "INT"] {
        let plan = Plan::dev().env("FANFARE_DRAIN__WINDOW_MS", "500");
        let mut node = plan.start().await;
        let mut sessions = Vec::new();
        for wire in Encoding::ALL {
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
async fn a_node_without_redis_tells_at_its_end_how_many_entries_end_with_it() {
    for count in [0, 2] {
        let mut node = Plan::dev().start().await;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = since_1970.expect("after 1970").as_millis() as u64;
        for n in 0..count {
            let entry = json!({"topic": "a", "data": n, "not_before": now_ms + 86_400_000});
            let answer = http::post(node.api, "/v1/queue", &entry).await;
            assert_eq!(answer.status, 202);
        }
        assert_eq!(node.terminate().await.code(), Some(0));
        let told = node.log_lines("queue_lost");
        let counts = told
            .iter()
            .map(|line| log_field(line, "waiting_count").cloned());
        let expected = (count > 0).then(|| Some(json!(count)));
        assert!(counts.eq(expected), "{told:?}");
    }
}

#[tokio::test]
async fn a_leaving_node_is_not_ready_takes_nobody_in_and_answers_those_inside() {
    // Longer than anything here: the balancer's time is not over while this is looked at.
    let plan = Plan::dev().env("FANFARE_DRAIN__DELAY_MS", "600000");
    let node = plan.start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
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
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once_with_130() {
    let mut node = Plan::dev()
        .env("FANFARE_DRAIN__DELAY_MS", "600000")
        .start()
        .await;
    node.signal("TERM");
    node.until_unready().await;
    // At once against the ten minutes that it would have waited.
    node.signal("INT");
    assert_eq!(node.ended().await.code(), Some(130));
}

#[tokio::test]
async fn any_node_may_be_asked_to_drain_another_and_shows_how_far_it_is() {
    let redis = RedisServer::start().await;
    let url = redis.url();
    let asked = Plan::clustered("asked", &url).start().await;
    let plan = Plan::clustered("leaver", &url).env("FANFARE_DRAIN__DELAY_MS", "10000");
    let mut leaver = plan.env("FANFARE_DRAIN__WINDOW_MS", "500").start().await;
    let (mut talk, _) = Talk::welcomed(&leaver.connect_url("?user=ada"), Encoding::Json).await;
    let shown = async || {
        let nodes = http::get(asked.api, "/v1/nodes").await.json();
        let all = nodes["nodes"].as_array().expect("a list").clone();
        all.into_iter().find(|node| node["node"] == "leaver")
    };
    wait::until("the leaver's session to be seen", async || {
        let node = shown().await?;
        (node["sessions"] == 1 && node["drain_sessions"].is_null()).then_some(())
    })
    .await;
    let answer = http::post(asked.api, "/v1/nodes/leaver/drain", &json!({})).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()),
        (200, json!({"node": "leaver"}))
    );
    wait::until("the leaver to say so", async || {
        let node = shown().await?;
        (node["state"] == "draining" && node["drain_sessions"] == 1).then_some(())
    })
    .await;
    assert_eq!(leaver.metric("fanfare_drain_sessions").await, 1);
    talk.event_of("drain").await;
    assert_eq!(talk.close_code().await, Some(4100));
    drop(talk);
    assert_eq!(leaver.ended().await.code(), Some(0));
    assert!(asked.is_ready().await, "the order was for one node");
    wait::until("the lease to be given back", async || {
        shown().await.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_signal_to_a_node_that_was_told_to_drain_does_not_cut_its_sessions_off() {
    let plan = Plan::dev().flag("--node-id=me");
    let plan = plan.env("FANFARE_DRAIN__DELAY_MS", "5000");
    let mut node = plan.env("FANFARE_DRAIN__WINDOW_MS", "500").start().await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let answer = http::post(node.api, "/v1/nodes/me/drain", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    node.until_unready().await;
    node.signal("TERM");
    assert_eq!(talk.close_code().await, Some(4100));
    drop(talk);
    assert_eq!(node.ended().await.code(), Some(0));
}
