//! The scenarios: each its flags, what it does, and what it reports.
//!
//! In: a [`Bench`] that is ready. Out: a [`Report`]. One file per scenario; `fanout` and `latency`
//! are one load with different defaults.

pub mod connect;
pub mod fanout;
pub mod idle;

use super::error::BenchError;
use super::options::{Bench, CommonArgs};
use super::report::Report;

/// Which load to run.
#[derive(Debug, clap::Subcommand)]
pub enum Scenario {
    /// Open sessions: how fast, and at what cost
    Connect(connect::ConnectArgs),
    /// Hold sessions that receive nothing: memory and CPU
    Idle(idle::IdleArgs),
    /// One topic, many sessions, as fast as publishers are answered
    Fanout(fanout::FanoutArgs),
    /// One topic at a steady pace: how long from publishing to receiving
    Latency(fanout::LatencyArgs),
}

impl Scenario {
    /// The flags that all scenarios share.
    #[must_use]
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Connect(args) => &args.common,
            Self::Idle(args) => &args.common,
            Self::Fanout(args) => &args.common,
            Self::Latency(args) => &args.common,
        }
    }

    /// How many sockets will be open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        match self {
            Self::Connect(args) => args.sessions,
            Self::Idle(args) => args.sessions,
            Self::Fanout(args) => args.sessions,
            Self::Latency(args) => args.sessions,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`BenchError`] when it could not be run to its end.
    pub async fn run(&self, bench: Bench) -> Result<Report, BenchError> {
        match self {
            Self::Connect(args) => connect::run(args, bench).await,
            Self::Idle(args) => idle::run(args, bench).await,
            Self::Fanout(args) => fanout::run("fanout", &args.shape(), bench).await,
            Self::Latency(args) => fanout::run("latency", &args.shape(), bench).await,
        }
    }
}
