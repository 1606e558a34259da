//! `storm`: everybody is cut off, and everybody comes back at once with a position.
//!
//! In: a steady load on one topic. Out: how long until all have joined again, how long until each
//! has what it missed, and whether something was missing, doubled or out of order on the way from
//! catching up to live. The load goes on all the while.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fanout::{published_latencies, rates};
use crate::bench::Bench;
use crate::crowd::{Crowd, Openings, Plan};
use crate::error::BenchError;
use crate::load::{Load, Pace, Until};
use crate::options::{FanfareArgs, parse_count, parse_rate, parse_seconds};
use crate::publisher::Published;
use crate::report::Report;
use crate::tally::Tally;

/// How often it is looked whether all have caught up.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Arguments of `storm`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench storm --sessions 5000 --pid 4711
  fanfare bench storm --sessions 1000 --away 10 --rate 50
  fanfare bench storm --secret-env APP_SECRET --plot storm.svg

The topic must keep at least rate times away messages; with --dev every topic keeps 1,000.")]
pub struct StormArgs {
    /// Sessions on the topic
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publications a second
    #[arg(long, default_value = "20", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// How long everybody is away
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = parse_seconds)]
    away: Duration,
    /// How long to publish before, and again from the moment they come back
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: FanfareArgs,
}

/// What the return of all looked like.
struct Return {
    openings: Openings,
    caught_up: Duration,
    published: Published,
}

/// Runs the storm.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &StormArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let mut plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 1);
    plan.comes_back = true;
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let mut load = Load::connect(&bench.target, 1, args.bytes).await?;
    let pace = Pace::PerSecond(args.rate);
    let window = bench.meter.begin()?;

    let line = || format!("{} messages received", tally.received());
    let before = load.run(pace, Until::Time(args.seconds), &tally);
    let mut all = bench.progress.during(line, before).await?;
    // What is still on its way would be cut off with the sockets, and then come again.
    tally
        .until(all.sent * crowd.sessions(), bench.patience)
        .await;
    let live = tally.take_latency();

    crowd.cut().await;
    let away = load.run(pace, Until::Time(args.away), &tally);
    all.add(
        &bench
            .progress
            .during(|| "everybody is away".to_owned(), away)
            .await?,
    );

    crowd.plan.at_once = args.sessions;
    let back = come_back(&mut crowd, &mut load, &bench, args, all.sent).await?;
    all.add(&back.published);
    let expected = all.sent * crowd.sessions();
    tally.until(expected, bench.patience).await;
    let cost = window.end_with(tally.last_at())?;

    let mut report = bench.report("storm", args.sessions);
    report.setting("publications_per_s", args.rate);
    report.setting("away_s", args.away.as_secs_f64());
    report.setting("data_bytes", args.bytes);
    report.counts(tally.counts(all.sent, expected));
    let took = back.openings.took.as_secs_f64();
    report.figure("all_joined_after_s", took);
    report.figure("all_caught_up_after_s", back.caught_up.as_secs_f64());
    report.figure("rejoins_per_s", args.sessions as f64 / took);
    report.figure("dials_tried_again", back.openings.tried_again);
    report.figure("sessions_returned", tally.returned());
    rates(&mut report, &all, tally.received(), &cost);
    report.latency("delivery", live);
    report.latency("delivery_from_return", tally.take_latency());
    report.latency("welcome", back.openings.welcome);
    report.latency("subscribe", back.openings.joined);
    published_latencies(&mut report, all);
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}

/// Opens the crowd again under load; `missed` is the newest number of the time before.
async fn come_back(
    crowd: &mut Crowd,
    load: &mut Load,
    bench: &Bench,
    args: &StormArgs,
    missed: u64,
) -> Result<Return, BenchError> {
    let begin = Instant::now();
    let tally = Rc::clone(&crowd.tally);
    let opening = async {
        let openings = crowd.open(&bench.progress).await?;
        let mut heard = tally.received();
        let mut heard_at = Instant::now();
        while crowd.seen_by_all() < missed && heard_at.elapsed() < bench.patience {
            tokio::time::sleep(LOOK_EVERY).await;
            if tally.received() > heard {
                (heard, heard_at) = (tally.received(), Instant::now());
            }
        }
        Ok::<_, BenchError>((openings, begin.elapsed()))
    };
    let pace = Pace::PerSecond(args.rate);
    let publishing = load.run(pace, Until::Time(args.seconds), &tally);
    let ((openings, caught_up), published) = tokio::try_join!(opening, publishing)?;
    Ok(Return {
        openings,
        caught_up,
        published,
    })
}
