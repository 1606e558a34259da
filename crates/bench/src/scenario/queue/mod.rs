//! `queue`: lists of messages to inboxes by `POST /v1/queue`, and the same by `POST /v1/batch`.
//!
//! In: how many users, how long lists are, four priorities in parts, a pace or a backlog. Out: messages
//! a second to the sockets, what one costs servers and Redis, and for each priority how long messages
//! waited from the answer on, and for how long nothing of it moved. With `--via both` the ways take
//! turns over the same sessions, and who begins changes. A stretch ends when everything has come.

mod found;

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use self::found::Found;
use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::feeder::{Feed, Feeder, Pace, Shared};
use crate::lanes::{Counts, LANES_COUNT, Lanes};
use crate::load::Until;
use crate::options::{CommonArgs, parse_count, parse_rate, parse_seconds};
use crate::publisher::Published;
use crate::report::Report;
use crate::tally::Tally;

/// Messages of each feeder before the measurement, each way.
const WARM_UP_COUNT: u64 = 500;
/// Most messages of a list, as nodes take them unless told otherwise.
const LIST_MAX: usize = 1_000;

/// Arguments of `queue`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench queue
  fanfare bench queue --seconds 60 --pid $(pgrep -f 'fanfare serve') --pid $(pgrep redis-server)
  fanfare bench queue --via both --turns 3 --seconds 10 --json
  fanfare bench queue --rate 5000 --list 100 --seconds 30
  fanfare bench queue --backlog 20000

Every session has its own user: by ?user= on a node started with --dev, else by tokens. What a
process called redis or valkey uses is told apart from what servers use.")]
pub struct QueueArgs {
    /// How many users, with a session each
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Messages of a list, each to another inbox: a number, or from one to another
    #[arg(long, default_value = "100-1000", value_name = "N[-N]", value_parser = parse_lengths)]
    list: RangeInclusive<usize>,
    /// Parts of critical, high, normal and low
    #[arg(long, default_value = "10,20,40,30", value_name = "N,N,N,N", value_parser = parse_parts)]
    parts: Counts,
    /// Who posts lists, each with users of its own and waiting for its answers
    #[arg(long, default_value = "2", value_name = "N", value_parser = parse_count)]
    feeders: usize,
    /// Messages a second, all together, instead of as fast as they are taken
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Messages that may be on their way to sessions before feeders wait
    #[arg(long, default_value = "5000", value_name = "N", value_parser = parse_count,
        conflicts_with = "rate")]
    ahead: usize,
    /// Post so many without waiting for sessions, and see how they are worked off
    #[arg(long, value_name = "N", value_parser = parse_count,
        conflicts_with_all = ["rate", "ahead", "seconds"])]
    backlog: Option<usize>,
    /// How long to post, each way and turn
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Which way lists go
    #[arg(long, value_enum, default_value = "queue")]
    via: Via,
    /// How often each way has its turn
    #[arg(long, default_value = "1", value_name = "N", value_parser = parse_count)]
    turns: usize,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: CommonArgs,
}

/// Which way lists go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Via {
    /// The durable queue
    Queue,
    /// Direct publications
    Batch,
    /// Both, by turns
    Both,
}

impl Via {
    /// The ways that these are, the queue first.
    fn ways(self) -> &'static [usize] {
        match self {
            Self::Queue => &[0],
            Self::Batch => &[1],
            Self::Both => &[0, 1],
        }
    }
}

/// The paths of the ways.
const PATHS: [&str; 2] = ["/v1/queue", "/v1/batch"];

/// What runs stretches.
struct Stage<'a> {
    bench: &'a Bench,
    shared: Shared,
    feeders: Vec<Feeder>,
}

/// Runs the stretches.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &QueueArgs, bench: Bench) -> Result<Report, BenchError> {
    let lanes = Rc::new(Lanes::default());
    let tally = Rc::new(Tally::with_lanes(bench.begin, Rc::clone(&lanes)));
    let mut plan = Plan::on_topic(args.sessions, bench.at_once, "", LANES_COUNT);
    plan.topic = None;
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let users = crowd.users();
    let each = users.len().div_ceil(args.feeders);
    let mut feeders = Vec::new();
    for (index, users) in users.chunks(each).enumerate() {
        feeders.push(Feeder::connect(&bench.target, index, users.to_vec()).await?);
    }
    let mut stage = Stage {
        bench: &bench,
        shared: Shared {
            tally,
            lanes,
            begun: Cell::new(0),
        },
        feeders,
    };
    let ways = args.via.ways();
    for way in ways {
        let warm_up = Feed {
            pace: Pace::Ahead(WARM_UP_COUNT),
            until: Until::Count(WARM_UP_COUNT * stage.feeders.len() as u64),
            ..args.feed(*way, &bench)
        };
        stage.stretch(&warm_up).await?;
    }
    let mut found = [Found::default(), Found::default()];
    let window = bench.meter.begin()?;
    for turn in 0..args.turns {
        let mut order = ways.to_vec();
        if turn % 2 == 1 {
            order.reverse();
        }
        for way in order {
            let feed = args.feed(way, &bench);
            let one = stage.stretch(&feed).await?;
            found[way].add(&one);
        }
    }
    let cost = window.end_with(stage.shared.tally.last_at())?;
    let mut report = bench.report("queue", args.sessions);
    args.describe(&mut report);
    let sent = stage.shared.begun.get();
    report.counts(stage.shared.tally.counts(sent, sent));
    for (way, one) in found.iter().enumerate() {
        one.tell(way, &mut report);
    }
    found::beside(&found, &mut report);
    report.per_second(stage.shared.tally.per_second());
    report.cost(cost);
    Ok(report)
}

impl QueueArgs {
    /// What feeders are to do by this way.
    fn feed(&self, way: usize, bench: &Bench) -> Feed {
        let (pace, until) = match (self.backlog, self.rate) {
            (Some(count), _) => (Pace::AtOnce, Until::Count(count as u64)),
            (None, Some(rate)) => (Pace::PerSecond(rate), Until::Time(self.seconds)),
            (None, None) => (Pace::Ahead(self.ahead as u64), Until::Time(self.seconds)),
        };
        Feed {
            path: PATHS[way],
            lengths: self.list.clone(),
            parts: self.parts,
            bytes: self.bytes,
            pace,
            until,
            patience: bench.patience,
        }
    }

    fn describe(&self, report: &mut Report) {
        let (from, to) = (self.list.start(), self.list.end());
        report.setting("list", format!("{from}-{to}"));
        report.setting("parts", self.parts.to_vec());
        report.setting("feeders", self.feeders);
        report.setting("data_bytes", self.bytes);
        report.setting("turns", self.turns);
        match (self.backlog, self.rate) {
            (Some(count), _) => report.setting("backlog", count),
            (None, Some(rate)) => report.setting("entries_per_s", rate),
            (None, None) => report.setting("ahead", self.ahead),
        }
    }
}

/// `N`, or `N-N`.
fn parse_lengths(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if 0 < from && from <= to && to <= LIST_MAX => Ok(from..=to),
        _ => Err(format!(
            "the length of a list is a number from 1 to {LIST_MAX}, or two of them as in 100-1000"
        )),
    }
}

/// Four numbers.
fn parse_parts(text: &str) -> Result<Counts, String> {
    let wrong = || "parts are four whole numbers, as in 10,20,40,30, not all 0".to_owned();
    let parts: Vec<u32> = text
        .split(',')
        .map(|part| part.trim().parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    let parts: [u32; LANES_COUNT] = parts.try_into().map_err(|_| wrong())?;
    match parts.iter().any(|part| *part > 0) {
        true => Ok(parts.map(u64::from)),
        false => Err(wrong()),
    }
}

impl Stage<'_> {
    /// Posts, and waits until everything has come.
    async fn stretch(&mut self, feed: &Feed) -> Result<Found, BenchError> {
        let Self {
            bench,
            shared,
            feeders,
        } = self;
        let tally = &shared.tally;
        drop(shared.lanes.take());
        let received = tally.received();
        let (begin, cpu) = (Instant::now(), bench.meter.cpu()?);
        let count = feeders.len();
        let work = async {
            let works = feeders.iter_mut();
            let works = works.map(|feeder| feeder.run(feed, count, shared));
            let mut published = Published::default();
            for part in try_join_all(works).await? {
                published.add(&part);
            }
            let posted = begin.elapsed();
            tally.until(shared.begun.get(), feed.patience).await;
            Ok::<_, BenchError>((published, posted))
        };
        let line = || format!("{} messages received by {}", tally.received(), feed.path);
        let (published, posted) = bench.progress.during(line, work).await?;
        let took = tally.last_at().saturating_duration_since(begin);
        let cpu = found::spent(&cpu, &bench.meter.cpu()?);
        let (lanes, waiting_max) = shared.lanes.take();
        Ok(Found {
            published,
            received: tally.received() - received,
            posted,
            took: took.max(Duration::from_micros(1)),
            cpu,
            lanes,
            waiting_max,
        })
    }
}
