//! What a connect costs: handshake, token, inbox, welcome, one subscription.
//!
//! Users are all different, as after a restart of everything. With HS256 over both engines, with
//! the other algorithms over the embedded one.

use std::time::Instant;

use fanfare::auth::mint::{MintKey, mint};
use fanfare::config::Secret;
use serde_json::json;

use crate::measure::TOPICS;
use crate::process;
use crate::report::{Bar, Report, WORSE_MAX};
use crate::scenario::Effort;
use crate::stage::{Engine, Stage, tokens_of_many};
use crate::test_keys;
use fanfare_testkit::tokens::seconds_from_now;
use fanfare_testkit::wait;

/// Connects of one measurement.
const CONNECTS_COUNT: u64 = 3_000;
/// Bar of issue 4, for HS256 over the embedded broker.
const CPU_US_MAX: f64 = 100.0;

/// Every algorithm, over the engines where it is asked for.
pub(crate) async fn connect(report: &mut Report, effort: &Effort) {
    let connects = effort.count(CONNECTS_COUNT, CONNECTS_COUNT / 5) as usize;
    for &engine in &effort.engines {
        report.scenario(&format!("connect {}", engine.name()));
        let stage = effort.stage(engine).await;
        for _ in effort.runs.clone() {
            let tokens = tokens_of_many("hs", connects);
            let cpu_us = storm(&stage, tokens).await;
            let what = "HS256: CPU a connect";
            let cpu = match engine {
                Engine::Embedded => report.judge(what, "µs", cpu_us, Bar::AtMost(CPU_US_MAX)),
                Engine::Redis => report.add(what, "µs", cpu_us),
            };
            cpu.beside_before(WORSE_MAX);
            if engine == Engine::Redis {
                continue;
            }
            for (name, key, times_max) in OTHERS {
                let tokens = signed(name, key, connects);
                let other_us = storm(&stage, tokens).await;
                report.add(&format!("{name}: CPU a connect"), "µs", other_us);
                let what = format!("{name}: CPU a connect beside HS256");
                let times = other_us / cpu_us;
                match times_max {
                    Some(most) => report.judge(&what, "×", times, Bar::AtMost(most)),
                    None => report.add(&what, "×", times),
                };
            }
        }
    }
}

/// Processor time of the node a connect, in µs. Returns when all are gone again.
async fn storm(stage: &Stage, tokens: Vec<String>) -> f64 {
    let pid = stage.node.pid();
    let (from, cpu) = (Instant::now(), process::cpu(pid));
    let crowd = stage.crowd(tokens, TOPICS).await;
    let cpu = (process::cpu(pid) - cpu).as_secs_f64() * 1e6 / crowd.len() as f64;
    let per_s = crowd.len() as f64 / from.elapsed().as_secs_f64();
    eprintln!("  {per_s:.0} connects a second");
    crowd.close().await;
    wait::until("the sessions to be gone", async || {
        (stage.node.metric("fanfare_sessions").await == 0).then_some(())
    })
    .await;
    cpu
}

/// The other algorithms, their keys, and how many times as much as with HS256 a connect may cost: the bars
/// of issue 15.
const OTHERS: [(&str, &str, Option<f64>); 4] = [
    ("RS256", test_keys::RSA_PRIVATE, Some(1.4)),
    ("PS256", test_keys::RSA_PRIVATE, None),
    ("ES256", test_keys::EC_PRIVATE, Some(2.0)),
    ("EdDSA", test_keys::ED_PRIVATE, None),
];

/// Tokens of so many users. The key's id is the algorithm's name.
fn signed(name: &str, private: &str, count: usize) -> Vec<String> {
    let key = MintKey {
        id: Some(name.to_owned()),
        algorithm: name.to_owned(),
        material: Secret(private.to_owned()),
    };
    (0..count)
        .map(|number| {
            let claims = json!({"sub": format!("{name}{number}"), "exp": seconds_from_now(600)});
            let claims = claims.as_object().expect("a map");
            mint(&key, claims).expect("claims can be signed")
        })
        .collect()
}
