//! `fanfare bench`: the load generator (`crates/bench`) behind the flags of the other commands.
//!
//! In: the flags of a scenario, and beside them those for the API, tokens and output, which other
//! commands have too. Out: one report on stdout, and an exit code: 0 where everything came once and
//! in order, 1 where not. Only with the feature `bench`.

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand};
use fanfare_bench::class::Class;
use fanfare_bench::error::BenchError;
use fanfare_bench::provided::{Provided, Sign};
use fanfare_bench::report::{Block, Report};
use fanfare_bench::scenario::Scenario;

use super::access::ApiArgs;
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::token::{self, SigningArgs};
use crate::auth::mint;
use crate::config::machine;

const EXAMPLES: &str = "\
Examples:
  fanfare bench fanout
  fanfare bench idle --sessions 10000 --pid $(pgrep -f 'fanfare serve')
  fanfare bench latency --rate 40 --json > latency.json
  fanfare bench storm --sessions 5000 --plot storm.svg

Start a node first: fanfare serve --dev. Measure a release build, with node and load on cores of
their own. Every scenario has its own --help; docs/bench.md says what each figure means.
Exit code 1: something was missing, doubled or out of order.";

/// Arguments of `bench`.
#[derive(Debug)]
pub struct BenchArgs {
    scenario: Scenario,
    beside: BesideArgs,
}

/// What every scenario has beside its own flags.
#[derive(Debug, Args)]
struct BesideArgs {
    /// One JSON object, as in a pipe
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print the report
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten, next_help_heading = "Target")]
    api: ApiArgs,
    #[command(flatten, next_help_heading = "Target")]
    signing: SigningArgs,
}

impl Args for BenchArgs {
    fn augment_args(command: Command) -> Command {
        let command = Scenario::augment_subcommands(command)
            .subcommand_required(true)
            .arg_required_else_help(true)
            .after_help(EXAMPLES);
        command.mut_subcommands(|scenario| {
            // Flags come with a heading and with the doc of their struct.
            let about = scenario.get_about().cloned().unwrap_or_default();
            let scenario = BesideArgs::augment_args(scenario.next_help_heading(None)).about(about);
            // Where there is a token for all, none is signed.
            scenario.mut_args(|flag| match flag.get_id().as_str() {
                "token" => flag.conflicts_with("KeySource"),
                _ => flag,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BenchArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let scenario = Scenario::from_arg_matches(matches)?;
        let (_, flags) = matches.subcommand().unwrap_or(("", matches));
        let beside = BesideArgs::from_arg_matches(flags)?;
        Ok(Self { scenario, beside })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs one scenario and prints what it found.
///
/// # Errors
/// [`Failure`] when the load could not be run to its end.
pub async fn run(args: BenchArgs) -> Result<Exit, Failure> {
    let BenchArgs { scenario, beside } = args;
    let provided = Provided {
        api_url: beside.api.api_url,
        api_key: beside.api.api_key,
        sign: sign(&beside.signing)?,
        files_max: machine::file_limit(),
    };
    let report = tokio::select! {
        report = fanfare_bench::run(&scenario, provided) => report?,
        _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
    };
    if beside.json || beside.format.is_json() {
        output::line(&report.json().to_string());
    } else {
        print(&report);
    }
    Ok(if report.is_clean() {
        Exit::Done
    } else {
        Exit::Refused
    })
}

/// What signs tokens with the key that the flags name.
fn sign(args: &SigningArgs) -> Result<Option<Sign>, Failure> {
    let key = args.key().map_err(|error| token::failure(&error))?;
    Ok(key.map(|key| -> Sign { Box::new(move |claims| Ok(mint::mint(&key, claims)?)) }))
}

fn print(report: &Report) {
    for (number, block) in report.text().into_iter().enumerate() {
        if number > 0 {
            output::line("");
        }
        let lines = match block {
            Block::Lines(lines) => lines,
            Block::Table(head, rows) => output::table(&head, &rows),
        };
        for line in lines {
            output::line(&output::printable(&line));
        }
    }
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        let exit = match error.class() {
            Class::Usage => Exit::Usage,
            Class::Status(status) => Exit::by_status(status),
            Class::Code(code) => Exit::by_error_code(&code),
            Class::Close(code) => Exit::by_close_code(code),
            Class::Refused => Exit::Refused,
            Class::Unreachable => Exit::Unreachable,
        };
        let failure = Self::new(exit, &error);
        let hint = error.hint().or_else(|| hint_for(exit).map(str::to_owned));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

fn hint_for(exit: Exit) -> Option<&'static str> {
    match exit {
        Exit::Unreachable => Some("is the node running? Start one with: fanfare serve --dev"),
        Exit::Denied => {
            Some("give tokens with --token or --secret-env, and the API's key with --api-key")
        }
        _ => None,
    }
}
