//! Another cluster beside the run's, on another database of the same Redis: nothing of it may be
//! heard here.
//!
//! In: a node on database 1 with the first node's name. Out: publications to the run's own topics,
//! inboxes and everyone, and entries for the targets of its queue, from a publisher that the history
//! does not know, so that each that comes through is a phantom; and orders to end the run's users, so
//! that each that comes through ends a session with 4002, which clients record. Ends with the run.

use std::rc::Rc;
use std::time::Duration;

use fanfare_client::http::percent_encode;
use serde_json::json;
use tokio::time::sleep;

use super::app::TARGETS_COUNT;
use super::client::user;
use super::history::{EntryName, Id};
use super::queue;
use super::run::{DATA_BYTES, Run};
use super::speech::data;
use super::stage::Stage;
use fanfare_testkit::http;
use fanfare_testkit::node::{Node, Plan};

/// Between two publications.
const EVERY: Duration = Duration::from_millis(100);
/// One of so many turns also ends a session of a user.
const DISCONNECT_ONE_OF: u32 = 20;
/// A number that no publisher of the run has.
const PUBLISHER: u32 = 999;
/// Its database.
const DATABASE: u32 = 1;

/// Starts the node and lets it publish until the run is over. Returns how many publications it has
/// had accepted.
pub(crate) async fn live(run: Rc<Run>, stage: Rc<Stage>, clients_count: u32) -> u64 {
    let url = stage.redis.lock().await.url_of_database(DATABASE);
    let plan = Plan::clustered(&stage.seats[0].name, &url);
    let node = plan.start_unready().await;
    let topics: Vec<_> = run
        .history
        .borrow()
        .topics
        .iter()
        .map(|t| t.name.clone())
        .collect();
    let mut accepted = 0;
    for (turn, topic) in (0_u32..).zip(topics.iter().cycle()) {
        if run.is_over.get() {
            break;
        }
        accepted += u64::from(publish(&run, &node, topic, turn).await);
        if turn % DISCONNECT_ONE_OF == 0 {
            let name = percent_encode(&user(turn / DISCONNECT_ONE_OF % clients_count.max(1)));
            let path = format!("/v1/users/{name}/disconnect");
            // Redis may be away; what is lost is one attempt to disturb.
            let _ = http::try_post(node.api, &path, &json!({})).await;
            let entry = EntryName {
                writer: PUBLISHER as u16,
                target: turn as u16 % TARGETS_COUNT,
                lane: 0,
                number: turn,
            };
            let _ = http::try_post(node.api, "/v1/queue", &queue::body(entry, 0)).await;
        }
        sleep(EVERY).await;
    }
    accepted
}

async fn publish(run: &Run, node: &Node, topic: &str, number: u32) -> bool {
    let id = Id {
        publisher: PUBLISHER,
        number,
    };
    let data = data(id, run.now(), DATA_BYTES);
    let body = match topic.strip_prefix('@') {
        Some("") => json!({"everyone": true, "data": data}),
        Some(user) => json!({"user": user, "data": data}),
        None => json!({"topic": topic, "data": data}),
    };
    let answer = http::try_post(node.api, "/v1/publish", &body).await;
    answer.is_some_and(|answer| answer.status == 200)
}
