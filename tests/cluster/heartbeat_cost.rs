//! What heartbeats ask of Redis as nodes grow, beside the script of the release before.
//!
//! Nodes are played here one after the other, by the scripts themselves, with leases that last.

use std::fs;
use std::sync::Arc;

use fanfare::redis::{Keys, RedisLink, Script};
use serde_json::{Value, json};

use crate::rig::PARTITIONS;
use crate::scripts::answering;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::turns;

/// Longer than any of these tests.
const LEASE_MS: u64 = 600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    Before,
    Now,
}

/// The nodes of a cluster.
struct Fleet<'a> {
    redis: &'a RedisServer,
    link: Arc<RedisLink>,
    keys: [String; 5],
    release: Release,
    heartbeat: Script,
    leave: Script,
    nodes: Vec<Node>,
    /// What each says beside what all say.
    says: Value,
    /// Sessions of all nodes move with every round.
    is_moving: bool,
}

/// One process.
struct Node {
    holder: String,
    incarnation: String,
    sent: u64,
}

/// Of one round: a heartbeat of every node.
#[derive(Debug, Clone, Copy, Default)]
struct Cost {
    cpu_s: f64,
    bytes: usize,
}

impl<'a> Fleet<'a> {
    async fn over(redis: &'a RedisServer, release: Release, nodes_count: usize) -> Self {
        assert_eq!(redis.command(&["FLUSHALL"]).as_deref(), Some("+OK"));
        let keys = Keys::new("ff", PARTITIONS);
        let (heartbeat, leave) = match release {
            Release::Before => (
                include_str!("before/heartbeat.lua"),
                include_str!("before/leave.lua"),
            ),
            Release::Now => (
                include_str!("../../src/cluster/scripts/heartbeat.lua"),
                include_str!("../../src/cluster/scripts/leave.lua"),
            ),
        };
        let mut fleet = Self {
            redis,
            link: answering(redis).await,
            keys: [
                keys.nodes(),
                keys.node_incarnations(),
                keys.node_details(),
                keys.node_heartbeat(),
                keys.node_changes(),
            ],
            release,
            heartbeat: Script::new(heartbeat),
            leave: Script::new(leave),
            nodes: Vec::new(),
            says: json!({}),
            is_moving: false,
        };
        for at in 0..nodes_count {
            fleet.nodes.push(Node::new(at));
            fleet.beat(at).await;
        }
        fleet
    }

    /// Returns how long the answer is.
    async fn beat(&mut self, at: usize) -> usize {
        let node = &mut self.nodes[at];
        node.sent += 1;
        let mut details = json!({"url": format!("wss://node-{at}.example.com"), "state": "ready",
            "sessions": 12_345, "version": "0.1.0", "started_ms": 1_795_906_640_825_u64,
            "settled": 1_795_906_640_825_137_u64, "partitions": 1, "partition_ranges": "17"});
        if let (Some(all), Value::Object(more)) = (details.as_object_mut(), &self.says) {
            all.extend(more.clone());
        }
        if self.is_moving {
            details["sessions"] = (10_000 + node.sent).into();
        }
        if self.release == Release::Before {
            details["beats"] = node.sent.into();
        }
        let mut args = vec![
            format!("node-{at}"),
            node.holder.clone(),
            node.incarnation.clone(),
            LEASE_MS.to_string(),
            details.to_string(),
            3_600_000.to_string(),
            5.to_string(),
        ];
        if self.release == Release::Now {
            args.extend([node.sent, node.sent - 1].map(|number| number.to_string()));
        }
        let args = bytes(&args);
        let answer = self.link.eval(&self.heartbeat, &self.keys, &args).await;
        let answer: Vec<String> = answer.unwrap().convert().unwrap();
        assert_eq!(answer[0], "held");
        node.incarnation.clone_from(&answer[1]);
        // Each with its length and the ends of its lines.
        answer.iter().map(|text| text.len() + 6).sum()
    }

    async fn round(&mut self) -> Cost {
        let before_s = self.cpu_s();
        let mut bytes = 0;
        for at in 0..self.nodes.len() {
            bytes += self.beat(at).await;
        }
        let cpu_s = self.cpu_s() - before_s;
        Cost { cpu_s, bytes }
    }

    /// The mean of so many rounds; in each, one node is first restarted if that is asked for.
    async fn rounds(&mut self, count: u32, is_rolling: bool) -> Cost {
        let mut all = Cost::default();
        for nth in 0..count {
            if is_rolling {
                let at = nth as usize % self.nodes.len();
                let holder = self.nodes[at].holder.clone();
                let args = [format!("node-{at}"), holder, "1".to_owned()];
                let left = self.link.eval(&self.leave, &self.keys, &bytes(&args)).await;
                assert_eq!(left.unwrap().convert::<u64>().unwrap(), 1);
                self.nodes[at] = Node::new(at);
                self.nodes[at].holder = format!("{nth:016x}");
            }
            let Cost { cpu_s, bytes } = self.round().await;
            all.cpu_s += cpu_s;
            all.bytes += bytes;
        }
        Cost {
            cpu_s: all.cpu_s / f64::from(count),
            bytes: all.bytes / count as usize,
        }
    }

    /// What Redis has used, in seconds.
    fn cpu_s(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.redis.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks: f64 = [11, 12]
            .map(|at| fields[at].parse::<f64>().unwrap())
            .iter()
            .sum();
        ticks / 100.0
    }
}

impl Node {
    fn new(at: usize) -> Self {
        Self {
            holder: format!("{:016x}", at + 1_000_000),
            incarnation: "0".to_owned(),
            sent: 0,
        }
    }
}

fn bytes(args: &[String]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.clone().into_bytes()).collect()
}

#[tokio::test]
async fn answers_to_heartbeats_do_not_grow_with_the_nodes() {
    let redis = RedisServer::start().await;
    let mut answers = Vec::new();
    for nodes_count in [10, 100] {
        let mut fleet = Fleet::over(&redis, Release::Now, nodes_count).await;
        // Those who came first are told of those who came later.
        fleet.round().await;
        let quiet = fleet.rounds(1, false).await.bytes / nodes_count;
        // The second round tells what the first one's restart left.
        fleet.rounds(1, true).await;
        let rolling = fleet.rounds(1, true).await.bytes / nodes_count;
        answers.push((quiet, rolling));
    }
    let [(quiet_few, rolling_few), (quiet_many, rolling_many)] = answers[..] else {
        panic!("two sizes");
    };
    assert_eq!(quiet_many, quiet_few);
    assert!(quiet_many < 100, "{quiet_many} bytes");
    // What a restart changes, and all nodes for the one that came.
    assert!(
        rolling_many < 2 * rolling_few,
        "{rolling_many}, {rolling_few}"
    );
}

/// A measurement; docs/performance.md has what came of it.
#[tokio::test]
#[ignore = "measures"]
async fn what_the_heartbeats_of_many_nodes_cost() {
    let _turn = turns::heavy().await;
    let redis = RedisServer::start().await;
    println!("nodes, one restarted a second: release: CPU and bytes a second at the default lease");
    for nodes_count in [100, 300] {
        for is_rolling in [false, true] {
            for (release, count) in [(Release::Before, 3), (Release::Now, 20)] {
                let mut fleet = Fleet::over(&redis, release, nodes_count).await;
                fleet.rounds(1, is_rolling).await;
                let Cost { cpu_s, bytes } = fleet.rounds(count, is_rolling).await;
                println!("{nodes_count}, {is_rolling}: {release:?}: {cpu_s:.3} s, {bytes} bytes");
            }
        }
    }
}

/// The same for what nodes keep, said with the heartbeats or by its digest, while the sessions of all
/// nodes move.
#[tokio::test]
#[ignore = "measures"]
async fn what_the_settings_of_many_nodes_cost() {
    let _turn = turns::heavy().await;
    const NODES: usize = 300;
    let redis = RedisServer::start().await;
    println!("what nodes say: CPU and bytes of a round of {NODES} nodes");
    let namespace = |nth| format!(" namespace-{nth}:1000,86400,false,0,false,normal");
    let keeps = |count| -> String { (0..count).map(namespace).collect() };
    let says = [
        ("nothing", json!({})),
        ("12 namespaces", json!({"keeps": keeps(12)})),
        ("32 namespaces", json!({"keeps": keeps(32)})),
        ("a digest", json!({"keeps_digest": "0123456789abcdef"})),
    ];
    for (what, says) in says {
        let mut fleet = Fleet::over(&redis, Release::Now, NODES).await;
        (fleet.says, fleet.is_moving) = (says, true);
        fleet.rounds(1, false).await;
        let Cost { cpu_s, bytes } = fleet.rounds(5, false).await;
        println!("{what}: {cpu_s:.3} s, {bytes} bytes");
    }
}
