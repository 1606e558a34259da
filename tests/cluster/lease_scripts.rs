//! The simulation's model of node leases answers as the scripts do: the same random heartbeats over
//! both, while the clock steps to and fro.
//!
//! The scripts are the product's and, for some processes, those of the release before (`before`), run
//! by a real Redis; only the time is told to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::roster::{Answer, End, Numbers, Told};
use fanfare::cluster::view::NodeInfo;
use fanfare::redis::{Keys, RedisLink, Script};
use fanfare_protocol::ids::NodeId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::leases::{Heartbeat, Leases, Rule};
use crate::rig::PARTITIONS;
use crate::scripts::{answering, told_the_time};
use fanfare_testkit::redis_server::RedisServer;

const COMMANDS: usize = 3_000;
const NAMES: [&str; 3] = ["a", "b", "c"];
/// The name of a node of the release before.
const OLD_NAME: &str = "d";
const LEASES_MS: [u64; 3] = [1_000, 1_000, 3_000];
const STEP_MAX_US: u64 = 20_000_000;

#[derive(Debug)]
enum Ask {
    Beat {
        beat: Heartbeat,
        lease: Duration,
    },
    Leave {
        node: NodeId,
        holder: u64,
        is_old: bool,
        is_bare: bool,
    },
    Forget,
}

/// One command, and what Redis made of it.
#[derive(Debug)]
struct Step {
    now_us: u64,
    ask: Ask,
    answer: String,
    /// When the leases end then.
    ends: Vec<String>,
}

/// Those of one release.
struct Release {
    heartbeat: Script,
    leave: Script,
}

struct Scripts {
    link: Arc<RedisLink>,
    keys: [String; 5],
    now: Release,
    before: Release,
}

impl Scripts {
    async fn over(redis: &RedisServer) -> Self {
        let keys = Keys::new("ff", PARTITIONS);
        Self {
            link: answering(redis).await,
            keys: [
                keys.nodes(),
                keys.node_incarnations(),
                keys.node_details(),
                keys.node_heartbeat(),
                keys.node_changes(),
            ],
            now: Release {
                heartbeat: told_the_time(
                    include_str!("../../src/cluster/scripts/heartbeat.lua"),
                    10,
                ),
                leave: told_the_time(include_str!("../../src/cluster/scripts/leave.lua"), 4),
            },
            before: Release {
                heartbeat: told_the_time(include_str!("before/heartbeat.lua"), 8),
                leave: told_the_time(include_str!("before/leave.lua"), 3),
            },
        }
    }

    async fn answer(&self, now_us: u64, ask: &Ask) -> String {
        let time = [now_us / 1_000_000, now_us % 1_000_000].map(|n| n.to_string());
        match ask {
            Ask::Beat { beat, lease } => {
                let mut args = vec![
                    beat.node.to_string(),
                    format!("{:x}", beat.holder),
                    beat.mine.unwrap_or_default().to_string(),
                    lease.as_millis().to_string(),
                    format!("{{\"sessions\":{}}}", beat.sessions),
                    // Longer than the test lasts: the model forgets nothing.
                    3_600_000.to_string(),
                    beat.random.to_string(),
                ];
                if !beat.is_old {
                    let Numbers { beat, taken } = beat.numbers;
                    args.extend([beat, taken].map(|number| number.to_string()));
                }
                args.extend(time);
                let script = &self.of(beat.is_old).heartbeat;
                let answer = self.link.eval(script, &self.keys, &bytes(&args)).await;
                told(answer.unwrap().convert().unwrap(), beat.is_old)
            }
            Ask::Leave {
                node,
                holder,
                is_old,
                is_bare,
            } => {
                let mut args = vec![node.to_string(), format!("{holder:x}")];
                if !is_old {
                    args.push(u8::from(*is_bare).to_string());
                }
                args.extend(time);
                let script = &self.of(*is_old).leave;
                let answer = self.link.eval(script, &self.keys, &bytes(&args)).await;
                let is_done: u64 = answer.unwrap().convert().unwrap();
                is_done.to_string()
            }
            Ask::Forget => {
                for key in &self.keys {
                    self.link.command("DEL", key, &[]).await.unwrap();
                }
                String::new()
            }
        }
    }

    fn of(&self, is_old: bool) -> &Release {
        if is_old { &self.before } else { &self.now }
    }

    async fn ends(&self) -> Vec<String> {
        let range = ["0", "-1", "WITHSCORES"].map(|arg| arg.as_bytes().to_vec());
        let ends = self.link.command("ZRANGE", &self.keys[0], &range).await;
        let ends: Vec<(String, f64)> = ends.unwrap().convert().unwrap();
        let ends = ends.into_iter().map(|(name, end)| format!("{name} {end}"));
        sorted(ends.collect())
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

/// What a script answers to a heartbeat: the former one tells of all nodes, with what is left of their
/// leases.
fn told(answer: Vec<String>, is_old: bool) -> String {
    if answer[0] == "superseded" {
        return answer.join(" ");
    }
    let (head, nodes) = answer.split_at(if is_old { 3 } else { 4 });
    let sessions = |details: &str| {
        let details: serde_json::Value = serde_json::from_str(details).unwrap_or_default();
        details["sessions"].to_string()
    };
    let node = |node: &[String]| {
        let details = node.last().expect("some");
        let says = if node[1].is_empty() {
            details.clone()
        } else {
            sessions(details)
        };
        format!("{} {} {says}", node[0], node[1])
    };
    let nodes = nodes.chunks(if is_old { 4 } else { 3 });
    let nodes = sorted(nodes.map(node).collect());
    let kind = if is_old { " all" } else { "" };
    format!("{}{kind}: {}", head.join(" "), nodes.join(", "))
}

fn bytes(args: &[String]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.clone().into_bytes()).collect()
}

fn told_by_model(told: &Told, gone: &[(NodeId, End)]) -> String {
    let live = |node: &NodeInfo| {
        let (owner, sessions) = (&node.owner, node.details.sessions);
        format!("{} {} {sessions}", owner.node, owner.incarnation)
    };
    let (kind, nodes): (_, Vec<_>) = match told {
        Told::All(nodes) => ("all", nodes.iter().map(live).collect()),
        Told::Changed(nodes) => {
            let gone = |name: &NodeId| {
                let end = gone.iter().find(|(gone, _)| gone == name);
                let word = match end.expect("it is told how").1 {
                    End::Left => "left",
                    End::Lapsed => "ended",
                };
                format!("{name}  {word}")
            };
            let node = |(name, node): &(NodeId, Option<NodeInfo>)| {
                node.as_ref().map_or_else(|| gone(name), live)
            };
            ("changed", nodes.iter().map(node).collect())
        }
    };
    format!("{kind}: {}", sorted(nodes).join(", "))
}

fn by_model(model: &mut Leases, step: &Step) -> String {
    match &step.ask {
        Ask::Beat { beat, lease } => match model.heartbeat(beat, step.now_us, *lease) {
            Answer::Superseded { newest } => format!("superseded {newest}"),
            Answer::Held {
                incarnation,
                time_us,
                told,
                gone,
            } => format!(
                "held {incarnation} {time_us} {}",
                told_by_model(&told, &gone)
            ),
        },
        Ask::Leave {
            node,
            holder,
            is_old,
            is_bare,
        } => {
            let is_done = model.leave(node, *holder, step.now_us, *is_old, *is_bare);
            u64::from(is_done).to_string()
        }
        Ask::Forget => {
            model.forget_everything();
            String::new()
        }
    }
}

/// The first step at which the model says something else.
fn first_difference(mut model: Leases, steps: &[Step]) -> Option<String> {
    steps.iter().find_map(|step| {
        let answer = by_model(&mut model, step);
        let ends = model.ends().map(|(name, end)| format!("{name} {end}"));
        let ends = sorted(ends.collect());
        let is_same = answer == step.answer && ends == step.ends;
        (!is_same).then(|| format!("{answer} and {ends:?} at {step:?}"))
    })
}

/// What a process knows.
#[derive(Debug, Default, Clone, Copy)]
struct Process {
    mine: Option<u64>,
    sent: u64,
    taken: u64,
    sessions: u64,
}

/// What a process with one of these names would send.
fn any_ask(rng: &mut StdRng, processes: &mut BTreeMap<(NodeId, u64), Process>) -> Ask {
    // The release before is rare, or changes alone would be.
    let is_old = rng.random_bool(0.1);
    let name = if is_old {
        OLD_NAME
    } else {
        NAMES.choose(rng).expect("some")
    };
    let node = NodeId::new(name).unwrap();
    // So is the second process of a name.
    let holder = u64::from(rng.random_bool(0.05)) + 1;
    let process = processes.entry((node.clone(), holder)).or_default();
    match rng.random_range(0..if is_old { 20 } else { 200 }) {
        0 => Ask::Forget,
        1..5 => Ask::Leave {
            node,
            holder,
            is_old,
            is_bare: rng.random_bool(0.5),
        },
        number => {
            let mine = match number {
                5..7 => process.mine.map(|mine| mine + 5_000_000),
                7..10 => None,
                _ => process.mine,
            };
            process.sent += 1;
            process.sessions += u64::from(rng.random_bool(0.2));
            let beat = Heartbeat {
                node,
                holder,
                mine,
                random: rng.random_range(0..1 << 20),
                numbers: Numbers {
                    beat: process.sent,
                    taken: process.taken,
                },
                sessions: process.sessions,
                is_old,
            };
            let lease = Duration::from_millis(*LEASES_MS.choose(rng).expect("some"));
            Ask::Beat { beat, lease }
        }
    }
}

#[tokio::test]
async fn the_model_of_node_leases_answers_as_the_scripts_do() {
    let redis = RedisServer::start().await;
    let scripts = Scripts::over(&redis).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut now_us = 1_732_190_000_000_000;
    let (mut processes, mut steps) = (BTreeMap::new(), Vec::new());
    for _ in 0..COMMANDS {
        now_us += rng.random_range(0..300_000);
        match rng.random_range(0..100) {
            0..4 => now_us += rng.random_range(0..STEP_MAX_US),
            4..8 => now_us -= rng.random_range(0..STEP_MAX_US),
            _ => {}
        }
        let ask = any_ask(&mut rng, &mut processes);
        let answer = scripts.answer(now_us, &ask).await;
        if let Ask::Beat { beat, .. } = &ask
            && let Some(held) = answer.strip_prefix("held ")
            && rng.random_bool(0.9)
        {
            let incarnation = held.split(' ').next().unwrap().parse().unwrap();
            let process = processes.get_mut(&(beat.node.clone(), beat.holder));
            let process = process.expect("it sent this");
            (process.mine, process.taken) = (Some(incarnation), beat.numbers.beat);
        }
        steps.push(Step {
            now_us,
            ask,
            answer,
            ends: scripts.ends().await,
        });
    }
    assert_eq!(first_difference(Leases::new(None), &steps), None);
    let changes = steps.iter().filter(|step| step.answer.contains("changed"));
    assert!(changes.count() > COMMANDS / 4, "changes alone are told");
    // These commands would tell if the model lacked a rule.
    for rule in Rule::ALL {
        let difference = first_difference(Leases::new(Some(rule)), &steps);
        assert!(difference.is_some(), "{rule:?} is not missed");
    }
}
