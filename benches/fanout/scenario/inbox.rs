//! Many users, one message each, against the same number of deliveries of one fan-out.
//!
//! The users are targets of calls to the HTTP API, a thousand a call, each call after the answer
//! of the one before. The fan-out goes to the same sessions, one publication at a time.

use crate::measure::{Aim, DATA_BYTES, Pace, Side, TOPIC, TOPICS};
use crate::process;
use crate::publisher::{Publisher, data};
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::scenario::unicast::BEFORE_OF_REDIS_MAX;
use crate::stage::{Engine, Stage, tokens_of_many};

/// Users, each with a session.
const USERS_COUNT: u64 = 10_000;
/// Targets of one call: the API's limit.
const TARGETS_COUNT: usize = 1_000;
/// Messages for each user in one run.
const ROUNDS_COUNT: u64 = 20;
const USER: &str = "reader";

/// Bars of issue 4.
const RATIO_EMBEDDED_MAX: f64 = 3.0;
const RATIO_REDIS_MAX: f64 = 10.0;
/// Bar of issue 11, beside the build before.
const BEFORE_REDIS_MAX: f64 = 0.6;

/// Over both engines.
pub(crate) async fn inbox(report: &mut Report, effort: &Effort) {
    let users = effort.count(USERS_COUNT, USERS_COUNT / 5);
    let rounds = effort.count(ROUNDS_COUNT, ROUNDS_COUNT / 4);
    for &engine in &effort.engines {
        report.scenario(&format!("inbox {}", engine.name()));
        let stage = effort.stage(engine).await;
        let crowd = stage
            .crowd(tokens_of_many(USER, users as usize), TOPICS)
            .await;
        let mut side = Side::of_node(&stage, crowd, Aim::Everyone(TOPIC)).await;
        side.warm_up().await;
        let (bar, before_max) = match engine {
            Engine::Embedded => (RATIO_EMBEDDED_MAX, WORSE_MAX),
            Engine::Redis => (RATIO_REDIS_MAX, BEFORE_REDIS_MAX),
        };
        for run in effort.runs.clone() {
            let fan_first = run.is_multiple_of(2);
            let mut fan = None;
            if fan_first {
                fan = Some(side.measure(Pace::Lockstep(rounds)).await);
            }
            let faults = side.crowd.counts.faults();
            let (inbox_us, redis_us) = to_each(&stage, &side, users, rounds).await;
            let faults = side.crowd.counts.faults() - faults;
            let fan = match fan {
                Some(fan) => fan,
                None => side.measure(Pace::Lockstep(rounds)).await,
            };
            let cpu = report.add("CPU a delivery", "µs", inbox_us);
            cpu.beside_before(before_max);
            let cpu = report.add("CPU a delivery of the fan-out", "µs", fan.cpu_us);
            cpu.beside_before(WORSE_MAX);
            if let Some(redis_us) = redis_us {
                let cpu = report.add("CPU of Redis a delivery", "µs", redis_us);
                cpu.beside_before(BEFORE_OF_REDIS_MAX);
            }
            report.judge("ratio", "", inbox_us / fan.cpu_us, Bar::AtMost(bar));
            let faults = (faults + fan.faults) as f64;
            report.judge("faults", "", faults, Bar::AtMost(0.0));
        }
        side.close().await;
    }
}

/// The users of each call, as they stand in it.
pub(crate) fn users_of_calls(name: &str, users: u64) -> Vec<String> {
    let names: Vec<_> = (0..users).map(|n| format!("\"{name}{n}\"")).collect();
    let calls = names.chunks(TARGETS_COUNT);
    calls.map(|users| users.join(",")).collect()
}

/// Processor time of the node, and of Redis, a delivery, in µs.
async fn to_each(stage: &Stage, side: &Side, users: u64, rounds: u64) -> (f64, Option<f64>) {
    let counts = &side.crowd.counts;
    let calls = users_of_calls(USER, users);
    let mut publisher = Publisher::connect(stage.node.api).await;
    let redis_cpu = || stage.redis_pid().map(process::cpu);
    let (cpu, redis) = (process::cpu(stage.node.pid()), redis_cpu());
    for _ in 0..rounds {
        let data = data(counts.next(0), DATA_BYTES);
        for users in &calls {
            let body = format!(r#"{{"users":[{users}],"data":{data}}}"#);
            publisher.call(&body).await;
        }
        counts.until(counts.sent() * users).await;
    }
    let each = |cpu: std::time::Duration| cpu.as_secs_f64() * 1e6 / (users * rounds) as f64;
    let redis = redis_cpu().zip(redis).map(|(after, before)| after - before);
    (each(process::cpu(stage.node.pid()) - cpu), redis.map(each))
}
