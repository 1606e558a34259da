//! `fanfare bench`: load for a node, or for one of its peers, and a report that can be checked.
//!
//! In: flags, one scenario. Out: one report on stdout, and curves in a file where wanted. Every
//! message carries its publisher, number and time, so that what is missing, doubled or out of
//! order is counted and not assumed. One thread, on a runtime that ends with the command: so the
//! generator's own share is one core at most, and it says when that was the limit. Exit code 0
//! where everything came once and in order, 1 where not.

pub mod crowd;
pub mod error;
pub mod frames;
pub mod load;
pub mod mark;
pub mod meter;
pub mod options;
pub mod plot;
pub mod process;
pub mod progress;
pub mod publisher;
pub mod report;
pub mod scenario;
pub mod session;
pub mod socket;
pub mod tally;
pub mod target;
pub mod wire;

use tokio::task::LocalSet;

use self::error::BenchError;
use self::options::{Bench, CommonArgs};
use self::report::Report;
use self::scenario::Scenario;
use super::exit::{Exit, Failure};
use super::output;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench fanout
  fanfare bench idle --sessions 10000 --pid $(pgrep -f 'fanfare serve')
  fanfare bench latency --rate 40 --json > latency.json
  fanfare bench storm --sessions 5000 --plot storm.svg

Start a node first: fanfare serve --dev. Measure a release build, with node and load on cores of
their own. Every scenario has its own --help; docs/bench.md says what each figure means.
Exit code 1: something was missing, doubled or out of order.")]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
}

/// Runs one scenario and prints what it found.
///
/// # Errors
/// [`Failure`] when the load could not be run to its end.
pub async fn run(args: BenchArgs) -> Result<Exit, Failure> {
    let common = args.scenario.common().clone();
    let work = LocalSet::new();
    let report = work.run_until(async {
        tokio::select! {
            report = measure(&args.scenario, &common) => report.map(Some),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    });
    let Some(report) = report.await? else {
        return Ok(Exit::Interrupted);
    };
    if let Some(path) = &common.plot {
        plot::write(path, &report)?;
    }
    if common.is_json() {
        output::line(&report.json().to_string());
    } else {
        report.text().iter().for_each(|line| output::line(line));
    }
    Ok(report.exit())
}

async fn measure(scenario: &Scenario, common: &CommonArgs) -> Result<Report, BenchError> {
    let bench = Bench::new(common, scenario.sessions()).await?;
    scenario.run(bench).await
}
