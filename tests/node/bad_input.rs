//! Bad input over a session: each kind gets its exact answer, and a good client beside it notices
//! nothing. Frames are attacked in `rfc6455.rs`, tokens in `bad_tokens.rs`, positions in
//! `bad_positions.rs`.

use std::time::{Duration, Instant};

use fanfare_protocol::form::Encoding;
use fanfare_testkit::beside::Beside;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::raw::{Frame, Raw};
use fanfare_testkit::talk::Talk;
use fanfare_testkit::wait;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const BAD_COMMANDS_MAX: usize = 10;

async fn session(node: &Node, user: &str, wire: Encoding) -> Talk {
    Talk::welcomed(&node.connect_url(&format!("?user={user}")), wire)
        .await
        .0
}

/// `{"type": "publish", "id": 1, "topic": "t", "data": …}` in MessagePack, the body as it is.
fn msgpack_publish(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x84];
    let text = |out: &mut Vec<u8>, text: &str| {
        rmp::encode::write_str(out, text).expect("memory takes it");
    };
    for (key, value) in [("type", "publish"), ("topic", "t")] {
        text(&mut out, key);
        text(&mut out, value);
    }
    text(&mut out, "id");
    out.push(1);
    text(&mut out, "data");
    out.extend(data);
    out
}

#[tokio::test]
async fn a_command_that_cannot_be_read_is_a_bad_request_with_its_id_where_it_has_one() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let json_rows: [(&[u8], Value); 13] = [
        (b"hello", Value::Null),
        (b"", Value::Null),
        (b"[]", Value::Null),
        (b"42", Value::Null),
        (b"{}", Value::Null),
        (b"{\"id\":7}", json!(7)),
        (b"{\"id\":7,\"type\":5}", json!(7)),
        (b"{\"id\":7,\"type\":\"subscribe\"}", json!(7)),
        (b"{\"id\":7,\"type\":\"subscribe\",\"topic\":5}", json!(7)),
        (b"{\"type\":\"publish\",\"topic\":\"t\",\"id\":7}", json!(7)),
        (b"{\"id\":-1,\"type\":\"ping\"}", Value::Null),
        (b"{\"id\":\"7\",\"type\":\"ping\"}", Value::Null),
        (b"{\"type\":\"ping\"} {}", Value::Null),
    ];
    let msgpack_rows: [(&[u8], Value); 7] = [
        (b"\xc1", Value::Null),
        (b"", Value::Null),
        (b"\x90", Value::Null),
        (b"\x82\xa2id", Value::Null),
        (b"\xdf\xff\xff\xff\xff", Value::Null),
        (b"\x81\xa2id\x07", json!(7)),
        (b"\x82\xa2id\x07\xa4type\x05", json!(7)),
    ];
    let rows = json_rows.iter().map(|row| (Encoding::Json, row));
    let rows = rows.chain(msgpack_rows.iter().map(|row| (Encoding::MsgPack, row)));
    for (wire, (bytes, id)) in rows {
        let mut talk = session(&node, "ada", wire).await;
        talk.send_bytes(bytes).await;
        let error = talk.event_of("error").await;
        let what = format!("{}: {error}", String::from_utf8_lossy(bytes));
        assert_eq!(
            (&error["code"], &error["id"]),
            (&json!("bad_request"), id),
            "{what}"
        );
        assert_eq!(error["retry"], false, "{what}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{what}"
        );
        talk.ok(json!({"type": "ping"})).await;
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn ten_unreadable_commands_in_a_row_end_the_session_with_4003() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    for wire in Encoding::ALL {
        let mut talk = session(&node, "ada", wire).await;
        for _ in 0..2 {
            for _ in 1..BAD_COMMANDS_MAX {
                talk.send_bytes(b"x").await;
                assert_eq!(talk.event_of("error").await["code"], "bad_request");
            }
            talk.ok(json!({"type": "ping"})).await;
        }
        for _ in 0..BAD_COMMANDS_MAX {
            talk.send_bytes(b"x").await;
        }
        for _ in 0..BAD_COMMANDS_MAX {
            assert_eq!(talk.event_of("error").await["code"], "bad_request");
        }
        assert_eq!(talk.close_code().await, Some(4003));
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn an_unknown_command_is_told_so_and_an_unknown_field_is_ignored() {
    let node = Plan::dev().start().await;
    for wire in Encoding::ALL {
        let mut talk = session(&node, "ada", wire).await;
        for _ in 0..2 * BAD_COMMANDS_MAX {
            talk.refused(json!({"type": "fly"}), "unknown_command")
                .await;
        }
        talk.ok(json!({"type": "ping", "color": {"deep": [1, 2]}}))
            .await;
    }
}

#[tokio::test]
async fn a_name_that_is_none_is_an_invalid_topic() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let long = "x".repeat(201);
    let names = [
        "", &long, "a\u{1}b", "a\nb", "a\0b", "a b", "a{b", "a}b", "a*b", "ä", "%a", "@a b", "@{a}",
    ];
    let mut slowest = Duration::ZERO;
    for wire in Encoding::ALL {
        let mut talk = session(&node, "ada", wire).await;
        for name in names {
            for kind in ["subscribe", "unsubscribe", "history", "presence"] {
                let asked = Instant::now();
                talk.refused(json!({"type": kind, "topic": name}), "invalid_topic")
                    .await;
                slowest = slowest.max(asked.elapsed());
            }
            let publish = json!({"type": "publish", "topic": name, "data": 1});
            talk.refused(publish, "invalid_topic").await;
        }
        for user in ["", "a b", "a{b", "ä", &"u".repeat(200)] {
            let publish = json!({"type": "publish", "user": user, "data": 1});
            talk.refused(publish, "invalid_topic").await;
        }
        talk.ok(json!({"type": "subscribe", "topic": "x".repeat(200)}))
            .await;
    }
    println!("R8: the slowest answer to a bad name took {slowest:?}");
    // A name that is no user comes like a bad token in the query: told after the upgrade.
    for user in ["a%20b", "a%7Bb", &"u".repeat(200)] {
        let url = node.connect_url(&format!("?user={user}"));
        let mut talk = Talk::connected(&url, Encoding::Json).await;
        assert_eq!(
            talk.event_of("error").await["code"],
            "unauthorized",
            "{user}"
        );
        assert_eq!(talk.close_code().await, Some(4000), "{user}");
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn what_a_session_may_not_do_is_refused_and_it_stays() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("fanfare.toml");
    let text = "[namespaces.news]\nsubscribe = \"anyone\"\npublish = \"nobody\"\n\
        history = \"nobody\"\n\n\
        [namespaces.secret]\nsubscribe = \"nobody\"\nhistory = \"nobody\"\npublish = \"anyone\"\n";
    std::fs::write(&path, text).expect("the directory can be written");
    let node = Plan::dev()
        .flag(&format!("--config={}", path.display()))
        .start()
        .await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    let rows = [
        (json!({"type": "subscribe", "topic": "@bob"}), "forbidden"),
        (json!({"type": "history", "topic": "@bob"}), "forbidden"),
        (json!({"type": "presence", "topic": "@bob"}), "forbidden"),
        (
            json!({"type": "subscribe", "topic": "@ada"}),
            "already_subscribed",
        ),
        (
            json!({"type": "subscribe", "topic": "@"}),
            "already_subscribed",
        ),
        (json!({"type": "unsubscribe", "topic": "@"}), "forbidden"),
        (
            json!({"type": "publish", "topic": "@", "data": 1}),
            "forbidden",
        ),
        (
            json!({"type": "publish", "topic": "news:1", "data": 1}),
            "forbidden",
        ),
        (
            json!({"type": "subscribe", "topic": "secret:1"}),
            "forbidden",
        ),
        (json!({"type": "history", "topic": "secret:1"}), "forbidden"),
        (
            json!({"type": "unsubscribe", "topic": "t"}),
            "not_subscribed",
        ),
        (json!({"type": "connect"}), "bad_request"),
    ];
    for (command, code) in rows {
        talk.refused(command, code).await;
    }
    for begin in [json!({"since": "0-0"}), json!({"rewind": 1})] {
        let mut command = json!({"type": "subscribe", "topic": "news:1"});
        let begin = begin.as_object().expect("a map").clone();
        command.as_object_mut().expect("a map").extend(begin);
        talk.refused(command, "forbidden").await;
    }
    talk.ok(json!({"type": "subscribe", "topic": "news:1"}))
        .await;
    talk.refused(
        json!({"type": "subscribe", "topic": "news:1"}),
        "already_subscribed",
    )
    .await;
    talk.publish("secret:1", json!(1)).await;
}

#[tokio::test]
async fn commands_that_contradict_themselves_or_ask_too_much_are_refused() {
    let node = Plan::dev().start().await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    let key = "k".repeat(129);
    let rows = [
        (
            json!({"type": "subscribe", "topic": "t", "rewind": 101}),
            "bad_request",
        ),
        (
            json!({"type": "subscribe", "topic": "t", "rewind": 1, "since": "0-0"}),
            "bad_request",
        ),
        (json!({"type": "publish", "data": 1}), "bad_request"),
        (
            json!({"type": "publish", "topic": "t", "user": "u", "data": 1}),
            "bad_request",
        ),
        (
            json!({"type": "publish", "topic": "t", "data": 1, "priority": "urgent"}),
            "bad_request",
        ),
        (
            json!({"type": "publish", "topic": "t", "data": 1, "key": key}),
            "too_large",
        ),
        (
            json!({"type": "publish", "topic": "t", "data": 1, "idempotency_key": key}),
            "too_large",
        ),
    ];
    for (command, code) in rows {
        talk.refused(command, code).await;
        talk.ok(json!({"type": "ping"})).await;
    }
    for number in 0..128 {
        talk.ok(json!({"type": "subscribe", "topic": format!("t:{number}")}))
            .await;
    }
    talk.refused(
        json!({"type": "subscribe", "topic": "t:128"}),
        "limit_exceeded",
    )
    .await;
    talk.ok(json!({"type": "unsubscribe", "topic": "t:0"}))
        .await;
    talk.ok(json!({"type": "subscribe", "topic": "t:128"}))
        .await;
}

#[tokio::test]
async fn a_connect_that_names_too_much_or_twice_is_refused_whole() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    for wire in [Encoding::Json, Encoding::MsgPack] {
        let url = node.connect_url("?user=ada&wait=1");
        let mut talk = Talk::connected(&url, wire).await;
        let listed = |count| -> Vec<_> {
            let names = (0..count).map(|n| json!({"topic": format!("t:{n}")}));
            names.collect()
        };
        let resumed = json!({"@ada": "0-0", "@": "0-0", "t:0": "0-0"});
        let connect = |topics: Vec<Value>, positions: &Value| json!({"type": "connect", "topics": topics, "positions": positions});
        talk.refused(connect(listed(131), &json!({})), "limit_exceeded")
            .await;
        talk.refused(connect(listed(130), &resumed), "limit_exceeded")
            .await;
        talk.refused(connect(listed(100), &resumed), "bad_request")
            .await;
        let twice = vec![json!({"topic": "t"}), json!({"topic": "t"})];
        talk.refused(connect(twice, &json!({})), "bad_request")
            .await;
        let welcome = talk
            .ask(connect(listed(128), &json!({"@ada": "0-0", "@": "0-0"})))
            .await;
        assert_eq!(welcome["topics"].as_object().expect("a map").len(), 130);
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn a_message_of_the_other_kind_ends_the_session_with_1003() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let mut talk = session(&node, "ada", Encoding::Json).await;
    talk.send_message(Message::binary(&b"{\"type\":\"ping\"}"[..]))
        .await;
    assert_eq!(talk.close_code().await, Some(1003));
    let mut talk = session(&node, "ada", Encoding::MsgPack).await;
    talk.send_message(Message::text("{\"type\":\"ping\"}"))
        .await;
    assert_eq!(talk.close_code().await, Some(1003));
    beside.unharmed().await;
}

#[tokio::test]
async fn data_that_json_cannot_express_is_a_bad_request() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    let rows: [(&str, Vec<u8>); 9] = [
        ("a number as a key", b"\x81\x01\x02".into()),
        ("a nested number as a key", b"\x91\x81\x01\x02".into()),
        ("an extension type", b"\xd4\x01\x00".into()),
        ("a timestamp", b"\xd6\xff\x00\x00\x00\x00".into()),
        (
            "not a number",
            [&[0xcb][..], &f64::NAN.to_be_bytes()].concat(),
        ),
        (
            "infinity",
            [&[0xca][..], &f32::INFINITY.to_be_bytes()].concat(),
        ),
        ("text that is not UTF-8", b"\xa2\xff\xfe".into()),
        ("a depth of 65", nested(65)),
        ("a depth of 10,000", nested(10_000)),
    ];
    for (what, data) in rows {
        let mut talk = session(&node, "ada", Encoding::MsgPack).await;
        talk.send_bytes(&msgpack_publish(&data)).await;
        let error = talk.event_of("error").await;
        assert_eq!(error["code"], "bad_request", "{what}: {error}");
        talk.send_bytes(&msgpack_publish(&nested(64))).await;
        assert_eq!(talk.answer(1).await["type"], "ok", "{what}");
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let rows = [
        nested(65),
        nested(10_000),
        "1e999".into(),
        "-1e999".into(),
        "18446744073709551616".into(),
        "-9223372036854775809".into(),
        "\"\\ud800\"".into(),
        "NaN".into(),
    ];
    for data in rows {
        let mut talk = session(&node, "ada", Encoding::Json).await;
        let publish = |data: &str| {
            format!("{{\"type\":\"publish\",\"id\":1,\"topic\":\"t\",\"data\":{data}}}")
        };
        talk.send_bytes(publish(&data).as_bytes()).await;
        let error = talk.event_of("error").await;
        assert_eq!(error["code"], "bad_request", "{data:.40}: {error}");
        talk.send_bytes(publish(&nested(64)).as_bytes()).await;
        assert_eq!(talk.answer(1).await["type"], "ok", "{data:.40}");
    }
    beside.unharmed().await;
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_not_read_and_then_let_go() {
    let node = Plan::dev()
        .env("FANFARE_SESSION__REPLIES_TIMEOUT_MS", "1000")
        .start()
        .await;
    let beside = Beside::start(&node, "?user=good").await;
    let mut good = session(&node, "good", Encoding::Json).await;
    good.publish("big", json!("x".repeat(60_000))).await;
    let before = node.resident_bytes();
    let mut deaf = Raw::upgraded(node.public, "/v1/connect?user=deaf").await;
    let ask = Frame::text("{\"type\":\"history\",\"id\":1,\"topic\":\"big\"}").bytes();
    let asks = ask.repeat(1000);
    // The node stops reading, so its socket and then ours fill up.
    let mut taken = 0;
    while deaf.try_send(&asks, Duration::from_millis(500)).await {
        taken += 1;
        assert!(taken < 10_000, "the node reads on and on");
    }
    let ended = "fanfare_sessions_closed_total{reason=\"slow_consumer\"}";
    wait::until("the deaf session to end", async || {
        (node.metric(ended).await == 1).then_some(())
    })
    .await;
    let grown = node.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * 1024 * 1024, "grew by {grown} bytes");
    beside.unharmed().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_port_refuses_to_start() {
    let node = Plan::dev().start().await;
    let beside = Beside::start(&node, "?user=good").await;
    let port = node.public.to_string();
    let (status, told) = Plan::dev().start_refused(&port).await;
    assert_eq!(status.code(), Some(69), "{told}");
    assert!(
        told.contains(&port),
        "the message names the address: {told}"
    );
    beside.unharmed().await;
}
