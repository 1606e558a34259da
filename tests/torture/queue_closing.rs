//! The quiet end of the durable queue: everything is moved, and nothing is dead.
//!
//! In: a stage on which nobody writes any more. Out: what each node has of each target, what is left
//! in the queue and among the dead letters, into the history. Bound: [`MOVED_WITHIN`].

use std::time::Duration;

use fanfare_client::http::percent_encode;
use fanfare_protocol::ids::Position;
use serde_json::Value;

use super::app::App;
use super::closing::{page, within};
use super::history::{EntryName, Event};
use super::queue;
use super::queue_backend::TRIES_AFTER_END;
use super::queue_redis::{Told, Wire};
use super::run::Run;
use super::speech::position;
use super::stage::Stage;

/// Longest wait until every writer has ended.
const ENDED_WITHIN: Duration = TRIES_AFTER_END.saturating_add(Duration::from_secs(8));
/// Longest wait until the queue is empty.
const MOVED_WITHIN: Duration = Duration::from_secs(30);
/// Longest wait until nodes say so.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// The topic of the entry that is dead as it comes. Nothing else is for it.
const PLANTED: &str = "queued:planted";

/// See the module.
pub(crate) async fn close(run: &Run, stage: &Stage) {
    if !within(ENDED_WITHIN, async || run.queue_open.get() == 0).await {
        let open = run.queue_open.get();
        run.broken(format!("{open} entries of the queue have no end"));
    }
    plant(run, stage).await;
    let path = "/v1/queue?partitions=true";
    let mut left = Value::Null;
    let is_empty = async || {
        let told = page(stage, 0, App::Default, path).await;
        let partitions = told["partitions"].as_array();
        let holds = |one: &&Value| one["depth"] != 0 || one["delayed"] != 0;
        let some = partitions.map(|all| all.iter().filter(holds).count());
        let is_whole = told.get("failed").is_none();
        left = told;
        some == Some(0) && is_whole
    };
    if !within(MOVED_WITHIN, is_empty).await {
        let what = format!("after {MOVED_WITHIN:?} the queue has {left}");
        run.push(Event::QueueLeft { what });
    }
    for node in 0..stage.nodes_count() {
        let mut told = Value::Null;
        let is_told = async || {
            told = page(stage, node, App::Default, "/v1/queue").await;
            told["depth"] == 0 && told["delayed"] == 0
        };
        if !within(TOLD_WITHIN, is_told).await {
            let what = format!("{} says {told}", stage.seats[node].name);
            run.push(Event::QueueLeft { what });
        }
    }
    for app in [App::Default, App::Other] {
        dead(run, stage, app).await;
    }
    let nodes = (0..stage.nodes_count()).map(|node| retained(run, stage, node));
    futures_util::future::join_all(nodes).await;
}

/// Adds an entry of the other app that is dead as it comes, so that there is a dead letter that the
/// first app must not be shown.
async fn plant(run: &Run, stage: &Stage) {
    let mut wire = Wire::to(&stage.redis_doors, queue::PARTITIONS_COUNT);
    let partition = queue::partition_of(App::Other, PLANTED);
    let (stream, app) = (format!("ff:q:{{{partition}}}:normal"), App::Other.word());
    let words = [
        "XADD",
        &stream,
        "*",
        "app",
        app,
        "topic",
        PLANTED,
        "data",
        "0",
        "expires_at",
        "1",
    ];
    let command = words.map(str::to_owned).to_vec();
    let is_taken = within(TOLD_WITHIN, async || {
        let told = wire.ask(partition, std::slice::from_ref(&command)).await;
        matches!(told.first(), Some(Told::Ok(_)))
    });
    if !is_taken.await {
        run.broken("an entry that is dead as it comes could not be added".to_owned());
    }
}

/// Reads the dead letters of an app: there is that which was planted in the other one, and no more.
async fn dead(run: &Run, stage: &Stage, app: App) {
    let dead = page(stage, 0, app, "/v1/queue/dead?limit=1000").await;
    match dead["letters"].as_array() {
        _ if dead.get("failed").is_some() => {
            run.broken(format!(
                "some partitions do not tell their dead letters: {dead}"
            ));
        }
        Some(letters) => {
            let is_planted = |letter: &&Value| letter.to_string().contains(PLANTED);
            for letter in letters.iter().filter(|letter| !is_planted(letter)) {
                let what = letter.to_string();
                run.push(Event::QueueDead { what });
            }
            let planted = letters.iter().filter(is_planted).count();
            if app == App::Other && planted == 0 {
                run.broken(format!("the other app has no dead letter: {dead}"));
            } else if app != App::Other && planted > 0 {
                let what = format!("a dead letter of the other app is shown: {dead}");
                run.push(Event::BetweenApps { what });
            }
        }
        None => run.broken(format!("there are no dead letters: {dead}")),
    }
}

/// Reads every target through one node.
async fn retained(run: &Run, stage: &Stage, node: usize) {
    for target in App::Default.targets().chain(App::Other.targets()) {
        if let Some(entries) = entries(run, stage, node, target).await {
            let node = stage.seats[node].name.clone();
            run.push(Event::Moved {
                node,
                target,
                entries,
            });
        }
    }
}

/// Reads a target through a node, page by page. `None` when the node does not give it.
async fn entries(
    run: &Run,
    stage: &Stage,
    node: usize,
    target: u16,
) -> Option<Vec<(Position, EntryName)>> {
    let name = percent_encode(&queue::topic(target));
    let mut entries: Vec<(Position, EntryName)> = Vec::new();
    loop {
        let since = entries.last().map_or(Position::ZERO, |(at, _)| *at);
        let path = format!("/v1/topics/{name}/history?limit=1000&since={since}");
        let page = page(stage, node, App::of_target(target), &path).await;
        let Some(messages) = page["publications"].as_array() else {
            let seat = &stage.seats[node].name;
            run.broken(format!("{seat} has no history of {name}: {page}"));
            return None;
        };
        for message in messages {
            match (
                position(message, "position"),
                queue::entry(&message["data"]),
            ) {
                (Some(position), Some(entry)) => entries.push((position, entry)),
                _ => run.broken(format!("a history has {message}")),
            }
        }
        if page["more"] != true {
            return Some(entries);
        }
    }
}
