//! The model of the simulation answers as the scripts do: the same random commands over both.
//!
//! The scripts are the product's, run by a real Redis; only the time is told to them and not asked
//! of its clock, so that it is the same for both and can step back.

use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::partition_store::LeaseAnswer;
use fanfare::redis::{Keys, RedisLink, Script};
use fanfare_protocol::ids::Owner;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::rig::link;
use crate::tokens::{Rule, Tokens};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::until_equal;

const COMMANDS: usize = 2_000;
const PARTITIONS: u32 = 2;
/// Another program has written its key.
const FOREIGN: u32 = 9;
const OWNERS: [&str; 5] = ["a~5", "a~900", "a-b~40", "b~6", "b~10"];

#[derive(Debug)]
enum Ask {
    Lead {
        owner: Owner,
        lease: Duration,
        random: u64,
        /// Both partitions in one call, this one first.
        is_of_both: bool,
    },
    Release {
        token: u64,
    },
    Act {
        token: u64,
    },
    Forget,
}

/// One command, and what Redis made of it.
#[derive(Debug)]
struct Step {
    partition: u32,
    now_us: u64,
    ask: Ask,
    answer: String,
    /// What the keys hold afterwards.
    leases: Vec<Option<String>>,
}

/// A script that is told the time, in seconds and microseconds from this argument on. It finds the
/// arguments behind these where they are without them.
pub(crate) fn told_the_time(script: &str, from: usize) -> Script {
    let asks = "redis.call('TIME')";
    assert_eq!(script.matches(asks).count(), 1);
    let argument = format!("table.remove(ARGV, {from})");
    let told = format!("{{{argument}, {argument}}}");
    Script::new(script.replace(asks, &told))
}

/// A connection that is there.
pub(crate) async fn answering(redis: &RedisServer) -> Arc<RedisLink> {
    let link = link(redis.port());
    until_equal(true, || async {
        link.command("GET", "x", &[]).await.is_ok()
    })
    .await;
    link
}

struct Scripts {
    link: Arc<RedisLink>,
    keys: Keys,
    lead: Script,
    lead_many: Script,
    release: Script,
    index: Script,
    unindex: Script,
}

impl Scripts {
    async fn over(redis: &RedisServer) -> Self {
        let lead = |flags: &str| {
            let script = include_str!("../../src/cluster/scripts/lead.lua");
            told_the_time(&format!("#!lua flags={flags}\n{script}"), 4)
        };
        let (link, keys) = (answering(redis).await, Keys::new("ff", PARTITIONS));
        let foreign = keys.partition(FOREIGN);
        let pushed = link.command("RPUSH", &foreign, &[b"x".to_vec()]).await;
        pushed.expect("it is there");
        Self {
            link,
            keys,
            lead: lead("allow-oom"),
            lead_many: lead("allow-oom,allow-cross-slot-keys"),
            release: Script::new(include_str!("../../src/cluster/scripts/release.lua")),
            index: Script::new(include_str!("../../src/cluster/scripts/index.lua")),
            unindex: Script::new(include_str!("../../src/cluster/scripts/unindex.lua")),
        }
    }

    async fn run(&self, script: &Script, partition: u32, args: &[String]) -> Vec<String> {
        let index = self.keys.topics_index(partition);
        let keys = [self.keys.partition(partition), index];
        let keys = if script.sha() == self.lead.sha() {
            &keys[..1]
        } else {
            &keys
        };
        self.eval(script, keys, args).await
    }

    async fn eval(&self, script: &Script, keys: &[String], args: &[String]) -> Vec<String> {
        let args: Vec<_> = args.iter().map(|arg| arg.clone().into_bytes()).collect();
        let answer = self.link.eval(script, keys, &args).await;
        answer.expect("an answer").convert().expect("texts")
    }

    async fn answer(&self, partition: u32, now_us: u64, ask: &Ask) -> String {
        match ask {
            Ask::Lead {
                owner,
                lease,
                random,
                is_of_both,
            } => {
                let (s, us) = (now_us / 1_000_000, now_us % 1_000_000);
                let mut args = vec![
                    owner.to_string(),
                    lease.as_millis().to_string(),
                    random.to_string(),
                    s.to_string(),
                    us.to_string(),
                ];
                if !is_of_both {
                    return self.run(&self.lead, partition, &args).await.join(", ");
                }
                let all = [partition, FOREIGN, other(partition)];
                args.extend(all.map(|partition| self.keys.partition(partition)));
                let mut answer = self.eval(&self.lead_many, &[], &args).await;
                // It fails alone.
                let failed = answer.remove(1);
                assert!(failed.starts_with("failed WRONGTYPE "), "{failed}");
                answer.join(", ")
            }
            Ask::Release { token } => {
                let args = [token.to_string()];
                self.run(&self.release, partition, &args).await.remove(0)
            }
            Ask::Act { token } => {
                let from_start = [token.to_string(), "0".into(), "10".into()];
                let read = self.run(&self.index, partition, &from_start).await;
                let entry = [token.to_string(), "a~5 default:x".into()];
                let taken = self.run(&self.unindex, partition, &entry).await;
                assert_eq!(read[0], taken[0], "both compare it");
                read[0].clone()
            }
            Ask::Forget => {
                let key = self.keys.partition(partition);
                self.link.command("DEL", &key, &[]).await.expect("deleted");
                String::new()
            }
        }
    }

    async fn leases(&self) -> Vec<Option<String>> {
        let mut leases = Vec::new();
        for partition in 0..PARTITIONS {
            let key = self.keys.partition(partition);
            let lease = self.link.command("GET", &key, &[]).await;
            leases.push(lease.expect("an answer").convert().expect("a text"));
        }
        leases
    }
}

fn other(partition: u32) -> u32 {
    PARTITIONS - 1 - partition
}

fn by_model(model: &mut Tokens, step: &Step) -> String {
    let verdict = |is_held| String::from(if is_held { "held" } else { "refused" });
    let partition = step.partition;
    match &step.ask {
        Ask::Lead {
            owner,
            lease,
            random,
            is_of_both,
        } => {
            let all = [partition, other(partition)];
            let all = if *is_of_both { &all[..] } else { &all[..1] };
            let bid =
                |partition: &u32| match model.lead(*partition, owner, *lease, step.now_us, *random)
                {
                    LeaseAnswer::Held { token } => format!("held {token}"),
                    LeaseAnswer::Other { left } => format!("other {}", left.as_millis()),
                };
            all.iter().map(bid).collect::<Vec<_>>().join(", ")
        }
        Ask::Release { token } => verdict(model.release(partition, *token)),
        Ask::Act { token } => verdict(model.admits(partition, *token)),
        Ask::Forget => {
            model.forget(partition);
            String::new()
        }
    }
}

/// The first step at which the model says or keeps something else.
fn first_difference(mut model: Tokens, steps: &[Step]) -> Option<String> {
    steps.iter().find_map(|step| {
        let answer = by_model(&mut model, step);
        let lease = |partition| model.lease(partition).map(ToString::to_string);
        let leases: Vec<_> = (0..PARTITIONS).map(lease).collect();
        let is_same = answer == step.answer && leases == step.leases;
        (!is_same).then(|| format!("{answer}, {leases:?} at {step:?}"))
    })
}

fn any_ask(rng: &mut StdRng, tokens: &[u64]) -> Ask {
    // The newest, an older one, or none that was ever given.
    let token = match rng.random_range(0..4) {
        0 => *tokens.choose(rng).expect("some"),
        1 => rng.random_range(0..1_000),
        _ => *tokens.last().expect("some"),
    };
    match rng.random_range(0..100) {
        0 => Ask::Forget,
        1..25 => Ask::Release { token },
        25..50 => Ask::Act { token },
        _ => Ask::Lead {
            owner: OWNERS.choose(rng).expect("some").parse().unwrap(),
            lease: Duration::from_millis(rng.random_range(0..1_500)),
            random: rng.random_range(0..1 << 20),
            is_of_both: rng.random_bool(0.3),
        },
    }
}

#[tokio::test]
async fn the_model_of_the_simulation_answers_as_the_scripts_do() {
    let redis = RedisServer::start().await;
    let scripts = Scripts::over(&redis).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut now_us = 1_732_190_000_000_000;
    let mut tokens = vec![1];
    let mut steps = Vec::new();
    for _ in 0..COMMANDS {
        now_us += rng.random_range(0..400_000);
        if rng.random_bool(0.03) {
            now_us -= rng.random_range(0..5_000_000);
        }
        let (partition, ask) = (rng.random_range(0..PARTITIONS), any_ask(&mut rng, &tokens));
        let answer = scripts.answer(partition, now_us, &ask).await;
        let held = answer.split(", ").filter_map(|a| a.strip_prefix("held "));
        tokens.extend(held.map(|token| token.parse::<u64>().unwrap()));
        steps.push(Step {
            partition,
            now_us,
            ask,
            answer,
            leases: scripts.leases().await,
        });
    }
    assert_eq!(first_difference(Tokens::new(None), &steps), None);
    // These commands would tell if the model lacked a rule.
    for rule in Rule::ALL {
        let difference = first_difference(Tokens::new(Some(rule)), &steps);
        assert!(difference.is_some(), "{rule:?} is not missed");
    }
}
