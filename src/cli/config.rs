//! `fanfare config`: judge a configuration, show what is in force, print a file to begin with.
//!
//! In: the flags of `serve`, the environment, the file. Out: text on standard output, faults and
//! warnings on standard error, exit code 64 on faults.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::cli::serve_flags::ServeFlags;
use crate::config::example::commented_file;
use crate::config::load::{Loaded, load};
use crate::config::show;
use crate::config::values::Origin;
use crate::node::stop_time;

/// Arguments of `fanfare config`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Report every fault with its place; exit 0 when there is none, 64 otherwise
    Check(ServeFlags),
    /// Show every value that is in force and where it came from, secrets hidden, and how long a
    /// stop takes at the longest (stop.longest_s): a table on a terminal, JSON lines in a pipe
    Show(ServeFlags),
    /// Print a commented file with every key and its default
    Init,
}

const EXAMPLES: &str = "\
Examples:
  fanfare config init > fanfare.toml
  fanfare config check --config fanfare.toml --env production
  fanfare config show --dev --size small";

/// Runs the command.
#[must_use]
pub fn run(args: ConfigArgs) -> ExitCode {
    let (flags, shows) = match args.command {
        ConfigCommand::Init => return print(&commented_file()),
        ConfigCommand::Check(flags) => (flags, false),
        ConfigCommand::Show(flags) => (flags, true),
    };
    match load(&flags.into_inputs()) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                output::note(&format!("warning: {warning}"));
            }
            print(&if shows {
                shown(&loaded)
            } else {
                verdict(&loaded)
            })
        }
        Err(faults) => {
            output::note(&faults.to_string());
            Exit::Usage.into()
        }
    }
}

fn shown(loaded: &Loaded) -> String {
    let mut rows = show::rows(&loaded.values);
    rows.push(show::Row {
        key: "stop.longest_s".to_owned(),
        value: stop_time::longest_s(&loaded.config).into(),
        origin: "worked out".to_owned(),
    });
    if std::io::stdout().is_terminal() {
        show::table(&rows)
    } else {
        show::json_lines(&rows)
    }
}

fn verdict(loaded: &Loaded) -> String {
    let paths = loaded.values.paths();
    let set = |(path, _): &&(String, _)| *loaded.values.origin(path) > Origin::Machine;
    let set_count = paths.iter().filter(set).count();
    format!("ok: {set_count} of {} values are set\n", paths.len())
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe may have seen enough.
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(cause) => {
            output::note(&format!("cannot write the output: {cause}"));
            Exit::Io.into()
        }
    }
}
