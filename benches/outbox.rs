//! How long a frame stays in the outbox's own hands: pushed, then written with whatever waits.
//!
//! In: frames of one length, and a socket that takes everything at once and costs nothing. Out:
//! criterion's figures, per frame. What the kernel takes for a write is measured by the bench
//! `fanout`.

use std::io::IoSlice;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use fanfare::broker::publication::Publication;
use fanfare::broker::{Body, Entry};
use fanfare::worker::hub::TopicKey;
use fanfare::worker::outbox::{LanePool, Outbox};
use fanfare::worker::outgoing::Outgoing;
use fanfare_protocol::data::Data;
use fanfare_protocol::form::{Encoding, WireForm};
use fanfare_protocol::ids::{App, Position, Topic};

/// Messages that wait when the socket is written: alone, and under a backlog.
const WAITING: [u64; 3] = [1, 16, 256];

fn main() {
    let message = message();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("outbox");
    for count in WAITING {
        let mut spares = LanePool::default();
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("push {count}, write"), |b| {
            b.iter_batched_ref(
                || Outbox::new(WireForm::websocket(Encoding::Json)),
                |outbox| turn(outbox, &mut spares, &message, count),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}

fn message() -> Arc<Outgoing> {
    let topic = Topic::new(&App::default_app(), "orders:7").expect("a topic");
    let text = format!("\"{}\"", "x".repeat(198));
    let publication = Publication::new(
        Data::from_json(text.as_bytes()).expect("JSON"),
        1_732_190_000_000,
    );
    let entry = Entry {
        position: Position {
            ms: 1_732_190_000_000,
            seq: 7,
        },
        prev: Position::ZERO,
        body: Body::Publication(Arc::new(publication)),
    };
    Outgoing::new(topic, entry, true)
}

fn turn(outbox: &mut Outbox, spares: &mut LanePool, message: &Arc<Outgoing>, count: u64) {
    for _ in 0..count {
        outbox.push_message(TopicKey::default(), Arc::clone(message), spares);
    }
    let takes_all = |slices: &[IoSlice<'_>]| Ok(slices.iter().map(|s| s.len()).sum());
    let written = outbox
        .write(spares, takes_all)
        .expect("it takes everything");
    assert_eq!(written.frames, count);
}
