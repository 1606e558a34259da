//! What RFC 6455 forbids, done to a real node byte by byte, and what must come back.
//!
//! Each breach is answered by the right close code, and a good client beside it notices nothing.
//! The opening handshake is attacked in `handshake.rs`.

use fanfare_testkit::beside::Beside;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{self, Frame, Raw};
use serde_json::json;

const MESSAGE_BYTES_MAX: usize = 64 * 1024;
const FRAGMENTS_MAX: usize = 256;
const GOOD: &str = "/v1/connect?user=ada";

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
    beside.unharmed().await;
}

/// A `ping` command padded to so many bytes.
fn ping_of(bytes_count: usize) -> String {
    let bare = json!({"type": "ping", "id": 1, "pad": ""}).to_string();
    let pad = "x".repeat(bytes_count - bare.len());
    json!({"type": "ping", "id": 1, "pad": pad}).to_string()
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
        raw.answered(1).await;
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
async fn what_comes_after_a_close_is_ignored_and_the_close_answered() {
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
    let beside = Beside::start(&node, "?user=good").await;
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
    beside.unharmed().await;
}
