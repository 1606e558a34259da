//! What RFC 6455 forbids, done to a real node byte by byte, and what must come back.
//!
//! The handshake is answered by the right status, a frame by the right close code, and a good
//! client beside each attack notices nothing.

mod support;

use std::time::Duration;

use serde_json::json;
use support::beside::Beside;
use support::node::{Node, Plan};
use support::raw::{self, Frame, Handshake, Raw};
use tokio::time::timeout;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const FRAGMENTS_MAX: usize = 256;
const GOOD: &str = "/v1/connect?user=ada";

/// A row of attacks on the handshake: what it is, what is sent, which statuses are right.
type Row = (&'static str, Handshake, &'static [u16]);

async fn refuses(node: &Node, rows: &[Row]) {
    let beside = Beside::start(node, "?user=good").await;
    for (what, handshake, statuses) in rows {
        let mut raw = Raw::open(node.public).await;
        raw.send(&handshake.bytes()).await;
        let head = raw
            .head()
            .await
            .unwrap_or_else(|| panic!("{what}: hung up without a word"));
        assert!(statuses.contains(&head.status), "{what}: {head:?}");
        if head.status == 426 {
            assert_eq!(head.header("sec-websocket-version"), Some("13"), "{what}");
            assert_eq!(head.header("upgrade"), Some("websocket"), "{what}");
        }
    }
    beside.is_unharmed().await;
}

/// What ends a session, and with which codes it may end.
async fn ends_with(node: &Node, rows: &[(&str, Vec<Frame>)], codes: &[u16]) {
    let beside = Beside::start(node, "?user=good").await;
    for (what, frames) in rows {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        for frame in frames {
            raw.frame(frame).await;
        }
        let code = raw.ended().await.code;
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "{what}: {code:?}"
        );
    }
    beside.is_unharmed().await;
}

/// A `ping` command padded to so many bytes.
fn ping_of(bytes_count: usize) -> String {
    let bare = json!({"type": "ping", "id": 1, "pad": ""}).to_string();
    let pad = "x".repeat(bytes_count - bare.len());
    json!({"type": "ping", "id": 1, "pad": pad}).to_string()
}

/// Reads over `welcome` and whatever else is not the answer to command 1.
async fn answered(raw: &mut Raw) {
    loop {
        let event = raw.receive_json().await;
        if event["id"] == 1 {
            assert_eq!(event["type"], "ok", "{event}");
            return;
        }
    }
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
    beside.is_unharmed().await;
}

#[tokio::test]
async fn a_second_request_behind_the_handshake_is_never_served() {
    let node = Plan::dev().start().await;
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
}

#[tokio::test]
async fn a_breach_of_the_frame_rules_ends_the_session_with_1002() {
    let node = Plan::dev().start().await;
    let text = || Frame::text("{\"type\":\"ping\"}");
    let mut rows = vec![
        ("unmasked", vec![text().unmasked()]),
        (
            "an unmasked ping",
            vec![Frame::new(raw::PING, "x").unmasked()],
        ),
        ("the first reserved bit", vec![text().reserved(1)]),
        ("the second reserved bit", vec![text().reserved(2)]),
        ("the third reserved bit", vec![text().reserved(3)]),
        (
            "a reserved bit in a ping",
            vec![Frame::new(raw::PING, "").reserved(1)],
        ),
        (
            "a fragmented ping",
            vec![Frame::new(raw::PING, "x").unfinished()],
        ),
        ("a fragmented close", vec![Frame::close(1000).unfinished()]),
        (
            "a continuation first",
            vec![Frame::new(raw::CONTINUATION, "x")],
        ),
        (
            "text inside a fragmented text",
            vec![text().unfinished(), text()],
        ),
        (
            "a second first fragment",
            vec![
                text().unfinished(),
                text().unfinished(),
                Frame::new(raw::CONTINUATION, ""),
            ],
        ),
        ("a close of one byte", vec![Frame::new(raw::CLOSE, [3])]),
    ];
    for opcode in [raw::PING, raw::PONG, raw::CLOSE] {
        let mut payload = 1000_u16.to_be_bytes().to_vec();
        payload.resize(126, b'x');
        rows.push((
            "a control frame over 125 bytes",
            vec![Frame::new(opcode, payload)],
        ));
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        rows.push(("a reserved opcode", vec![Frame::new(opcode, "")]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        rows.push((
            "a close with a code that may not be sent",
            vec![Frame::close(code)],
        ));
    }
    ends_with(&node, &rows, &[1002]).await;
}

#[tokio::test]
async fn text_that_is_not_utf8_ends_the_session_with_1007() {
    let node = Plan::dev().start().await;
    let mut reason = 1000_u16.to_be_bytes().to_vec();
    reason.extend(b"\xff");
    let rows = [
        (
            "a lone byte",
            vec![Frame::new(raw::TEXT, b"{\"type\":\"\xff\"}")],
        ),
        ("an overlong form", vec![Frame::new(raw::TEXT, b"\xc0\xaf")]),
        ("a surrogate", vec![Frame::new(raw::TEXT, b"\xed\xa0\x80")]),
        (
            "half a character at the end",
            vec![Frame::new(raw::TEXT, b"\xe2\x82")],
        ),
        (
            "half a character, then another fragment",
            vec![
                Frame::new(raw::TEXT, b"\xe2\x82").unfinished(),
                Frame::new(raw::CONTINUATION, b"x"),
            ],
        ),
        ("a close reason", vec![Frame::new(raw::CLOSE, reason)]),
    ];
    ends_with(&node, &rows, &[1007]).await;
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_session_with_1009() {
    let node = Plan::dev().start().await;
    let half = vec![b' '; MESSAGE_BYTES_MAX / 2 + 1];
    let empty_fragments = |count: usize| {
        let first = Frame::text("").unfinished();
        let others = Frame::new(raw::CONTINUATION, "").unfinished();
        std::iter::once(first)
            .chain(std::iter::repeat_n(others, count - 1))
            .collect()
    };
    let rows = [
        ("whole", vec![Frame::text(&ping_of(MESSAGE_BYTES_MAX + 1))]),
        (
            "in fragments",
            vec![
                Frame::new(raw::TEXT, half.clone()).unfinished(),
                Frame::new(raw::CONTINUATION, half),
            ],
        ),
        (
            "empty fragments without end",
            empty_fragments(FRAGMENTS_MAX + 1),
        ),
        (
            "one-byte fragments without end",
            std::iter::once(Frame::text(" ").unfinished())
                .chain(std::iter::repeat_n(
                    Frame::new(raw::CONTINUATION, " ").unfinished(),
                    FRAGMENTS_MAX,
                ))
                .collect(),
        ),
    ];
    ends_with(&node, &rows, &[1009]).await;
}

#[tokio::test]
async fn nothing_is_allocated_for_a_length_that_is_only_announced() {
    let node = Plan::dev().start().await;
    let before = node.resident_bytes();
    let announced = [("2^62", vec![Frame::text("x").announcing(1 << 62)])];
    ends_with(&node, &announced, &[1009]).await;
    // The highest bit of a length must be zero; either objection is right.
    let announced = [("2^63", vec![Frame::text("x").announcing(1 << 63)])];
    ends_with(&node, &announced, &[1002, 1009]).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        raw.frame(&Frame::text("x").announcing(MESSAGE_BYTES_MAX as u64))
            .await;
        waiting.push(raw);
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * 1024 * 1024, "grew by {grown} bytes");
}

#[tokio::test]
async fn what_the_rules_allow_at_their_edge_is_served() {
    let node = Plan::dev().start().await;
    let whole = ping_of(MESSAGE_BYTES_MAX);
    let pieces = |count: usize| -> Vec<Frame> {
        let bytes = whole.as_bytes();
        let chunks = bytes.chunks(bytes.len().div_ceil(count));
        let mut frames: Vec<_> = chunks
            .map(|chunk| Frame::new(raw::CONTINUATION, chunk).unfinished())
            .collect();
        frames[0].opcode = raw::TEXT;
        frames.last_mut().expect("not empty").flags |= 0x80;
        assert_eq!(frames.len(), count);
        frames
    };
    let euro = "{\"type\":\"ping\",\"id\":1,\"x\":\"€\"}";
    let split = euro.find('€').expect("it is there") + 1;
    let (left, right) = euro.as_bytes().split_at(split);
    let rows = [
        ("a message of exactly the limit", vec![Frame::text(&whole)]),
        ("the limit of fragments", pieces(FRAGMENTS_MAX)),
        (
            "a character across fragments, with a ping between them",
            vec![
                Frame::new(raw::TEXT, left).unfinished(),
                Frame::new(raw::PONG, ""),
                Frame::new(raw::CONTINUATION, "").unfinished(),
                Frame::new(raw::CONTINUATION, right),
            ],
        ),
    ];
    for (what, frames) in rows {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        for frame in &frames {
            raw.frame(frame).await;
        }
        answered(&mut raw).await;
        raw.frame(&Frame::close(1000)).await;
        assert_eq!(raw.ended().await.code, Some(1000), "{what}");
    }
}

#[tokio::test]
async fn a_ping_is_answered_even_inside_a_fragmented_message() {
    let node = Plan::dev().start().await;
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    let payload = [b'p'; 125];
    raw.frame(&Frame::text("{\"type\":\"ping\",").unfinished())
        .await;
    raw.frame(&Frame::new(raw::PING, payload)).await;
    raw.frame(&Frame::new(raw::CONTINUATION, "\"id\":1}")).await;
    let mut pong = None;
    let mut is_answered = false;
    while pong.is_none() || !is_answered {
        let frame = raw.receive().await.expect("the session stays");
        match frame.first {
            0x8a => pong = Some(frame.payload),
            0x81 => is_answered |= String::from_utf8_lossy(&frame.payload).contains("\"id\":1"),
            _ => {}
        }
    }
    assert_eq!(pong.as_deref(), Some(&payload[..]));
}

#[tokio::test]
async fn what_comes_after_a_close_is_ignored_and_the_close_is_answered() {
    let node = Plan::dev().start().await;
    for (sent, answered) in [
        (Frame::close(1000), Some(1000)),
        (Frame::close(3000), Some(3000)),
    ] {
        let mut raw = Raw::upgraded(node.public, GOOD).await;
        assert_eq!(raw.receive_json().await["type"], "welcome");
        let mut both = sent.bytes();
        both.extend(Frame::text("{\"type\":\"ping\",\"id\":1}").bytes());
        raw.send(&both).await;
        let ended = raw.ended().await;
        assert_eq!((ended.code, ended.before), (answered, vec![]), "{sent:?}");
    }
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    raw.frame(&Frame::new(raw::CLOSE, "")).await;
    let code = raw.ended().await.code;
    assert!(matches!(code, None | Some(1000)), "{code:?}");
}

#[tokio::test]
async fn a_close_that_is_never_answered_still_ends_the_connection() {
    let node = Plan::dev().start().await;
    let mut raw = Raw::upgraded(node.public, GOOD).await;
    raw.frame(&Frame::text("x").unmasked()).await;
    let closing = loop {
        let frame = raw.receive().await.expect("a close frame");
        if frame.opcode() == raw::CLOSE {
            break frame;
        }
    };
    assert_eq!(closing.payload[..2], 1002_u16.to_be_bytes());
    assert_eq!(
        raw.receive().await,
        None,
        "the connection ends without our answer"
    );
}

#[tokio::test]
async fn a_session_that_never_authenticates_ends_with_4004() {
    let node = Plan::dev()
        .env("FANFARE_AUTH__TIMEOUT_MS", "1000")
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
    beside.is_unharmed().await;
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
    let head = fourth.head().await.expect("an answer");
    assert_eq!(head.status, 503, "{head:?}");
    assert!(
        head.header("retry-after")
            .is_some_and(|after| after.parse::<u64>().is_ok())
    );
    inside[0]
        .frame(&Frame::text("{\"type\":\"ping\",\"id\":1}"))
        .await;
    answered(&mut inside[0]).await;
}
