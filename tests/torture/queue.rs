//! The durable queue in a run: its targets, its entries, and who hands them over.
//!
//! In: a rate. Out: writers by the HTTP API ([`super::queue_backend`]) and by `XADD`
//! ([`super::queue_raw`]), each of which numbers what it hands over by target and lane. Targets are
//! of the queue alone, so that what stands in them at the end is what the queue published. Owner:
//! the run's thread.

use std::rc::Rc;
use std::time::Duration;

use fanfare_client::http::percent_encode;
use rand::RngExt;
use rand::rngs::StdRng;
use rustc_hash::FxHashMap;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::app::{App, TARGETS_COUNT};
use super::history::EntryName;
use super::options::Options;
use super::queue_backend::QueueBackend;
use super::queue_checker::DELAYED_FROM;
use super::queue_raw::RawWriter;
use super::run::{DATA_BYTES, Run};
use super::stage::Stage;
use fanfare_testkit::http;

/// The namespace of the queue's topics.
pub(crate) const NAMESPACE: &str = "queued";
/// How many topics there are; as many users' inboxes follow.
const TOPICS_COUNT: u16 = TARGETS_COUNT / 2;
/// The priorities, by lane.
pub(crate) const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];
/// `redis.partitions`, as it is by default.
pub(crate) const PARTITIONS_COUNT: u32 = 256;
/// Writers by the HTTP API, which hand over three quarters of the entries. One more is of the other
/// app, as fast as one of them.
const BACKENDS_COUNT: u32 = 3;
/// Writers by `XADD`.
const RAW_COUNT: u32 = 2;
/// How long the home of a target is asked for.
const HOME_PATIENCE: Duration = Duration::from_secs(1);

/// The topic of a target within its app: one of the namespace, or an inbox.
pub(crate) fn topic(target: u16) -> String {
    let target = target % TARGETS_COUNT;
    if target < TOPICS_COUNT {
        format!("{NAMESPACE}:{target}")
    } else {
        format!("@{NAMESPACE}-{target}")
    }
}

/// The field that names a target, and how it names it.
pub(crate) fn named(target: u16) -> (&'static str, String) {
    let topic = topic(target);
    match topic.strip_prefix('@') {
        Some(user) => ("user", user.to_owned()),
        None => ("topic", topic),
    }
}

/// The partition of a topic of an app, as docs/queue.md says it.
pub(crate) fn partition_of(app: App, topic: &str) -> u32 {
    let name = format!("{}:{topic}", app.word());
    crc32fast::hash(name.as_bytes()) % PARTITIONS_COUNT
}

/// The partition of a target.
pub(crate) fn partition(target: u16) -> u32 {
    partition_of(App::of_target(target), &topic(target))
}

/// The stream of a target and lane.
pub(crate) fn stream(target: u16, lane: usize) -> String {
    format!("ff:q:{{{}}}:{}", partition(target), PRIORITIES[lane])
}

/// The `data` of an entry.
pub(crate) fn data(name: EntryName) -> String {
    format!("q {name} {:.<1$}", "", DATA_BYTES)
}

/// Which entry `data` is.
pub(crate) fn entry(data: &Value) -> Option<EntryName> {
    let mut words = data.as_str()?.split(' ');
    let is_entry = words.next() == Some("q");
    words.next()?.parse().ok().filter(|_| is_entry)
}

/// What one writer has numbered.
#[derive(Debug)]
pub(crate) struct Numbers {
    writer: u16,
    last: FxHashMap<(u16, u8), u32>,
}

impl Numbers {
    /// Those of a writer that nobody else is.
    pub(crate) fn of_new_writer(run: &Run) -> Self {
        let writer = run.queue_writers.get();
        run.queue_writers.set(writer + 1);
        let last = FxHashMap::default();
        Self { writer, last }
    }

    /// The next entry of a target and lane.
    pub(crate) fn next(&mut self, target: u16, lane: u8) -> EntryName {
        let last = self.last.entry((target, lane)).or_default();
        *last += 1;
        EntryName {
            writer: self.writer,
            target,
            lane,
            number: *last,
        }
    }

    /// The next of any target of an app and priority; one of eight is delayed where that is asked for.
    pub(crate) fn any(&mut self, random: &mut StdRng, app: App, may_delay: bool) -> EntryName {
        let delayed = if may_delay && random.random_ratio(1, 8) {
            DELAYED_FROM
        } else {
            0
        };
        let target = random.random_range(app.targets());
        self.next(target, random.random_range(0..4) + delayed)
    }
}

/// The idempotency key of an entry: those of the other app are the keys of the first writer's entries
/// for the targets of the same names.
fn key(name: EntryName) -> String {
    match App::of_target(name.target) {
        App::Default => name.to_string(),
        App::Other | App::Third => {
            let target = name.target % TARGETS_COUNT;
            let writer = 0;
            let twin = EntryName {
                writer,
                target,
                ..name
            };
            twin.to_string()
        }
    }
}

/// The body of an entry for the HTTP API, due after so many milliseconds where it is delayed.
pub(crate) fn body(name: EntryName, due_in_ms: u64) -> Value {
    let (field, target) = named(name.target);
    let mut body = json!({
        field: target,
        "data": data(name),
        "priority": PRIORITIES[usize::from(name.lane % DELAYED_FROM)],
        "idempotency_key": key(name),
    });
    if name.lane >= DELAYED_FROM {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        body["not_before"] = (now.as_millis() as u64 + due_in_ms).into();
    }
    body
}

/// Starts all writers.
pub(crate) fn write(options: &Options, run: &Rc<Run>, stage: &Rc<Stage>) {
    let rate = f64::from(options.queue_rate);
    if rate <= 0.0 {
        return;
    }
    let is_lossy = stage.form.has_replicas() && options.replicas_min == 0;
    let each = |share: f64, count: u32| Duration::from_secs_f64(f64::from(count) / (rate * share));
    let apps = [App::Default; BACKENDS_COUNT as usize].into_iter();
    for (number, app) in (0_u32..).zip(apps.chain([App::Other])) {
        let backend = QueueBackend {
            run: Rc::clone(run),
            stage: Rc::clone(stage),
            app,
            // Now, so that the first has the number that [`key`] takes, and not a writer by `XADD`.
            numbers: Numbers::of_new_writer(run),
            every: each(0.75, BACKENDS_COUNT),
            // By Redis' clock, which may be anything.
            may_delay: options.clocks_behind == 0,
            repeats: !is_lossy,
        };
        tokio::task::spawn_local(backend.write(options.seed ^ u64::from(number) << 40));
    }
    for number in 0..RAW_COUNT {
        let writer = RawWriter::new(run, &stage.redis_doors);
        let seed = options.seed ^ u64::from(number) << 44;
        tokio::task::spawn_local(writer.write(seed, each(0.25, RAW_COUNT)));
    }
}

/// Which node is the home of a target, as the first says that answers.
pub(crate) async fn home(stage: &Stage, target: u16) -> Option<usize> {
    let path = format!("/v1/route?topic={}", percent_encode(&topic(target)));
    for node in 0..stage.nodes_count() {
        let asked = http::try_get(stage.api(node), &path);
        if let Ok(Some(answer)) = timeout(HOME_PATIENCE, asked).await {
            let answer = answer.json();
            let name = answer["node"].as_str().unwrap_or_default();
            let home = stage.seats.iter().position(|seat| seat.name == name);
            if home.is_some() {
                return home;
            }
        }
    }
    None
}
