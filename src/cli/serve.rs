//! `fanfare serve`: the configuration, the log, the node; and on a terminal, what to type next.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;

use super::exit::Exit;
use super::serve_flags::{self, ServeFlags};
use crate::config::environment::value_of;
use crate::config::faults::Faults;
use crate::config::load::{Inputs, Loaded, load};
use crate::config::show::rows;
use crate::config::{Log, LogFormat};
use crate::node::reload::{self, Reload};
use crate::node::{self, Addresses, End, StartError};
use crate::telemetry::logs;

/// Arguments of `fanfare serve`.
#[derive(Debug, Args)]
#[command(after_help = serve_flags::EXAMPLES)]
pub struct ServeArgs {
    #[command(flatten)]
    flags: ServeFlags,
}

/// Runs a node until it is told to stop.
#[must_use]
pub fn run(args: ServeArgs) -> ExitCode {
    // Before anything else: until then SIGHUP ends the process.
    let signals = reload::signals();
    let inputs = args.flags.into_inputs();
    let Loaded {
        config,
        warnings,
        values,
    } = match load(&inputs) {
        Ok(loaded) => loaded,
        Err(faults) => {
            refuse(&inputs, &faults);
            return Exit::Usage.into();
        }
    };
    if let Err(error) = logs::start(&config.log, config.server.node_id.as_str()) {
        eprintln!("{error}");
        return Exit::Usage.into();
    }
    for warning in &warnings {
        tracing::warn!(event = "configuration_questioned", "{warning}");
    }
    let told = Told(logs::is_json(config.log.format));
    let reload = Reload {
        signals,
        rows: rows(&values),
        load: Box::new(move || load(&inputs)),
    };
    let dev = config.server.dev;
    let started = |addresses| {
        if dev && std::io::stderr().is_terminal() {
            eprint!("{}", next_steps(addresses));
        }
    };
    match node::run(config, warnings, env!("BUILD_COMMIT"), reload, started) {
        Ok(End::Stopped) => Exit::Done.into(),
        Ok(End::Superseded) => {
            told.fatal(
                "another process has taken this node's name; give each node its own --node-id",
            );
            Exit::Unreachable.into()
        }
        Ok(End::NameTaken) => {
            told.fatal(
                "a running process has this node's name, and keeps it; give each node its own \
                 --node-id",
            );
            Exit::Unreachable.into()
        }
        Ok(End::Disagrees(how)) => {
            told.fatal(&format!(
                "this node does not agree with its cluster: {how}\n\
                 Every node needs the same. Mend this one, or stop all nodes and run \
                 `fanfare redis adopt` with the new configuration."
            ));
            Exit::Usage.into()
        }
        // The log has said why.
        Ok(End::Failed) => Exit::Broken.into(),
        Err(error) => {
            told.fatal(&advice(&error));
            match error {
                StartError::Listen { .. } => Exit::Unreachable.into(),
                StartError::Keys(_) | StartError::Broker(_) => Exit::Usage.into(),
                StartError::System(_) => Exit::System.into(),
            }
        }
    }
}

/// How the last word of a node is told: as a line of its log where that is JSON, and as plain text
/// to people.
struct Told(bool);

impl Told {
    fn fatal(&self, text: &str) {
        match self {
            Self(true) => tracing::error!(event = "node_failed", "{text}"),
            Self(false) => eprintln!("{text}"),
        }
    }
}

/// Tells the faults of a configuration, before there is a log that it could describe.
fn refuse(inputs: &Inputs, faults: &Faults) {
    let mut flags = inputs.flags.iter();
    let flag = flags.find(|flag| flag.path == "server.node_id");
    let node = flag.map(|flag| flag.value.as_str());
    if starts_early_log(&inputs.environment, node) {
        for fault in &faults.0 {
            tracing::error!(event = "configuration_refused", "{fault}");
        }
    } else {
        eprintln!("{faults}");
    }
}

/// Tells that the arguments of `serve` cannot be read. Returns `false` where that is for people to
/// read, and not for a log.
pub(super) fn refuse_usage(error: &clap::Error) -> bool {
    let is_json = starts_early_log(&serve_flags::variables(), None);
    if is_json {
        let text = error.render().to_string();
        tracing::error!(event = "configuration_refused", "{}", text.trim_end());
    }
    is_json
}

/// Starts a log of JSON lines, where the environment asks for one, else by whether stderr is a
/// terminal. Returns whether there is one.
fn starts_early_log(environment: &[(String, String)], node: Option<&str>) -> bool {
    let of = |name| value_of(environment, name);
    let format = match of("FANFARE_LOG__FORMAT") {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    let log = Log {
        format,
        level: "info".to_owned(),
    };
    let node = node.or(of("FANFARE_SERVER__NODE_ID")).unwrap_or_default();
    logs::is_json(format) && logs::start(&log, node).is_ok()
}

/// The error with its causes, and what to do.
fn advice(error: &StartError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    if let StartError::Listen { source, .. } = error
        && source.kind() == std::io::ErrorKind::AddrInUse
    {
        text.push_str("\nAnother process listens there. Stop it, or choose another port with --listen or --api-listen.");
    }
    text
}

/// What a newcomer types to see a message arrive.
fn next_steps(addresses: Addresses) -> String {
    let Addresses { public, api } = addresses;
    format!(
        "\nFanfare is running. See a message arrive:\n\n\
         \x20 in a browser           http://{public}/\n\
         \x20 in a second terminal   fanfare subscribe news --user alice --url ws://{public}/v1/connect\n\
         \x20 in a third one         fanfare publish news 'hello' --api-url http://{api} --api-key dev\n\n\
         (`cargo run -- ` instead of `fanfare ` when it is not installed.) Ctrl-C stops the node.\n\n"
    )
}
