//! Lengths against what the codec writes, over arbitrary bodies and the worst that were thought of.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::codec;
use crate::event::{Event, Message, Presence};
use crate::form::{Encoding, WireForm};
use crate::ids::{App, Position, Priority, SessionId};

const HIGHEST: Position = Position {
    ms: u64::MAX,
    seq: u64::MAX,
};

fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).unwrap()
}

/// What the codec writes of a body, in JSON and in MessagePack.
fn written(data: &Data) -> [usize; 2] {
    [Encoding::Json, Encoding::MsgPack]
        .map(|encoding| codec::payload(encoding, data).unwrap().len())
}

/// Asserts that a body's length is no less than what is written and little more.
fn check(data: &Data) {
    let [as_json, as_msgpack] = written(data);
    let size = BodySize::of(data);
    let longest = as_json.max(as_msgpack);
    assert!(size.longest >= longest, "{longest}: {size:?} of {data:?}");
    assert!(size.both >= as_json + as_msgpack, "{size:?} of {data:?}");
    // Beyond it only what floats and white space may take.
    assert!(
        size.longest <= (5 * data.bytes().len()).max(as_json).max(9),
        "{data:?}"
    );
}

fn json_body(text: &str) -> Data {
    Data::from_json(text.as_bytes()).unwrap()
}

fn msgpack_body(bytes: &[u8]) -> Data {
    Data::from_msgpack(bytes).unwrap()
}

fn list_of(item: &str, count: usize) -> String {
    format!("[{}]", vec![item; count].join(","))
}

#[test]
fn the_worst_bodies_are_measured_right() {
    let controls = |count| msgpack_body(&rmp_serde::to_vec(&"\u{1}".repeat(count)).unwrap());
    for count in [0, 1, 31, 32, 255, 256, 65_535, 65_536, 100_000] {
        check(&controls(count));
        let text = json!("x".repeat(count)).to_string();
        check(&json_body(&text));
        check(&json_body(&format!("[{text},-0,{text}]")));
    }
    let [as_json, as_msgpack] = written(&controls(10_000));
    assert_eq!(as_json / as_msgpack, 5, "six but for the head");
    for item in ["-0", "0.0", "1e1", "0", "-1", "\"\"", "true", "{}", "[]"] {
        for count in [0, 1, 15, 16, 40, 65_536] {
            check(&json_body(&list_of(item, count)));
        }
    }
    check(&json_body("-0"));
    for marker in [0xc0, 0xc2, 0xc3, 0x00, 0x7f, 0xe0, 0xff, 0xa0, 0x80, 0x90] {
        for count in [0, 1, 15] {
            let mut bytes = vec![0x90 | count];
            bytes.resize(1 + usize::from(count), marker);
            check(&msgpack_body(&bytes));
        }
    }
    for number in [f64::MIN, f64::MIN_POSITIVE, -f64::EPSILON, 1.5, 1e300] {
        check(&msgpack_body(&rmp_serde::to_vec(&[number; 20]).unwrap()));
        check(&json_body(&list_of(&json!(number).to_string(), 20)));
    }
    for number in [f32::MIN, f32::MIN_POSITIVE, -f32::EPSILON, 1.5] {
        check(&msgpack_body(&rmp_serde::to_vec(&[number; 20]).unwrap()));
    }
}

#[test]
fn bodies_of_usual_json_count_what_they_are() {
    for text in [
        r#"{"text":"it was 3 o'clock","n":12,"list":[1,2,3],"yes":true}"#,
        r#"{"a":"","b":null,"c":[{},[]],"d":-17}"#,
    ] {
        assert_eq!(BodySize::of(&json_body(text)).longest, text.len());
    }
    // A double of eight letters or fewer grows to nine bytes; text that looks like one is text.
    let place = r#"{"lat":52.520008,"x":1.5,"\\\"y":"3e8-0","z":-0.25,"id":"9e1","n":-1}"#;
    assert_eq!(BodySize::of(&json_body(place)).longest, place.len() + 6 + 4);
}

#[test]
fn a_damaged_body_is_measured_without_end() {
    for bytes in [
        &b"\"a\\"[..],
        b"[1.5,\"",
        b"{\"a\":-0",
        b"",
        b"\"\\",
        b"-",
        b"1.",
    ] {
        BodySize::of(&Data::Json(Bytes::from_static(bytes)));
    }
    for bytes in [&b"\x92\x01"[..], b"\xdd\xff\xff\xff\xff\x01", b"\xc1", b""] {
        BodySize::of(&Data::MsgPack(Bytes::from_static(bytes)));
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[\\x00-\\x7f]{0,40}",
        ".{0,20}",
        "[0-9eE.-]{0,12}",
        "[a-z]{250,300}",
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-200..70_000_i64).prop_map(Value::from),
        text().prop_map(Value::from),
    ]
}

fn double() -> impl Strategy<Value = Value> {
    let any = prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL;
    prop_oneof![
        any.prop_map(Value::from),
        Just(Value::from(-0.0)),
        (-40..40_i32).prop_map(|n| Value::from(f64::from(n) / 4.0)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    nested(prop_oneof![leaf(), double()])
}

fn nested(leaf: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    leaf.prop_recursive(4, 64, 20, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..20)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_body_is_longer_than_its_length(value in value()) {
        check(&json_body(&value.to_string()));
        check(&json_body(&serde_json::to_string_pretty(&value).unwrap()));
        check(&msgpack_body(&rmp_serde::to_vec(&value).unwrap()));
    }

    #[test]
    fn messagepack_without_floats_is_measured_exactly(value in nested(leaf())) {
        let data = msgpack_body(&rmp_serde::to_vec(&value).unwrap());
        let [as_json, as_msgpack] = written(&data);
        let size = BodySize::of(&data);
        prop_assert_eq!((size.longest, size.both), (as_json.max(as_msgpack), as_json + as_msgpack));
    }

    #[test]
    fn no_float_is_longer_than_its_length(wide in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
        check(&msgpack_body(&rmp_serde::to_vec(&wide).unwrap()));
        let narrow = f32::from_bits((wide.to_bits() >> 32) as u32);
        if narrow.is_finite() {
            check(&msgpack_body(&rmp_serde::to_vec(&narrow).unwrap()));
        }
    }

    #[test]
    fn no_bytes_that_are_messagepack_are_longer_than_their_length(bytes: Vec<u8>) {
        if let Ok(data) = Data::from_msgpack(&bytes) {
            check(&data);
        }
    }

    #[test]
    fn no_frame_is_longer_than_its_size(
        value in value(),
        user in prop::option::of("[!-z]{1,128}"),
        key in prop::option::of(text()),
        is_low: bool,
    ) {
        let data = msgpack_body(&rmp_serde::to_vec(&value).unwrap());
        let message = Message {
            topic: topic("orders:7"),
            position: Some(HIGHEST),
            user: user.clone(),
            priority: if is_low { Priority::Low } else { Priority::Critical },
            key,
            removed: true,
            time: u64::MAX,
            data,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        };
        let size = FrameSize::message(
            &message.topic,
            &message.data,
            message.user.as_deref(),
            message.key.as_deref(),
        );
        check_frames(&Event::Message(message), size.with_traceparent());
        let member = Member { user, session: SessionId(u128::MAX), info: Some(Info::from(&value)) };
        let listed = [Encoding::Json, Encoding::MsgPack].map(|e| codec::payload(e, &member).unwrap().len());
        prop_assert!(listed.iter().all(|bytes| *bytes < member.longest()));
        let size = FrameSize::change(&topic("room"), &member);
        check_frames(&Event::Presence(Presence {
            topic: topic("room"),
            joined: vec![member],
            left: Vec::new(),
            count: u64::MAX,
            position: HIGHEST,
        }), size);
    }
}

fn check_frames(event: &Event, size: FrameSize) {
    let frames = [Encoding::Json, Encoding::MsgPack].map(|encoding| {
        codec::encode(WireForm::websocket(encoding), event)
            .unwrap()
            .len()
    });
    assert!(frames.iter().all(|bytes| *bytes <= size.longest));
    assert!(frames.iter().sum::<usize>() <= size.both, "{frames:?}");
}
