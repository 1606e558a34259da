//! The load generator of `fanfare bench`: load for a node, or for one of its peers, and a report
//! that can be checked.
//!
//! In: flags, one scenario. Out: a [`Report`]. Every message carries its publisher, number and
//! time, so that what is missing, doubled or out of order is counted and not assumed. One thread, on
//! a runtime that ends with the load: so the generator's own share is one core at most, and it says
//! when that was the limit. It knows nothing of the server's code: what it believes of a node it has
//! from the wire.

pub mod bench;
pub mod class;
pub mod crowd;
pub mod error;
pub mod feeder;
pub mod frames;
pub mod lanes;
pub mod latency;
pub mod load;
pub mod mark;
pub mod meter;
pub mod options;
pub mod plot;
pub mod process;
pub mod progress;
pub mod provided;
pub mod publisher;
pub mod report;
pub mod scenario;
pub mod session;
pub mod socket;
pub mod tally;
pub mod target;
pub mod wire;

use tokio::task::LocalSet;

use self::bench::Bench;
use self::error::BenchError;
use self::provided::Provided;
use self::report::Report;
use self::scenario::Scenario;

/// Runs one scenario, and draws its curves where that was asked for.
///
/// # Errors
/// [`BenchError`] when the load could not be run to its end.
///
/// # Cancel safety
/// Dropped in the middle, the load ends with all its sessions, and there is no report.
pub async fn run(scenario: &Scenario, provided: Provided) -> Result<Report, BenchError> {
    let flags = scenario.flags();
    let work = LocalSet::new();
    let load = async {
        let bench = Bench::new(flags, scenario.sessions(), provided).await?;
        scenario.run(bench).await
    };
    let report = work.run_until(load).await?;
    if let Some(path) = &flags.common.plot {
        plot::write(path, &report)?;
    }
    Ok(report)
}
