//! `fanfare serve`: the configuration, the log, the node; and on a terminal, what to type next.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Args;

use super::exit::Exit;
use super::serve_flags::{self, ServeFlags};
use crate::config::load::{Loaded, load};
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
    let loaded = match load(&args.flags.into_inputs()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("{faults}");
            return Exit::Usage.into();
        }
    };
    let Loaded {
        config, warnings, ..
    } = loaded;
    if let Err(error) = logs::start(&config.log) {
        eprintln!("{error}");
        return Exit::Usage.into();
    }
    for warning in &warnings {
        tracing::warn!(event = "configuration", "{warning}");
    }
    let dev = config.server.dev;
    let started = |addresses| {
        if dev && std::io::stderr().is_terminal() {
            eprint!("{}", next_steps(addresses));
        }
    };
    match node::run(config, warnings, env!("BUILD_COMMIT"), started) {
        Ok(End::Stopped) => Exit::Done.into(),
        Ok(End::Superseded) => {
            eprintln!(
                "another process has taken this node's name; give each node its own --node-id"
            );
            Exit::Unreachable.into()
        }
        Ok(End::NameTaken) => {
            eprintln!(
                "a running process has this node's name, and keeps it; give each node its own \
                 --node-id"
            );
            Exit::Unreachable.into()
        }
        Ok(End::Disagrees(how)) => {
            eprintln!(
                "this node does not agree with its cluster: {how}\n\
                 Every node needs the same. Mend this one, or stop all nodes and run \
                 `fanfare redis adopt` with the new configuration."
            );
            Exit::Usage.into()
        }
        // The log has said why.
        Ok(End::Failed) => Exit::Broken.into(),
        Err(error) => {
            eprintln!("{}", advice(&error));
            match error {
                StartError::Listen { .. } => Exit::Unreachable.into(),
                StartError::Keys(_) | StartError::Broker(_) => Exit::Usage.into(),
                StartError::System(_) => Exit::System.into(),
            }
        }
    }
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
