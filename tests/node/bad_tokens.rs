//! Bad tokens and bad API calls, against a node as it runs outside development.
//!
//! A token is refused by status in a header and by `error` and close code where a browser could
//! not read a status. Whatever comes, no token is ever found in the log.

use bytes::Bytes;
use fanfare_protocol::form::Encoding;
use fanfare_testkit::beside::Beside;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Handshake, Raw};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::tokens::{self, seconds_from_now};
use http_body_util::Full;
use hyper::{Method, Request};
use serde_json::{Value, json};

async fn secured(directory: &tempfile::TempDir) -> Node {
    Plan::with_config(&tokens::config_file(directory))
        .start()
        .await
}

/// Claims that would be good for so many seconds from now.
fn claims(seconds: i64) -> Value {
    json!({"sub": "ada", "exp": seconds_from_now(seconds)})
}

/// Tokens that are signed as configured and say something wrong.
fn wrong_claims() -> Vec<(&'static str, String)> {
    let with = |name: &str, value: Value| {
        let mut claims = claims(600);
        claims[name] = value;
        tokens::signed(&claims)
    };
    vec![
        ("not yet valid", with("nbf", json!(seconds_from_now(60)))),
        (
            "issued in the future",
            with("iat", json!(seconds_from_now(60))),
        ),
        ("without an end", tokens::signed(&json!({"sub": "ada"}))),
        ("an end that is text", with("exp", json!("tomorrow"))),
        ("a start that is text", with("nbf", json!("now"))),
        (
            "without a user",
            tokens::signed(&json!({"exp": seconds_from_now(600)})),
        ),
        ("a user that is none", with("sub", json!("a b"))),
        ("a user that is a number", with("sub", json!(7))),
        ("another app", with("app", json!("other"))),
    ]
}

/// Tokens that say what is right and are not signed as configured.
fn wrong_signatures() -> Vec<(&'static str, String)> {
    let good = tokens::signed(&claims(600));
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    let under = |algorithm: &str| {
        tokens::put_together(&json!({"alg": algorithm, "typ": "JWT"}), &claims(600), "")
    };
    let signed = |algorithm, secret| tokens::signed_with(&claims(600), algorithm, secret);
    vec![
        ("another algorithm", signed("HS512", tokens::SECRET)),
        (
            "another secret",
            signed("HS256", "another secret, just as long as it"),
        ),
        ("none", under("none")),
        ("nOnE", under("nOnE")),
        ("an empty signature", format!("{unsigned}.")),
        ("no signature", unsigned.to_owned()),
        (
            "a changed signature",
            format!("{unsigned}.{}", "A".repeat(43)),
        ),
        ("garbage", "garbage".to_owned()),
        ("over the limit", "x".repeat(8 * 1024 + 1)),
    ]
}

/// What it is, the token, the error code, and the close code.
fn bad_tokens() -> Vec<(&'static str, String, &'static str, u16)> {
    let refused = wrong_claims().into_iter().chain(wrong_signatures());
    let refused = refused.map(|(what, token)| (what, token, "unauthorized", 4000));
    let expired = (
        "expired",
        tokens::signed(&claims(-60)),
        "token_expired",
        4001,
    );
    refused.chain([expired]).collect()
}

#[tokio::test]
async fn a_bad_token_is_refused_wherever_it_comes_and_is_never_logged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = secured(&directory).await;
    let good = tokens::token("good");
    let beside = Beside::start(&node, &format!("?token={good}")).await;
    for scheme in ["Bearer", "bearer"] {
        let header = format!("{scheme} {good}");
        let with_header = [("authorization", &*header)];
        let opened = Talk::open(&node.connect_url(""), Encoding::Json, &with_header).await;
        let mut talk = opened.expect("a good token in the header");
        assert_eq!(talk.event_of("welcome").await["user"], "good");
    }
    let bad = bad_tokens();
    for (what, token, code, close) in &bad {
        let mut raw = Raw::open(node.public).await;
        let handshake = Handshake::to("/v1/connect");
        let handshake = handshake.with("Authorization", &format!("Bearer {token}"));
        raw.send(&handshake.bytes()).await;
        let (head, body) = raw.answer().await.expect("an answer");
        assert_eq!(head.status, 401, "{what} in the header");
        let body: Value = serde_json::from_slice(&body).expect("a JSON body");
        assert_eq!(body["error"]["code"], *code, "{what} in the header");
        let url = node.connect_url(&format!("?token={token}"));
        let mut talk = Talk::connected(&url, Encoding::Json).await;
        assert_eq!(
            talk.event_of("error").await["code"],
            *code,
            "{what} in the query"
        );
        assert_eq!(talk.close_code().await, Some(*close), "{what} in the query");
        let mut talk = Talk::connected(&node.connect_url(""), Encoding::MsgPack).await;
        talk.refused(json!({"type": "connect", "token": token}), code)
            .await;
        assert_eq!(talk.close_code().await, Some(*close), "{what} in `connect`");
    }
    beside.unharmed().await;
    let log = node.log_text();
    for (what, token, ..) in bad.iter().filter(|(_, token, ..)| token.len() > 20) {
        assert!(
            !log.contains(token.as_str()),
            "the log shows the token: {what}"
        );
    }
    assert!(!log.contains(&good), "the log shows a good token");
    assert!(!log.contains(tokens::SECRET), "the log shows the secret");
}

#[tokio::test]
async fn without_a_token_a_session_stays_unauthorized_until_its_deadline() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = tokens::config_file(&directory);
    let node = Plan::with_config(&path)
        .env("FANFARE_AUTH__TIMEOUT_MS", "5000")
        .start()
        .await;
    let mut sessions = Vec::new();
    for query in ["", "?user=ada"] {
        let mut talk = Talk::connected(&node.connect_url(query), Encoding::Json).await;
        talk.refused(json!({"type": "subscribe", "topic": "t"}), "unauthorized")
            .await;
        talk.refused(json!({"type": "connect"}), "unauthorized")
            .await;
        talk.refused(json!({"type": "ping"}), "unauthorized").await;
        sessions.push((query, talk));
    }
    for (query, mut talk) in sessions {
        assert_eq!(talk.close_code().await, Some(4004), "{query}");
    }
}

#[tokio::test]
async fn a_refresh_may_not_change_the_user_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = secured(&directory).await;
    let url = node.connect_url(&format!("?token={}", tokens::token("ada")));
    let (mut talk, welcome) = Talk::welcomed(&url, Encoding::Json).await;
    assert_eq!(welcome["user"], "ada");
    let refresh = |token: String| json!({"type": "refresh", "token": token});
    talk.refused(refresh(tokens::token("bob")), "forbidden")
        .await;
    let later = json!({"sub": "ada", "exp": seconds_from_now(1200)});
    assert_eq!(
        talk.ok(refresh(tokens::signed(&later))).await["expires"],
        later["exp"]
    );
    let again = json!({"type": "connect", "token": tokens::token("ada")});
    talk.refused(again, "bad_request").await;
    talk.ok(json!({"type": "ping"})).await;
}

#[tokio::test]
async fn a_token_that_says_what_it_can_do_can_do_no_more() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = secured(&directory).await;
    let token = tokens::signed(&json!({
        "sub": "ada",
        "exp": seconds_from_now(600),
        "can": {"subscribe": ["orders:*"], "publish": ["orders:7:**"]},
    }));
    let url = node.connect_url(&format!("?token={token}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    talk.ok(json!({"type": "subscribe", "topic": "orders:7"}))
        .await;
    for topic in ["orders", "orders:7:items", "ordersx:7", "Orders:7"] {
        talk.refused(json!({"type": "subscribe", "topic": topic}), "forbidden")
            .await;
    }
    talk.refused(
        json!({"type": "publish", "topic": "orders:8:x", "data": 1}),
        "forbidden",
    )
    .await;
    talk.refused(json!({"type": "history", "topic": "orders:7"}), "forbidden")
        .await;
}

#[tokio::test]
async fn a_token_for_a_topic_that_has_ended_ends_the_subscription() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plan = Plan::with_config(&tokens::config_file(&directory));
    let node = plan.env("FANFARE_AUTH__EXPIRED_GRACE_S", "0").start().await;
    let token = tokens::signed(&json!({
        "sub": "ada",
        "exp": seconds_from_now(600),
        "can": {"publish": ["orders:*"]},
    }));
    let url = node.connect_url(&format!("?token={token}"));
    let (mut talk, _) = Talk::welcomed(&url, Encoding::Json).await;
    let subscribe = |seconds| {
        let claims = json!({"sub": "ada", "topic": "orders:7", "exp": seconds_from_now(seconds)});
        json!({"type": "subscribe", "topic": "orders:7", "token": tokens::signed(&claims)})
    };
    talk.ok(subscribe(30)).await;
    assert_eq!(talk.event_of("expiring").await["topic"], "orders:7");
    talk.ok(subscribe(600)).await;
    talk.publish("orders:7", json!(1)).await;
    // Within the tolerance of clocks when it comes.
    talk.ok(subscribe(-2)).await;
    assert_eq!(talk.event_of("unsubscribed").await["code"], "token_expired");
    talk.refused(subscribe(-60), "token_expired").await;
    talk.refused(
        json!({"type": "unsubscribe", "topic": "orders:7"}),
        "not_subscribed",
    )
    .await;
}

fn publish_call(key: &str, kind: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri("/v1/publish")
        .header("authorization", key)
        .header("content-type", kind)
        .body(Full::from(body.to_owned()))
        .expect("a valid request")
}

#[tokio::test]
async fn a_bad_call_of_the_api_gets_its_status_and_a_reason() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let node = secured(&directory).await;
    let good = json!({"topic": "t", "data": 1}).to_string();
    let topics: Vec<_> = (0..1001).map(|number| format!("t:{number}")).collect();
    let many = json!({"topics": topics, "data": 1}).to_string();
    let large = json!({"topic": "t", "data": "x".repeat(8 * 1024 * 1024)}).to_string();
    let as_json = |body: &str| publish_call("Bearer dev", "application/json", body);
    let rows = [
        (
            publish_call("Bearer no", "application/json", &good),
            401,
            "unauthorized",
        ),
        (
            publish_call("dev", "application/json", &good),
            401,
            "unauthorized",
        ),
        (
            publish_call("Bearer dev", "text/plain", &good),
            415,
            "unsupported_media_type",
        ),
        (as_json("{"), 400, "bad_request"),
        (as_json("{\"data\":1}"), 400, "bad_request"),
        (as_json(&many), 400, "limit_exceeded"),
        (as_json(&large), 413, "too_large"),
    ];
    for (request, status, code) in rows {
        let what = format!("{:?}", request.headers());
        let answer = http::send(node.api, request).await;
        let answer = answer.unwrap_or_else(|| panic!("{code}: hung up without an answer"));
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        let error = &answer.json()["error"];
        assert_eq!(error["code"], code, "{what}: {}", answer.text());
        assert!(error["message"].is_string(), "{what}: {}", answer.text());
    }
    let fine = http::send(node.api, as_json(&good)).await;
    assert_eq!(fine.expect("an answer").status, 200);
}
