//! The node under measurement, as an operator would run it: the release binary with a
//! configuration file, one worker, pinned to one core, over one of the engines.
//!
//! In: which engine. Out: a [`Stage`], which ends with its value. Namespaces have history, users
//! have tokens. Redis keeps its data in memory, as the peers' figures were taken: how fast a disk
//! syncs is not measured here.

use std::path::Path;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::crowd::{Crowd, Plan, Topics, Who};
use crate::process;
use crate::test_keys;
use fanfare_testkit::node::{self, Node};
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::tokens;

/// How many connect at once.
const AT_ONCE: usize = 100;
/// Lifts the limit of one user's sessions out of the way.
const PER_USER_MAX: usize = 20_000;
/// What the namespace `long` keeps: more than any scenario publishes.
const LONG_ENTRIES_MAX: usize = 100_000;

/// Where publications go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// In the node's own process.
    Embedded,
    /// A Redis beside the node, on the load's core.
    Redis,
}

impl Engine {
    /// For the name of a scenario.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The node.
    pub(crate) node: Node,
    /// Its Redis, if any.
    pub(crate) redis: Option<RedisServer>,
    _directory: TempDir,
}

impl Stage {
    /// Starts it; `program` is another one than this build's, and `collector` where it sends traces,
    /// metrics and its log.
    pub(crate) async fn start(
        engine: Engine,
        program: Option<&Path>,
        collector: Option<&str>,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("fanfare.toml");
        std::fs::write(&path, configuration()).expect("the directory can be written");
        let mut plan = node::Plan::with_config(&path).flag("--workers=1");
        if let Some(program) = program {
            plan = plan.program(program);
        }
        if let Some(collector) = collector {
            plan = plan
                .env("FANFARE_TELEMETRY__ENDPOINT", collector)
                .env("FANFARE_TELEMETRY__PROTOCOL", "http/protobuf");
        }
        let redis = match engine {
            Engine::Embedded => None,
            Engine::Redis => Some(redis().await),
        };
        if let Some(redis) = &redis {
            plan = plan.flag(&format!("--redis={}", redis.url()));
        }
        let node = plan.start().await;
        process::pin(node.pid(), process::MEASURED_CORE);
        Self {
            node,
            redis,
            _directory: directory,
        }
    }

    /// The process of its Redis, if any.
    pub(crate) fn redis_pid(&self) -> Option<u32> {
        self.redis.as_ref().map(RedisServer::pid)
    }

    /// Opens a session for each token, which all join the same topics.
    pub(crate) async fn crowd(
        &self,
        tokens: Vec<String>,
        topics: &'static [&'static str],
    ) -> Crowd {
        self.crowd_of(tokens, Topics::Common(topics)).await
    }

    /// Opens a session for each token.
    pub(crate) async fn crowd_of(&self, tokens: Vec<String>, topics: Topics) -> Crowd {
        let plan = Plan {
            to: self.node.public,
            at_once: AT_ONCE,
            who: Who::Tokens(tokens),
            topics,
        };
        plan.open().await
    }
}

async fn redis() -> RedisServer {
    let redis = RedisServer::start().await;
    process::pin(redis.pid(), process::LOAD_CORE);
    let answer = redis.command(&["CONFIG", "SET", "appendonly", "no"]);
    assert_eq!(answer.as_deref(), Some("+OK"));
    redis
}

fn configuration() -> String {
    let mut text = format!(
        "[api]\nkeys = [\"{}\"]\n[auth]\nhmac_secret = \"{}\"\n\
         [session]\nper_user_max = {PER_USER_MAX}\n\
         [admission]\nhandshakes_per_s = 0\n",
        fanfare_testkit::http::DEV_KEY,
        tokens::SECRET,
    );
    for (algorithm, public) in [
        ("RS256", test_keys::RSA_PUBLIC),
        ("PS256", test_keys::RSA_PUBLIC),
        ("ES256", test_keys::EC_PUBLIC),
        ("EdDSA", test_keys::ED_PUBLIC),
    ] {
        text += &format!(
            "[[auth.keys]]\nid = \"{algorithm}\"\nalgorithm = \"{algorithm}\"\n\
             public_key = '''\n{public}'''\n"
        );
    }
    for (namespace, options) in [
        ("default", String::new()),
        (
            "long",
            format!("history_entries_max = {LONG_ENTRIES_MAX}\n"),
        ),
    ] {
        text += &format!("[namespaces.{namespace}]\nsubscribe = \"authenticated\"\n{options}");
    }
    text
}

/// HS256 tokens of so many users: the name and a number.
pub(crate) fn tokens_of_many(name: &str, count: usize) -> Vec<String> {
    (0..count)
        .map(|number| tokens::token(&format!("{name}{number}")))
        .collect()
}

/// The same token so many times.
pub(crate) fn tokens_of_one(name: &str, count: usize) -> Vec<String> {
    vec![tokens::token(name); count]
}
