//! The flags that all scenarios share, and how their values are read.
//!
//! In: the command line. Out: a [`Bench`]: target, meter and progress, ready to run. Bounds: more
//! sessions than files may be open are refused before anything is opened.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::BenchError;
use super::meter::Meter;
use super::progress::Progress;
use super::report::Report;
use super::target::{Target, TargetArgs};
use crate::cli::output::Format;
use crate::config::machine;

/// Files that a load opens beside its sessions: publishers, `/proc`, the runtime.
const FILES_BESIDE: u64 = 200;

/// Flags of every scenario.
#[derive(Debug, Clone, clap::Args)]
pub struct CommonArgs {
    /// How many sessions connect at the same time
    #[arg(long, default_value = "100", value_name = "N", value_parser = parse_count)]
    pub at_once: usize,
    /// How long nothing may come before what is still to come counts as missing
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = parse_seconds)]
    patience: Duration,
    /// Process of the server, whose CPU and memory are reported; may be repeated
    #[arg(long = "pid", value_name = "PID")]
    pids: Vec<u32>,
    /// Write latency and throughput curves to this file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// One JSON object, as in a pipe
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// How to print the report
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    #[command(flatten)]
    target: TargetArgs,
}

impl CommonArgs {
    /// Whether the report is for machines.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json || self.format.is_json()
    }
}

/// What a scenario runs with.
pub struct Bench {
    /// What the load is run against.
    pub target: Target,
    /// What watches the cost.
    pub meter: Meter,
    /// What a person sees meanwhile.
    pub progress: Progress,
    /// How many sessions connect at the same time.
    pub at_once: usize,
    /// How long nothing may come before the rest counts as missing.
    pub patience: Duration,
    /// From when on times are counted.
    pub begin: Instant,
}

impl Bench {
    /// Reads the flags, checks what can be checked, and begins to watch.
    ///
    /// # Errors
    /// [`BenchError`] for flags that do not fit this machine or each other.
    pub async fn new(args: &CommonArgs, sessions: usize) -> Result<Self, BenchError> {
        let limit = machine::file_limit();
        let needed = (sessions as u64).saturating_add(FILES_BESIDE);
        if needed > limit {
            return Err(BenchError::Files {
                sessions,
                needed,
                limit,
            });
        }
        Ok(Self {
            target: Target::new(&args.target).await?,
            meter: Meter::start(&args.pids)?,
            progress: Progress::on_terminal(),
            at_once: args.at_once,
            patience: args.patience,
            begin: Instant::now(),
        })
    }

    /// A report of this target, without figures.
    #[must_use]
    pub fn report(&self, scenario: &'static str, sessions: usize) -> Report {
        let mut report = Report::new(scenario, &self.target.protocol, &self.target.url);
        report.setting("sessions", sessions);
        report
    }
}

/// A whole number from 1 on.
///
/// # Errors
/// A sentence.
pub fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a count is a whole number from 1 on".to_owned()),
    }
}

/// A number above 0.
///
/// # Errors
/// A sentence.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("a rate is a number above 0 and at most 1,000,000, a second".to_owned()),
    }
}

/// Seconds, with places where wanted.
///
/// # Errors
/// A sentence.
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e6 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("seconds are a number above 0 and at most 1,000,000".to_owned()),
    }
}
