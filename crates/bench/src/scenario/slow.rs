//! `slow`: one reader stops reading; the others must not notice, and it must get everything.
//!
//! In: a steady load on one topic, run twice. Out: the latencies of the others without and with a
//! reader that stalls, and what the stalled one got once it read again: by itself or, where the
//! server ended it, by coming back with its position. Its socket is narrow, so that what it does
//! not read waits at the server and not in the kernel.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fanout::{published_latencies, rates};
use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::load::{Load, Pace, Until};
use crate::options::{FanfareArgs, parse_count, parse_rate, parse_seconds};
use crate::report::Report;
use crate::session::Stall;
use crate::tally::{Counts, Tally};

/// Arguments of `slow`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench slow
  fanfare bench slow --sessions 1000 --rate 40 --seconds 20 --bytes 4000 --pid 4711
  fanfare bench slow --secret-env APP_SECRET --json

The topic must keep at least rate times seconds messages; with --dev every topic keeps 1,000.")]
pub struct SlowArgs {
    /// Sessions on the topic beside the slow one
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publications a second
    #[arg(long, default_value = "40", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// How long to publish before the stall, and how long it lasts
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Length of the data of a message
    #[arg(long, default_value = "4000", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: FanfareArgs,
}

/// Runs both loads.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &SlowArgs, bench: Bench) -> Result<Report, BenchError> {
    let new_tally = || Rc::new(Tally::new(bench.begin));
    let tally = new_tally();
    let plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 1);
    let mut others = Crowd::new(&bench.target, plan.clone(), Rc::clone(&tally))?;
    others.open(&bench.progress).await?;
    let mut load = Load::connect(&bench.target, 1, args.bytes).await?;
    let (pace, until) = (Pace::PerSecond(args.rate), Until::Time(args.seconds));
    let window = bench.meter.begin()?;

    let line = || format!("without a stall: {} messages", tally.received());
    let before = load.run(pace, until, &tally);
    let mut all = bench.progress.during(line, before).await?;
    tally
        .until(all.sent * others.sessions(), bench.patience)
        .await;
    let without = tally.take_latency();

    let stall = Rc::new(Stall::default());
    let mut slow = Crowd::new(&bench.target, slow_plan(plan, &stall), new_tally())?;
    // Only now, because the kernel holds more for a connection that has taken much before.
    slow.open(&bench.progress).await?;
    stall.begin();
    let line = || format!("with a stalled reader: {} messages", tally.received());
    let during = load.run(pace, until, &tally);
    let during = bench.progress.during(line, during).await?;
    let for_slow = during.sent;
    all.add(&during);
    tally
        .until(all.sent * others.sessions(), bench.patience)
        .await;
    let with = tally.take_latency();
    let held = for_slow.saturating_sub(slow.tally.received());

    stall.end();
    let begin = Instant::now();
    slow.tally.until(for_slow, bench.patience).await;
    let caught_up = begin.elapsed();
    let cost = window.end_with(tally.last_at())?;

    let mut report = bench.report("slow", args.sessions);
    report.setting("publications_per_s", args.rate);
    report.setting("stall_s", args.seconds.as_secs_f64());
    report.setting("data_bytes", args.bytes);
    let of_slow = slow.tally.counts(for_slow, for_slow);
    report.figure("p99_without_us", without.value_at_quantile(0.99));
    report.figure("p99_with_us", with.value_at_quantile(0.99));
    report.figure("slow_unread_at_end_of_stall", held);
    report.figure("slow_caught_up_after_s", caught_up.as_secs_f64());
    report.figure("slow_returned", slow.tally.returned());
    report.figure("slow_received", of_slow.received);
    report.figure("slow_missing", of_slow.missing);
    report.figure("slow_doubled", of_slow.doubled);
    report.figure("slow_reordered", of_slow.reordered);
    let of_others = tally.counts(all.sent, all.sent * others.sessions());
    report.counts(together(of_others, &of_slow));
    report.latency("delivery", without);
    report.latency("delivery_beside_stall", with);
    rates(&mut report, &all, tally.received(), &cost);
    published_latencies(&mut report, all);
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}

/// One session more on the same topic, which can be told to stop reading.
fn slow_plan(others: Plan, stall: &Rc<Stall>) -> Plan {
    Plan {
        first: others.sessions,
        sessions: 1,
        comes_back: true,
        is_narrow: true,
        stall: Some(Rc::clone(stall)),
        ..others
    }
}

/// The counts of the others with those of the slow one.
fn together(others: Counts, slow: &Counts) -> Counts {
    Counts {
        sent: others.sent,
        expected: others.expected + slow.expected,
        received: others.received + slow.received,
        missing: others.missing + slow.missing,
        doubled: others.doubled + slow.doubled,
        reordered: others.reordered + slow.reordered,
        gaps_told: others.gaps_told + slow.gaps_told,
        sessions_ended: others.sessions_ended + slow.sessions_ended,
        first_end: others.first_end.or_else(|| slow.first_end.clone()),
    }
}
