//! The flags of `serve` that take part in the configuration.
//!
//! In: the command line. Out: [`Inputs`] for [`crate::config::load::load`]. `config check` and
//! `config show` take the same flags, so that they judge what `serve` would run with.

use std::path::PathBuf;

use clap::Args;

use crate::auth::keys::try_key;
use crate::config::inputs::{Flag, Inputs};
use crate::config::machine::Machine;

/// What can be set on the command line; the rest is set in the file or the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct ServeFlags {
    /// Configuration file (FANFARE_CONFIG). `fanfare config init` prints one
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where the node runs (FANFARE_ENV). `production` refuses what is unsafe there
    #[arg(long, value_parser = ["development", "staging", "production"])]
    pub env: Option<String>,

    /// Preset of sizes (FANFARE_SIZE): caps on sessions and memory, the largest 10,000 sessions.
    /// Without it sessions follow the file limit, which is usually more
    #[arg(long, value_parser = ["small", "medium", "large", "enterprise"])]
    pub size: Option<String>,

    /// For your own machine: everybody may connect as ?user=NAME, the API key is dev, every
    /// namespace has history and presence
    #[arg(long)]
    pub dev: bool,

    /// Where clients connect (server.listen) [default: 0.0.0.0:8080, with --dev 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Where the HTTP API, health and metrics are served (api.listen) [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub api_listen: Option<String>,

    /// The Redis or Valkey that joins the nodes (redis.url), for example redis://127.0.0.1:6379.
    /// Without it the node runs alone. Set a password by FANFARE_REDIS__URL
    #[arg(long, value_name = "URL")]
    pub redis: Option<String>,

    /// Threads that own sockets (server.workers) [default: one a core]
    #[arg(long, value_name = "COUNT")]
    pub workers: Option<String>,

    /// The node's name in the cluster (server.node_id) [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_id: Option<String>,

    /// The address under which clients reach this very node (server.advertise), for example
    /// wss://node-0.example.com
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,

    /// Serve /echo, which sends back what it gets, for conformance suites (server.echo)
    #[arg(long)]
    pub echo: bool,
}

/// Examples for the end of `fanfare serve --help`.
pub const EXAMPLES: &str = "\
Examples:
  fanfare serve --dev
  fanfare serve --dev --listen 127.0.0.1:9000 --api-listen 127.0.0.1:9001
  fanfare serve --config fanfare.toml --env production --size medium
  FANFARE_REDIS__URL=redis://:secret@redis:6379 fanfare serve --config fanfare.toml

Later wins: preset (--env, --size, --dev), file, environment (FANFARE_SECTION__KEY), flag.";

impl ServeFlags {
    /// The inputs that these flags, the process's environment and this machine make.
    #[must_use]
    pub fn into_inputs(self) -> Inputs {
        let flags = [
            ("--listen", "server.listen", self.listen),
            ("--api-listen", "api.listen", self.api_listen),
            ("--redis", "redis.url", self.redis),
            ("--workers", "server.workers", self.workers),
            ("--node-id", "server.node_id", self.node_id),
            ("--advertise", "server.advertise", self.advertise),
            ("--echo", "server.echo", self.echo.then(|| true.to_string())),
        ];
        let given = flags.into_iter().filter_map(|(name, path, value)| {
            let value = value?;
            Some(Flag { name, path, value })
        });
        Inputs {
            file: self.config,
            environment: variables(),
            flags: given.collect(),
            env: self.env,
            size: self.size,
            dev: self.dev,
            machine: Machine::here(),
            try_key: |key| try_key(key).map_err(|fault| fault.to_string()),
        }
    }
}

/// The process's variables. Bytes that are not UTF-8 are replaced, so that a check can refuse
/// them with their name.
pub(super) fn variables() -> Vec<(String, String)> {
    let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}
