//! Opening handshakes that a real node must refuse, with which status, and those it must accept.
//!
//! A good client beside each attack notices nothing.

use std::time::Duration;

use fanfare_testkit::beside::Beside;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{self, Frame, Handshake, Raw};
use serde_json::{Value, json};
use tokio::time::timeout;

const GOOD: &str = "/v1/connect?user=ada";

/// A row of attacks on the handshake: what it is, what is sent, which statuses are right.
type Row = (&'static str, Handshake, &'static [u16]);

async fn refuses(node: &Node, rows: &[Row]) {
    let beside = Beside::start(node, "?user=good").await;
    for (what, handshake, statuses) in rows {
        let mut raw = Raw::open(node.public).await;
        raw.send(&handshake.bytes()).await;
        if *statuses == [101] {
            let head = raw.head().await.expect("an answer");
            assert_eq!(head.status, 101, "{what}: {head:?}");
            continue;
        }
        let answer = raw.answer().await;
        let (head, body) = answer.unwrap_or_else(|| panic!("{what}: hung up without a word"));
        assert!(statuses.contains(&head.status), "{what}: {head:?}");
        let body: Value = serde_json::from_slice(&body).expect("a JSON body");
        let code = match head.status {
            400 => "bad_request",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            414 | 431 => "too_large",
            426 => "upgrade_required",
            other => panic!("{what}: {other}"),
        };
        assert_eq!(body["error"]["code"], code, "{what}: {body}");
        if head.status == 426 {
            assert_eq!(head.header("sec-websocket-version"), Some("13"), "{what}");
            assert_eq!(head.header("upgrade"), Some("websocket"), "{what}");
        }
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn a_handshake_that_is_not_one_is_refused_before_the_upgrade() {
    let node = Plan::dev().start().await;
    let good = || Handshake::to(GOOD);
    let rows: Vec<Row> = vec![
        ("no key", good().without("Sec-WebSocket-Key"), &[400]),
        (
            "a short key",
            good().set("Sec-WebSocket-Key", "c2hvcnQ="),
            &[400],
        ),
        (
            "a key that is not base64",
            good().set("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!=="),
            &[400],
        ),
        (
            "two keys",
            good().with("Sec-WebSocket-Key", raw::KEY),
            &[400],
        ),
        (
            "version 8",
            good().set("Sec-WebSocket-Version", "8"),
            &[426],
        ),
        (
            "no version",
            good().without("Sec-WebSocket-Version"),
            &[426],
        ),
        ("no Upgrade", good().without("Upgrade"), &[426]),
        ("another Upgrade", good().set("Upgrade", "h2c"), &[426]),
        ("no Connection", good().without("Connection"), &[426]),
        (
            "another Connection",
            good().set("Connection", "keep-alive"),
            &[426],
        ),
        (
            "POST",
            good().line(&format!("POST {GOOD} HTTP/1.1")),
            &[405],
        ),
        (
            "TRACE",
            good().line(&format!("TRACE {GOOD} HTTP/1.1")),
            &[405],
        ),
    ];
    refuses(&node, &rows).await;
}

#[tokio::test]
async fn a_request_that_is_no_plain_get_of_the_one_path_is_refused() {
    let node = Plan::dev().start().await;
    let good = || Handshake::to(GOOD);
    let rows: Vec<Row> = vec![
        (
            "HTTP/1.0",
            good().line(&format!("GET {GOOD} HTTP/1.0")),
            &[400],
        ),
        ("no Host", good().without("Host"), &[400]),
        ("two Hosts", good().with("Host", "other.test"), &[400]),
        ("a body", good().with("Content-Length", "5"), &[400]),
        (
            "a chunked body",
            good().with("Transfer-Encoding", "chunked"),
            &[400],
        ),
        (
            "a length and chunks",
            good()
                .with("Content-Length", "5")
                .with("Transfer-Encoding", "chunked"),
            &[400],
        ),
        (
            "another path",
            good().line("GET /v1/connect/ HTTP/1.1"),
            &[404],
        ),
        (
            "the API's path",
            good().line("GET /v1/publish HTTP/1.1"),
            &[404],
        ),
        ("metrics", good().line("GET /metrics HTTP/1.1"), &[404]),
        (
            "a way up",
            good().line("GET /v1/../../etc/passwd HTTP/1.1"),
            &[404],
        ),
        (
            "a zero byte",
            good().line("GET /v1/connect%00 HTTP/1.1"),
            &[404],
        ),
    ];
    refuses(&node, &rows).await;
}

#[tokio::test]
async fn a_handshake_that_is_too_much_is_refused_before_the_upgrade() {
    let node = Plan::dev().start().await;
    let good = || Handshake::to(GOOD);
    let many = (0..300).fold(good(), |shake, n| shake.with(&format!("X-{n}"), "1"));
    let long = "x".repeat(100 * 1024);
    let names = (0..1000)
        .map(|n| format!("p{n}"))
        .collect::<Vec<_>>()
        .join(", ");
    let rows: Vec<Row> = vec![
        ("300 headers", many, &[431]),
        ("a header of 100 KiB", good().with("X-Long", &long), &[431]),
        (
            "a target of 100 KiB",
            good().line(&format!("GET /{long} HTTP/1.1")),
            &[414, 431],
        ),
        (
            "1,000 subprotocols",
            good().with("Sec-WebSocket-Protocol", &names),
            &[400, 431],
        ),
        (
            "100 KiB of blanks for a subprotocol",
            good().with(
                "Sec-WebSocket-Protocol",
                &format!("a{}b", " ".repeat(100 * 1024)),
            ),
            &[400, 431],
        ),
    ];
    refuses(&node, &rows).await;
}

#[tokio::test]
async fn the_subprotocol_is_chosen_from_those_offered() {
    let node = Plan::dev().start().await;
    let offering = |names: &str| Handshake::to(GOOD).with("Sec-WebSocket-Protocol", names);
    let rows: Vec<Row> = vec![
        ("one unknown", offering("graphql-ws"), &[400]),
        (
            "two unknown",
            offering("fanfare.v0.json, fanfare.v1"),
            &[400],
        ),
    ];
    refuses(&node, &rows).await;
    let rows = [
        (Handshake::to(GOOD), None),
        (offering("fanfare.v1.json"), Some("fanfare.v1.json")),
        (
            offering("fanfare.v9, fanfare.v1.msgpack"),
            Some("fanfare.v1.msgpack"),
        ),
        (
            offering("fanfare.v9").with("Sec-WebSocket-Protocol", "fanfare.v1.json"),
            Some("fanfare.v1.json"),
        ),
    ];
    for (handshake, chosen) in rows {
        let mut raw = Raw::open(node.public).await;
        raw.send(&handshake.bytes()).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(head.status, 101, "{handshake:?}");
        assert_eq!(
            head.header("sec-websocket-protocol"),
            chosen,
            "{handshake:?}"
        );
    }
}

#[tokio::test]
async fn a_handshake_in_other_words_is_accepted_and_no_extension_is_agreed() {
    let node = Plan::dev().start().await;
    let rows = [
        Handshake::to(GOOD)
            .set("Connection", "keep-alive, upgrade")
            .set("Upgrade", "WebSocket"),
        Handshake::to(GOOD).with("Sec-WebSocket-Extensions", "permessage-deflate; x-unknown"),
        Handshake::to(GOOD).with("Origin", "https://anywhere.test"),
    ];
    for handshake in rows {
        let mut raw = Raw::open(node.public).await;
        raw.send(&handshake.bytes()).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(head.status, 101, "{handshake:?}");
        assert_eq!(head.header("sec-websocket-accept"), Some(raw::ACCEPT));
        assert_eq!(head.header("sec-websocket-extensions"), None);
    }
}

#[tokio::test]
async fn with_a_list_of_origins_a_foreign_one_is_refused_and_none_is_let_in() {
    let node = Plan::dev()
        .env("FANFARE_AUTH__ORIGINS", "https://app.example")
        .start()
        .await;
    let from = |origin: &str| Handshake::to(GOOD).with("Origin", origin);
    let rows: Vec<Row> = vec![
        ("foreign", from("https://evil.example"), &[403]),
        ("null", from("null"), &[403]),
        ("a suffix", from("https://app.example.evil.com"), &[403]),
        ("another port", from("https://app.example:8443"), &[403]),
        ("another scheme", from("http://app.example"), &[403]),
        (
            "two origins",
            from("https://app.example").with("Origin", "https://evil.example"),
            &[403],
        ),
        ("listed", from("https://app.example"), &[101]),
        ("none, as outside browsers", Handshake::to(GOOD), &[101]),
    ];
    refuses(&node, &rows).await;
}

#[tokio::test]
async fn a_connection_that_does_not_finish_its_request_is_ended() {
    let node = Plan::dev()
        .env("FANFARE_SERVER__HANDSHAKE_TIMEOUT_MS", "500")
        .start()
        .await;
    let beside = Beside::start(&node, "?user=good").await;
    let mut silent = Raw::open(node.public).await;
    let mut slow = Raw::open(node.public).await;
    slow.send(format!("GET {GOOD} HTTP/1.1\r\nX-Slow: ").as_bytes())
        .await;
    // A byte every 20 ms keeps the connection busy for much longer than the limit.
    let mut ended = false;
    for _ in 0..500 {
        slow.send(b"x").await;
        if let Ok(head) = timeout(Duration::from_millis(20), slow.head()).await {
            assert!(head.is_none_or(|head| matches!(head.status, 400 | 408)));
            ended = true;
            break;
        }
    }
    assert!(ended, "a byte at a time keeps the connection for ever");
    let head = silent.head().await;
    assert!(head.is_none_or(|head| matches!(head.status, 400 | 408)));
    let mut tls = Raw::open(node.public).await;
    tls.send(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n")
        .await;
    assert!(tls.head().await.is_none_or(|head| head.status == 400));
    beside.unharmed().await;
}

#[tokio::test]
async fn a_second_request_behind_the_handshake_is_never_served() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let mut raw = Raw::open(node.public).await;
    let mut twice = Handshake::to(GOOD).bytes();
    twice.extend(b"GET /health/live HTTP/1.1\r\nHost: fanfare.test\r\n\r\n");
    raw.send(&twice).await;
    let head = raw.head().await.expect("an answer to the first");
    if head.status == 101 {
        // What follows the handshake are frames, and `G` is one with a reserved bit.
        assert_eq!(raw.ended().await.code, Some(1002));
    } else {
        assert_eq!(head.status, 400);
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn a_session_that_never_authenticates_ends_with_4004() {
    let node = Plan::dev()
        .env("FANFARE_AUTH__TIMEOUT_MS", "5000")
        .start()
        .await;
    let beside = Beside::start(&node, "?user=good").await;
    let mut silent = Raw::upgraded(node.public, "/v1/connect").await;
    let mut eager = Raw::upgraded(node.public, "/v1/connect").await;
    for id in 1..=100 {
        let command = json!({"type": "subscribe", "topic": "a", "id": id});
        eager.frame(&Frame::text(&command.to_string())).await;
    }
    for id in 1..=100 {
        let answer = eager.receive_json().await;
        assert_eq!(
            (&answer["id"], &answer["code"]),
            (&json!(id), &json!("unauthorized"))
        );
    }
    assert_eq!(eager.ended().await.code, Some(4004));
    assert_eq!(silent.ended().await.code, Some(4004));
    beside.unharmed().await;
}

#[tokio::test]
async fn a_node_without_room_says_when_to_come_back() {
    let node = Plan::dev()
        .env("FANFARE_SERVER__CONNECTIONS_MAX", "3")
        .start()
        .await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        inside.push(raw);
    }
    let mut fourth = Raw::open(node.public).await;
    fourth.send(&Handshake::to(GOOD).bytes()).await;
    let (head, body) = fourth.answer().await.expect("an answer");
    assert_eq!(head.status, 503, "{head:?}");
    let body: Value = serde_json::from_slice(&body).expect("a JSON body");
    assert_eq!(body["error"]["code"], "unavailable");
    assert!(
        head.header("retry-after")
            .is_some_and(|after| after.parse::<u64>().is_ok())
    );
    inside[0]
        .frame(&Frame::text("{\"type\":\"ping\",\"id\":1}"))
        .await;
    inside[0].answered(1).await;
}
