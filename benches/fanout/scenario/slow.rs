//! One reader among a thousand stops reading: what the others notice, what the node holds for it,
//! and what it gets once it reads again.
//!
//! The same publications at the same pace, once without and once with the stalled reader; who
//! begins changes from run to run. The stalled one has a narrow line, so that what it does not
//! read waits in the node and not in the kernel, and misses more than its outbox may hold.

use std::time::{Duration, Instant};

use crate::crowd::{Counts, PUBLISHERS_MAX, Seen};
use crate::measure::{Aim, Cost, Pace, Side};
use crate::process;
use crate::report::{Bar, Report};
use crate::scenario::Effort;
use crate::scenario::fan::tail_bar;
use crate::session::{self, NARROW_BUFFER_BYTES, READ_BYTES};
use crate::stage::{Stage, tokens_of_many};
use fanfare_bench::socket;
use fanfare_testkit::tokens;

/// A topic whose history is longer than all that is published here.
const TOPIC: &str = "long:slow";
const TOPICS: &[&str] = &[TOPIC];
/// Sessions that read, beside the one that does not.
const OTHERS_COUNT: usize = 999;
/// More than `session.outbox_messages_max` (1,024), and what the kernel takes.
const PUBLICATIONS_COUNT: u64 = 2_000;
const PER_S: u32 = 80;
/// From the last message to the next, once it reads again.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a stalled session may cost: its outbox (1 MiB), a page (1 MiB), and the same again for
/// how an allocator rounds.
const MEMORY_MIB_MAX: f64 = 4.0;

/// Over both engines.
pub(crate) async fn slow(report: &mut Report, effort: &Effort) {
    for &engine in &effort.engines {
        report.scenario(&format!("slow {}", engine.name()));
        let stage = effort.stage(engine).await;
        let crowd = stage
            .crowd(tokens_of_many("slow", OTHERS_COUNT), TOPICS)
            .await;
        let mut side = Side::of_node(&stage, crowd, Aim::Everyone(TOPIC)).await;
        side.warm_up().await;
        for run in effort.runs.clone() {
            let without_first = run.is_multiple_of(2);
            let mut without = None;
            if without_first {
                without = Some(all_read(&stage, &mut side).await);
            }
            let with = one_stalls(&stage, &mut side).await;
            let without = match without {
                Some(without) => without,
                None => all_read(&stage, &mut side).await,
            };
            rows(report, without, with);
        }
        side.close().await;
    }
}

fn rows(report: &mut Report, (alone, grown_alone): (Cost, f64), with: Stalled) {
    let beside = with.others;
    report.add("p50 of the others, none stalled", "ms", alone.p50_ms);
    report.add("p50 of the others", "ms", beside.p50_ms);
    report.add("p99 of the others, none stalled", "ms", alone.p99_ms);
    let bar = tail_bar(alone.p99_ms);
    report.judge("p99 of the others", "ms", beside.p99_ms, bar);
    let more = with.grown_mib - grown_alone;
    let bar = Bar::AtMost(MEMORY_MIB_MAX);
    report.judge("memory for the stalled one", "MiB", more, bar);
    let got_all = Bar::AtLeast(PUBLICATIONS_COUNT as f64);
    report.judge("messages it got afterwards", "", with.got as f64, got_all);
    report.add("time it took for them", "s", with.took.as_secs_f64());
    let faults = (with.faults + beside.faults + alone.faults) as f64;
    report.judge("faults", "", faults, Bar::AtMost(0.0));
}

/// What the others had, and by how much the node grew, in MiB.
async fn all_read(stage: &Stage, side: &mut Side) -> (Cost, f64) {
    let before = resident_mib(stage);
    let cost = side
        .measure(Pace::PerSecond(PER_S, PUBLICATIONS_COUNT))
        .await;
    (cost, resident_mib(stage) - before)
}

struct Stalled {
    others: Cost,
    grown_mib: f64,
    /// Messages that came to it, once each and in order.
    got: u64,
    /// Messages that were not so, gaps, and its end.
    faults: u64,
    took: Duration,
}

async fn one_stalls(stage: &Stage, side: &mut Side) -> Stalled {
    let token = tokens::token("stalled");
    let narrow = Some(NARROW_BUFFER_BYTES);
    let scratch = socket::scratch(READ_BYTES);
    let mut socket = session::open(stage.node.public, narrow, &token, TOPICS, scratch).await;
    let before_it = side.crowd.counts.sent();
    let (others, grown_mib) = all_read(stage, side).await;
    // It has its own account of the same numbers; what the crowd had before is no loss to it.
    let own = Counts::of(PUBLISHERS_MAX);
    for _ in 0..before_it + PUBLICATIONS_COUNT {
        own.next(0);
    }
    let mut seen = Seen::of(0..PUBLISHERS_MAX);
    *seen.newest(0).expect("it follows every publisher") = before_it;
    let mut told = 0;
    let from = Instant::now();
    let mut took = Duration::ZERO;
    while own.messages.get() < PUBLICATIONS_COUNT {
        let read = socket.read(|payload| {
            if String::from_utf8_lossy(payload).contains(r#""type":"gap""#) {
                told += 1;
            } else {
                own.message(payload, Instant::now(), &mut seen);
            }
        });
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(())) => took = from.elapsed(),
            Ok(Err(error)) => {
                told += 1;
                eprintln!("  the stalled one was ended: {error}");
                break;
            }
            Err(_) => break,
        }
    }
    Stalled {
        others,
        grown_mib,
        got: own.messages.get(),
        faults: own.faults() + told,
        took,
    }
}

fn resident_mib(stage: &Stage) -> f64 {
    process::resident_bytes(stage.node.pid()) as f64 / (1_024.0 * 1_024.0)
}
