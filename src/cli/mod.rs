//! The command line: what a person or a script types, turned into one call of one module.
//!
//! In: the arguments of the process and the clients' environment names (`FANFARE_URL`,
//! `FANFARE_API_URL`, `FANFARE_API_KEY`, `FANFARE_TOKEN`). Out: an exit code of [`exit::Exit`];
//! results on stdout, everything else on stderr. Owner: the main thread; commands that talk to a
//! node run on a current-thread runtime that ends with them.

pub mod access;
pub mod api_key;
pub mod apps;
#[cfg(feature = "bench")]
pub mod bench;
pub mod completions;
pub mod config;
pub mod exit;
pub mod health;
pub mod lines;
pub mod messages;
pub mod nodes;
pub mod output;
pub mod plan;
pub mod publish;
pub mod queue;
pub mod redis;
pub mod revoke;
pub mod roundtrip;
pub mod serve;
pub mod serve_flags;
pub mod subscribe;
pub mod token;
pub mod transcript;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::exit::{Exit, Failure};

/// Version and commit, as `--version` prints them.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BUILD_COMMIT"),
    ")"
);

/// A realtime gateway: any node delivers to any user.
#[derive(Debug, Parser)]
#[command(
    name = "fanfare",
    version = VERSION,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  fanfare serve --dev                    start a node to try things on
  fanfare subscribe news                 see what arrives on a topic
  fanfare publish news 'hello'           send something to it

Exit codes: 0 done, 1 refused, 64 usage or configuration, 65 bad input, 69 cannot reach the
node or a port is taken, 70 a vital part of the node failed, 71 the system refuses, 74 cannot
read or write, 77 not authorized, 130 interrupted."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(Box<serve::ServeArgs>),
    /// Check, show or begin a configuration
    Config(config::ConfigArgs),
    /// Publish a message, or every line of standard input, through the HTTP API
    Publish(publish::PublishArgs),
    /// Hand messages to the durable queue, and look after it
    Queue(Box<queue::QueueArgs>),
    /// Print the messages of a topic, of an inbox, or those for everyone
    Subscribe(subscribe::SubscribeArgs),
    /// Make a signed token for development
    Token(token::TokenArgs),
    /// Make a key of the HTTP API
    ApiKey(api_key::ApiKeyArgs),
    /// List, show, store and remove apps
    Apps(apps::AppsArgs),
    /// Refuse tokens from now on, on every node, and end the sessions that they opened
    Revoke(revoke::RevokeArgs),
    /// List the nodes of the cluster
    Nodes(nodes::NodesArgs),
    /// Ask a node whether it is live or ready, or how each of its parts does
    Health(health::HealthArgs),
    /// Send one message through a node and back, and tell how long each step took
    Roundtrip(Box<roundtrip::RoundtripArgs>),
    /// Work out how many nodes and masters of Redis a load needs
    Plan(Box<plan::PlanArgs>),
    /// Look after what nodes agree on in Redis
    Redis(Box<redis::RedisArgs>),
    /// Put load on a node, or on one of its peers, and report what it did
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchArgs>),
    /// Print the completion script of a shell
    Completions(completions::CompletionsArgs),
}

/// Runs one command line, the program's name first, and tells with which code to exit.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&arguments, &error),
    };
    let result = match cli.command {
        Command::Serve(args) => return serve::run(*args),
        Command::Config(args) => return config::run(args),
        Command::Publish(args) => block_on(publish::run(args)),
        Command::Queue(args) => block_on(queue::run(*args)),
        Command::Subscribe(args) => block_on(subscribe::run(args)),
        Command::Token(args) => token::run(&args),
        Command::ApiKey(args) => api_key::run(&args),
        Command::Apps(args) => block_on(apps::run(args)),
        Command::Revoke(args) => block_on(revoke::run(args)),
        Command::Nodes(args) => block_on(nodes::run(args)),
        Command::Health(args) => health::run(args),
        Command::Roundtrip(args) => block_on(roundtrip::run(*args)),
        Command::Plan(args) => plan::run(&args),
        Command::Redis(args) => block_on(redis::run(*args)),
        #[cfg(feature = "bench")]
        Command::Bench(args) => block_on(bench::run(*args)),
        Command::Completions(args) => Ok(completions::run(&args)),
    };
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report().into(),
    }
}

/// Help and version are answers and exit 0; everything else that clap says is a fault of usage. A
/// node tells it as it tells the faults of its configuration.
fn report_usage(arguments: &[OsString], error: &clap::Error) -> ExitCode {
    let is_node = arguments.get(1).is_some_and(|command| command == "serve");
    if is_node && error.use_stderr() && serve::refuse_usage(error) {
        return Exit::Usage.into();
    }
    // Nothing is left to tell anybody when even this cannot be written.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage.into()
    } else {
        Exit::Done.into()
    }
}

/// Runs a client command to its end.
fn block_on(command: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)?
        .block_on(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples_in_its_help() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string);
            assert!(
                help.is_some_and(|text| text.starts_with("Examples:")),
                "{} has no examples",
                command.get_name()
            );
        }
    }
}
