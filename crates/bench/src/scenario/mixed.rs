//! `mixed`: everything at once, each operation timed.
//!
//! In: a steady fan-out, and beside it actors. An actor is a session with a user that goes in
//! circles: join a fresh topic, publish to it and hear its own message, get a message in its
//! inbox, acknowledge it, leave the topic. Out: the latencies of subscribe, publish, ack and
//! delivery. Actors speak JSON through `fanfare-client`; a message that does not come
//! to one within [`PATIENCE`] is missing.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fanfare_client::resuming::{Event, Options, ResumingConnection};
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::fanout::{published_latencies, rates};
use crate::bench::Bench;
use crate::crowd::{Crowd, Plan};
use crate::error::BenchError;
use crate::latency;
use crate::load::{Load, Pace, Until};
use crate::options::{CommonArgs, parse_count, parse_rate, parse_seconds};
use crate::publisher::{Published, Publisher};
use crate::report::Report;
use crate::tally::Tally;
use crate::wire::Destination;

/// Longest wait of an actor for a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one circle of an actor publishes, and is to hear.
const MESSAGES_PER_CIRCLE: u64 = 2;

/// Arguments of `mixed`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  fanfare bench mixed
  fanfare bench mixed --sessions 5000 --rate 20 --actors 50 --circles 2 --pid 4711
  fanfare bench mixed --secret-env APP_SECRET --seconds 60 --json

Every session has its own user: by ?user= on a node started with --dev, else by tokens.")]
pub struct MixedArgs {
    /// Sessions on the topic, beside the actors
    #[arg(long, default_value = "1000", value_name = "N", value_parser = parse_count)]
    pub sessions: usize,
    /// Publications a second on the topic
    #[arg(long, default_value = "20", value_name = "N", value_parser = parse_rate)]
    rate: f64,
    /// Sessions that subscribe, publish and acknowledge
    #[arg(long, default_value = "20", value_name = "N", value_parser = parse_count)]
    pub actors: usize,
    /// Circles a second of each actor
    #[arg(long, default_value = "2", value_name = "N", value_parser = parse_rate)]
    circles: f64,
    /// How long
    #[arg(long, default_value = "30", value_name = "SECONDS", value_parser = parse_seconds)]
    seconds: Duration,
    /// Length of the data of a message
    #[arg(long, default_value = "200", value_name = "N")]
    bytes: usize,
    #[command(flatten)]
    pub(super) shared: CommonArgs,
}

/// What all actors have measured.
struct Acts {
    subscribe: Histogram<u64>,
    unsubscribe: Histogram<u64>,
    publish: Histogram<u64>,
    ack: Histogram<u64>,
    echo: Histogram<u64>,
    inbox: Histogram<u64>,
    circles: u64,
    missing: u64,
}

/// Runs everything.
///
/// # Errors
/// [`BenchError`].
pub async fn run(args: &MixedArgs, bench: Bench) -> Result<Report, BenchError> {
    let tally = Rc::new(Tally::new(bench.begin));
    let plan = Plan::on_topic(args.sessions, bench.at_once, &bench.target.topic, 1);
    let mut crowd = Crowd::new(&bench.target, plan, Rc::clone(&tally))?;
    crowd.open(&bench.progress).await?;
    let mut load = Load::connect(&bench.target, 1, args.bytes).await?;
    let dials = (0..args.actors).map(|index| Actor::connect(args, &bench, index, &tally));
    let mut actors = try_join_all(dials).await?;

    let window = bench.meter.begin()?;
    let acts = RefCell::new(Acts::new());
    let pace = Pace::PerSecond(args.rate);
    let work = async {
        let publishing = load.run(pace, Until::Time(args.seconds), &tally);
        let acting = try_join_all(actors.iter_mut().map(|actor| actor.act(args, &acts)));
        let (published, told) = tokio::try_join!(publishing, acting)?;
        tally
            .until(published.sent * crowd.sessions(), bench.patience)
            .await;
        Ok::<_, BenchError>((published, told))
    };
    let line = || {
        let circles = acts.borrow().circles;
        format!("{} messages received, {circles} circles", tally.received())
    };
    let (mut published, told) = bench.progress.during(line, work).await?;
    let cost = window.end_with(tally.last_at())?;

    let acts = acts.into_inner();
    let mut report = bench.report("mixed", args.sessions);
    report.setting("publications_per_s", args.rate);
    report.setting("actors", args.actors);
    report.setting("circles_per_s", args.circles);
    report.setting("data_bytes", args.bytes);
    let by_actors = acts.circles * MESSAGES_PER_CIRCLE;
    let mut counts = tally.counts(published.sent, published.sent * crowd.sessions());
    counts.sent += by_actors;
    counts.expected += by_actors;
    counts.received += by_actors - acts.missing;
    counts.missing += acts.missing;
    let received = counts.received;
    report.counts(counts);
    told.iter().for_each(|part| published.add(part));
    report.figure("circles", acts.circles);
    rates(&mut report, &published, received, &cost);
    report.latency("subscribe", acts.subscribe);
    report.latency("publish_socket", acts.publish);
    report.latency("ack", acts.ack);
    report.latency("delivery", tally.take_latency());
    report.latency("delivery_echo", acts.echo);
    report.latency("delivery_inbox", acts.inbox);
    report.latency("unsubscribe", acts.unsubscribe);
    published_latencies(&mut report, published);
    report.per_second(tally.per_second());
    report.cost(cost);
    Ok(report)
}

impl Acts {
    fn new() -> Self {
        Self {
            subscribe: latency::histogram(),
            unsubscribe: latency::histogram(),
            publish: latency::histogram(),
            ack: latency::histogram(),
            echo: latency::histogram(),
            inbox: latency::histogram(),
            circles: 0,
            missing: 0,
        }
    }
}

/// A session that does something, and a connection to the API that writes to its inbox.
struct Actor {
    client: ResumingConnection,
    publisher: Publisher,
    user: [String; 1],
    name: String,
    index: usize,
    circles: u64,
    clock: Rc<Tally>,
}

impl Actor {
    async fn connect(
        args: &MixedArgs,
        bench: &Bench,
        index: usize,
        clock: &Rc<Tally>,
    ) -> Result<Self, BenchError> {
        let identity = bench.target.identity(args.sessions + index)?;
        let user = identity.user.unwrap_or_default();
        let is_known_by_token = identity.token.is_some();
        let client = ResumingConnection::connect(Options {
            urls: vec![bench.target.url.clone()],
            token: identity.token.into(),
            user: (!is_known_by_token).then(|| user.clone()),
            ..Options::default()
        });
        Ok(Self {
            client: client.await?,
            publisher: Publisher::connect(&bench.target, index + 1).await?,
            user: [user],
            name: format!("{}-{index}", bench.target.topic),
            index,
            circles: 0,
            clock: Rc::clone(clock),
        })
    }

    /// Goes in circles until the time is over.
    async fn act(
        &mut self,
        args: &MixedArgs,
        acts: &RefCell<Acts>,
    ) -> Result<Published, BenchError> {
        let mut published = Published::default();
        let every = Duration::from_secs_f64(1.0 / args.circles);
        let begin = Instant::now();
        let mut due = begin + every.mul_f64(self.index as f64 / args.actors as f64);
        while due.max(Instant::now()) < begin + args.seconds {
            tokio::time::sleep_until(due.into()).await;
            due += every;
            self.circle(args.bytes, acts, &mut published).await?;
        }
        Ok(published)
    }

    async fn circle(
        &mut self,
        bytes: usize,
        acts: &RefCell<Acts>,
        published: &mut Published,
    ) -> Result<(), BenchError> {
        let topic = format!("{}-{}", self.name, self.circles);
        self.circles += 1;
        let took = self
            .command(json!({"type": "subscribe", "topic": topic}))
            .await?;
        acts.borrow_mut().subscribe.saturating_record(took);

        let begin = Instant::now();
        let data = "x".repeat(bytes);
        let publish = json!({"type": "publish", "topic": topic, "data": data, "echo": true});
        let took = self.command(publish).await?;
        acts.borrow_mut().publish.saturating_record(took);
        match self.message(&topic).await? {
            Some(_) => record(&mut acts.borrow_mut().echo, begin),
            None => acts.borrow_mut().missing += 1,
        }

        let begin = Instant::now();
        let to = Destination::Users(&self.user);
        self.publisher
            .publish(to, bytes, &self.clock, published)
            .await?;
        let inbox = format!("@{}", self.user[0]);
        match self.message(&inbox).await? {
            Some(message) => {
                record(&mut acts.borrow_mut().inbox, begin);
                let ack = json!({"type": "ack", "position": message["position"]});
                let took = self.command(ack).await?;
                acts.borrow_mut().ack.saturating_record(took);
            }
            None => acts.borrow_mut().missing += 1,
        }

        let took = self
            .command(json!({"type": "unsubscribe", "topic": topic}))
            .await?;
        let mut acts = acts.borrow_mut();
        acts.unsubscribe.saturating_record(took);
        acts.circles += 1;
        Ok(())
    }

    /// Sends a command and returns how long its answer took, in microseconds.
    async fn command(&mut self, command: Value) -> Result<u64, BenchError> {
        let begin = Instant::now();
        self.client.command(command).await?;
        Ok(latency::micros(begin.elapsed()))
    }

    /// The next message on a topic, if it comes in time.
    async fn message(&mut self, topic: &str) -> Result<Option<Value>, BenchError> {
        let search = async {
            loop {
                if let Event::Server(event) = self.client.next_event().await?
                    && event["type"] == "message"
                    && event["topic"] == topic
                {
                    return Ok(event);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found.map(Some),
            Err(_elapsed) => Ok(None),
        }
    }
}

fn record(into: &mut Histogram<u64>, begin: Instant) {
    into.saturating_record(latency::micros(begin.elapsed()));
}
