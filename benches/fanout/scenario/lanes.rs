//! One session on a poor line, messages of two priorities, more than the line takes: how long a
//! critical one waits against a low one, and whether a low one ever comes.
//!
//! First most of what is published is low and a little critical: both find the same backlog, and
//! the critical ones should pass it. Then critical messages alone are more than the line takes:
//! the share kept for lower lanes must still let low ones through.

use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use crate::crowd::{Counts, PUBLISHERS_MAX, Seen, Waits};
use crate::publisher::{Publisher, data};
use crate::report::{Bar, Report};
use crate::scenario::Effort;
use crate::session::{self, NARROW_BUFFER_BYTES};
use fanfare_bench::socket;
use fanfare_testkit::tokens;

/// Topics; a priority overtakes other topics, never its own.
const LOW: Flow = Flow {
    publisher: 0,
    topic: "long:low",
    priority: "low",
};
const CRITICAL: Flow = Flow {
    publisher: 1,
    topic: "long:critical",
    priority: "critical",
};
/// Length of `data`: long enough that the node's backlog is far above what the kernel holds.
const DATA_BYTES: usize = 800;
/// What the line takes: so much every so often, some 200 messages a second.
const READ_BYTES: usize = 4_096;
const READ_EVERY: Duration = Duration::from_millis(20);
/// Messages a second: more than the line takes, and a few.
const FLOOD_PER_S: u32 = 400;
const TRICKLE_PER_S: u32 = 40;
/// How long each part lasts, after as long again in which the backlog grew.
const LASTS_S: u64 = 12;
const LASTS_QUICK_S: u64 = 5;

/// Bars of issue 4 (R5): how many times sooner; "low still moves".
const SOONER_MIN: f64 = 5.0;
const LOW_MOVES_MIN: f64 = 1.0;

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// Whose numbers it uses.
    publisher: usize,
    topic: &'static str,
    priority: &'static str,
}

/// Over one engine: lanes are the worker's, whatever the engine.
pub(crate) async fn lanes(report: &mut Report, effort: &Effort) {
    report.scenario(&format!("lanes {}", effort.engine().name()));
    let lasts = Duration::from_secs(effort.count(LASTS_S, LASTS_QUICK_S));
    for _ in effort.runs.clone() {
        let [low, critical] = backlog(effort, [FLOOD_PER_S, TRICKLE_PER_S], lasts).await;
        let (low_ms, critical_ms) = (low.percentile_ms(50), critical.percentile_ms(50));
        report.add("low flood: wait of low, median", "ms", low_ms);
        report.add("low flood: wait of critical, median", "ms", critical_ms);
        let p99 = critical.percentile_ms(99);
        report.add("low flood: wait of critical, p99", "ms", p99);
        let sooner = Bar::AtLeast(SOONER_MIN);
        let ratio = low_ms / critical_ms;
        report.judge(
            "low flood: critical comes sooner by",
            "times",
            ratio,
            sooner,
        );
        let [low, critical] = backlog(effort, [TRICKLE_PER_S, FLOOD_PER_S], lasts).await;
        let per_s = |waits: &Waits| waits.len() as f64 / lasts.as_secs_f64();
        report.add("critical flood: critical read", "1/s", per_s(&critical));
        let moves = Bar::AtLeast(LOW_MOVES_MIN);
        report.judge("critical flood: low read", "1/s", per_s(&low), moves);
    }
}

/// The waits of the low and the critical messages that were read while both
/// were published at these rates and a backlog stood.
async fn backlog(effort: &Effort, per_s: [u32; 2], lasts: Duration) -> [Waits; 2] {
    let stage = effort.stage(effort.engine()).await;
    let token = tokens::token("lanes");
    let topics = [LOW.topic, CRITICAL.topic];
    let narrow = Some(NARROW_BUFFER_BYTES);
    let scratch = socket::scratch(READ_BYTES);
    let mut socket = session::open(stage.node.public, narrow, &token, &topics, scratch).await;
    // Each flow counts apart, so that its waits stay apart.
    let counts = [Counts::of(PUBLISHERS_MAX), Counts::of(PUBLISHERS_MAX)];
    let read = async {
        let mut seen = [Seen::of(0..PUBLISHERS_MAX), Seen::of(0..PUBLISHERS_MAX)];
        let mut ticks = tokio::time::interval(READ_EVERY);
        // A line does not make up for the time in which nothing was sent.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let read = socket.read(|payload| {
                let text = String::from_utf8_lossy(payload);
                let at = usize::from(text.contains(CRITICAL.topic));
                counts[at].message(payload, Instant::now(), &mut seen[at]);
            });
            if let Err(error) = read.await {
                eprintln!("  the session ended: {error}");
                return;
            }
        }
    };
    let publish = async |flow: Flow, per_s: u32, counts: &Counts| {
        let mut publisher = Publisher::connect(stage.node.api).await;
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_s);
        loop {
            ticks.tick().await;
            let Flow {
                topic, priority, ..
            } = flow;
            let data = data(counts.next(flow.publisher), DATA_BYTES);
            let body = format!(r#"{{"topic":"{topic}","priority":"{priority}","data":{data}}}"#);
            publisher.call(&body).await;
        }
    };
    let all = async {
        tokio::join!(
            read,
            publish(LOW, per_s[0], &counts[0]),
            publish(CRITICAL, per_s[1], &counts[1]),
        )
    };
    let mut all = std::pin::pin!(all);
    // The flows never end by themselves.
    let _ = tokio::time::timeout(lasts, &mut all).await;
    counts.iter().for_each(|counts| drop(counts.take_waits()));
    let _ = tokio::time::timeout(lasts, &mut all).await;
    counts.each_ref().map(Counts::take_waits)
}
