//! `inbox`: many users with a session each, and messages to their inboxes.
//!
//! In: how many users, how many rounds, how many users one call names. Out: deliveries a second and
//! their cost, where no two sessions of a node share a topic. Each call names its own users, so it
//! is numbered apart.

use std::rc::Rc;

use super::fanout::{published_latencies, rates};
use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::options::{CommonArgs, parse_count};
use crate::publisher::{Published, Publisher};
use crate::report::Report;
use crate::tally::Tally;
use crate::wire::Destination;

/// Arguments of `inbox`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench inbox --sessions 10000 --pid 4711
  fanfare bench inbox --sessions 2000 --rounds 50 --targets 100
  fanfare bench inbox --sessions 2000 --secret-env APP_SECRET --json

Every session has its own user: by ?user= on a node started with --dev, else by tokens.")]
pub struct InboxArgs {
    /// How many users, with a session each
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// How many messages each user gets
    #[arg(long, default_value = "10", value_name = "N", value_parser = parse_count)]
    rounds: usize,
    /// How many users one call names
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    targets: usize,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: CommonArgs,
}

/// Runs the rounds.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &InboxArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let calls = args.sessions.div_ceil(args.targets);
    let mut plan = Plan::on_topic(args.sessions, bench.at_once, "", calls);
    plan.topic = None;
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let users = crowd.users();
    let mut publishers = Vec::with_capacity(calls);
    for index in 0..calls {
        publishers.push(Publisher::connect(&bench.target, index).await?);
    }

    let window = bench.meter.begin()?;
    let expected = (args.rounds * args.sessions) as u64;
    let work = async {
        let mut published = Published::default();
        for _ in 0..args.rounds {
            for (publisher, users) in publishers.iter_mut().zip(users.chunks(args.targets)) {
                let to = Destination::Users(users);
                publisher
                    .publish(to, args.bytes, &tally, &mut published)
                    .await?;
            }
        }
        tally.until(expected, bench.patience).await;
        Ok::<_, BenchError>(published)
    };
    let line = || format!("{} of {expected} messages received", tally.received());
    let published = bench.progress.during(line, work).await?;
    let cost = window.end_with(tally.last_at())?;

    let mut report = bench.report("inbox", args.sessions);
    report.setting("rounds", args.rounds);
    report.setting("targets_per_call", args.targets);
    report.setting("data_bytes", args.bytes);
    report.counts(tally.counts(published.sent, expected));
    report.latency("delivery", tally.take_latency());
    rates(&mut report, &published, tally.received(), &cost);
    published_latencies(&mut report, published);
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}
