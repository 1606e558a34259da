//! Tests of both wire forms, side by side: what one form takes or refuses, the other does too.

use serde_json::{Value, json};

use super::*;
use crate::data::Data;
use crate::rules::DEPTH_MAX;

/// The command in both wire forms.
pub(super) fn both(command: &Value) -> [(Encoding, Vec<u8>); 2] {
    [
        (Encoding::Json, serde_json::to_vec(command).unwrap()),
        (Encoding::MsgPack, rmp_serde::to_vec_named(command).unwrap()),
    ]
}

/// What both forms read, which must be the same (bodies apart).
fn read(command: &Value) -> Envelope {
    let [json, msgpack] = both(command).map(|(encoding, bytes)| decode(encoding, &bytes).unwrap());
    if !matches!(json.command, Command::Publish(_)) {
        assert_eq!(json, msgpack);
    }
    json
}

/// Asserts code, id and a word of the sentence, in both forms.
fn refused(command: Value, id: Option<u64>, code: ErrorCode, word: &str) {
    for (encoding, bytes) in both(&command) {
        let fault = decode(encoding, &bytes).expect_err(&command.to_string());
        assert_eq!((fault.id, fault.error.code), (id, code), "{command}");
        assert!(fault.error.message.contains(word), "{command}: {fault:?}");
    }
}

fn bad_json(text: &str, id: Option<u64>) {
    let fault = decode(Encoding::Json, text.as_bytes()).expect_err(text);
    let code = ErrorCode::BadRequest;
    assert_eq!(
        (fault.id, fault.error.code),
        (id, code),
        "{text}: {fault:?}"
    );
}

#[test]
fn connect_is_read_with_all_its_fields() {
    let connect = json!({"type": "connect", "id": 1, "token": "t", "device": "phone",
        "positions": {"a": "5-6", "@": "0-0"}});
    let Command::Connect(connect) = read(&connect).command else {
        panic!("not a connect");
    };
    let texts = (connect.token.as_deref(), connect.device.as_deref());
    assert_eq!(texts, (Some("t"), Some("phone")));
    let mut positions = connect.positions;
    positions.sort();
    let at = "5-6".parse().unwrap();
    assert_eq!(positions, [("@".into(), Position::ZERO), ("a".into(), at)]);
}

#[test]
fn every_other_command_is_read_with_all_its_fields() {
    let at: Position = "5-6".parse().unwrap();
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
        let envelope = read(&command);
        assert_eq!((envelope.id, envelope.command), (None, expected));
    }
}

#[test]
fn a_publication_keeps_its_body_byte_for_byte() {
    let text = br#"{"id":18446744073709551615,"type":"publish","topic":"a","data": {"b" :[1.50, "\u00e4"]} ,"priority":"high","idempotency_key":"i","key":"k","conflate":false,"ttl_ms":9,"echo":true,"traceparent":"00-ab","remove":false,"if_position":null}"#;
    let envelope = decode(Encoding::Json, text).unwrap();
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
        traceparent: Some("00-ab".into()),
    };
    assert_eq!(envelope.command, Command::Publish(publish));
    // {"data": [1 as uint32, bin ff], "user": "u", "type": "publish"}
    let mut bytes = b"\x83\xa4data\x92\xce\0\0\0\x01\xc4\x01\xff".to_vec();
    bytes.extend(b"\xa4user\xa1u\xa4type\xa7publish");
    let Command::Publish(publish) = decode(Encoding::MsgPack, &bytes).unwrap().command else {
        panic!("not a publish");
    };
    let body = b"\x92\xce\0\0\0\x01\xc4\x01\xff";
    assert_eq!(publish.data, Data::MsgPack(Bytes::from_static(body)));
    assert_eq!((publish.topic, publish.user.as_deref()), (None, Some("u")));
}

/// What the sentence must name, and the command.
const CONTRADICTIONS: &str = r#"
`type` is missing | {"id": 7}
`type` must be text | {"id": 7, "type": 1}
`type` is missing | {"id": 7, "type": null}
`topic` is missing | {"id": 7, "type": "subscribe"}
`topic` must be text | {"id": 7, "type": "subscribe", "topic": 5}
`since` | {"id": 7, "type": "subscribe", "topic": "a", "since": "5-06"}
`since` | {"id": 7, "type": "subscribe", "topic": "a", "since": "NaN"}
`since` | {"id": 7, "type": "subscribe", "topic": "a", "since": -1}
exclude | {"id": 7, "type": "subscribe", "topic": "a", "since": "0-0", "rewind": 1}
`rewind` | {"id": 7, "type": "subscribe", "topic": "a", "rewind": 101}
`rewind` | {"id": 7, "type": "subscribe", "topic": "a", "rewind": -1}
`presence` | {"id": 7, "type": "subscribe", "topic": "a", "presence": "yes"}
`topic` | {"id": 7, "type": "unsubscribe", "topic": ["a"]}
exactly one | {"id": 7, "type": "publish", "data": 1}
exactly one | {"id": 7, "type": "publish", "topic": "a", "user": "u", "data": 1}
`data` is missing | {"id": 7, "type": "publish", "topic": "a"}
`priority` | {"id": 7, "type": "publish", "topic": "a", "data": 1, "priority": "urgent"}
`ttl_ms` | {"id": 7, "type": "publish", "topic": "a", "data": 1, "ttl_ms": -5}
`ttl_ms` | {"id": 7, "type": "publish", "topic": "a", "data": 1, "ttl_ms": 1.5}
`key` | {"id": 7, "type": "publish", "topic": "a", "data": 1, "key": 1}
`echo` | {"id": 7, "type": "publish", "topic": "a", "data": 1, "echo": 1}
state | {"id": 7, "type": "publish", "topic": "a", "data": 1, "remove": true}
state | {"id": 7, "type": "publish", "topic": "a", "data": 1, "if_position": "0-0"}
`position` is missing | {"id": 7, "type": "ack"}
`position` | {"id": 7, "type": "ack", "position": "18446744073709551616-0"}
`limit` | {"id": 7, "type": "history", "topic": "a", "limit": 0}
`limit` | {"id": 7, "type": "history", "topic": "a", "limit": 1e9}
`reverse` | {"id": 7, "type": "history", "topic": "a", "reverse": 0}
`token` is missing | {"id": 7, "type": "refresh"}
`positions` | {"id": 7, "type": "connect", "positions": []}
`positions` | {"id": 7, "type": "connect", "positions": {"a": 5}}
`positions` | {"id": 7, "type": "connect", "positions": {"a": "x"}}
"#;

#[test]
fn a_command_that_contradicts_the_contract_is_refused_with_its_id() {
    for row in CONTRADICTIONS.trim().lines() {
        let (word, command) = row.split_once(" | ").unwrap();
        let command = serde_json::from_str(command).unwrap();
        refused(command, Some(7), ErrorCode::BadRequest, word);
    }
    let unknown = json!({"id": 7, "type": "a\nb"});
    refused(unknown, Some(7), ErrorCode::UnknownCommand, r#""a\nb""#);
}

#[test]
fn a_command_without_a_valid_id_or_that_is_no_map_is_refused_without_one() {
    for id in [json!("7"), json!(-7), json!(7.0), json!([7]), json!(true)] {
        let command = json!({"id": id, "type": "ping"});
        refused(command, None, ErrorCode::BadRequest, "`id`");
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
        let fault = decode(Encoding::MsgPack, bytes).expect_err(&format!("{bytes:x?}"));
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
    let envelope = decode(
        Encoding::MsgPack,
        b"\x82\xa2id\xd2\0\0\0\x07\xa4type\xa4ping",
    )
    .unwrap();
    assert_eq!(envelope.id, Some(7));
    // A key that is not text is the name of no field, and so is passed over.
    let envelope = decode(Encoding::MsgPack, b"\x82\x01\xd4\x01\x00\xa4type\xa4ping").unwrap();
    assert_eq!(envelope.command, Command::Ping);
}
