//! One message to one session: 1,000 topics with a session each, and 8 publishers that each wait
//! for their answer. Over Redis beside the bare relay, which does the same on raw sockets.
//!
//! The two sides take turns within a run, and who begins changes from run to run; the ratio is
//! that of one run.

use std::time::Duration;

use crate::crowd::Topics;
use crate::measure::{Aim, Cost, Pace, Side};
use crate::report::{Bar, Report};
use crate::scenario::Effort;
use crate::stage::{Engine, tokens_of_many};

/// Sessions, each with a topic of its own.
const SESSIONS_COUNT: u64 = 1_000;
const SESSIONS_QUICK_COUNT: u64 = 200;
/// What topics begin with.
const NAME: &str = "one";
/// How long publishers go on.
const LASTS_MS: u64 = 5_000;
/// The same before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bars of issue 11: beside the relay, and beside the build before.
const RELAY_RATIO_MAX: f64 = 2.5;
const BEFORE_REDIS_MAX: f64 = 0.5;
const BEFORE_EMBEDDED_MAX: f64 = 0.6;
/// The same for the processor time of Redis itself.
pub(crate) const BEFORE_OF_REDIS_MAX: f64 = 0.65;

/// Over both engines.
pub(crate) async fn unicast(report: &mut Report, effort: &Effort) {
    let sessions = effort.count(SESSIONS_COUNT, SESSIONS_QUICK_COUNT) as usize;
    let pace = Pace::Backlog(Duration::from_millis(effort.count(LASTS_MS, LASTS_MS / 5)));
    for &engine in &effort.engines {
        report.scenario(&format!("unicast {}", engine.name()));
        let stage = effort.stage(engine).await;
        let tokens = tokens_of_many("reader", sessions);
        let crowd = stage.crowd_of(tokens, Topics::Own(NAME)).await;
        let mut node = Side::of_node(&stage, crowd, Aim::One(NAME)).await;
        node.measure(Pace::Backlog(WARM_UP)).await;
        let mut relay = Side::of_relay(&stage, &node, NAME).await;
        if let Some(relay) = &mut relay {
            relay.measure(Pace::Backlog(WARM_UP)).await;
        }
        for run in effort.runs.clone() {
            let relay_first = !run.is_multiple_of(2);
            let mut floor = None;
            if let Some(relay) = relay.as_mut().filter(|_| relay_first) {
                floor = Some(relay.measure(pace).await);
            }
            let cost = node.measure(pace).await;
            if let Some(relay) = relay.as_mut().filter(|_| !relay_first) {
                floor = Some(relay.measure(pace).await);
            }
            rows_of_node(report, engine, &cost);
            if let Some(floor) = &floor {
                rows_of_relay(report, floor, &cost);
            }
            let faults = cost.faults + floor.map_or(0, |floor| floor.faults);
            report.judge("faults", "", faults as f64, Bar::AtMost(0.0));
        }
        node.close().await;
        if let Some(relay) = relay {
            relay.close().await;
        }
    }
}

fn rows_of_node(report: &mut Report, engine: Engine, cost: &Cost) {
    let before_max = match engine {
        Engine::Embedded => BEFORE_EMBEDDED_MAX,
        Engine::Redis => BEFORE_REDIS_MAX,
    };
    let cpu = report.add("CPU a publication", "µs", cost.cpu_us);
    cpu.beside_before(before_max);
    if let Some(redis_us) = cost.redis_us {
        let cpu = report.add("CPU of Redis a publication", "µs", redis_us);
        cpu.beside_before(BEFORE_OF_REDIS_MAX);
    }
    report.add("publications", "1/s", cost.per_s);
    report.add("p50", "ms", cost.p50_ms);
    report.add("p99", "ms", cost.p99_ms);
    report.add("CPU of the load a publication", "µs", cost.load_us);
    report.add("the load's use of its core", "%", cost.load_percent);
}

fn rows_of_relay(report: &mut Report, floor: &Cost, cost: &Cost) {
    report.add("CPU a publication of the relay", "µs", floor.cpu_us);
    if let Some(redis_us) = floor.redis_us {
        let name = "CPU of Redis a publication of the relay";
        report.add(name, "µs", redis_us);
    }
    report.add("publications of the relay", "1/s", floor.per_s);
    report.add("p50 of the relay", "ms", floor.p50_ms);
    report.add("p99 of the relay", "ms", floor.p99_ms);
    let ratio = cost.cpu_us / floor.cpu_us;
    report.judge("ratio", "", ratio, Bar::AtMost(RELAY_RATIO_MAX));
}
