//! `fanout` and `latency`: one topic, many sessions.
//!
//! In: how many publish, and at which pace. Out: deliveries a second, latencies, cost a delivery.
//! What comes before the measurement (the warm-up) is checked too, but neither timed nor counted
//! as cost. A load ends when everything has come, or nothing has for `--patience`.

use std::rc::Rc;
use std::time::Duration;

use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::load::{Ahead, Load, Pace, Until};
use crate::meter::Cost;
use crate::options::{AnyServerArgs, parse_count, parse_rate, parse_seconds};
use crate::publisher::Published;
use crate::report::Report;
use crate::tally::Tally;

/// Publications before the measurement, all publishers together.
const WARM_UP_COUNT: u64 = 20;

/// Arguments of `fanout`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench fanout --sessions 1000
  fanfare bench fanout --sessions 1000 --publishers 8 --seconds 30
  fanfare bench fanout --sessions 5000 --publications 2000 --pid 4711 --json
  fanfare bench fanout --ahead 1
  fanfare bench fanout --rate 40
  fanfare bench fanout --protocol centrifugo --url ws://127.0.0.1:8000 \\
      --api-url http://127.0.0.1:8000 --api-key KEY")]
pub struct FanoutArgs {
    /// Sessions on the topic
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publishers, each waiting for its answers
    #[arg(long, default_value = "1", value_name = "N", value_parser = parse_count)]
    publishers: usize,
    /// Publications a second, all together, instead of as fast as they are answered
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Publications that may be on their way to sessions before publishers wait; 1 is one at a
    /// time
    #[arg(long, default_value = "100", value_name = "N", value_parser = parse_count,
        conflicts_with = "rate")]
    ahead: usize,
    /// How long to publish
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Publish so many, however long it takes
    #[arg(long, value_name = "N", value_parser = parse_count, conflicts_with = "seconds")]
    publications: Option<usize>,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: AnyServerArgs,
}

impl FanoutArgs {
    /// The load that these ask for.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            sessions: self.sessions,
            publishers: self.publishers,
            rate: self.rate,
            ahead: self.ahead,
            until: self
                .publications
                .map_or(Until::Time(self.seconds), |count| {
                    Until::Count(count as u64)
                }),
            bytes: self.bytes,
        }
    }
}

/// Arguments of `latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench latency
  fanfare bench latency --sessions 1000 --rate 40 --seconds 60 --plot latency.svg
  fanfare bench latency --encoding msgpack --bytes 1000 --json
  fanfare bench latency --protocol socketio --url ws://127.0.0.1:3000 \\
      --api-url http://127.0.0.1:3000")]
pub struct LatencyArgs {
    /// Sessions on the topic
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publications a second
    #[arg(long, default_value = "40", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// How long to publish
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: AnyServerArgs,
}

impl LatencyArgs {
    /// The load that these ask for.
    #[must_use]
    pub fn shape(&self) -> Shape {
        Shape {
            sessions: self.sessions,
            publishers: 1,
            rate: Some(self.rate),
            ahead: 1,
            until: Until::Time(self.seconds),
            bytes: self.bytes,
        }
    }
}

/// A load on one topic.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    sessions: usize,
    publishers: usize,
    rate: Option<f64>,
    ahead: usize,
    until: Until,
    bytes: usize,
}

/// Runs the load.
///
/// # Errors
/// [`BenchError`].
pub async fn run(
    scenario: &'static str,
    shape: &Shape,
    bench: Bench,
) -> Result<Report, BenchError> {
    let Shape {
        sessions,
        publishers,
        ..
    } = *shape;
    let tally = Rc::new(Tally::new(bench.begin));
    let plan = Plan::on_topic(sessions, bench.at_once, &bench.target.topic, publishers);
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let mut load = Load::connect(&bench.target, publishers, shape.bytes).await?;

    let waiting = Pace::Waiting(Ahead {
        publications: shape.ahead as u64,
        sessions: crowd.sessions(),
        patience: bench.patience,
    });
    let warm_up = Until::Count(WARM_UP_COUNT.max(publishers as u64));
    let mut all = load.run(waiting, warm_up, &tally).await?;
    tally
        .until(all.sent * crowd.sessions(), bench.patience)
        .await;
    let before = tally.received();
    drop(tally.take_latency());

    let pace = shape.rate.map_or(waiting, Pace::PerSecond);
    let window = bench.meter.begin()?;
    let expected = |sent| sent * crowd.sessions();
    let work = async {
        let published = load.run(pace, shape.until, &tally).await?;
        tally
            .until(expected(all.sent + published.sent), bench.patience)
            .await;
        Ok::<_, BenchError>(published)
    };
    let line = || format!("{} messages received", tally.received());
    let published = bench.progress.during(line, work).await?;
    let cost = window.end_with(tally.last_at())?;
    let received = tally.received() - before;
    all.add(&published);

    let mut report = bench.report(scenario, sessions);
    describe(&mut report, shape);
    report.counts(tally.counts(all.sent, expected(all.sent)));
    report.latency("delivery", tally.take_latency());
    rates(&mut report, &published, received, &cost);
    published_latencies(&mut report, published);
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}

fn describe(report: &mut Report, shape: &Shape) {
    report.setting("publishers", shape.publishers);
    report.setting("data_bytes", shape.bytes);
    match shape.rate {
        None => report.setting("ahead", shape.ahead),
        Some(rate) => report.setting("publications_per_s", rate),
    }
}

/// What was published and delivered in a second, and what one delivery cost.
pub fn rates(report: &mut Report, published: &Published, received: u64, cost: &Cost) {
    let seconds = cost.took.as_secs_f64();
    report.figure("seconds", seconds);
    report.figure("publications_per_s", published.sent as f64 / seconds);
    report.figure("publications_repeated", published.repeated);
    report.figure("deliveries_per_s", received as f64 / seconds);
    if let (Some(cpu_us), true) = (cost.server_cpu_us(), received > 0) {
        report.figure("server_cpu_us_per_delivery", cpu_us / received as f64);
        report.figure("server_cpu_share", cpu_us / 1e6 / seconds);
    }
}

/// How long answers took, and how late paced publications were.
pub fn published_latencies(report: &mut Report, published: Published) {
    report.latency("publish", published.answer);
    if !published.late.is_empty() {
        report.latency("publish_late", published.late);
    }
}
