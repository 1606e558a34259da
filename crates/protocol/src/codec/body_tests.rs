//! Tests of bodies and events: what goes out, and what survives the way between the forms.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::both;
use super::*;
use crate::data::Data;
use crate::event::{GapReason, Message};
use crate::ids::{App, Topic};
use crate::rules::DEPTH_MAX;

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
        traceparent: None,
    })
}

fn sent(encoding: Encoding, event: &Event) -> Bytes {
    encode(WireForm::websocket(encoding), event).unwrap()
}

/// The payload behind a frame header with a length of 16 bits or less.
fn payload_of(frame: &[u8]) -> &[u8] {
    &frame[if frame[1] == 126 { 4 } else { 2 }..]
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
    let frame = sent(Encoding::Json, &event);
    let expected = br#"{"type":"message","topic":"orders:7","data":{"b" :[1.50, "\u00e4"]},"position":"1732190000000-7","time":1732190000000}"#;
    assert_eq!(frame[..2], [0x81, u8::try_from(expected.len()).unwrap()]);
    assert_eq!(payload_of(&frame), expected);
    let frame = sent(Encoding::MsgPack, &event);
    assert_eq!(frame[0], 0x82);
    let back: Value = rmp_serde::from_slice(payload_of(&frame)).unwrap();
    assert_eq!(back, serde_json::from_slice::<Value>(expected).unwrap());
}

#[test]
fn bytes_become_base64_text_in_json_and_stay_bytes_in_messagepack() {
    let data = Data::from_msgpack(b"\x81\xa1b\xc4\x04\xfb\xff\x00\x01").unwrap();
    let frame = sent(Encoding::Json, &message(data.clone()));
    let back: Value = serde_json::from_slice(payload_of(&frame)).unwrap();
    assert_eq!(back["data"], json!({"b": "+/8AAQ=="}));
    let bytes = payload(Encoding::MsgPack, &data).unwrap();
    assert_eq!(bytes, b"\x81\xa1b\xc4\x04\xfb\xff\x00\x01");
    // Text that came as JSON stays text, whatever it looks like.
    let text = Data::from_json(br#"{"b":"+/8AAQ=="}"#).unwrap();
    assert_eq!(
        payload(Encoding::MsgPack, &text).unwrap(),
        b"\x81\xa1b\xa8+/8AAQ=="
    );
}

#[test]
fn an_event_without_a_body_has_the_same_map_in_both_forms() {
    let event = Event::Gap(crate::event::Gap {
        topic: Topic::new(&App::default_app(), "a").unwrap(),
        of: None,
        from: None,
        to: "1-2".parse().ok(),
        reason: GapReason::Retention,
        dropped: None,
    });
    let expected = json!({"type": "gap", "topic": "a", "to": "1-2", "reason": "retention"});
    let json: Value = serde_json::from_slice(payload_of(&sent(Encoding::Json, &event))).unwrap();
    let msgpack: Value =
        rmp_serde::from_slice(payload_of(&sent(Encoding::MsgPack, &event))).unwrap();
    assert_eq!((&json, &msgpack), (&expected, &expected));
    let ping = sent(Encoding::Json, &Event::Ping {});
    assert_eq!(payload_of(&ping), br#"{"type":"ping"}"#);
}

#[test]
fn a_body_that_was_damaged_where_it_was_stored_is_not_expressed() {
    for encoding in [Encoding::Json, Encoding::MsgPack] {
        for data in [
            Data::Json(Bytes::from_static(b"{\"a\":")),
            Data::MsgPack(Bytes::from_static(b"\x92\x01")),
        ] {
            let event = message(data);
            assert!(encode(WireForm::websocket(encoding), &event).is_err());
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
        prop_assert_eq!(payload(Encoding::Json, &json).unwrap(), text.clone());
        let bytes = payload(Encoding::MsgPack, &json).unwrap();
        let msgpack = Data::from_msgpack(&bytes).unwrap();
        prop_assert_eq!(payload(Encoding::MsgPack, &msgpack).unwrap(), bytes.clone());
        let back: Value = serde_json::from_slice(&payload(Encoding::Json, &msgpack).unwrap()).unwrap();
        prop_assert_eq!(back, value);
    }

    #[test]
    fn random_bytes_are_read_or_refused_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for encoding in [Encoding::Json, Encoding::MsgPack] {
            let _ = decode(encoding, &bytes);
        }
        let _ = Data::from_json(&bytes);
        if let Ok(data) = Data::from_msgpack(&bytes) {
            prop_assert!(payload(Encoding::Json, &data).is_ok());
        }
    }

    #[test]
    fn a_message_cut_or_bent_anywhere_is_read_or_refused_and_never_panics(
        value in any_json(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let command = json!({"type": "publish", "topic": "a", "data": value, "id": 7});
        for (encoding, mut bytes) in both(&command) {
            prop_assert!(decode(encoding, &bytes).is_ok());
            let at = at.index(bytes.len());
            prop_assert!(decode(encoding, &bytes[..at]).is_err());
            bytes[at] = byte;
            if let Ok(Envelope { command: Command::Publish(publish), .. }) = decode(encoding, &bytes) {
                prop_assert!(payload(Encoding::Json, &publish.data).is_ok());
                prop_assert!(payload(Encoding::MsgPack, &publish.data).is_ok());
            }
        }
    }
}
