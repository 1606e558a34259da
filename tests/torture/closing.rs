//! The quiet end of a run: everybody comes back to the head, and every node is asked for all it
//! has.
//!
//! In: the stage and the crowd when nothing is published any more. Out: each node's history of
//! each topic and its members, into the history. Bound: [`PATIENCE`] for each step; what is not
//! right by then is recorded as it is.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fanfare_client::http::percent_encode;
use fanfare_protocol::ids::Position;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::app::App;
use super::calls;
use super::client::Client;
use super::history::{Event, Id, TopicIndex};
use super::lists;
use super::run::Run;
use super::speech::{identity, position};
use super::stage::Stage;

/// For each step. A member that a dead node left may be shown for the length of its lease.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends a run: see the module. `topics` are those that have members.
pub(crate) async fn close(
    run: &Rc<Run>,
    stage: &Rc<Stage>,
    crowd: &[Rc<Client>],
    topics: &[TopicIndex],
) {
    run.is_over.set(true);
    run.say("quiet: no new publications");
    if !within(PATIENCE, async || run.open_publications.get() == 0).await {
        let open = run.open_publications.get();
        run.broken(format!("{open} publications have no end"));
    }
    for client in crowd {
        client.orders.send_modify(|orders| orders.drops += 1);
    }
    // The drop takes effect before the first look at who is there.
    sleep(LOOK_EVERY).await;
    if !within(PATIENCE, async || {
        crowd.iter().all(|client| client.member().is_some())
    })
    .await
    {
        let out = crowd.iter().filter(|client| client.member().is_none());
        let out: Vec<_> = out.map(|client| client.number).collect();
        run.broken(format!("clients {out:?} could not come back"));
    }
    let heads = retained(run, stage).await;
    let is_at_head = |client: &Rc<Client>| {
        let slots = client.slots.borrow();
        let mut slots = slots.iter();
        slots.all(|slot| heads[slot.topic as usize].is_none_or(|head| slot.last >= head))
    };
    if !within(PATIENCE, async || crowd.iter().all(is_at_head)).await {
        run.say("some clients did not come to the head");
    }
    let looks = topics
        .iter()
        .map(|topic| members(run, stage, crowd, *topic));
    futures_util::future::join_all(looks).await;
    lists::judge(run, stage, crowd).await;
    for client in crowd {
        client.orders.send_modify(|orders| orders.is_over = true);
    }
}

/// Looks until it is so, or so much time is over.
pub(crate) async fn within(patience: Duration, mut look: impl AsyncFnMut() -> bool) -> bool {
    let looking = async {
        while !look().await {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout(patience, looking).await.is_ok()
}

/// Reads every topic through every node; the newest position of each.
async fn retained(run: &Rc<Run>, stage: &Rc<Stage>) -> Vec<Option<Position>> {
    let count = run.history.borrow().topics.len() as TopicIndex;
    let mut heads = vec![None; count as usize];
    let nodes = 0..stage.nodes_count();
    let reads = nodes.map(|node| async move {
        let mut all = Vec::new();
        for topic in 0..count {
            match topic_of(run, stage, node, topic).await {
                Some(entries) => all.push((topic, entries)),
                // It is not asked for the others: each would take as long.
                None => break,
            }
        }
        (node, all)
    });
    for (node, all) in futures_util::future::join_all(reads).await {
        for (topic, entries) in all {
            heads[topic as usize] = entries.last().map(|(position, _)| *position);
            let node = stage.seats[node].name.clone();
            run.push(Event::Retained {
                node,
                topic,
                entries,
            });
        }
    }
    heads
}

/// Reads a topic through a node, page by page. `None` when the node does not give it.
async fn topic_of(
    run: &Run,
    stage: &Stage,
    node: usize,
    topic: TopicIndex,
) -> Option<Vec<(Position, Id)>> {
    let (app, name) = (run.app(topic), percent_encode(&run.name(topic)));
    let mut entries = Vec::new();
    loop {
        let last: Option<&(Position, Id)> = entries.last();
        let since = last.map_or(Position::ZERO, |(position, _)| *position);
        let path = format!("/v1/topics/{name}/history?limit=1000&since={since}");
        let page = page(stage, node, app, &path).await;
        let Some(messages) = page["publications"].as_array() else {
            let seat = &stage.seats[node].name;
            run.broken(format!("{seat} has no history of {name}: {page}"));
            return None;
        };
        for message in messages {
            match (position(message, "position"), identity(&message["data"])) {
                (Some(position), Some((id, _))) => entries.push((position, id)),
                _ => run.broken(format!("a history has {message}")),
            }
        }
        if page["more"] != true {
            return Some(entries);
        }
    }
}

/// One answer of a node's API in the name of an app: that with status 200, or the last one that came in time.
pub(crate) async fn page(stage: &Stage, node: usize, app: App, path: &str) -> Value {
    let mut answer = Value::Null;
    within(PATIENCE, async || {
        let Some(got) = calls::get(app, stage.api(node), path).await else {
            return false;
        };
        answer = got.json();
        got.status == 200
    })
    .await;
    answer
}

/// Compares the members that every node shows with the sessions that are there, once they are the
/// same or it took too long.
pub(crate) async fn members(run: &Run, stage: &Stage, crowd: &[Rc<Client>], topic: TopicIndex) {
    let of_topic = |client: &&Rc<Client>| {
        let slots = client.slots.borrow();
        slots.iter().any(|slot| slot.topic == topic)
    };
    let sessions_there = || -> BTreeSet<String> {
        let here = crowd.iter().filter(of_topic);
        here.filter_map(|client| client.member()).collect()
    };
    let (app, name) = (run.app(topic), percent_encode(&run.name(topic)));
    let path = format!("/v1/topics/{name}/presence?limit=1000");
    for node in 0..stage.nodes_count() {
        let (ghosts, missing) = compare(stage, node, (app, &path), sessions_there).await;
        for ghost in &ghosts {
            run.shown(app, &json!({"session": ghost}));
        }
        run.push(Event::Members {
            node: stage.seats[node].name.clone(),
            topic,
            ghosts,
            missing,
        });
    }
}

/// Compares the members that a node shows on one page with the sessions that are there, until they
/// are the same or it took too long. Returns ghosts and missing ones.
pub(crate) async fn compare(
    stage: &Stage,
    node: usize,
    (app, path): (App, &str),
    sessions_there: impl Fn() -> BTreeSet<String>,
) -> (Vec<String>, Vec<String>) {
    let (mut shown, mut there) = (BTreeSet::new(), BTreeSet::new());
    within(PATIENCE, async || {
        let page = page(stage, node, app, path).await;
        let list = page["members"].as_array().cloned().unwrap_or_default();
        let sessions = list.iter().filter_map(|member| member["session"].as_str());
        shown = sessions.map(str::to_owned).collect();
        there = sessions_there();
        shown == there
    })
    .await;
    let ghosts = shown.difference(&there).cloned().collect();
    (ghosts, there.difference(&shown).cloned().collect())
}
