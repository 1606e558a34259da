//! A mix-up of apps, to show that the checker would see it.
//!
//! In: a stage that is well. Out: a third party that publishes in the first app what stands in topics of
//! the other one, as a node would that goes by the name of a topic alone. The product has no switch for
//! it.

use std::time::Duration;

use fanfare_client::http::percent_encode;
use serde_json::json;
use tokio::time::sleep;

use super::app::App;
use super::calls;
use super::queue;
use super::run::Run;
use super::stage::{NAMESPACE, Stage};

/// Between two mix-ups.
const REST: Duration = Duration::from_millis(200);

/// Mixes up for so long: a topic of clients, and one of the queue.
pub(crate) async fn run(run: &Run, stage: &Stage, lasts: Duration) {
    let end = run.now() + lasts;
    let topics = [format!("{NAMESPACE}:0"), queue::topic(0)];
    let mut mixed = 0;
    for topic in topics.iter().cycle() {
        if run.now() >= end {
            break;
        }
        mixed += u32::from(mix_up(stage, topic).await);
        sleep(REST).await;
    }
    run.say(&format!("control: {mixed} publications of the other app"));
}

/// Publishes the newest of a topic of the other app once more. Whether it was done.
async fn mix_up(stage: &Stage, topic: &str) -> bool {
    let name = percent_encode(topic);
    let path = format!("/v1/topics/{name}/history?limit=1&reverse=true");
    let Some(answer) = calls::get(App::Other, stage.api(0), &path).await else {
        return false;
    };
    let answer = answer.json();
    let Some(data) = answer["publications"][0].get("data") else {
        return false;
    };
    // The same once more is not published again, so that nothing stands twice.
    let key = format!("mixed {data}");
    let body = json!({"topic": topic, "data": data, "idempotency_key": &key[..key.len().min(40)]});
    let answer = calls::post(App::Default, stage.api(0), "/v1/publish", &body).await;
    answer.is_some_and(|answer| answer.status == 200)
}
