//! Tests of both wire forms, side by side: what one form takes or refuses, the other does too.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::data::{DEPTH_MAX, Data};
use crate::protocol::event::{GapReason, Message};
use crate::protocol::ids::{App, Topic};

/// The command in both wire forms.
fn both(command: &Value) -> [(Wire, Vec<u8>); 2] {
    [
        (Wire::Json, serde_json::to_vec(command).unwrap()),
        (Wire::MsgPack, rmp_serde::to_vec_named(command).unwrap()),
    ]
}

/// What both forms read, which must be the same (bodies apart).
fn read(command: &Value) -> Envelope {
    let [json, msgpack] = both(command).map(|(wire, bytes)| decode(wire, &bytes).unwrap());
    if !matches!(json.command, Command::Publish(_)) {
        assert_eq!(json, msgpack);
    }
    json
}

/// Asserts code, id and a word of the sentence, in both forms.
fn refused(command: Value, id: Option<u64>, code: ErrorCode, word: &str) {
    for (wire, bytes) in both(&command) {
        let fault = decode(wire, &bytes).expect_err(&command.to_string());
        assert_eq!((fault.id, fault.error.code), (id, code), "{command}");
        assert!(fault.error.message.contains(word), "{command}: {fault:?}");
    }
}

fn bad_json(text: &str, id: Option<u64>) {
    let fault = decode(Wire::Json, text.as_bytes()).expect_err(text);
    let code = ErrorCode::BadRequest;
    assert_eq!(
        (fault.id, fault.error.code),
        (id, code),
        "{text}: {fault:?}"
    );
}

fn message(data: Data) -> Event {
    Event::Message(Message {
        topic: Topic::new(&App::default_app(), "orders:7").unwrap(),
        data,
        position: "1732190000000-7".parse().ok(),
        user: None,
        priority: Priority::Normal,
        key: None,
        removed: false,
        time: 1_732_190_000_000,
    })
}

/// The payload behind a frame header with a length of 16 bits or less.
fn payload_of(frame: &[u8]) -> &[u8] {
    &frame[if frame[1] == 126 { 4 } else { 2 }..]
}

#[test]
fn every_command_is_read_with_all_its_fields() {
    let at: Position = "5-6".parse().unwrap();
    let connect = json!({"type": "connect", "id": 1, "token": "t", "device": "phone",
        "positions": {"a": "5-6", "@": "0-0"}});
    let Command::Connect(connect) = read(&connect).command else {
        panic!("not a connect");
    };
    assert_eq!(
        (connect.token.as_deref(), connect.device.as_deref()),
        (Some("t"), Some("phone"))
    );
    let mut positions = connect.positions;
    positions.sort();
    assert_eq!(positions, [("@".into(), Position::ZERO), ("a".into(), at)]);
    let cases = [
        (
            json!({"type": "subscribe", "topic": "a", "since": "5-6", "token": "t", "presence": true}),
            Command::Subscribe(Subscribe {
                topic: "a".into(),
                since: Some(at),
                rewind: None,
                token: Some("t".into()),
                presence: true,
            }),
        ),
        (
            json!({"type": "subscribe", "topic": "a", "rewind": 100, "since": null, "state": 7}),
            Command::Subscribe(Subscribe {
                topic: "a".into(),
                rewind: Some(100),
                ..Subscribe::default()
            }),
        ),
        (
            json!({"type": "unsubscribe", "topic": "a"}),
            Command::Unsubscribe { topic: "a".into() },
        ),
        (
            json!({"type": "ack", "position": "5-6"}),
            Command::Ack { position: at },
        ),
        (
            json!({"type": "history", "topic": "a", "since": "5-6", "until": "5-6",
                "limit": 5_000_000_000_u64, "reverse": true}),
            Command::History(History {
                topic: "a".into(),
                since: Some(at),
                until: Some(at),
                limit: Some(u32::MAX),
                reverse: true,
            }),
        ),
        (
            json!({"type": "presence", "topic": "a", "after": "x", "limit": 3}),
            Command::Presence {
                topic: "a".into(),
                after: Some("x".into()),
                limit: Some(3),
            },
        ),
        (
            json!({"type": "refresh", "token": "t"}),
            Command::Refresh { token: "t".into() },
        ),
        (
            json!({"type": "ping", "id": null, "unknown": [{}]}),
            Command::Ping,
        ),
    ];
    for (command, expected) in cases {
        let id = None;
        assert_eq!(
            read(&command),
            Envelope {
                id,
                command: expected
            }
        );
    }
}

#[test]
fn a_publication_keeps_its_body_byte_for_byte() {
    let text = br#"{"id":18446744073709551615,"type":"publish","topic":"a","data": {"b" :[1.50, "\u00e4"]} ,"priority":"high","idempotency_key":"i","key":"k","conflate":false,"ttl_ms":9,"echo":true,"remove":false,"if_position":null}"#;
    let envelope = decode(Wire::Json, text).unwrap();
    assert_eq!(envelope.id, Some(u64::MAX));
    let publish = Publish {
        topic: Some("a".into()),
        user: None,
        data: Data::Json(Bytes::from_static(br#"{"b" :[1.50, "\u00e4"]}"#)),
        priority: Some(Priority::High),
        idempotency_key: Some("i".into()),
        key: Some("k".into()),
        conflate: Some(false),
        ttl_ms: Some(9),
        echo: true,
    };
    assert_eq!(envelope.command, Command::Publish(publish));
    // {"data": [1 as uint32, bin ff], "user": "u", "type": "publish"}
    let mut bytes = b"\x83\xa4data\x92\xce\0\0\0\x01\xc4\x01\xff".to_vec();
    bytes.extend(b"\xa4user\xa1u\xa4type\xa7publish");
    let Command::Publish(publish) = decode(Wire::MsgPack, &bytes).unwrap().command else {
        panic!("not a publish");
    };
    let body = b"\x92\xce\0\0\0\x01\xc4\x01\xff";
    assert_eq!(publish.data, Data::MsgPack(Bytes::from_static(body)));
    assert_eq!((publish.topic, publish.user.as_deref()), (None, Some("u")));
}

#[test]
fn a_command_that_contradicts_the_contract_is_refused_with_its_id() {
    let bad = [
        (json!({"id": 7}), "`type` is missing"),
        (json!({"id": 7, "type": 1}), "`type` must be text"),
        (json!({"id": 7, "type": null}), "`type` is missing"),
        (json!({"id": 7, "type": "subscribe"}), "`topic` is missing"),
        (
            json!({"id": 7, "type": "subscribe", "topic": 5}),
            "`topic` must be text",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "since": "5-06"}),
            "`since`",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "since": "NaN"}),
            "`since`",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "since": -1}),
            "`since`",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "since": "0-0", "rewind": 1}),
            "exclude",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "rewind": 101}),
            "`rewind`",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "rewind": -1}),
            "`rewind`",
        ),
        (
            json!({"id": 7, "type": "subscribe", "topic": "a", "presence": "yes"}),
            "`presence`",
        ),
        (
            json!({"id": 7, "type": "unsubscribe", "topic": ["a"]}),
            "`topic`",
        ),
        (
            json!({"id": 7, "type": "publish", "data": 1}),
            "exactly one",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "user": "u", "data": 1}),
            "exactly one",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a"}),
            "`data` is missing",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "priority": "urgent"}),
            "`priority`",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "ttl_ms": -5}),
            "`ttl_ms`",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "ttl_ms": 1.5}),
            "`ttl_ms`",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "key": 1}),
            "`key`",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "echo": 1}),
            "`echo`",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "remove": true}),
            "state",
        ),
        (
            json!({"id": 7, "type": "publish", "topic": "a", "data": 1, "if_position": "0-0"}),
            "state",
        ),
        (json!({"id": 7, "type": "ack"}), "`position` is missing"),
        (
            json!({"id": 7, "type": "ack", "position": "18446744073709551616-0"}),
            "`position`",
        ),
        (
            json!({"id": 7, "type": "history", "topic": "a", "limit": 0}),
            "`limit`",
        ),
        (
            json!({"id": 7, "type": "history", "topic": "a", "limit": 1e9}),
            "`limit`",
        ),
        (
            json!({"id": 7, "type": "history", "topic": "a", "reverse": 0}),
            "`reverse`",
        ),
        (json!({"id": 7, "type": "refresh"}), "`token` is missing"),
        (
            json!({"id": 7, "type": "connect", "positions": []}),
            "`positions`",
        ),
        (
            json!({"id": 7, "type": "connect", "positions": {"a": 5}}),
            "`positions`",
        ),
        (
            json!({"id": 7, "type": "connect", "positions": {"a": "x"}}),
            "`positions`",
        ),
    ];
    for (command, word) in bad {
        refused(command, Some(7), ErrorCode::BadRequest, word);
    }
    let unknown = json!({"id": 7, "type": "a\nb"});
    refused(unknown, Some(7), ErrorCode::UnknownCommand, r#""a\nb""#);
    for id in [json!("7"), json!(-7), json!(7.0), json!([7]), json!(true)] {
        refused(
            json!({"id": id, "type": "ping"}),
            None,
            ErrorCode::BadRequest,
            "`id`",
        );
    }
    for other in [json!([]), json!("ping"), json!(7), json!(null)] {
        refused(other, None, ErrorCode::BadRequest, "not a map");
    }
}

#[test]
fn unreadable_json_has_no_id_and_a_readable_map_with_a_bad_value_has_one() {
    for text in [
        "",
        "{",
        "{\"id\":7",
        "{\"id\":7}x",
        "{\"id\":7}{}",
        "{id:7}",
        "\u{feff}{}",
    ] {
        bad_json(text, None);
    }
    for data in [
        "18446744073709551616",
        "-9223372036854775809",
        "1e400",
        "-1e309",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud800\u0041""#,
        r#"{"\udfff":1}"#,
    ] {
        bad_json(
            &format!(r#"{{"type":"publish","topic":"a","data":{data},"id":7}}"#),
            Some(7),
        );
    }
    bad_json(r#"{"id":7,"type":"ping","type":"ping"}"#, Some(7));
    bad_json(
        r#"{"id":7,"type":"ping","id":8,"topic":"a","topic":"b"}"#,
        None,
    );
    bad_json(r#"{"type":"subscribe","topic":"\ud800","id":7}"#, Some(7));
    bad_json(
        r#"{"type":"connect","positions":{"a":"0-0","a":"1-0"},"id":7}"#,
        Some(7),
    );
    let deep = "[".repeat(100_000);
    bad_json(&deep, None);
    bad_json(&format!(r#"{{"id":7,"x":{deep}"#), None);
    let closed = format!("{deep}{}", "]".repeat(100_000));
    bad_json(&format!(r#"{{"id":7,"x":{closed}}}"#), Some(7));
    bad_json(
        &format!(r#"{{"type":"publish","topic":"a","data":{closed},"id":7}}"#),
        Some(7),
    );
}

#[test]
fn broken_messagepack_has_no_id_and_a_readable_map_with_a_bad_value_has_one() {
    let refuse = |bytes: &[u8], id: Option<u64>| {
        let fault = decode(Wire::MsgPack, bytes).expect_err(&format!("{bytes:x?}"));
        assert_eq!(
            (fault.id, fault.error.code),
            (id, ErrorCode::BadRequest),
            "{bytes:x?}"
        );
    };
    for bytes in [
        &b""[..],
        b"\xc1",
        b"\x81\xa2id",
        b"\x81\xa2id\xc1",
        b"\x81\xa2id\x07\x07",
        b"\xdf\xff\xff\xff\xff",
        b"\x81\xa1x\xdd\xff\xff\xff\xff",
        b"\x81\xa1x\xdb\xff\xff\xff\xff",
        b"\x81\xa1x\xc9\xff\xff\xff\xff\x01",
    ] {
        refuse(bytes, None);
    }
    let deep = |levels: usize| [vec![0x91; levels], vec![0xc0]].concat();
    for data in [
        b"\xd4\x01\x00".to_vec(),             // an extension
        b"\xcb\x7f\xf0\0\0\0\0\0\0".to_vec(), // infinity
        b"\xca\x7f\xc0\0\0".to_vec(),         // NaN of 32 bits
        b"\xa1\xff".to_vec(),                 // not UTF-8
        b"\x81\x01\x02".to_vec(),             // an integer as a key
        b"\x81\xc4\x01a\x02".to_vec(),        // bytes as a key
        b"\x92\x81\x90\x80\xa1a".to_vec(),    // a list as a key, then more
        deep(DEPTH_MAX + 1),
        deep(50_000),
    ] {
        let head = b"\x84\xa4type\xa7publish\xa5topic\xa1a\xa4data";
        refuse(&[&head[..], &data, b"\xa2id\x07"].concat(), Some(7));
        assert!(Data::from_msgpack(&data).is_err(), "{data:x?}");
    }
    assert!(Data::from_msgpack(&deep(DEPTH_MAX)).is_ok());
    assert!(Data::from_msgpack(b"\xc0\xc0").is_err());
    // Signed markers with a value that is not negative are what several encoders write.
    let envelope = decode(Wire::MsgPack, b"\x82\xa2id\xd2\0\0\0\x07\xa4type\xa4ping").unwrap();
    assert_eq!(envelope.id, Some(7));
    // A key that is not text is the name of no field, and so is passed over.
    let envelope = decode(Wire::MsgPack, b"\x82\x01\xd4\x01\x00\xa4type\xa4ping").unwrap();
    assert_eq!(envelope.command, Command::Ping);
}

#[test]
fn json_depth_is_counted_in_lists_and_maps() {
    let nest = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(Data::from_json(nest(DEPTH_MAX).as_bytes()).is_ok());
    assert!(Data::from_json(nest(DEPTH_MAX + 1).as_bytes()).is_err());
    let brackets_in_text = format!("\"{}\"", "[{".repeat(200));
    assert!(Data::from_json(brackets_in_text.as_bytes()).is_ok());
    for bad in [
        &b"1 2"[..],
        b"",
        b"nul",
        b"\"\xff\"",
        b"01",
        b"[1,]",
        b"NaN",
    ] {
        assert!(Data::from_json(bad).is_err(), "{bad:?}");
    }
    for good in [
        "0",
        "-0",
        "-9223372036854775808",
        "1e308",
        "1e-400",
        r#""\ud83d\ude00\\ud800""#,
    ] {
        assert!(Data::from_json(good.as_bytes()).is_ok(), "{good}");
    }
}

#[test]
fn an_event_is_one_frame_and_a_json_body_stands_in_it_untouched() {
    let body = br#"{"b" :[1.50, "\u00e4"]}"#;
    let event = message(Data::from_json(body).unwrap());
    let frame = encode(Wire::Json, &event);
    let expected = br#"{"type":"message","topic":"orders:7","data":{"b" :[1.50, "\u00e4"]},"position":"1732190000000-7","time":1732190000000}"#;
    assert_eq!(frame[..2], [0x81, u8::try_from(expected.len()).unwrap()]);
    assert_eq!(payload_of(&frame), expected);
    let frame = encode(Wire::MsgPack, &event);
    assert_eq!(frame[0], 0x82);
    let back: Value = rmp_serde::from_slice(payload_of(&frame)).unwrap();
    assert_eq!(back, serde_json::from_slice::<Value>(expected).unwrap());
}

#[test]
fn bytes_become_base64_text_in_json_and_stay_bytes_in_messagepack() {
    let data = Data::from_msgpack(b"\x81\xa1b\xc4\x04\xfb\xff\x00\x01").unwrap();
    let frame = encode(Wire::Json, &message(data.clone()));
    let back: Value = serde_json::from_slice(payload_of(&frame)).unwrap();
    assert_eq!(back["data"], json!({"b": "+/8AAQ=="}));
    let bytes = payload(Wire::MsgPack, &data).unwrap();
    assert_eq!(bytes, b"\x81\xa1b\xc4\x04\xfb\xff\x00\x01");
    // Text that came as JSON stays text, whatever it looks like.
    let text = Data::from_json(br#"{"b":"+/8AAQ=="}"#).unwrap();
    assert_eq!(
        payload(Wire::MsgPack, &text).unwrap(),
        b"\x81\xa1b\xa8+/8AAQ=="
    );
}

#[test]
fn an_event_without_a_body_has_the_same_map_in_both_forms() {
    let event = Event::Gap(event::Gap {
        topic: Topic::new(&App::default_app(), "a").unwrap(),
        from: None,
        to: "1-2".parse().ok(),
        reason: GapReason::Retention,
        dropped: None,
    });
    let expected = json!({"type": "gap", "topic": "a", "to": "1-2", "reason": "retention"});
    let json: Value = serde_json::from_slice(payload_of(&encode(Wire::Json, &event))).unwrap();
    let msgpack: Value = rmp_serde::from_slice(payload_of(&encode(Wire::MsgPack, &event))).unwrap();
    assert_eq!((&json, &msgpack), (&expected, &expected));
    let ping = encode(Wire::Json, &Event::Ping {});
    assert_eq!(payload_of(&ping), br#"{"type":"ping"}"#);
}

#[test]
fn a_body_that_was_damaged_where_it_was_stored_is_told_as_an_internal_error() {
    for wire in [Wire::Json, Wire::MsgPack] {
        for data in [
            Data::Json(Bytes::from_static(b"{\"a\":")),
            Data::MsgPack(Bytes::from_static(b"\x92\x01")),
        ] {
            let event = message(data);
            assert!(encode_checked(wire, &event).is_err());
            let frame = encode(wire, &event);
            let told: Value = match wire {
                Wire::Json => serde_json::from_slice(payload_of(&frame)).unwrap(),
                Wire::MsgPack => rmp_serde::from_slice(payload_of(&frame)).unwrap(),
            };
            assert_eq!(
                (&told["type"], &told["code"]),
                (&json!("error"), &json!("internal"))
            );
        }
    }
}

/// Any JSON value within the rules of a body.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|map| map.into_iter().collect::<Value>()),
        ]
    })
}

proptest! {
    #[test]
    fn a_body_survives_every_way_between_the_forms(value in any_json()) {
        let text = serde_json::to_vec(&value).unwrap();
        let json = Data::from_json(&text).unwrap();
        prop_assert_eq!(payload(Wire::Json, &json).unwrap(), text.clone());
        let bytes = payload(Wire::MsgPack, &json).unwrap();
        let msgpack = Data::from_msgpack(&bytes).unwrap();
        prop_assert_eq!(payload(Wire::MsgPack, &msgpack).unwrap(), bytes.clone());
        let back: Value = serde_json::from_slice(&payload(Wire::Json, &msgpack).unwrap()).unwrap();
        prop_assert_eq!(back, value);
    }

    #[test]
    fn random_bytes_are_read_or_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for wire in [Wire::Json, Wire::MsgPack] {
            let _ = decode(wire, &bytes);
        }
        let _ = Data::from_json(&bytes);
        if let Ok(data) = Data::from_msgpack(&bytes) {
            prop_assert!(payload(Wire::Json, &data).is_ok());
        }
    }

    #[test]
    fn a_message_cut_or_bent_anywhere_is_read_or_refused_and_never_panics(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let command = json!({"type": "publish", "topic": "a", "data": value, "id": 7});
        for (wire, mut bytes) in both(&command) {
            prop_assert!(decode(wire, &bytes).is_ok());
            let at = at.index(bytes.len());
            prop_assert!(decode(wire, &bytes[..at]).is_err());
            bytes[at] = byte;
            if let Ok(Envelope { command: Command::Publish(publish), .. }) = decode(wire, &bytes) {
                prop_assert!(payload(Wire::Json, &publish.data).is_ok());
                prop_assert!(payload(Wire::MsgPack, &publish.data).is_ok());
            }
        }
    }
}
