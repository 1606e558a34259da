//! How long it takes to write a message and to read a publish command, in both wire forms.
//!
//! In: 200 bytes of `data`, as JSON and as MessagePack. Out: criterion's figures. A message is
//! written once per wire form and node, a command is read once.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use fanfare_protocol::codec;
use fanfare_protocol::data::Data;
use fanfare_protocol::event::{Event, Message};
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Position, Priority, Topic};
use serde_json::{Value, json};

const TEXT_BYTES: usize = 180;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let body = json!({"n": 1, "text": "x".repeat(TEXT_BYTES)});
    let as_json = body.to_string().into_bytes();
    let as_msgpack = rmp_serde::to_vec(&body).expect("a value");
    let bodies = [
        ("json", Data::from_json(&as_json).expect("a body")),
        ("msgpack", Data::from_msgpack(&as_msgpack).expect("a body")),
    ];
    let encodings = [("json", Encoding::Json), ("msgpack", Encoding::MsgPack)];
    let mut group = criterion.benchmark_group("codec");
    for (form, encoding) in encodings {
        let as_sent = WireForm::websocket(encoding);
        for (came_as, data) in &bodies {
            let event = message(data.clone());
            let bytes = codec::encode(as_sent, &event).expect("an event").len();
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(format!("write {form}, body came as {came_as}"), |b| {
                b.iter(|| codec::encode(as_sent, black_box(&event)));
            });
        }
        let command = command(encoding, &body);
        group.throughput(Throughput::Bytes(command.len() as u64));
        group.bench_function(format!("read publish, {form}"), |b| {
            b.iter(|| codec::decode(encoding, black_box(&command)));
        });
    }
    group.finish();
    criterion.final_summary();
}

fn message(data: Data) -> Event {
    Event::Message(Message {
        topic: Topic::new(&App::default_app(), "orders:7").expect("a topic"),
        data,
        position: Some(Position {
            ms: 1_795_270_000_000,
            seq: 4_000_000_000,
        }),
        user: Some("ada".into()),
        priority: Priority::default(),
        key: None,
        removed: false,
        time: 1_795_270_000_000,
        traceparent: None,
    })
}

fn command(encoding: Encoding, body: &Value) -> Vec<u8> {
    let command = json!({"type": "publish", "id": 7, "topic": "orders:7", "data": body});
    let command = codec::payload(encoding, &command).expect("a value");
    assert!(codec::decode(encoding, &command).is_ok());
    command
}
