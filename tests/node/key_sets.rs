//! An issuer that publishes its keys, through every door of a node: header, query, `connect`, `refresh`, a
//! token for one topic.

use std::time::Duration;

use fanfare_protocol::form::Encoding;
use fanfare_testkit::issuer::{Issuer, IssuerKey, Says, set};
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use fanfare_testkit::{http, wait};
use serde_json::{Value, json};

fn plan(issuer: &Issuer, directory: &tempfile::TempDir) -> Plan {
    let path = tokens::config_file(directory);
    let text = std::fs::read_to_string(&path).expect("it was written");
    let entry = issuer.entry();
    let text = format!("{text}\n[[auth.issuers]]\nissuer = \"id\"\n{entry}");
    std::fs::write(&path, text).expect("the directory can be written");
    Plan::with_config(&path)
}

async fn node(issuer: &Issuer, directory: &tempfile::TempDir) -> Node {
    plan(issuer, directory).start().await
}

fn claims(more: Value) -> Value {
    let mut claims = json!({"iss": "id", "sub": "ada", "exp": seconds_from_now(600)});
    for (name, value) in more.as_object().expect("a map") {
        claims[name] = value.clone();
    }
    claims
}

async fn status(node: &Node, token: &str) -> u16 {
    let mut raw = Raw::open(node.public).await;
    let handshake = Handshake::to("/v1/connect");
    let bytes = handshake
        .with("Authorization", &format!("Bearer {token}"))
        .bytes();
    raw.send(&bytes).await;
    raw.head().await.expect("an answer").status
}

#[tokio::test]
async fn a_token_of_a_published_key_opens_every_door_and_a_strange_one_none() {
    let (key, strange) = (IssuerKey::new("1"), IssuerKey::new("2"));
    let issuer = Issuer::start(set(&[&key])).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(&issuer, &directory).await;
    let good = key.token(&claims(json!({})));
    let bad = strange.token(&claims(json!({})));
    assert_eq!(status(&node, &good).await, 101);
    // In the minute after a fetch its key may be one that is published meanwhile.
    assert_eq!(status(&node, &bad).await, 503);
    let url = node.connect_url(&format!("?token={good}"));
    let (mut talk, welcome) = Talk::welcomed(&url, Encoding::Json).await;
    assert_eq!(welcome["user"], "ada");
    talk.refused(json!({"type": "refresh", "token": bad}), "unavailable")
        .await;
    talk.ok(json!({"type": "refresh", "token": good})).await;
    let topic = key.token(&claims(json!({"topic": "token:7"})));
    talk.subscribe("token:7", json!({ "token": topic })).await;
    let mut late = Talk::open(&node.connect_url("?wait=1"), Encoding::Json, &[]).await;
    let late = late.as_mut().expect("it is let in until it says who it is");
    late.send(&json!({"type": "connect", "id": 1, "token": good}))
        .await;
    assert_eq!(late.event_of("welcome").await["user"], "ada");
    // The secret of `[auth]` opens as ever, but not in the issuer's name.
    assert_eq!(status(&node, &tokens::token("ada")).await, 101);
    assert_eq!(
        status(&node, &tokens::signed(&claims(json!({})))).await,
        401
    );
    assert_eq!(issuer.asked(), 1, "one fetch a minute");
}

#[tokio::test]
async fn what_comes_while_the_set_is_fetched_waits_and_keeps_its_order() {
    let key = IssuerKey::new("1");
    let issuer = Issuer::start(set(&[&key])).await;
    issuer.hold(true);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = plan(&issuer, &directory).start_unready().await;
    assert!(!node.is_ready().await, "it waits for the set");
    let good = key.token(&claims(json!({})));
    let mut talk = Talk::open(&node.connect_url("?wait=1"), Encoding::Json, &[])
        .await
        .expect("it is let in until it says who it is");
    talk.send(&json!({"type": "connect", "id": 1, "token": good}))
        .await;
    // Both are answered where they are read; before the `welcome` they would be refused.
    talk.send(&json!({"type": "ping", "id": 2})).await;
    talk.send(&json!({"type": "ping", "id": 3})).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    issuer.hold(false);
    assert_eq!(talk.event_of("welcome").await["id"], 1);
    let mut ids = Vec::new();
    while ids.len() < 2 {
        let event = talk.event_of("ok").await;
        ids.push(event["id"].as_u64().expect("an id"));
    }
    assert_eq!(ids, [2, 3]);
}

#[tokio::test]
async fn without_its_keys_an_issuers_tokens_are_unavailable_and_health_says_why() {
    let key = IssuerKey::new("1");
    let issuer = Issuer::start(Says::Head(
        "302 Found\r\nlocation: http://127.0.0.1/".into(),
    ))
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = node(&issuer, &directory).await;
    node.until_told("key_set_refused").await;
    let good = key.token(&claims(json!({})));
    assert_eq!(status(&node, &good).await, 503);
    let url = node.connect_url(&format!("?token={good}"));
    let mut talk = Talk::open(&url, Encoding::Json, &[])
        .await
        .expect("a socket");
    assert_eq!(talk.event_of("error").await["code"], "unavailable");
    let close = talk.close_code().await;
    assert_eq!(close, Some(4105));
    let health = http::get(node.api, "/health/ready").await;
    assert_eq!(health.status, 200, "the node serves everybody else");
    let partial = health.json()["partial"].to_string();
    let why = "it answered 302 Found, and redirects are not followed; it was never read";
    assert!(partial.contains(why), "{partial}");
    assert_eq!(node.metric("fanfare_key_sets_failing").await, 1);
    assert_eq!(status(&node, &tokens::token("ada")).await, 101);
    assert!(
        issuer.asked() > 1,
        "the first set is tried for after a second"
    );
    issuer.say(set(&[&key]));
    wait::until("the set", async || {
        (status(&node, &good).await == 101).then_some(())
    })
    .await;
    assert!(!node.log_text().contains("v=1"), "no query is logged");
    assert!(!node.log_text().contains(&good), "no token is logged");
}

#[tokio::test]
async fn a_secret_in_a_file_is_taken_up_when_it_changes_and_a_bad_one_keeps_the_old() {
    const OLD: &str = "the old secret of this test, of 32 bytes or more";
    const NEW: &str = "the new secret of this test, of 32 bytes or more";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, secret) = (
        directory.path().join("f.toml"),
        directory.path().join("secret"),
    );
    let text = "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret_file = \"secret\"\n";
    std::fs::write(&path, text).expect("the directory can be written");
    std::fs::write(&secret, OLD).expect("the directory can be written");
    let node = Plan::with_config(&path).start().await;
    let token = |secret| {
        let claims = json!({"sub": "ada", "exp": seconds_from_now(600)});
        tokens::signed_with(&claims, "HS256", secret)
    };
    assert_eq!(status(&node, &token(OLD)).await, 101);
    std::fs::write(&secret, "too short").expect("the directory can be written");
    let told = node.until_told("configuration_refused").await;
    assert!(
        told[0].to_string().contains("at least 32 bytes"),
        "{told:?}"
    );
    assert_eq!(status(&node, &token(OLD)).await, 101);
    std::fs::write(&secret, NEW).expect("the directory can be written");
    wait::until("the new secret", async || {
        (status(&node, &token(NEW)).await == 101).then_some(())
    })
    .await;
    assert_eq!(status(&node, &token(OLD)).await, 401);
}
