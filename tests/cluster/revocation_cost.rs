//! What a revocation asks of Redis as nodes grow: it makes no node send a heartbeat but the one that is
//! asked, whose answers tell of all others.

use std::path::PathBuf;
use std::time::Duration;

use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait;
use serde_json::json;

const BEATS: &str = r#"fanfare_heartbeats_total{result="answered"}"#;
/// Calls of nodes. Scripts call none of these.
const COMMANDS: [&str; 3] = ["evalsha", "mget", "publish"];

/// Nodes over one Redis.
struct Nodes {
    redis: RedisServer,
    all: Vec<Node>,
}

/// What was done since the start.
#[derive(Debug, Clone, Copy)]
struct Done {
    commands: u64,
    /// Heartbeats of the node that is asked, and of the others together.
    beats: [u64; 2],
    /// What Redis has answered and delivered, in bytes.
    bytes: u64,
}

impl Done {
    fn since(self, before: Self) -> Self {
        Self {
            commands: self.commands - before.commands,
            beats: [0, 1].map(|at| self.beats[at] - before.beats[at]),
            bytes: self.bytes - before.bytes,
        }
    }
}

impl Nodes {
    /// So many of this program; of this release without one.
    async fn start(count: usize, program: Option<&PathBuf>) -> Self {
        let redis = RedisServer::start().await;
        let mut all = Vec::new();
        for at in 0..count {
            let plan = Plan::clustered(&format!("node-{at}"), &redis.url());
            let plan = match program {
                Some(program) => plan.program(program),
                None => plan,
            };
            all.push(plan.start().await);
        }
        for node in &all {
            wait::until("all nodes to be seen", async || {
                let seen = http::get(node.api, "/v1/nodes").await.json();
                (seen["nodes"].as_array()?.len() == count).then_some(())
            })
            .await;
        }
        Self { redis, all }
    }

    async fn done(&self) -> Done {
        let told = |part: &str| self.redis.ask(&["INFO", part]).unwrap().join("\n");
        let (stats, calls) = (told("stats"), told("commandstats"));
        let number = |text: &str, begins: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(begins))?;
            line.split([',', '\r']).next()?.parse::<u64>().ok()
        };
        let mut beats = [0, 0];
        for (at, node) in self.all.iter().enumerate() {
            beats[at.min(1)] += node.metric(BEATS).await;
        }
        let calls_of = |name| number(&calls, &format!("cmdstat_{name}:calls=")).unwrap_or(0);
        Done {
            commands: COMMANDS.map(calls_of).iter().sum(),
            beats,
            bytes: number(&stats, "total_net_output_bytes:").unwrap(),
        }
    }

    /// So many revocations, one after the other so long apart. How many were answered 200, and what
    /// was done meanwhile.
    async fn revoke(&self, count: u32, apart: Duration) -> (u32, Done) {
        let before = self.done().await;
        let to = self.all[0].api;
        let calls = (0..count).map(|number| async move {
            tokio::time::sleep(apart * number).await;
            let path = format!("/v1/users/user-{number}/revoke");
            let answer = http::post(to, &path, &json!({})).await;
            u32::from(answer.status == 200)
        });
        let known = futures_util::future::join_all(calls).await;
        (known.iter().sum(), self.done().await.since(before))
    }
}

/// How often a node sends one that has nothing to hurry for: five times a lease of 5 s.
const BEAT_EVERY: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_revocation_makes_no_other_node_send_a_heartbeat() {
    let nodes = Nodes::start(4, None).await;
    let begun = std::time::Instant::now();
    let (known, done) = nodes.revoke(25, Duration::from_millis(300)).await;
    assert_eq!(known, 25, "all are answered 200");
    // At their own pace, and one of each more that was due already.
    let beats = begun.elapsed().as_secs_f64() / BEAT_EVERY.as_secs_f64() + 2.0;
    let [_, of_others] = done.beats;
    assert!(
        (of_others as f64) < 3.0 * beats,
        "{done:?} within {beats} beats"
    );
}

/// Prints the cost of one revocation, without that of as long a rest. `PROGRAM` names another release.
#[tokio::test]
#[ignore = "measures"]
async fn what_a_revocation_costs() {
    let program = std::env::var_os("PROGRAM").map(PathBuf::from);
    for count in [2, 6] {
        let nodes = Nodes::start(count, program.as_ref()).await;
        for (calls, apart) in [
            (40, Duration::from_millis(250)),
            (1_000, Duration::from_millis(10)),
        ] {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let before = nodes.done().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            let rest = nodes.done().await.since(before);
            let (known, done) = nodes.revoke(calls, apart).await;
            let each = |of: u64, rest: u64| (of as f64 - rest as f64) / f64::from(calls);
            println!(
                "{count} nodes, one revocation each {apart:?}, {known} of {calls} answered 200; each of \
                 them: {:.2} commands, {:.2} heartbeats of the node that is asked and {:.2} of all \
                 others, {:.0} bytes",
                each(done.commands, rest.commands),
                each(done.beats[0], rest.beats[0]),
                each(done.beats[1], rest.beats[1]),
                each(done.bytes, rest.bytes),
            );
        }
    }
}
