//! Bad input of `POST /v1/queue`, row by row: each gets its exact answer, in both forms, nothing of it
//! is taken, and a good entry beside it is.
//!
//! In: bodies over HTTP to a node as it is shipped. Out: status, code and words. What a backend writes
//! into Redis itself is judged elsewhere, when it is moved.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fanfare_testkit::http::{self, Answer};
use fanfare_testkit::node::{Node, Plan};
use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

/// Status and code.
type Refusal = (u16, &'static str);

const BAD: Refusal = (400, "bad_request");
const INVALID: Refusal = (400, "invalid_topic");
const MANY: Refusal = (400, "limit_exceeded");
const LONG: Refusal = (413, "too_large");

const DAY_MS: u64 = 24 * 3_600 * 1_000;

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.expect("after 1970").as_millis();
    u64::try_from(ms).expect("in this era")
}

/// Sends a body in one of the two forms, and reads the answer, which is asked for in JSON.
async fn post(node: &Node, body: &Value, is_msgpack: bool) -> Answer {
    let (kind, bytes) = match is_msgpack {
        false => ("json", body.to_string().into_bytes()),
        true => ("msgpack", rmp_serde::to_vec_named(body).expect("a value")),
    };
    let request = Request::post("/v1/queue")
        .header("content-type", format!("application/{kind}"))
        .header("accept", "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .expect("a request");
    let answer = http::send(node.api, request).await;
    answer.expect("an answer")
}

/// Each row: a body, its refusal, and a part of the message.
async fn assert_refused(node: &Node, rows: &[(Value, Refusal, &str)]) {
    for (body, (status, code), words) in rows {
        for is_msgpack in [false, true] {
            let answer = post(node, body, is_msgpack).await;
            let told = answer.json();
            let mut what = format!("{body}");
            what.truncate(200);
            assert_eq!(answer.status.as_u16(), *status, "{what}: {told}");
            assert_eq!(told["error"]["code"], *code, "{what}: {told}");
            let message = told["error"]["message"].as_str().expect("a message");
            assert!(message.contains(words), "{what}: {message}");
        }
    }
    // What was taken would be in Redis' place now, and is asked of the broker and not of heartbeats.
    let good = json!({"topic": "good", "data": 1, "not_before": unix_ms() + DAY_MS});
    assert_eq!(post(node, &good, false).await.status.as_u16(), 202);
    let queue = http::get(node.api, "/v1/queue?partitions=true")
        .await
        .json();
    let partitions = queue["partitions"].as_array().expect("a list");
    let [partition] = &partitions[..] else {
        panic!("more than the good entry was taken: {queue}");
    };
    assert_eq!(
        (&partition["depth"], &partition["delayed"]),
        (&json!(0), &json!(1))
    );
}

#[tokio::test]
async fn an_entry_needs_one_valid_target() {
    let node = Plan::dev().start().await;
    let many: Vec<_> = (0..1_001).map(|n| format!("t{n}")).collect();
    let one = "exactly one of";
    let rows = [
        (json!({"data": 1}), BAD, one),
        (json!({"topic": "t", "user": "u", "data": 1}), BAD, one),
        (json!({"everyone": false, "data": 1}), BAD, one),
        (json!({"topics": [], "data": 1}), BAD, "empty"),
        (json!({"topic": 7, "data": 1}), BAD, "`topic` must be text"),
        (
            json!({"topics": many, "data": 1}),
            MANY,
            "1001 targets are more than 1000",
        ),
        (
            json!({"users": many, "data": 1}),
            MANY,
            "1001 targets are more than 1000",
        ),
        (json!({"topic": "a b", "data": 1}), INVALID, "not allowed"),
        (json!({"topic": "%room", "data": 1}), INVALID, "not allowed"),
        (json!({"topic": "", "data": 1}), INVALID, "empty"),
        (json!({"user": "a{b", "data": 1}), INVALID, "invalid user"),
        (json!("t"), BAD, "not a map"),
        (json!(7), BAD, "not a map"),
    ];
    assert_refused(&node, &rows).await;
}

#[tokio::test]
async fn a_list_has_one_to_a_thousand_bodies() {
    let node = Plan::dev().start().await;
    let body = json!({"topic": "a b", "data": 1});
    // Of 130 kB, and its entries would take up 130 MB.
    let topics: Vec<_> = (0..1_000).map(|n| format!("t{n}")).collect();
    let wide = json!({"topics": topics, "data": "x".repeat(65_000)});
    let rows = [
        (json!([wide, wide]), LONG, "send them in several requests"),
        (json!([]), BAD, "the list is empty"),
        (
            json!(vec![&body; 1_001]),
            MANY,
            "1001 items are more than 1000",
        ),
        (json!(vec![&body; 1_000]), INVALID, "not allowed"),
        (json!([[body]]), BAD, "not a map"),
    ];
    assert_refused(&node, &rows).await;
    for text in ["[", "[1", "[1] 2", "{\"topic\":\"t\",\"data\":1} x", ""] {
        let request = Request::post("/v1/queue")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(text.as_bytes())))
            .expect("a request");
        let answer = http::send(node.api, request).await.expect("an answer");
        assert_eq!(answer.status.as_u16(), 400, "{text:?}");
        assert_eq!(answer.json()["error"]["code"], "bad_request", "{text:?}");
    }
}

#[tokio::test]
async fn times_must_be_ones_that_can_be_kept() {
    let node = Plan::dev().start().await;
    let now = unix_ms();
    let body = |not_before: Value, expires_at: Value| json!({"topic": "t", "data": 1, "not_before": not_before, "expires_at": expires_at});
    let past = "`expires_at` is in the past";
    let before = "`expires_at` must be after `not_before`";
    let far = "`not_before` is more than 30 days ahead";
    let later = now + DAY_MS;
    let rows = [
        (body(json!(null), json!(0)), BAD, past),
        (body(json!(null), json!(now - 1)), BAD, past),
        (body(json!(later), json!(later)), BAD, before),
        (body(json!(later), json!(later - 1)), BAD, before),
        (body(json!(now + 31 * DAY_MS), json!(null)), MANY, far),
        (body(json!(u64::MAX), json!(null)), MANY, far),
        (
            body(json!("now"), json!(null)),
            BAD,
            "`not_before` must be an unsigned integer",
        ),
        (
            body(json!(-1), json!(null)),
            BAD,
            "`not_before` must be an unsigned integer",
        ),
        (
            body(json!(null), json!(1.5)),
            BAD,
            "`expires_at` must be an unsigned integer",
        ),
    ];
    assert_refused(&node, &rows).await;
}

#[tokio::test]
async fn the_rest_of_a_body_is_as_that_of_a_publication() {
    let node = Plan::dev().start().await;
    let long = "x".repeat(65_537);
    let body = |name: &str, value: Value| json!({"topic": "t", "data": 1, name: value});
    let rows = [
        (json!({"topic": "t"}), BAD, "`data` is missing"),
        (
            json!({"topic": "t", "data": long}),
            LONG,
            "`data` is longer than 65536 bytes",
        ),
        (body("key", json!("x".repeat(129))), LONG, "`key`"),
        (
            body("idempotency_key", json!("")),
            BAD,
            "`idempotency_key` is empty",
        ),
        (
            body("idempotency_key", json!("x".repeat(129))),
            LONG,
            "`idempotency_key`",
        ),
        (
            body("priority", json!("urgent")),
            BAD,
            "`priority` must be one of",
        ),
        (body("remove", json!(true)), BAD, "state topics"),
        (
            body("notBefore", json!(1)),
            BAD,
            "did you mean `not_before`?",
        ),
        (body("delay", json!(1)), BAD, "there is no field"),
    ];
    assert_refused(&node, &rows).await;
    // What is the queue's alone is unknown to a publication.
    for name in ["not_before", "expires_at"] {
        let answer = http::post(node.api, "/v1/publish", &body(name, json!(1))).await;
        assert_eq!(answer.status.as_u16(), 400, "{name}");
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("there is no field"), "{message}");
    }
}
