//! Each command and event in both wire forms, there and back.

use serde_json::{Value, json};

use super::*;
use crate::codec::{decode, payload};
use crate::command::{Command, Connect, History, Publish};

fn at(text: &str) -> Position {
    text.parse().expect("a position")
}

/// `data` in the form of the wire, so that nothing is transcoded.
fn body(encoding: Encoding) -> Data {
    let value = json!({"text": "grüß", "list": [1, -2, 2.5, true, null], "big": u64::MAX});
    match encoding {
        Encoding::Json => Data::of(&value).expect("a body"),
        Encoding::MsgPack => Data::from_msgpack(&rmp_serde::to_vec_named(&value).unwrap()).unwrap(),
    }
}

fn commands(encoding: Encoding) -> Vec<Command> {
    let full = Subscribe {
        token: Some("t".to_owned()),
        presence: true,
        since: Some(at("5-6")),
        ..Subscribe::from("orders:7")
    };
    let rewind = Subscribe {
        rewind: Some(3),
        ..Subscribe::from("news")
    };
    let publish = Publish {
        topic: Some("t".to_owned()),
        user: None,
        data: body(encoding),
        priority: Some(crate::ids::Priority::High),
        idempotency_key: Some("i".to_owned()),
        key: Some("k".to_owned()),
        conflate: Some(false),
        ttl_ms: Some(7),
        echo: true,
        traceparent: Some("00-ab".to_owned()),
    };
    vec![
        Command::Connect(Connect::default()),
        Command::Connect(Connect {
            token: Some("t".to_owned()),
            device: Some("phone".to_owned()),
            topics: vec![full.clone(), rewind.clone()],
            positions: vec![
                ("a".to_owned(), at("1-2")),
                ("@".to_owned(), Position::ZERO),
            ],
        }),
        Command::Subscribe(full),
        Command::Subscribe(rewind),
        Command::Unsubscribe {
            topic: "t".to_owned(),
        },
        Command::Publish(Publish {
            topic: None,
            user: Some("bob".to_owned()),
            ..publish.clone()
        }),
        Command::Publish(publish),
        Command::Ack {
            position: at("1-2"),
        },
        Command::History(History {
            topic: "t".to_owned(),
            since: Some(at("1-1")),
            until: Some(at("2-2")),
            limit: Some(9),
            reverse: true,
        }),
        Command::Presence {
            topic: "t".to_owned(),
            after: Some("f".to_owned()),
            limit: Some(2),
        },
        Command::Refresh {
            token: "t".to_owned(),
        },
        Command::Ping,
    ]
}

#[test]
fn the_server_reads_every_command_as_it_was_meant() {
    for encoding in Encoding::ALL {
        for command in commands(encoding) {
            for id in [None, Some(u64::MAX)] {
                let command = command.clone();
                let envelope = Envelope { id, command };
                let bytes = encode_command(encoding, &envelope).expect("encoded");
                assert_eq!(decode(encoding, &bytes).expect("a command"), envelope);
            }
        }
    }
}

/// Every event, each with all its fields and with none that is optional.
fn events() -> Vec<Value> {
    let session = "5f0c1b7a9d3e4f60a1b2c3d4e5f60718";
    let message = json!({"type": "message", "topic": "chat:lobby", "data": {"list": [1, -2, 2.5, null]},
        "position": "2-9", "user": "bob", "priority": "high", "key": "turn", "removed": true, "time": 5});
    let mut listed = message.clone();
    listed.as_object_mut().unwrap().remove("type");
    vec![
        json!({"type": "welcome", "session": session, "node": "n", "home": {"node": "n"}, "ping_ms": 0}),
        json!({"type": "welcome", "id": 1, "session": session, "user": "alice", "node": "n",
            "home": {"node": "m", "url": "wss://m"}, "ping_ms": 25_000, "expires": 7,
            "inbox": {"topic": "@alice", "position": "0-0", "pending": 3},
            "topics": {"a": {"recovered": true, "position": "1-8", "count": 2, "expires": 9},
                "b": {"recovered": false, "position": "1-1", "gap_reason": "retention"},
                "c": {"error": {"code": "forbidden", "message": "not allowed here"}}}}),
        json!({"type": "ok"}),
        json!({"type": "ok", "id": 2, "recovered": false, "gap_reason": "failover", "position": "1-1",
            "duplicate": true, "count": 1, "members": [{"user": "a", "session": session, "info": {"n": 1}}],
            "publications": [listed], "more": true, "expires": 5}),
        json!({"type": "error", "code": "bad_request", "message": "no", "retry": false}),
        json!({"type": "error", "id": 5, "code": "unavailable", "message": "no", "retry": true, "retry_after_ms": 9}),
        json!({"type": "message", "topic": "@", "data": null, "time": 5}),
        message,
        json!({"type": "presence", "topic": "t", "joined": [{"session": session}], "left": [], "count": 2, "position": "4-3"}),
        json!({"type": "gap", "topic": "t", "reason": "lost"}),
        json!({"type": "gap", "topic": "t", "of": "presence", "from": "1-1", "to": "2-2", "reason": "slow", "dropped": 8}),
        json!({"type": "acked", "position": "1-1"}),
        json!({"type": "unsubscribed", "topic": "t", "code": "token_expired", "message": "over"}),
        json!({"type": "expiring", "expires": 5}),
        json!({"type": "expiring", "topic": "t", "expires": 5}),
        json!({"type": "drain", "reconnect_after_ms": 3_750}),
        json!({"type": "ping"}),
    ]
}

fn bytes_of(encoding: Encoding, value: &Value) -> Vec<u8> {
    payload(encoding, value).expect("bytes")
}

fn value_of(encoding: Encoding, bytes: &[u8]) -> Value {
    match encoding {
        Encoding::Json => serde_json::from_slice(bytes).expect("JSON"),
        Encoding::MsgPack => rmp_serde::from_slice(bytes).expect("MessagePack"),
    }
}

#[test]
fn every_event_comes_back_with_all_its_fields() {
    for encoding in Encoding::ALL {
        for mut event in events() {
            let wanted = event.clone();
            event["a_newer_field"] = json!({"type": [1]});
            let heard = decode_event(encoding, &bytes_of(encoding, &event));
            let Ok(Heard::Event(heard)) = heard else {
                panic!("{encoding:?} {event}: {heard:?}");
            };
            let back = payload(encoding, &heard).expect("encoded");
            assert_eq!(value_of(encoding, &back), wanted);
        }
    }
}

#[test]
fn an_event_of_a_newer_server_is_given_as_such_and_no_error() {
    for encoding in Encoding::ALL {
        let event = bytes_of(encoding, &json!({"type": "sung", "topic": 7}));
        let heard = decode_event(encoding, &event).expect("tolerated");
        assert!(matches!(heard, Heard::Unknown { kind } if kind == "sung"));
    }
}

#[test]
fn what_is_no_event_says_why() {
    for encoding in Encoding::ALL {
        let error = |value: Value| decode_event(encoding, &bytes_of(encoding, &value)).err();
        assert!(matches!(error(json!([1])), Some(DecodeError::NoMap(_))));
        assert!(matches!(
            error(json!({"type": 1})),
            Some(DecodeError::NoType)
        ));
        let error = error(json!({"type": "acked", "position": "no"})).expect("refused");
        assert_eq!(error.to_string(), "the event `acked` cannot be read");
    }
}

#[test]
fn data_is_kept_as_it_came_and_read_as_what_is_wanted() {
    let text = br#"{"type":"message","topic":"t","data":{ "a" : 1e2 },"time":1}"#;
    let Ok(Heard::Event(Event::Message(message))) = decode_event(Encoding::Json, text) else {
        panic!("no message");
    };
    assert_eq!(&message.data.bytes()[..], br#"{ "a" : 1e2 }"#);
    for encoding in Encoding::ALL {
        let value: Value = body(encoding).read().expect("a value");
        assert_eq!(value["big"], u64::MAX);
        assert!(body(encoding).read::<u8>().is_err());
    }
}
