//! `idle`: sessions that are open and receive nothing.
//!
//! In: how many, and how long. Out: memory of the server a session, and CPU a session and second
//! while they are held. Memory is what the server's process holds more at the end than before the
//! first session; what a warm server had already taken and given to nobody makes that less.

use std::rc::Rc;
use std::time::Duration;

use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::options::{AnyServerArgs, parse_count, parse_seconds};
use crate::report::Report;
use crate::tally::Tally;

/// Arguments of `idle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench idle --sessions 10000 --seconds 60 --pid 4711
  fanfare bench idle --sessions 10000 --users each --pid 4711
  fanfare bench idle --protocol pusher --url ws://127.0.0.1:6001 --pid 4711

Memory and CPU need --pid. Start the server anew before each run.")]
pub struct IdleArgs {
    /// How many sessions to hold
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// How long to hold them
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    #[command(flatten)]
    pub(super) shared: AnyServerArgs,
}

/// Holds the sessions.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &IdleArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 0);
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    let before_bytes = bench.meter.resident_bytes()?;
    let openings = crowd.open(&bench.progress).await?;
    let window = bench.meter.begin()?;
    let line = || format!("{} sessions held", args.sessions);
    let hold = tokio::time::sleep(args.seconds);
    bench.progress.during(line, hold).await;
    let cost = window.end()?;

    let mut report = bench.report("idle", args.sessions);
    let sessions = args.sessions as f64;
    report.figure("seconds", cost.took.as_secs_f64());
    if let (Some(cpu_us), Some(process)) = (cost.server_cpu_us(), cost.processes.first()) {
        let grown = process.resident_after_bytes as f64 - before_bytes as f64;
        report.figure("server_rss_before_bytes", before_bytes);
        report.figure("server_rss_bytes_per_session", grown / sessions);
        let per_session_s = cpu_us / sessions / cost.took.as_secs_f64();
        report.figure("server_cpu_us_per_session_s", per_session_s);
    } else {
        report.note("give the server's process with --pid to see its memory and CPU");
    }
    report.latency("welcome", openings.welcome);
    report.latency("subscribe", openings.joined);
    report.counts(tally.counts(0, 0));
    report.cost(cost);
    Ok(report)
}
