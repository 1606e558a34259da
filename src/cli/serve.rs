//! `fanfare serve`: the configuration, the log, the node; and on a terminal, what to type next.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::exit::Exit;
use super::serve_flags::{self, ServeFlags};
use crate::config::environment::value_of;
use crate::config::faults::Faults;
use crate::config::inputs::Inputs;
use crate::config::load::{Loaded, load};
use crate::config::show::rows;
use crate::config::{Log, LogFormat};
use crate::node::reload::{self, Reload};
use crate::node::{self, Addresses, End, StartError};
use crate::tasks;
use crate::telemetry::logs::{self, LogError};

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
    let _flushed = match start_log(&config.log, config.server.node_id.as_str()) {
        Ok(flushed) => flushed,
        Err(exit) => return exit.into(),
    };
    for warning in &warnings {
        tracing::warn!(event = "configuration_questioned", "{warning}");
    }
    let reload = Reload {
        signals,
        rows: rows(&values),
        files: values.key_files().to_vec(),
        load: Box::new(move || load(&inputs)),
    };
    let dev = config.server.dev;
    let started = |addresses| {
        if dev && std::io::stderr().is_terminal() {
            logs::show(&next_steps(addresses).unwrap_or_default());
        }
    };
    let ended = node::run(config, warnings, env!("BUILD_COMMIT"), reload, started);
    tell(ended).into()
}

/// Tells why the node ended, and with which code the process does.
fn tell(ended: Result<End, StartError>) -> Exit {
    match ended {
        Ok(End::Stopped) => Exit::Done,
        Ok(end) => {
            logs::last_word(&end.last_word().unwrap_or_default());
            match end {
                End::Stopped => Exit::Done,
                End::Superseded | End::NameTaken => Exit::Unreachable,
                End::Disagrees(_) => Exit::Usage,
                End::Failed(_) => Exit::Broken,
            }
        }
        Err(error) => {
            logs::last_word(&advice(&error));
            match error {
                StartError::Listen { .. } => Exit::Unreachable,
                StartError::Keys(_) | StartError::Broker(_) => Exit::Usage,
                StartError::System(_) => Exit::System,
            }
        }
    }
}

/// Waits for the last lines of the log when it is dropped, at a panic as well.
struct Flushed;

impl Drop for Flushed {
    fn drop(&mut self) {
        logs::flush();
    }
}

/// Starts the log and the thread that tells what it does not write.
fn start_log(log: &Log, node: &str) -> Result<Flushed, Exit> {
    let suppressions = logs::start(log, node).map_err(|error| {
        eprintln!("{error}");
        match error {
            LogError::NoThread(_) => Exit::System,
            _ => Exit::Usage,
        }
    })?;
    let thread = tasks::thread("log_limits".to_owned(), move || suppressions.run());
    thread.map_err(|error| {
        eprintln!("the operating system gives no thread for the log: {error}");
        Exit::System
    })?;
    Ok(Flushed)
}

/// Tells the faults of a configuration, before there is a log that it could describe.
fn refuse(inputs: &Inputs, faults: &Faults) {
    let mut flags = inputs.flags.iter();
    let flag = flags.find(|flag| flag.path == "server.node_id");
    let node = flag.map(|flag| flag.value.as_str());
    let log = start_early_log(&inputs.environment, node);
    if log.is_some() {
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
    let log = start_early_log(&serve_flags::variables(), None);
    if log.is_some() {
        let text = error.render().to_string();
        tracing::error!(event = "configuration_refused", "{}", text.trim_end());
    }
    log.is_some()
}

/// Starts a log of JSON lines, where the environment asks for one, else by whether stderr is a
/// terminal; and nothing where there is to be none.
fn start_early_log(environment: &[(String, String)], node: Option<&str>) -> Option<Flushed> {
    let of = |name| value_of(environment, name);
    let format = match of("FANFARE_LOG__FORMAT") {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    let log = Log {
        format,
        level: "info".to_owned(),
        sessions: false,
        slow: Duration::ZERO,
    };
    let node = node.or(of("FANFARE_SERVER__NODE_ID")).unwrap_or_default();
    if !logs::is_json(format) {
        return None;
    }
    start_log(&log, node).ok()
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

/// What a newcomer types to see a message arrive; nothing where this node takes no sessions.
fn next_steps(addresses: Addresses) -> Option<String> {
    let Addresses { public, api, .. } = addresses;
    let public = public?;
    Some(format!(
        "\nFanfare is running. See a message arrive:\n\n\
         \x20 in a browser           http://{public}/\n\
         \x20 in a second terminal   fanfare subscribe news --user alice --url ws://{public}/v1/connect\n\
         \x20 in a third one         fanfare publish news 'hello' --api-url http://{api} --api-key dev\n\n\
         (`cargo run -- ` instead of `fanfare ` when it is not installed.) Ctrl-C stops the node.\n\n"
    ))
}
