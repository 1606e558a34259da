//! What a session costs that does nothing: memory and time of the processor, fresh and again
//! after everybody was busy.
//!
//! Memory is that of the process with all sessions less that without, divided by their number.

use std::time::{Duration, Instant};

use crate::measure::{Aim, Pace, Side, TOPIC, TOPICS};
use crate::process;
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::stage::{tokens_of_many, tokens_of_one};

/// Sessions: as many as fit under 20,000 open files, the node's reserve of 500 included.
const SESSIONS_COUNT: u64 = 19_000;
const SESSIONS_QUICK_COUNT: u64 = 4_000;
/// Until every session has been pinged, after it came or was busy.
const SETTLE: Duration = Duration::from_secs(35);
const SETTLE_QUICK: Duration = Duration::from_secs(10);
/// Two intervals of pings (`session.ping_ms`), so that each session has exactly two in it.
const WINDOW: Duration = Duration::from_secs(50);
/// Publications of the busy phase, to everybody.
const BUSY_COUNT: u64 = 100;

/// Bars of issue 4.
const BYTES_MAX: f64 = 2_560.0;
const BYTES_WITH_INBOX_MAX: f64 = 3_584.0;
const CPU_US_MAX: f64 = 1.0;

/// Sessions of one user, then of as many users, each with an inbox.
pub(crate) async fn idle(report: &mut Report, effort: &Effort) {
    let engine = effort.engine();
    let sessions = effort.count(SESSIONS_COUNT, SESSIONS_QUICK_COUNT) as usize;
    for _ in effort.runs.clone() {
        report.scenario(&format!("idle {}", engine.name()));
        let one = ("one user", tokens_of_one("ada", sessions), BYTES_MAX);
        let many = tokens_of_many("idle", sessions);
        let many = ("inboxes", many, BYTES_WITH_INBOX_MAX);
        for kind in [one, many] {
            measure(report, effort, kind).await;
        }
    }
}

async fn measure(
    report: &mut Report,
    effort: &Effort,
    (kind, tokens, bytes_max): (&str, Vec<String>, f64),
) {
    let (settle, window) = match effort.quick {
        true => (SETTLE_QUICK, WINDOW / 2),
        false => (SETTLE, WINDOW),
    };
    let stage = effort.stage(effort.engine()).await;
    let pid = stage.node.pid();
    let empty = process::resident_bytes(pid);
    let (from, cpu) = (Instant::now(), process::cpu(pid));
    let crowd = stage.crowd(tokens, TOPICS).await;
    let sessions = crowd.len() as f64;
    let opening = (process::cpu(pid) - cpu).as_secs_f64();
    report.add(&format!("{kind}: sessions"), "", sessions);
    report.add(
        &format!("{kind}: opening all of them"),
        "s",
        from.elapsed().as_secs_f64(),
    );
    report.add(
        &format!("{kind}: CPU a connect"),
        "µs",
        opening * 1e6 / sessions,
    );
    let mut quiet = async |name: &str| {
        tokio::time::sleep(settle).await;
        let grown = process::resident_bytes(pid).saturating_sub(empty);
        let bytes = grown as f64 / sessions;
        let what = format!("{kind}, {name}: memory a session");
        report
            .judge(&what, "bytes", bytes, Bar::AtMost(bytes_max))
            .beside_before(WORSE_MAX);
        let cpu = process::cpu(pid);
        tokio::time::sleep(window).await;
        let used = (process::cpu(pid) - cpu).as_secs_f64() / window.as_secs_f64();
        let what = format!("{kind}, {name}: CPU a session and second");
        let bar = Bar::AtMost(CPU_US_MAX);
        report
            .judge(&what, "µs", used * 1e6 / sessions, bar)
            .beside_before(WORSE_MAX);
    };
    quiet("fresh").await;
    // Only now: the API does not keep a connection that nobody uses.
    let mut side = Side::of_node(&stage, crowd, Aim::Everyone(TOPIC)).await;
    let busy = side.measure(Pace::Awaited(BUSY_COUNT)).await;
    quiet("quiet again").await;
    let faults = busy.faults as f64;
    report.judge(&format!("{kind}: faults"), "", faults, Bar::AtMost(0.0));
    side.close().await;
}
