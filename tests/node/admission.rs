//! Whom a node lets in: so many a second, and nobody while memory is short. Those who are not are
//! told when to come back, and those who are inside notice nothing. What the broker inside the process
//! keeps is bounded too.

use fanfare_protocol::form::Encoding;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Head, Raw};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::turns;
use fanfare_testkit::wait;
use serde_json::json;

const BY_RATE: &str = "fanfare_handshakes_refused_total{reason=\"rate\"}";
const BY_FILES: &str = "fanfare_connections_refused_total{reason=\"capacity\"}";
const BY_MEMORY: &str = "fanfare_handshakes_refused_total{reason=\"memory\"}";

/// The answer to one more handshake.
async fn knock(node: &Node) -> Head {
    let mut raw = Raw::open(node.public).await;
    raw.send(&Handshake::to("/v1/connect?user=late").bytes())
        .await;
    raw.head().await.expect("an answer")
}

/// The seconds of `Retry-After` in a refusal.
fn retry_after(head: &Head) -> u64 {
    assert_eq!(head.status, 503, "{head:?}");
    let seconds = head.header("retry-after").expect("it says when");
    seconds.parse().expect("a number of seconds")
}

#[tokio::test]
async fn more_handshakes_than_the_burst_are_told_to_come_one_behind_the_other() {
    let plan = Plan::dev().env("FANFARE_ADMISSION__HANDSHAKES_PER_S", "1");
    let node = plan
        .env("FANFARE_ADMISSION__HANDSHAKES_BURST", "3")
        .start()
        .await;
    let (mut inside, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let mut refused = Vec::new();
    wait::until("thirty to be refused", async || {
        let head = knock(&node).await;
        if head.status == 503 {
            refused.push(retry_after(&head));
        }
        (refused.len() == 30).then_some(())
    })
    .await;
    assert!(refused[0] >= 1, "{refused:?}");
    let last = refused[29];
    assert!(
        last >= 20,
        "the thirtieth comes behind the others: {refused:?}"
    );
    assert!(last <= 90, "nobody waits for ever: {refused:?}");
    assert_eq!(node.metric(BY_RATE).await, 30);
    inside.publish("t", json!(1)).await;
    wait::until("somebody to be let in again", async || {
        (knock(&node).await.status == 101).then_some(())
    })
    .await;
}

/// Waits until a balancer of sessions is told so.
async fn until_it_lets_in(node: &Node, wanted: bool) {
    let status = if wanted { 200 } else { 503 };
    wait::until("the public listener to know", async || {
        let answer = http::get(node.public, "/health/ready").await;
        (answer.status == status).then_some(())
    })
    .await;
}

/// The node is ready for callers of the API, who are told why it lets nobody in.
async fn is_ready_in_part(node: &Node, why: &str) {
    let answer = http::get(node.api, "/health/ready").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["partial"], json!([why]));
    let publication = json!({"topic": "t", "data": 2});
    let answer = http::post(node.api, "/v1/publish", &publication).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_full_node_is_ready_for_the_api_alone_until_it_has_room() {
    let node = Plan::dev()
        .env("FANFARE_SERVER__CONNECTIONS_MAX", "2")
        .start()
        .await;
    let (one, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let (mut two, _) = Talk::welcomed(&node.connect_url("?user=bob"), Encoding::Json).await;
    until_it_lets_in(&node, false).await;
    is_ready_in_part(&node, "sessions: the node is full (server.connections_max)").await;
    two.publish("t", json!(1)).await;
    drop(one);
    until_it_lets_in(&node, true).await;
}

/// More than the node may have open.
const IDLE: usize = 900;

#[tokio::test]
async fn idle_connections_leave_files_to_the_api_and_to_sessions() {
    let _turn = turns::heavy().await;
    assert!(fanfare::config::machine::file_limit() > 2 * IDLE as u64);
    let plan = Plan::dev().files_max(700);
    let node = plan
        .env("FANFARE_SERVER__CONNECTIONS_MAX", "100")
        .env("FANFARE_SERVER__HANDSHAKE_TIMEOUT_MS", "60000")
        .start()
        .await;
    let (mut inside, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    inside.ok(json!({"type": "subscribe", "topic": "t"})).await;
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        let stream = tokio::net::TcpStream::connect(node.public).await;
        idle.push(stream.expect("the kernel takes it"));
    }
    wait::until("all to be taken or closed", async || {
        let seen = node.metric("fanfare_connections_total").await;
        (seen > IDLE as u64).then_some(())
    })
    .await;
    assert!(node.metric(BY_FILES).await > IDLE as u64 - 300);
    let answer = http::get(node.api, "/health/live").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let publication = json!({"topic": "t", "data": 7});
    let answer = http::post(node.api, "/v1/publish", &publication).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(inside.message("t").await["data"], 7);
    assert_eq!(node.until_told("connections_refused").await.len(), 1);
    assert_eq!(node.log_lines("accept_failed").len(), 0);
    drop(idle);
    wait::until("the public listener to answer again", async || {
        let answer = http::try_get(node.public, "/health/live").await;
        answer.filter(|answer| answer.status == 200)
    })
    .await;
    let told = node.until_told("connections_recovered").await;
    assert!(
        told[0]["count"].as_u64() > Some(IDLE as u64 - 300),
        "{told:?}"
    );
}

#[tokio::test]
async fn while_memory_is_short_nobody_comes_in_and_those_inside_go_on() {
    let node = Plan::dev()
        .env("FANFARE_ADMISSION__MEMORY_BYTES_MAX", "50331648")
        .start()
        .await;
    let (mut inside, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    let mut rounds = 0..;
    wait::until("the door to know", async || {
        fill(&node, rounds.next().expect("there is no end")).await;
        (knock(&node).await.status == 503).then_some(())
    })
    .await;
    let head = knock(&node).await;
    assert!((5..=15).contains(&retry_after(&head)), "{head:?}");
    assert!(node.metric(BY_MEMORY).await >= 2);
    assert_eq!(node.until_told("memory_exhausted").await.len(), 1);
    inside.publish("t", json!(1)).await;
    // A balancer sends the next ones elsewhere.
    until_it_lets_in(&node, false).await;
    is_ready_in_part(&node, "memory: it is short (admission.memory_bytes_max)").await;
}

/// Publishes to a thousand topics of this round, which take some 2 KB each.
async fn fill(node: &Node, round: usize) {
    let topics: Vec<_> = (0..1_000).map(|n| format!("t{round}-{n}")).collect();
    let body = json!({"topics": topics, "data": "x".repeat(700), "idempotency_key": "k"});
    let answer = http::post(node.api, "/v1/publish", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_node_full_of_topics_in_use_says_so_to_everybody() {
    const WHY: &str = "this node has no memory left for one more topic (memory.bytes_max)";
    let node = Plan::dev()
        .env("FANFARE_MEMORY__BYTES_MAX", "1048576")
        .env("FANFARE_SESSION__TOPICS_MAX", "1500")
        .start()
        .await;
    let (mut talk, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    for n in 0..1_500 {
        talk.ok(json!({"type": "subscribe", "topic": format!("t{n}")}))
            .await;
    }
    let told = format!("{WHY}; nothing was done");
    for _ in 0..2 {
        let publish = json!({"type": "publish", "topic": "other", "data": 1});
        let refused = talk.refused(publish, "unavailable").await;
        assert_eq!(refused["message"], told);
        let publication = json!({"topic": "other", "data": 1});
        let answer = http::post(node.api, "/v1/publish", &publication).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["error"]["message"], told);
    }
    talk.publish("t7", json!(1)).await;
    let ready = http::get(node.api, "/health/ready").await;
    assert_eq!(ready.status, 200);
    let detail = format!("in-process broker: in part: {WHY}");
    assert_eq!(
        ready.json()["partial"],
        json!([format!("broker: {detail}")])
    );
    let detailed = http::get(node.api, "/health/detailed").await.json();
    let broker = &detailed["components"][0];
    let told = json!({
        "name": "broker", "healthy": false, "state": "degraded",
        "reason": format!("in part: {WHY}"), "since": broker["since"], "detail": detail,
    });
    assert_eq!(*broker, told);
    assert!(broker["since"].as_u64() > Some(0), "{broker}");
    assert_eq!(node.until_told("embedded_memory_exhausted").await.len(), 1);
}

#[tokio::test]
async fn topics_without_end_leave_the_memory_of_a_node_bounded() {
    let _turn = turns::heavy().await;
    const BOUND: u64 = 16 << 20;
    let node = Plan::dev()
        .env("FANFARE_MEMORY__BYTES_MAX", &BOUND.to_string())
        .start()
        .await;
    // Many times the bound.
    for round in 0..5 {
        fill(&node, round).await;
    }
    let before = node.resident_bytes();
    for round in 5..60 {
        fill(&node, round).await;
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(
        grown < 2 * BOUND,
        "{grown} bytes more than after the first topics"
    );
    assert!(node.metric("fanfare_embedded_bytes").await <= BOUND);
    let forgotten = "fanfare_embedded_forgotten_total{kind=\"topic\"}";
    assert!(node.metric(forgotten).await > 40_000);
    let path = "/v1/topics/t59-999/history";
    let history = http::get(node.api, path).await.json();
    assert_eq!(history["publications"].as_array().map(Vec::len), Some(1));
}
