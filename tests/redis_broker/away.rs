//! Real nodes whose Redis is killed or hangs: refused at once, sockets kept, everything back soon.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait::PATIENCE;
use fanfare_testkit::{http, wait};

/// Commands wait so long for a Redis that hangs, unless they are refused at once.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

async fn node(name: &str, url: &str) -> Node {
    let timeout_ms = COMMAND_TIMEOUT.as_millis().to_string();
    let plan = Plan::clustered(name, url).env("FANFARE_REDIS__COMMAND_TIMEOUT_MS", &timeout_ms);
    let plan = plan.env("FANFARE_REDIS__LEASE_MS", "60000");
    plan.start().await
}

/// The circuit as people are told of it.
async fn circuit(node: &Node) -> Value {
    let health = http::get(node.api, "/health/detailed").await.json();
    let components = health["components"].as_array().expect("components").iter();
    let mut circuits = components.filter(|component| component["name"] == "circuit");
    circuits.next().expect("a link to Redis").clone()
}

async fn publish(node: &Node, data: u64) -> hyper::StatusCode {
    let body = json!({"topic": "t", "data": data});
    http::post(node.api, "/v1/publish", &body).await.status
}

/// What a node does while its Redis is away.
async fn refuses_at_once(node: &Node, ada: &mut Talk) {
    wait::until_within(PATIENCE, "the circuit to open", async || {
        let is_open = node
            .metric("fanfare_redis_circuits{state=\"closed\"}")
            .await
            == 0;
        (is_open && !node.is_ready().await).then_some(())
    })
    .await;
    let told = circuit(node).await;
    assert_eq!(told["healthy"], false, "{told}");
    let detail = told["detail"].as_str().expect("words");
    assert!(
        detail.contains(": open, ") || detail.contains(": half-open, "),
        "{told}"
    );

    let begun = Instant::now();
    for command in [
        json!({"type": "subscribe", "topic": "another"}),
        json!({"type": "publish", "topic": "t", "data": 0}),
        json!({"type": "history", "topic": "t"}),
    ] {
        let error = ada.refused(command, "unavailable").await;
        assert_eq!(error["retry"], true, "{error}");
    }
    assert_eq!(publish(node, 0).await, 503);
    let mut raw = Raw::open(node.public).await;
    let handshake = Handshake::to("/v1/connect?user=bob").bytes();
    raw.send(&handshake).await;
    assert_eq!(raw.head().await.expect("an answer").status, 503);
    let took = begun.elapsed();
    assert!(took < COMMAND_TIMEOUT, "refused only after {took:?}");
}

/// Publishes on one node until that works, then waits until a session on another has heard it.
async fn comes_back(publisher: &Node, ada: &mut Talk, number: u64, what: &str) {
    let back = Instant::now();
    wait::until_within(PATIENCE, "a publication to be accepted", async || {
        (publish(publisher, number).await == 200).then_some(())
    })
    .await;
    let accepted = back.elapsed();
    loop {
        // What was tried during the fault may have been accepted as well, with a lost answer.
        if ada.message("t").await["data"] == number {
            break;
        }
    }
    let delivered = back.elapsed();
    println!("Redis {what} and back: accepted after {accepted:?}, delivered after {delivered:?}");
}

fn signal(redis: &RedisServer, name: &str) {
    let status = Command::new("kill")
        .args([name, &redis.pid().to_string()])
        .status();
    assert!(status.expect("kill").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_everything_is_refused_at_once_and_then_comes_back() {
    let mut redis = RedisServer::start().await;
    let url = redis.url();
    let (one, two) = tokio::join!(node("one", &url), node("two", &url));
    let (mut ada, _) = Talk::welcomed(&one.connect_url("?user=ada"), Encoding::Json).await;
    ada.be_patient(PATIENCE);
    ada.ok(json!({"type": "subscribe", "topic": "t"})).await;
    assert_eq!(circuit(&one).await["healthy"], true);
    for round in 1..=2 {
        redis.kill();
        refuses_at_once(&one, &mut ada).await;
        redis.restart().await;
        comes_back(&two, &mut ada, round, "was killed").await;
        one.until_ready().await;
    }
    signal(&redis, "-STOP");
    refuses_at_once(&one, &mut ada).await;
    signal(&redis, "-CONT");
    comes_back(&two, &mut ada, 3, "hung").await;
    one.until_ready().await;
    assert_eq!(circuit(&one).await["healthy"], true);
    let opened = one
        .metric("fanfare_redis_circuit_transitions_total{to=\"open\"}")
        .await;
    let closed = one
        .metric("fanfare_redis_circuit_transitions_total{to=\"closed\"}")
        .await;
    assert!(
        opened >= 3 && closed >= 4,
        "opened {opened}, closed {closed} times"
    );
    // The session was kept all the time.
    ada.ok(json!({"type": "subscribe", "topic": "another"}))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_needs_no_more_rights_than_the_documents_give() {
    let redis = RedisServer::start().await;
    let mut node = node("one", &redis.url_of_user()).await;
    let (mut ada, _) = Talk::welcomed(&node.connect_url("?user=ada"), Encoding::Json).await;
    ada.ok(json!({"type": "subscribe", "topic": "t", "presence": true}))
        .await;
    assert_eq!(publish(&node, 1).await, 200);
    assert_eq!(ada.message("t").await["data"], 1);
    for path in [
        "/v1/topics",
        "/v1/topics/t",
        "/v1/topics/t/history",
        "/v1/nodes",
    ] {
        assert_eq!(http::get(node.api, path).await.status, 200, "{path}");
    }
    ada.close().await;
    assert!(node.terminate().await.success());
    assert_eq!(redis.command(&["ACL", "LOG"]).as_deref(), Some("*0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_start_and_a_clean_stop_log_no_warning() {
    let server = RedisServer::start().await;
    let mut node = node("one", &server.url()).await;
    assert_eq!(publish(&node, 1).await, 200);
    assert_eq!(node.terminate().await.code(), Some(0));
    let text = node.log_text();
    let is_trouble = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    let troubles: Vec<&str> = text.lines().filter(is_trouble).collect();
    assert!(troubles.is_empty(), "{troubles:#?}");
}
