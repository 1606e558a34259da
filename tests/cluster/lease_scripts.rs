//! The simulation's model of node leases answers as the scripts do: the same random heartbeats over
//! both, while the clock steps to and fro.
//!
//! The scripts are the product's, run by a real Redis; only the time is told to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::lease_store::Beat;
use fanfare::protocol::ids::NodeId;
use fanfare::redis::{Keys, RedisLink, Script};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use crate::leases::{Heartbeat, Leases, Rule};
use crate::scripts::{answering, told_the_time};
use crate::support::redis_server::RedisServer;

const COMMANDS: usize = 3_000;
const NAMES: [&str; 3] = ["a", "b", "c"];
const LEASES_MS: [u64; 3] = [1_000, 1_000, 3_000];
const STEP_MAX_US: u64 = 20_000_000;

#[derive(Debug)]
enum Ask {
    Beat { beat: Heartbeat, lease: Duration },
    Leave { node: NodeId, holder: u64 },
    Forget,
}

/// One command, and what Redis made of it.
#[derive(Debug)]
struct Step {
    now_us: u64,
    ask: Ask,
    answer: String,
}

struct Scripts {
    link: Arc<RedisLink>,
    keys: [String; 4],
    heartbeat: Script,
    leave: Script,
}

impl Scripts {
    async fn over(redis: &RedisServer) -> Self {
        let keys = Keys::new("ff");
        Self {
            link: answering(redis).await,
            keys: [
                keys.nodes(),
                keys.node_incarnations(),
                keys.node_details(),
                keys.node_heartbeat(),
            ],
            heartbeat: told_the_time(include_str!("../../src/cluster/scripts/heartbeat.lua"), 8),
            leave: told_the_time(include_str!("../../src/cluster/scripts/leave.lua"), 3),
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
                    "{}".to_owned(),
                    // Longer than the test lasts: the model forgets nothing.
                    3_600_000.to_string(),
                    beat.random.to_string(),
                ];
                args.extend(time);
                let args = bytes(&args);
                let answer = self.link.eval(&self.heartbeat, &self.keys, &args).await;
                let answer: Vec<String> = answer.unwrap().convert().unwrap();
                let (outcome, nodes) = answer.split_at(answer.len().min(3));
                let mut nodes: Vec<_> = nodes.chunks(4).map(|node| node[..3].join(" ")).collect();
                nodes.sort_unstable();
                [&[outcome.join(" ")], &nodes[..]].concat().join(", ")
            }
            Ask::Leave { node, holder } => {
                let mut args = vec![node.to_string(), format!("{holder:x}")];
                args.extend(time);
                let answer = self.link.eval(&self.leave, &self.keys, &bytes(&args)).await;
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
}

fn bytes(args: &[String]) -> Vec<Vec<u8>> {
    args.iter().map(|arg| arg.clone().into_bytes()).collect()
}

fn by_model(model: &mut Leases, step: &Step) -> String {
    match &step.ask {
        Ask::Beat { beat, lease } => match model.heartbeat(beat, step.now_us, *lease) {
            Beat::Superseded { newest } => format!("superseded {newest}"),
            Beat::Held {
                incarnation,
                time_us,
                nodes,
            } => {
                let nodes = nodes.iter().map(|node| {
                    let (owner, left) = (&node.owner, node.lease_left.as_millis());
                    format!(", {} {} {left}", owner.node, owner.incarnation)
                });
                format!("held {incarnation} {time_us}{}", nodes.collect::<String>())
            }
        },
        Ask::Leave { node, holder } => {
            u64::from(model.leave(node, *holder, step.now_us)).to_string()
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
        (answer != step.answer).then(|| format!("{answer} at {step:?}"))
    })
}

/// What a process with one of these names would send that has been told these incarnations.
fn any_ask(rng: &mut StdRng, told: &BTreeMap<(NodeId, u64), u64>) -> Ask {
    let node = NodeId::new(NAMES.choose(rng).expect("some")).unwrap();
    // The second process of a name is rare.
    let holder = u64::from(rng.random_bool(0.05)) + 1;
    match rng.random_range(0..200) {
        0 => Ask::Forget,
        1..5 => Ask::Leave { node, holder },
        number => {
            let mine = told.get(&(node.clone(), holder)).copied();
            let mine = match number {
                5..7 => mine.map(|mine| mine + 5_000_000),
                7..10 => None,
                _ => mine,
            };
            let random = rng.random_range(0..1 << 20);
            let beat = Heartbeat {
                node,
                holder,
                mine,
                random,
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
    let (mut told, mut steps) = (BTreeMap::new(), Vec::new());
    for _ in 0..COMMANDS {
        now_us += rng.random_range(0..300_000);
        match rng.random_range(0..100) {
            0..4 => now_us += rng.random_range(0..STEP_MAX_US),
            4..8 => now_us -= rng.random_range(0..STEP_MAX_US),
            _ => {}
        }
        let ask = any_ask(&mut rng, &told);
        let answer = scripts.answer(now_us, &ask).await;
        if let Ask::Beat { beat, .. } = &ask
            && let Some(held) = answer.strip_prefix("held ")
        {
            let incarnation = held.split(' ').next().unwrap().parse().unwrap();
            told.insert((beat.node.clone(), beat.holder), incarnation);
        }
        steps.push(Step {
            now_us,
            ask,
            answer,
        });
    }
    assert_eq!(first_difference(Leases::new(None), &steps), None);
    // These commands would tell if the model lacked a rule.
    for rule in Rule::ALL {
        let difference = first_difference(Leases::new(Some(rule)), &steps);
        assert!(difference.is_some(), "{rule:?} is not missed");
    }
}
