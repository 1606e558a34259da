//! `soak`: a constant load for a long time, and whether memory grows under it.
//!
//! In: a load on one topic, and how often to look. Out: the server's memory over time as a straight
//! line through its later samples, in bytes a minute, and a verdict. The first quarter is left out:
//! a server that has just started fills what it keeps anyway.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fanout::{published_latencies, rates};
use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::load::{Load, Pace, Until};
use crate::options::{AnyServerArgs, parse_count, parse_rate, parse_seconds};
use crate::report::Report;
use crate::tally::Tally;

/// Fewer samples after the first quarter say nothing.
const SAMPLES_MIN: usize = 12;
/// A shorter run says nothing, however often it was looked.
const SECONDS_MIN: f64 = 300.0;
/// Growth that adds more than this share of all memory in an hour is suspected to be a leak.
const GROWTH_PER_HOUR_MAX: f64 = 0.1;

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench soak --seconds 3600 --pid 4711
  fanfare bench soak --sessions 5000 --rate 20 --seconds 28800 --pid 4711 --json
  fanfare bench soak --seconds 600 --every 5 --pid 4711 --plot soak.svg

The verdict needs --pid and five minutes.")]
pub struct SoakArgs {
    /// Sessions on the topic
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publications a second
    #[arg(long, default_value = "20", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// How long
    #[arg(long, default_value = "600", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// How often to look at the memory
    #[arg(long, default_value = "5", value_name = "SECONDS", value_parser = parse_seconds)]
    every: Duration,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: AnyServerArgs,
}

/// Memory at a time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    seconds: f64,
    bytes: f64,
}

/// Runs the load.
///
/// # Errors
/// [`BenchError`], also when the server's process ends meanwhile.
pub async fn run(args: &SoakArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 1);
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let mut load = Load::connect(&bench.target, 1, args.bytes).await?;
    let window = bench.meter.begin()?;
    let samples = RefCell::new(Vec::new());
    let begin = Instant::now();
    let sampling = async {
        while bench.meter.has_server() && begin.elapsed() < args.seconds {
            samples.borrow_mut().push(Sample {
                seconds: begin.elapsed().as_secs_f64(),
                bytes: bench.meter.resident_bytes()? as f64,
            });
            tokio::time::sleep(args.every.min(args.seconds)).await;
        }
        Ok::<_, BenchError>(())
    };
    let pace = Pace::PerSecond(args.rate);
    let publishing = load.run(pace, Until::Time(args.seconds), &tally);
    let line = || {
        let last = samples.borrow().last().map_or(0.0, |s: &Sample| s.bytes);
        format!(
            "{} of {} s, {} messages received, {:.1} MiB",
            begin.elapsed().as_secs(),
            args.seconds.as_secs(),
            tally.received(),
            last / f64::from(1 << 20)
        )
    };
    let work = async { tokio::try_join!(publishing, sampling) };
    let (published, ()) = bench.progress.during(line, work).await?;
    let expected = published.sent * crowd.sessions();
    tally.until(expected, bench.patience).await;
    let cost = window.end_with(tally.last_at())?;

    let mut report = bench.report("soak", args.sessions);
    report.setting("publications_per_s", args.rate);
    report.setting("data_bytes", args.bytes);
    report.counts(tally.counts(published.sent, expected));
    report.latency("delivery", tally.take_latency());
    rates(&mut report, &published, tally.received(), &cost);
    published_latencies(&mut report, published);
    tell_growth(&mut report, &samples.borrow());
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}

fn tell_growth(report: &mut Report, samples: &[Sample]) {
    let settled = &samples[samples.len() / 4..];
    report.figure("memory_samples", samples.len());
    let (verdict, per_minute) = verdict(settled);
    report.figure("memory_growth_bytes_per_minute", per_minute);
    report.figure("leak", verdict);
    report.note(match verdict {
        "suspected" => "LEAK SUSPECTED: the server's memory grows by more than a tenth in an hour",
        "none" => "no leak: the server's memory stands still, as far as so long a run can tell",
        _ => "too short for a verdict about memory: it needs --pid and five minutes",
    });
}

/// `none`, `suspected` or `too_short`, and the growth in bytes a minute.
fn verdict(samples: &[Sample]) -> (&'static str, f64) {
    let growth_per_s = slope(samples);
    let seconds = match samples {
        [first, .., last] => last.seconds - first.seconds,
        _ => 0.0,
    };
    let mean = samples.iter().map(|s| s.bytes).sum::<f64>() / samples.len().max(1) as f64;
    let verdict = if samples.len() < SAMPLES_MIN || seconds < SECONDS_MIN * 0.7 {
        "too_short"
    } else if growth_per_s * 3_600.0 > mean * GROWTH_PER_HOUR_MAX {
        "suspected"
    } else {
        "none"
    };
    (verdict, growth_per_s * 60.0)
}

/// Of the straight line with the least squares, in bytes a second; 0 through less than two points.
fn slope(samples: &[Sample]) -> f64 {
    let count = samples.len().max(1) as f64;
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (middle_s, middle_bytes) = (mean(|s| s.seconds), mean(|s| s.bytes));
    let (mut above, mut below) = (0.0, 0.0);
    for sample in samples {
        let off = sample.seconds - middle_s;
        above += off * (sample.bytes - middle_bytes);
        below += off * off;
    }
    if below == 0.0 { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes of a process that grows so much a second, and breathes.
    fn samples(growth: f64) -> Vec<Sample> {
        let at = |index: u32| {
            let seconds = f64::from(index) * 5.0;
            let breath = if index.is_multiple_of(2) {
                200_000.0
            } else {
                0.0
            };
            Sample {
                seconds,
                bytes: 50e6 + growth * seconds + breath,
            }
        };
        (0..120).map(at).collect()
    }

    #[test]
    fn steady_growth_is_suspected_and_breathing_is_not() {
        assert_eq!(verdict(&samples(0.0)).0, "none");
        let (word, per_minute) = verdict(&samples(10_000.0));
        assert_eq!(word, "suspected");
        assert!((per_minute - 600_000.0).abs() < 10_000.0, "{per_minute}");
    }

    #[test]
    fn a_short_run_has_no_verdict() {
        assert_eq!(verdict(&samples(10_000.0)[..20]).0, "too_short");
        assert_eq!(verdict(&[]), ("too_short", 0.0));
    }
}
