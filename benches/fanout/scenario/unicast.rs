//! One message to one session: 1,000 topics with a session each, and 8 publishers that each wait
//! for their answer; then one publication at a time, the next when the last has come. Over Redis
//! beside the bare relay, which does the same on raw sockets.
//!
//! Eight publishers fill the node's core, so that much is done at once; with one publication at a
//! time nothing is, and every thread is woken for it.
//!
//! The two sides take turns within a run, and who begins changes from run to run; the ratio is
//! that of one run.

use std::time::Duration;

use crate::crowd::Topics;
use crate::measure::{Aim, Cost, Pace, Side};
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::stage::{Engine, tokens_of_many};

/// Sessions, each with a topic of its own.
const SESSIONS_COUNT: u64 = 1_000;
const SESSIONS_QUICK_COUNT: u64 = 200;
/// What topics begin with.
const NAME: &str = "one";
/// How long eight publishers go on, and how many come one at a time.
const LASTS_MS: u64 = 5_000;
const ONE_COUNT: u64 = 4_000;
/// Eight publishers, before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// Bars of issue 11: beside the relay, and beside the build before.
const RELAY_RATIO_MAX: f64 = 2.5;
const BEFORE_REDIS_MAX: f64 = 0.5;
const BEFORE_EMBEDDED_MAX: f64 = 0.6;
/// The same for the processor time of Redis itself.
pub(crate) const BEFORE_OF_REDIS_MAX: f64 = 0.65;

/// How publications come, and what their cost is held against.
struct Case {
    name: &'static str,
    pace: Pace,
    before_max: f64,
    relay_ratio_max: Option<f64>,
}

/// What both did in one run.
struct Turn {
    node: Cost,
    relay: Option<Cost>,
}

/// Over both engines.
pub(crate) async fn unicast(report: &mut Report, effort: &Effort) {
    let sessions = effort.count(SESSIONS_COUNT, SESSIONS_QUICK_COUNT) as usize;
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
            for case in cases(engine, effort) {
                let turn = turn(&mut node, relay.as_mut(), run, case.pace).await;
                turn.rows(report, &case);
            }
        }
        node.close().await;
        if let Some(relay) = relay {
            relay.close().await;
        }
    }
}

fn cases(engine: Engine, effort: &Effort) -> [Case; 2] {
    let lasts = effort.count(LASTS_MS, LASTS_MS / 5);
    [
        Case {
            name: "8 publishers",
            pace: Pace::Backlog(Duration::from_millis(lasts)),
            before_max: match engine {
                Engine::Embedded => BEFORE_EMBEDDED_MAX,
                Engine::Redis => BEFORE_REDIS_MAX,
            },
            relay_ratio_max: Some(RELAY_RATIO_MAX),
        },
        Case {
            name: "one at a time",
            pace: Pace::Lockstep(effort.count(ONE_COUNT, ONE_COUNT / 5)),
            before_max: WORSE_MAX,
            relay_ratio_max: None,
        },
    ]
}

async fn turn(node: &mut Side, relay: Option<&mut Side>, run: usize, pace: Pace) -> Turn {
    let Some(relay) = relay else {
        let node = node.measure(pace).await;
        return Turn { node, relay: None };
    };
    let (node, relay) = match run.is_multiple_of(2) {
        true => {
            let node = node.measure(pace).await;
            (node, relay.measure(pace).await)
        }
        false => {
            let relay = relay.measure(pace).await;
            (node.measure(pace).await, relay)
        }
    };
    let relay = Some(relay);
    Turn { node, relay }
}

impl Turn {
    fn rows(&self, report: &mut Report, case: &Case) {
        let what = |what: &str| format!("{}: {what}", case.name);
        let Self { node, relay } = self;
        let cpu = report.add(&what("CPU a publication"), "µs", node.cpu_us);
        cpu.beside_before(case.before_max);
        if let Some(redis_us) = node.redis_us {
            let cpu = report.add(&what("CPU of Redis a publication"), "µs", redis_us);
            cpu.beside_before(case.before_max.max(BEFORE_OF_REDIS_MAX));
        }
        report.add(&what("publications"), "1/s", node.per_s);
        report.add(&what("p50"), "ms", node.p50_ms);
        report.add(&what("p99"), "ms", node.p99_ms);
        let load = what("CPU of the load a publication");
        report.add(&load, "µs", node.load_us);
        let load = what("the load's use of its core");
        report.add(&load, "%", node.load_percent);
        if let Some(relay) = relay {
            let of = |figure: &str| what(&format!("{figure} of the relay"));
            report.add(&of("CPU a publication"), "µs", relay.cpu_us);
            let redis_us = relay.redis_us.unwrap_or(f64::NAN);
            report.add(&of("CPU of Redis a publication"), "µs", redis_us);
            report.add(&of("publications"), "1/s", relay.per_s);
            report.add(&of("p50"), "ms", relay.p50_ms);
            report.add(&of("p99"), "ms", relay.p99_ms);
            let ratio = node.cpu_us / relay.cpu_us;
            match case.relay_ratio_max {
                Some(most) => report.judge(&what("ratio"), "", ratio, Bar::AtMost(most)),
                None => report.add(&what("ratio"), "", ratio),
            };
        }
        let faults = node.faults + relay.map_or(0, |relay| relay.faults);
        report.judge(&what("faults"), "", faults as f64, Bar::AtMost(0.0));
    }
}
