//! Two wrong movers of the durable queue, to show that the checker would see them.
//!
//! In: a stage on which the nodes move entries as they should. Out: a third party that moves some of
//! them as a mover must not. One publishes the head of a stream without taking it out, as a move
//! without a claim does that is late or repeated; the other takes it out in one call, would publish it
//! in another, and is dead before it can. The product has no switch for either.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::app::TARGETS_COUNT;
use super::options::Control;
use super::queue;
use super::queue_redis::{Told, Wire};
use super::run::Run;
use super::stage::Stage;
use fanfare_testkit::http;

/// Between two looks at the heads.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Between two entries that are moved wrongly.
const REST: Duration = Duration::from_millis(200);

/// The `data` of the first head that can be read.
const HEAD: &str = "for _, key in ipairs(KEYS) do
  local head = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if head then
    for i = 1, #head[2], 2 do if head[2][i] == 'data' then return head[2][i + 1] end end
  end
end
return ''";

/// Takes out the first head there is.
const TAKE: &str = "for _, key in ipairs(KEYS) do
  local head = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  if head then
    redis.call('XDEL', key, head[1])
    return head[1]
  end
end
return ''";

/// Moves wrongly for so long.
pub(crate) async fn run(control: Control, run: &Run, stage: &Stage, lasts: Duration) {
    let script = if control == Control::QueueTwoCalls {
        TAKE
    } else {
        HEAD
    };
    let mut wire = Wire::to(&stage.redis_doors, queue::PARTITIONS_COUNT);
    let mut keys = Vec::new();
    for target in 0..TARGETS_COUNT {
        keys.extend((0..queue::PRIORITIES.len()).map(|lane| queue::stream(target, lane)));
    }
    let count = keys.len().to_string();
    let words = ["EVAL", script, &count].map(str::to_owned);
    let command: Vec<_> = words.into_iter().chain(keys).collect();
    let end = run.now() + lasts;
    let mut moved = 0;
    while run.now() < end {
        let told = wire.ask(0, std::slice::from_ref(&command)).await;
        let Some(Told::Ok(head)) = told
            .first()
            .filter(|told| **told != Told::Ok(String::new()))
        else {
            sleep(LOOK_EVERY).await;
            continue;
        };
        moved += 1;
        if control == Control::QueueNoClaim {
            publish(stage, head).await;
        }
        sleep(REST).await;
    }
    run.say(&format!("control: {moved} entries were moved wrongly"));
}

/// Publishes an entry that was read.
async fn publish(stage: &Stage, head: &str) {
    let data: Value = serde_json::from_str(head).unwrap_or_default();
    if let Some(entry) = queue::entry(&data) {
        let (field, target) = queue::named(entry.target);
        let body = json!({field: target, "data": data});
        // One that is not published is one attempt less.
        let _ = http::try_post(stage.api(0), "/v1/publish", &body).await;
    }
}
