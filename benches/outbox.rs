//! How long a frame stays in the outbox's own hands: pushed, then written with whatever waits.
//!
//! In: frames of one length, and a socket that takes everything at once and costs nothing. Out:
//! criterion's figures, per frame. What the kernel takes for a write is measured by the bench
//! `fanout`.

use std::io::IoSlice;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use fanfare::worker::outbox::{Kind, Outbox};

const FRAME: &[u8] = &[b'x'; 330];
/// Frames that wait when the socket is written: alone, and under a backlog.
const WAITING: [u64; 3] = [1, 16, 256];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("outbox");
    for count in WAITING {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("push {count}, write"), |b| {
            b.iter_batched_ref(
                Outbox::default,
                |outbox| turn(outbox, count),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}

fn turn(outbox: &mut Outbox, count: u64) {
    for _ in 0..count {
        outbox.push(Bytes::from_static(FRAME), Kind::Live);
    }
    let takes_all = |slices: &[IoSlice<'_>]| Ok(slices.iter().map(|s| s.len()).sum());
    let written = outbox.write(takes_all).expect("it takes everything");
    assert_eq!(written.frames, count);
}
