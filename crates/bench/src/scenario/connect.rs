//! `connect`: opens sessions, and says how fast that went and what it cost.
//!
//! In: how many, and at most how many a second. Out: sessions a second, the time to the welcome,
//! CPU a session. Where not asked otherwise each session also joins the topic.

use std::rc::Rc;

use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::options::{AnyServerArgs, parse_count, parse_rate};
use crate::report::Report;
use crate::tally::Tally;

/// Arguments of `connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench connect --sessions 5000
  fanfare bench connect --sessions 5000 --at-once 500 --secret-env APP_SECRET --pid 4711
  fanfare bench connect --sessions 2000 --rate 200 --welcome-only --json")]
pub struct ConnectArgs {
    /// How many sessions to open
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Begin at most so many a second
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Join no topic
    #[arg(long)]
    welcome_only: bool,
    #[command(flatten)]
    pub(super) shared: AnyServerArgs,
}

/// Opens the sessions.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &ConnectArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let mut plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 0);
    plan.per_s = args.rate;
    if args.welcome_only {
        plan.topic = None;
    }
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    let window = bench.meter.begin()?;
    let openings = crowd.open(&bench.progress).await?;
    let cost = window.end()?;

    let mut report = bench.report("connect", args.sessions);
    report.setting("at_once", bench.at_once);
    let seconds = openings.took.as_secs_f64();
    report.figure("seconds", seconds);
    report.figure("connects_per_s", args.sessions as f64 / seconds);
    if let Some(cpu_us) = cost.server_cpu_us() {
        report.figure("server_cpu_us_per_connect", cpu_us / args.sessions as f64);
    }
    if let Some(bytes) = cost.server_growth_bytes() {
        report.figure("server_rss_bytes_per_session", bytes / args.sessions as f64);
    }
    report.latency("welcome", openings.welcome);
    report.latency("subscribe", openings.joined);
    report.cost(cost);
    Ok(report)
}
