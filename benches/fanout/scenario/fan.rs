//! One topic, many sessions: one publication at a time, a steady pace, and a backlog, each beside
//! the bare loop.
//!
//! The two sides take turns within a run, and who begins changes from run to run; the ratio is
//! that of one run.

use crate::crowd::Crowd;
use crate::measure::{Aim, Cost, Pace, Side, TOPIC, TOPICS};
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::stage::{Engine, Stage, tokens_of_many};

/// Deliveries of one measurement at [`Pace::Lockstep`] and [`Pace::Awaited`].
const DELIVERIES_COUNT: u64 = 500_000;
/// The steady pace, and for how long.
const PACED_PER_S: u32 = 40;
const PACED_COUNT: u64 = 400;
/// Sessions, but where a bar names another number.
const SESSIONS_COUNT: usize = 1_000;
const SESSIONS_MANY_COUNT: usize = 5_000;
/// Sessions of other users beside them, in one case.
const IDLE_COUNT: usize = 9_000;

/// Bars of issue 4.
const ONE_RATIO_MAX: f64 = 1.25;
const ONE_MANY_RATIO_MAX: f64 = 1.15;
const PACED_RATIO_MAX: f64 = 1.25;
const BACKLOG_RATIO_MAX: f64 = 2.0;
const BACKLOG_P50_MS_MAX: f64 = 25.0;

/// A tail may be so many times another, or so much more.
pub(crate) fn tail_bar(floor_ms: f64) -> Bar {
    Bar::AtMost((floor_ms * 1.3).max(floor_ms + 1.0))
}

/// One publication at a time.
pub(crate) async fn one(report: &mut Report, effort: &Effort) {
    for &engine in &effort.engines {
        report.scenario(&format!("one {}", engine.name()));
        for (sessions, idle, bar) in [
            (SESSIONS_COUNT, 0, ONE_RATIO_MAX),
            (SESSIONS_COUNT, IDLE_COUNT, ONE_RATIO_MAX),
            (SESSIONS_MANY_COUNT, 0, ONE_MANY_RATIO_MAX),
        ] {
            let mut pair = Pair::start(effort, engine, sessions, idle).await;
            let beside = match idle {
                0 => String::new(),
                idle => format!(" beside {idle} idle"),
            };
            let whole = DELIVERIES_COUNT / sessions as u64;
            let publications = effort.count(whole, whole / 5);
            for run in effort.runs.clone() {
                for (pace, how) in [
                    (Pace::Lockstep(publications), "all have it"),
                    (Pace::Awaited(publications), "answered"),
                ] {
                    let name = format!("{sessions}{beside}, next when {how}");
                    let turn = pair.turn(run, pace).await;
                    turn.cpu(report, &name, bar);
                }
            }
            pair.close().await;
        }
    }
}

/// A steady pace.
pub(crate) async fn paced(report: &mut Report, effort: &Effort) {
    for &engine in &effort.engines {
        report.scenario(&format!("paced {}", engine.name()));
        let mut pair = Pair::start(effort, engine, SESSIONS_COUNT, 0).await;
        for run in effort.runs.clone() {
            let publications = effort.count(PACED_COUNT, PACED_COUNT / 5);
            let turn = pair
                .turn(run, Pace::PerSecond(PACED_PER_S, publications))
                .await;
            let name = format!("{PACED_PER_S} a second");
            turn.cpu(report, &name, PACED_RATIO_MAX);
            let (ours, floor) = (turn.node, turn.bare);
            report.add(&format!("{name}: p50"), "ms", ours.p50_ms);
            report.add(&format!("{name}: p50 of the bare loop"), "ms", floor.p50_ms);
            let bar = tail_bar(floor.p99_ms);
            report.judge(&format!("{name}: p99"), "ms", ours.p99_ms, bar);
            report.add(&format!("{name}: p99 of the bare loop"), "ms", floor.p99_ms);
        }
        pair.close().await;
    }
}

/// Eight publishers, each waiting for its answer.
pub(crate) async fn backlog(report: &mut Report, effort: &Effort) {
    for &engine in &effort.engines {
        report.scenario(&format!("backlog {}", engine.name()));
        let mut pair = Pair::start(effort, engine, SESSIONS_COUNT, 0).await;
        for run in effort.runs.clone() {
            let lasts = if effort.quick {
                effort.backlog / 4
            } else {
                effort.backlog
            };
            let turn = pair.turn(run, Pace::Backlog(lasts)).await;
            let name = "8 publishers";
            turn.cpu(report, name, BACKLOG_RATIO_MAX);
            let (ours, floor) = (turn.node, turn.bare);
            let bar = Bar::AtMost(BACKLOG_P50_MS_MAX);
            report.judge(&format!("{name}: p50"), "ms", ours.p50_ms, bar);
            report.add(&format!("{name}: p99"), "ms", ours.p99_ms);
            report.add(&format!("{name}: p50 of the bare loop"), "ms", floor.p50_ms);
            report.add(&format!("{name}: p99 of the bare loop"), "ms", floor.p99_ms);
            report.add(&format!("{name}: deliveries"), "1/s", ours.per_s);
            let floor = floor.per_s;
            report.add(&format!("{name}: of the bare loop"), "1/s", floor);
        }
        pair.close().await;
    }
}

/// The node and the bare loop, with a crowd each.
struct Pair {
    stage: Stage,
    node: Side,
    bare: Side,
    /// Sessions of the node that join nothing.
    idle: Crowd,
}

/// What both did in one run.
struct Turn {
    node: Cost,
    bare: Cost,
    /// Messages in one write call of the node, where its release counts them by this name.
    per_write: Option<f64>,
}

impl Pair {
    async fn start(effort: &Effort, engine: Engine, sessions: usize, idle: usize) -> Self {
        let stage = effort.stage(engine).await;
        let idle = stage.crowd(tokens_of_many("idle", idle), &[]).await;
        let crowd = stage.crowd(tokens_of_many("fan", sessions), TOPICS).await;
        let mut node = Side::of_node(&stage, crowd, Aim::Everyone(TOPIC)).await;
        // Only what was received says how long a message is.
        node.warm_up().await;
        let mut bare = Side::of_bare(&node).await;
        bare.warm_up().await;
        Self {
            stage,
            node,
            bare,
            idle,
        }
    }

    async fn turn(&mut self, run: usize, pace: Pace) -> Turn {
        let node_first = run.is_multiple_of(2);
        let bare = match node_first {
            true => None,
            false => Some(self.bare.measure(pace).await),
        };
        let before = self.stage.node.find_metric(WRITES).await;
        let node = self.node.measure(pace).await;
        let writes = self.stage.node.find_metric(WRITES).await;
        let writes = writes.zip(before).map(|(after, before)| after - before);
        let bare = match bare {
            Some(bare) => bare,
            None => self.bare.measure(pace).await,
        };
        Turn {
            node,
            bare,
            per_write: writes.map(|writes| node.deliveries / writes as f64),
        }
    }

    async fn close(self) {
        self.node.close().await;
        self.bare.close().await;
        self.idle.close().await;
    }
}

/// The node's count of write calls.
const WRITES: &str = "fanfare_socket_writes_total";

impl Turn {
    /// The rows that every fan-out has.
    fn cpu(&self, report: &mut Report, name: &str, ratio_max: f64) {
        let what = |what: &str| format!("{name}: {what}");
        let (ours, floor) = (&self.node, &self.bare);
        let cpu = report.add(&what("CPU a delivery"), "µs", ours.cpu_us);
        cpu.beside_before(WORSE_MAX);
        report.add(&what("CPU a delivery of the bare loop"), "µs", floor.cpu_us);
        if let Some(per_write) = self.per_write {
            report.add(&what("messages a write"), "", per_write);
        }
        if let Some(redis_us) = ours.redis_us {
            let cpu = report.add(&what("CPU of Redis a publication"), "µs", redis_us);
            cpu.beside_before(WORSE_MAX);
        }
        let load = ours.load_percent;
        report.add(&what("the load's use of its core"), "%", load);
        let ratio = ours.cpu_us / floor.cpu_us;
        report.judge(&what("ratio"), "", ratio, Bar::AtMost(ratio_max));
        let faults = (ours.faults + floor.faults) as f64;
        report.judge(&what("faults"), "", faults, Bar::AtMost(0.0));
    }
}
