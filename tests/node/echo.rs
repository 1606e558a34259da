//! The echo endpoint, judged by the classes of cases that the Autobahn test suite has.
//!
//! In: frames made byte by byte, right and wrong, sent to `fanfare serve --echo`. Out: what comes
//! back. `scripts/autobahn` runs the suite itself where it can be had; this runs everywhere.

use std::collections::VecDeque;
use std::time::Duration;

use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{self, Frame, Handshake, Raw, Received};

const PATH: &str = "/echo";
const MIB: usize = 1024 * 1024;
const MESSAGE_BYTES_MAX: usize = 16 * MIB;

async fn node() -> Node {
    Plan::dev().flag("--echo").start().await
}

async fn echo(node: &Node) -> Raw {
    Raw::upgraded(node.public, PATH).await
}

/// What comes back of a message.
fn whole(opcode: u8, payload: impl Into<Vec<u8>>) -> Received {
    Received {
        first: 0x80 | opcode,
        payload: payload.into(),
    }
}

/// A message in fragments of these payloads.
fn fragments(opcode: u8, payloads: &[&[u8]]) -> Vec<Frame> {
    let mut frames: Vec<_> = payloads
        .iter()
        .map(|payload| Frame::new(raw::CONTINUATION, *payload).unfinished())
        .collect();
    frames[0].opcode = opcode;
    frames.last_mut().expect("not empty").flags |= 0x80;
    frames
}

/// Sends the frames, reads exactly these answers, then closes in order.
async fn answers(node: &Node, what: &str, frames: &[Frame], expected: &[Received]) {
    let mut raw = echo(node).await;
    for frame in frames {
        raw.frame(frame).await;
    }
    for one in expected {
        let got = raw.receive().await;
        // Not `assert_eq`: a failure would print megabytes.
        let count = got.as_ref().map(|got| (got.first, got.payload.len()));
        assert!(got.as_ref() == Some(one), "{what}: {count:?}");
    }
    raw.frame(&Frame::close(1000)).await;
    let ended = raw.ended().await;
    assert_eq!((ended.code, ended.before), (Some(1000), vec![]), "{what}");
}

/// Sends the frames; the connection ends with this code after these answers.
async fn ends(node: &Node, what: &str, frames: &[Frame], expected: &[Received], code: u16) {
    let mut raw = echo(node).await;
    for frame in frames {
        raw.frame(frame).await;
    }
    let ended = raw.ended().await;
    assert_eq!(ended.code, Some(code), "{what}");
    assert_eq!(ended.before, expected, "{what}");
}

#[tokio::test]
async fn without_the_flag_there_is_no_echo() {
    let node = Plan::dev().start().await;
    let mut raw = Raw::open(node.public).await;
    raw.send(&Handshake::to(PATH).bytes()).await;
    assert_eq!(raw.head().await.expect("an answer").status, 404);
}

#[tokio::test]
async fn the_handshake_is_checked_as_that_of_a_session() {
    let node = Plan::dev()
        .flag("--echo")
        .env("FANFARE_AUTH__ORIGINS", "https://app.example.com")
        .start()
        .await;
    let good = Handshake::to(PATH);
    let rows = [
        (good.clone().without("Upgrade"), 426),
        (good.clone().without("Sec-WebSocket-Key"), 400),
        (good.clone().set("Sec-WebSocket-Version", "8"), 426),
        (good.clone().line("POST /echo HTTP/1.1"), 405),
        (good.clone().with("Origin", "https://evil.example.com"), 403),
        (good.clone().with("Origin", "https://app.example.com"), 101),
        // Neither a token nor a subprotocol is looked at.
        (good.clone().with("Authorization", "Bearer none"), 101),
        (good.clone().with("Sec-WebSocket-Protocol", "other"), 101),
    ];
    for (handshake, status) in rows {
        let mut raw = Raw::open(node.public).await;
        raw.send(&handshake.bytes()).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(head.status, status, "{handshake:?}");
        if status == 101 {
            assert_eq!(head.header("sec-websocket-accept"), Some(raw::ACCEPT));
            assert_eq!(head.header("sec-websocket-protocol"), None);
        }
    }
}

#[tokio::test]
async fn messages_of_every_size_come_back_as_they_came() {
    let node = node().await;
    let sizes = [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, MIB];
    let frames = |opcode, size| (opcode, vec![b'*'; size]);
    let mut all: Vec<_> = [raw::TEXT, raw::BINARY]
        .into_iter()
        .flat_map(|opcode| sizes.map(|size| frames(opcode, size)))
        .collect();
    all.push((raw::BINARY, (0..=255).collect()));
    all.push((raw::TEXT, vec![b'*'; MESSAGE_BYTES_MAX]));
    all.push((raw::BINARY, vec![0xfe; MESSAGE_BYTES_MAX]));
    for (opcode, payload) in all {
        let what = format!("{opcode} of {} bytes", payload.len());
        let frames = [Frame::new(opcode, payload.clone())];
        answers(&node, &what, &frames, &[whole(opcode, payload)]).await;
    }
}

#[tokio::test]
async fn a_message_in_many_fragments_comes_back_whole() {
    let node = node().await;
    let long = vec![b'*'; 4 * MIB];
    for size in [64, 1_024, 65_536, MIB] {
        let pieces: Vec<_> = long.chunks(size).collect();
        let frames = fragments(raw::BINARY, &pieces);
        let what = format!("fragments of {size} bytes");
        answers(&node, &what, &frames, &[whole(raw::BINARY, long.clone())]).await;
    }
}

#[tokio::test]
async fn a_ping_comes_back_as_a_pong_and_a_pong_as_nothing() {
    let node = node().await;
    for size in 0..=125 {
        let payload: Vec<u8> = (0..size).map(|n| 0xff - n).collect();
        let ping = Frame::new(raw::PING, payload.clone());
        let pong = whole(raw::PONG, payload);
        answers(&node, &format!("a ping of {size}"), &[ping], &[pong]).await;
    }
    let ten: Vec<_> = (0..10_u8).map(|n| Frame::new(raw::PING, [n; 9])).collect();
    let pongs: Vec<_> = (0..10_u8).map(|n| whole(raw::PONG, [n; 9])).collect();
    answers(&node, "ten pings", &ten, &pongs).await;
    let unasked = [Frame::new(raw::PONG, "?"), Frame::new(raw::PING, "!")];
    answers(&node, "a pong", &unasked, &[whole(raw::PONG, "!")]).await;
    for opcode in [raw::PING, raw::PONG, raw::CLOSE] {
        let long = [Frame::new(opcode, [b'*'; 126])];
        ends(&node, "a long control frame", &long, &[], 1002).await;
    }
}

#[tokio::test]
async fn reserved_bits_and_opcodes_end_with_1002_behind_what_came_whole() {
    let node = node().await;
    let before = || (Frame::text("good"), whole(raw::TEXT, "good"));
    let mut bad = Vec::new();
    for opcode in [raw::TEXT, raw::BINARY, raw::PING, raw::PONG, raw::CLOSE] {
        for bit in 1..=3 {
            bad.push(Frame::new(opcode, "x").reserved(bit));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        bad.push(Frame::new(opcode, ""));
        bad.push(Frame::new(opcode, "x"));
    }
    bad.push(Frame::text("x").unmasked());
    for bad in bad {
        let (sent, expected) = before();
        let what = format!("{bad:?}");
        let frames = [sent, bad, Frame::text("never looked at")];
        ends(&node, &what, &frames, &[expected], 1002).await;
    }
}

#[tokio::test]
async fn control_frames_between_fragments_are_answered_at_once() {
    let node = node().await;
    let ping = || Frame::new(raw::PING, "now");
    for pieces in [&[&b"one"[..], b"two", b"three"][..], &[b"", b"", b""]] {
        for opcode in [raw::TEXT, raw::BINARY] {
            let message = fragments(opcode, pieces);
            let mut between = VecDeque::from(message);
            let last = between.pop_back().expect("three");
            let mut frames = Vec::new();
            for fragment in between {
                frames.extend([fragment, ping(), Frame::new(raw::PONG, "")]);
            }
            frames.push(last);
            let pong = || whole(raw::PONG, "now");
            let expected = [pong(), pong(), whole(opcode, pieces.concat())];
            answers(&node, "pings between", &frames, &expected).await;
        }
    }
}

#[tokio::test]
async fn fragments_out_of_order_end_with_1002() {
    let node = node().await;
    let begun = || Frame::text("begun").unfinished();
    let goes_on = || Frame::new(raw::CONTINUATION, "on");
    let rows = [
        ("a continuation first", vec![goes_on()]),
        (
            "an unfinished continuation first",
            vec![goes_on().unfinished()],
        ),
        ("a message inside another", vec![begun(), Frame::text("x")]),
        ("a second beginning", vec![begun(), begun(), goes_on()]),
        (
            "a continuation behind the last",
            vec![begun(), goes_on(), goes_on()],
        ),
        (
            "a fragmented ping",
            vec![begun(), Frame::new(raw::PING, "").unfinished()],
        ),
    ];
    for (what, frames) in rows {
        let expected = match what {
            "a continuation behind the last" => vec![whole(raw::TEXT, "begunon")],
            _ => vec![],
        };
        ends(&node, what, &frames, &expected, 1002).await;
    }
}

#[tokio::test]
async fn utf8_is_judged_across_fragments() {
    let node = node().await;
    let valid: [&str; 7] = [
        "Hello-µ@ßöäüàá-UTF-8!!",
        "κόσμε",
        "\u{0}\u{80}\u{800}\u{10000}",
        "\u{7f}\u{7ff}\u{ffff}\u{10ffff}",
        "\u{d7ff}\u{e000}\u{fffd}",
        "\u{fffe}\u{1fffe}\u{10fffe}",
        "\u{feff}",
    ];
    for text in valid {
        let echoed = || [whole(raw::TEXT, text)];
        answers(&node, text, &[Frame::text(text)], &echoed()).await;
        let bytes: Vec<_> = text.as_bytes().chunks(1).collect();
        answers(&node, text, &fragments(raw::TEXT, &bytes), &echoed()).await;
    }
    let invalid: [&[u8]; 12] = [
        b"\x80",
        b"\xbf",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xce\xba\xe1",
    ];
    for bytes in invalid {
        let what = format!("{bytes:x?}");
        let one = [Frame::new(raw::TEXT, bytes)];
        ends(&node, &what, &one, &[], 1007).await;
        let pieces: Vec<_> = bytes.chunks(1).collect();
        let cut = fragments(raw::TEXT, &pieces);
        ends(&node, &what, &cut, &[], 1007).await;
        // Anything goes as binary.
        let binary = [Frame::new(raw::BINARY, bytes)];
        answers(&node, &what, &binary, &[whole(raw::BINARY, bytes)]).await;
    }
}

#[tokio::test]
async fn text_that_cannot_become_valid_any_more_ends_before_its_end() {
    let node = node().await;
    let good = "κόσμε".as_bytes();
    for bad in [&b"\xed\xa0"[..], b"\xf4\x90", b"\xff"] {
        // No last fragment is ever sent.
        let begun = fragments(raw::TEXT, &[good, bad, b""]);
        ends(&node, &format!("{bad:x?}"), &begun[..2], &[], 1007).await;
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_and_a_wrong_one_with_1002() {
    let node = node().await;
    let valid = (1000..=1003).chain(1007..=1014);
    for code in valid.chain([3000, 3999, 4000, 4999]) {
        let close = [Frame::close(code)];
        ends(&node, "a valid code", &close, &[], code).await;
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000] {
        let close = [Frame::close(code)];
        ends(&node, &format!("code {code}"), &close, &[], 1002).await;
    }
    let with = |reason: &[u8]| [&1000_u16.to_be_bytes()[..], reason].concat();
    let rows = [
        (with("Ärger".as_bytes()), 1000),
        (with(&[b'x'; 123]), 1000),
        (with(b"\xce\xba\xe1\xbd\xb9\xed\xa0"), 1007),
        (vec![3], 1002),
    ];
    for (payload, code) in rows {
        let close = [Frame::new(raw::CLOSE, payload)];
        ends(&node, "a reason", &close, &[], code).await;
    }
    let mut raw = echo(&node).await;
    raw.frame(&Frame::new(raw::CLOSE, "")).await;
    assert_eq!(raw.receive().await, Some(whole(raw::CLOSE, "")));
    assert_eq!(raw.receive().await, None);
    let behind = [Frame::close(1000), Frame::text("x"), Frame::close(3000)];
    ends(&node, "what comes behind a close", &behind, &[], 1000).await;
}

#[tokio::test]
async fn what_comes_byte_by_byte_is_answered_as_what_comes_at_once() {
    let node = node().await;
    let frames = [
        vec![Frame::text("chopped: κόσμε")],
        vec![Frame::new(raw::PING, [7; 125])],
        fragments(raw::BINARY, &[&[0xff; 126], b"", &[0; 300]]),
        vec![Frame::close(3001)],
    ]
    .concat();
    let mut raw = echo(&node).await;
    for byte in frames.iter().flat_map(Frame::bytes) {
        raw.send(&[byte]).await;
    }
    let binary = [vec![0xff; 126], vec![0; 300]].concat();
    let expected = [
        whole(raw::TEXT, "chopped: κόσμε"),
        whole(raw::PONG, [7; 125]),
        whole(raw::BINARY, binary),
        whole(raw::CLOSE, 3001_u16.to_be_bytes()),
    ];
    for one in expected {
        assert_eq!(raw.receive().await, Some(one));
    }
    assert_eq!(raw.receive().await, None);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_with_1009() {
    let node = node().await;
    let over = MESSAGE_BYTES_MAX as u64 + 1;
    let announced = [Frame::new(raw::BINARY, "").announcing(over)];
    ends(&node, "announced", &announced, &[], 1009).await;
    let half = vec![0; MESSAGE_BYTES_MAX / 2 + 1];
    let halves = fragments(raw::BINARY, &[&half, &half]);
    ends(&node, "in fragments", &halves, &[], 1009).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_either() {
    const COUNT_MAX: usize = 64;
    let node = node().await;
    let before = node.resident_bytes();
    let mut raw = echo(&node).await;
    let message = Frame::new(raw::BINARY, vec![7; MIB]).bytes();
    let mut count = 0;
    while raw.try_send(&message, Duration::from_secs(1)).await {
        count += 1;
        assert!(count < COUNT_MAX, "the node takes what nobody reads");
    }
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 16 * MIB as u64, "grew by {grown} bytes");
    let hello = [Frame::text("hello")];
    answers(&node, "beside", &hello, &[whole(raw::TEXT, "hello")]).await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything_in_order() {
    const COUNT: u8 = 32;
    let node = node().await;
    let mut reader = echo(&node).await;
    let mut writer = reader.writer();
    let writing = tokio::spawn(async move {
        for n in 0..COUNT {
            writer.frame(&Frame::new(raw::BINARY, vec![n; MIB])).await;
        }
    });
    // Served meanwhile, so that the late one has filled what there is between it and the node.
    for _ in 0..20 {
        let hello = [Frame::text("hello")];
        answers(&node, "beside", &hello, &[whole(raw::TEXT, "hello")]).await;
    }
    for n in 0..COUNT {
        let got = reader.receive().await.expect("an echo");
        assert!(got == whole(raw::BINARY, vec![n; MIB]), "message {n}");
    }
    writing.await.expect("all was written");
}

#[tokio::test]
async fn a_client_that_takes_nothing_for_too_long_is_ended_with_4103() {
    let plan = Plan::dev().flag("--echo");
    let plan = plan.env("FANFARE_SESSION__REPLIES_TIMEOUT_MS", "300");
    let plan = plan.env("FANFARE_SESSION__CLOSE_TIMEOUT_MS", "60000");
    let node = plan.start().await;
    let mut reader = echo(&node).await;
    let mut writer = reader.writer();
    // All of it is taken, because the node reads on at the end.
    let message = Frame::new(raw::BINARY, vec![7; MIB]).bytes();
    for _ in 0..32 {
        writer.send(&message).await;
    }
    let ended = reader.ended().await;
    assert_eq!(ended.code, Some(4103));
    assert!(ended.before.len() < 32, "{}", ended.before.len());
    assert!(ended.before.iter().all(|got| got.payload.len() == MIB));
}

#[tokio::test]
async fn a_client_that_is_silent_for_too_long_is_ended_with_4201() {
    let plan = Plan::dev().flag("--echo");
    let node = plan.env("FANFARE_SESSION__IDLE_S", "1").start().await;
    let mut raw = echo(&node).await;
    assert_eq!(raw.ended().await.code, Some(4201));
}
