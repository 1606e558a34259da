//! What the API lists of each app at the end: its topics and its users, and nothing of another.
//!
//! In: the stage and the crowd when everybody is back. Out: what is listed of another app, or with
//! another number of sessions than are there, into the history. Bound: the patience of
//! [`super::closing`] for each look.

use std::rc::Rc;

use fanfare_client::http::percent_encode;
use serde_json::Value;

use super::app::App;
use super::client::{Client, user};
use super::closing::{PATIENCE, page, within};
use super::history::Event;
use super::run::Run;
use super::stage::{MEMBERS_NAMESPACE, NAMESPACE, Stage};

/// See the module. `crowd` are the clients of both apps.
pub(crate) async fn judge(run: &Run, stage: &Stage, crowd: &[Rc<Client>]) {
    for app in [App::Default, App::Other] {
        let is_there = crowd.iter().any(|client| client.app == app);
        for node in 0..stage.nodes_count() {
            if is_there {
                topics(run, stage, node, app).await;
                first_user(run, stage, node, app).await;
            }
        }
    }
}

/// Each topic of clients with as many sessions as it has clients; members are in the first app only.
async fn topics(run: &Run, stage: &Stage, node: usize, app: App) {
    let expected = |name: &str| {
        let history = run.history.borrow();
        let mut topics = history.topics.iter();
        let topic = topics.find(|topic| topic.app == app && topic.name == name);
        topic.map(|topic| topic.clients.len() as u64)
    };
    let (mut wrong, mut found) = (Vec::new(), 0);
    within(PATIENCE, async || {
        (wrong, found) = (Vec::new(), 0);
        let mut after = String::new();
        loop {
            let path = format!("/v1/topics?limit=1000{after}");
            let page = page(stage, node, app, &path).await;
            for listed in page["topics"].as_array().into_iter().flatten() {
                let name = listed["topic"].as_str().unwrap_or_default();
                if name.starts_with(&format!("{MEMBERS_NAMESPACE}:")) && app != App::Default {
                    wrong.push(listed.clone());
                } else if name.starts_with(&format!("{NAMESPACE}:")) {
                    found += 1;
                    if listed["sessions"].as_u64() != expected(name) {
                        wrong.push(listed.clone());
                    }
                }
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", percent_encode(next)),
                None => return wrong.is_empty() && found > 0,
            }
        }
    })
    .await;
    let (seat, word) = (&stage.seats[node].name, app.word());
    if found == 0 {
        run.broken(format!("{seat} lists no topic of clients in {word}"));
    }
    for listed in wrong {
        tell(run, format!("{seat} lists in {word} {listed}"));
    }
}

/// The user that both apps have has one session in each.
async fn first_user(run: &Run, stage: &Stage, node: usize, app: App) {
    let path = format!("/v1/users/{}", percent_encode(&user(0)));
    let mut told = Value::Null;
    let is_one = within(PATIENCE, async || {
        told = page(stage, node, app, &path).await;
        told["sessions"] == 1
    });
    if !is_one.await {
        let (seat, word) = (&stage.seats[node].name, app.word());
        tell(run, format!("{seat} says of a user of {word} {told}"));
    }
}

fn tell(run: &Run, what: String) {
    run.push(Event::BetweenApps { what });
}
