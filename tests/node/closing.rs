//! The closing handshake of a real node (RFC 6455, sections 5.5.1 and 7.1.1), from both sides.
//!
//! In: sessions that the node ends, or that end themselves. Out: close frames both ways, and a
//! connection that ends behind them.

use std::time::Duration;

use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{self, Frame, Raw};
use serde_json::json;

const GOOD: &str = "/v1/connect?user=ada";
/// So long that no test sees it pass.
const FOREVER_MS: &str = "60000";

async fn node(close_timeout_ms: &str) -> Node {
    let plan = Plan::dev().env("FANFARE_SESSION__CLOSE_TIMEOUT_MS", close_timeout_ms);
    plan.start().await
}

/// A session that the node is about to end: it speaks binary where text was agreed.
async fn ending(node: &Node) -> Raw {
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    assert_eq!(raw.receive_json().await["type"], "welcome");
    raw.frame(&Frame::new(raw::BINARY, "x")).await;
    raw
}

/// Reads the close frame and expects it to be this one.
async fn closes_with(raw: &mut Raw, code: u16) {
    let frame = raw.receive().await.expect("a close frame");
    assert_eq!(frame.opcode(), raw::CLOSE);
    assert_eq!(frame.payload[..2], code.to_be_bytes());
}

/// The node has served somebody else since this was called.
async fn has_gone_on(node: &Node) {
    for _ in 0..10 {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        raw.frame(&Frame::close(1000)).await;
        assert_eq!(raw.ended().await.code, Some(1000));
    }
}

#[tokio::test]
async fn the_node_waits_for_the_answer_to_its_close_and_then_ends_the_connection() {
    let node = node(FOREVER_MS).await;
    let mut raw = ending(&node).await;
    closes_with(&mut raw, 1003).await;
    has_gone_on(&node).await;
    assert!(raw.is_silent(), "nothing comes before the answer");
    raw.frame(&Frame::close(1003)).await;
    assert_eq!(raw.receive().await, None);
}

#[tokio::test]
async fn a_client_that_never_answers_a_close_is_left_when_the_time_for_it_is_up() {
    let node = node("300").await;
    let mut raw = ending(&node).await;
    closes_with(&mut raw, 1003).await;
    assert_eq!(raw.receive().await, None);
    fanfare_testkit::wait::until("the session to be gone", async || {
        (node.metric("fanfare_sessions").await == 0).then_some(())
    })
    .await;
}

const PINGS: &str = "fanfare_commands_total{type=\"ping\"}";

#[tokio::test]
async fn what_a_client_sends_behind_the_nodes_close_is_not_carried_out() {
    let node = node(FOREVER_MS).await;
    let mut raw = ending(&node).await;
    closes_with(&mut raw, 1003).await;
    let before = node.metric(PINGS).await;
    for id in 1..=100 {
        let text = format!("{{\"type\":\"ping\",\"id\":{id}}}");
        raw.frame(&Frame::text(&text)).await;
    }
    raw.frame(&Frame::new(raw::PING, "?")).await;
    raw.frame(&Frame::close(1003)).await;
    assert_eq!(raw.receive().await, None);
    assert_eq!(node.metric(PINGS).await, before);
}

#[tokio::test]
async fn bytes_that_are_no_frames_behind_the_nodes_close_end_the_wait_for_its_answer() {
    let node = node(FOREVER_MS).await;
    let mut raw = ending(&node).await;
    closes_with(&mut raw, 1003).await;
    raw.frame(&Frame::text("x").unmasked()).await;
    assert_eq!(raw.receive().await, None);
}

#[tokio::test]
async fn behind_a_breach_no_answer_is_waited_for() {
    let node = node(FOREVER_MS).await;
    let rows = [
        (Frame::text("x").unmasked(), 1002),
        (Frame::new(raw::TEXT, b"\xff"), 1007),
        (Frame::text("").announcing(1 << 20), 1009),
    ];
    for (breach, code) in rows {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        raw.frame(&breach).await;
        closes_with(&mut raw, code).await;
        assert_eq!(raw.receive().await, None, "{code}");
    }
}

#[tokio::test]
async fn every_code_that_a_client_may_close_with_comes_back() {
    let node = node(FOREVER_MS).await;
    let codes = (1000..=1003).chain(1007..=1014);
    for code in codes.chain([3000, 3999, 4000, 4999]) {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        raw.frame(&Frame::close(code)).await;
        closes_with(&mut raw, code).await;
        assert_eq!(raw.receive().await, None, "{code}");
    }
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    assert_eq!(raw.receive_json().await["type"], "welcome");
    raw.frame(&Frame::new(raw::CLOSE, "")).await;
    let answer = raw.receive().await.expect("a close frame");
    assert_eq!((answer.opcode(), answer.payload), (raw::CLOSE, vec![]));
    assert_eq!(raw.receive().await, None);
}

#[tokio::test]
async fn the_close_frame_is_not_lost_behind_what_the_node_has_not_read() {
    const MIB: usize = 1024 * 1024;
    let node = node(FOREVER_MS).await;
    let mut reader = ending(&node).await;
    let mut writer = reader.writer();
    // Far more than the buffers between the two hold, from a client that reads when it is done.
    let junk = Frame::new(raw::BINARY, vec![0; 60_000]).bytes();
    let writing = async {
        for _ in 0..32 * MIB / junk.len() {
            writer.send(&junk).await;
        }
        writer.frame(&Frame::close(1000)).await;
    };
    let done = tokio::time::timeout(Duration::from_secs(60), writing).await;
    assert!(done.is_ok(), "the node reads on");
    closes_with(&mut reader, 1003).await;
    assert_eq!(reader.receive().await, None);
}

#[tokio::test]
async fn a_session_that_the_api_ends_is_told_why_and_ends_with_the_answer() {
    let node = node(FOREVER_MS).await;
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    assert_eq!(raw.receive_json().await["type"], "welcome");
    let answer = http::post(node.api, "/v1/users/ada/disconnect", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    closes_with(&mut raw, 4002).await;
    assert!(raw.is_silent());
    raw.frame(&Frame::close(4002)).await;
    assert_eq!(raw.receive().await, None);
}
