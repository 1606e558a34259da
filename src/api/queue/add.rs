//! `POST /v1/queue`.
//!
//! In: bodies that [`super::body`] has read. Out: one result per target, in the order of the request.
//! Publishers are not held here while the node delivers slowly: nothing was published yet, and whoever
//! moves the entries is held instead. Bounds: those of a batch. Long bodies are read, and long answers
//! written, by [`tasks::heavy`].

use axum::http::StatusCode;
use axum::response::Response;

use super::answers::{EnqueueAnswers, EntryResult};
use super::body::{self, QueueBodies, Target};
use super::bound::Bound;
use crate::api::auth::Admitted;
use crate::api::body::{Sent, Wanted};
use crate::api::error::ApiError;
use crate::api::publish::{RESULT_BYTES, respond};
use crate::api::query::{Fields, NoFields};
use crate::api::schema::{BodyRefused, Refused};
use crate::api::state::ApiState;
use crate::broker::Broker;
use crate::broker::queue::EnqueueRequest;
use crate::tasks;
use fanfare_protocol::ids::Topic;

/// Have messages published once and in order, whatever dies meanwhile.
///
/// One body, or a list of at most 1,000 by default; one entry per target. 202 says that the queue has
/// at least one, and `failed` how many it has not. When it has none, the status is that of the first
/// error. With `durable: false` in the answer this node runs without Redis, and the queue ends with it.
#[utoipa::path(
    post, path = "/v1/queue", tag = "queue", operation_id = "enqueue",
    request_body = QueueBodies,
    responses((status = 202, description = "The queue has at least one target's entry.", body = EnqueueAnswers), BodyRefused, Refused)
)]
pub(in crate::api) async fn enqueue(
    Admitted(state): Admitted,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let bound = Bound::now(&state);
    let read = || body::read(&state, &sent, bound);
    let asked = tasks::heavy(sent.bytes.len(), read).await?;
    let results = run(&state, asked.targets).await;
    let durable = matches!(&*state.broker, Broker::Memory(_)).then_some(false);
    let items_count = asked.items.as_ref().map_or(0, Vec::len);
    let answered = tasks::heavy((items_count + results.len()) * RESULT_BYTES, || {
        let answer = match asked.items {
            None => EnqueueAnswers::one(results, durable),
            Some(items) => EnqueueAnswers::many(items, results, durable),
        };
        respond(wanted, StatusCode::ACCEPTED, answer.error(), &answer)
    });
    Ok(answered.await)
}

/// The results of all targets, of which those that were refused have theirs.
async fn run(state: &ApiState, targets: Vec<Target>) -> Vec<EntryResult> {
    let bytes = targets.len() * RESULT_BYTES;
    let (refused, topics, requests) = tasks::heavy(bytes, || parted(targets)).await;
    let answers = match requests.is_empty() {
        true => Vec::new(),
        false => state.broker.enqueue(requests).await,
    };
    let join = || {
        let mut taken = topics.into_iter().zip(answers);
        let expected = "the broker has an answer for each request";
        let results = refused.into_iter().map(|refused| {
            refused.unwrap_or_else(|| {
                let (topic, answer) = taken.next().expect(expected);
                match answer {
                    Ok(enqueued) => EntryResult::Enqueued {
                        topic,
                        entry: enqueued.entry,
                        duplicate: enqueued.duplicate,
                    },
                    Err(error) => EntryResult::failed(topic.name(), &error.told()),
                }
            })
        });
        results.collect()
    };
    tasks::heavy(bytes, join).await
}

/// The refusals in their places, and for the others where to and what.
fn parted(targets: Vec<Target>) -> (Vec<Option<EntryResult>>, Vec<Topic>, Vec<EnqueueRequest>) {
    let mut refused = Vec::with_capacity(targets.len());
    let (mut topics, mut requests) = (Vec::new(), Vec::new());
    for target in targets {
        refused.push(match target {
            Ok(request) => {
                topics.push(request.message.topic.clone());
                requests.push(request);
                None
            }
            Err(refused) => Some(refused),
        });
    }
    (refused, topics, requests)
}
