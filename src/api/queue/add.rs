//! `POST /v1/queue`.
//!
//! In: bodies that [`super::body`] has read. Out: one result per target, in the order of the request.
//! Publishers are not held here while the node delivers slowly: nothing was published yet, and whoever
//! moves the entries is held instead. Bounds: those of a batch. Long bodies are read, and long answers
//! written, by [`tasks::heavy`].

use axum::http::StatusCode;
use axum::response::Response;

use super::answers::{self, EnqueueAnswers, EntryError, EntryResult};
use super::body::{self, QueueBodies, Target};
use super::bound::{Bound, is_spared};
use crate::api::auth::{Admitted, asks};
use crate::api::body::{Sent, Wanted};
use crate::api::error::ApiError;
use crate::api::publish::{RESULT_BYTES, respond};
use crate::api::query::{Fields, NoFields};
use crate::api::schema::{BodyRefused, Refused};
use crate::api::state::ApiState;
use crate::api::trace::Parent;
use crate::broker::BrokerError;
use crate::broker::queue::{EnqueueRequest, Enqueued};
use crate::tasks;
use crate::telemetry::alerts::gravest;
use crate::telemetry::queue_metrics::EntryRefusal;
use fanfare_protocol::ids::Topic;

/// Have messages published once and in order, whatever dies meanwhile.
///
/// One body, or a list of at most 1,000 by default; one entry per target. 202 says that the queue has
/// at least one, and `failed` how many it has not. When it has none, the status is that of the error that
/// lasts longest: what is wrong with a body above 429, and that above 503. With `durable: false` in the
/// answer this node runs without Redis, and the queue ends with it.
#[utoipa::path(
    post, path = "/v1/queue", tag = "queue", operation_id = "enqueue",
    request_body = QueueBodies,
    responses((status = 202, description = "The queue has at least one target's entry.", body = EnqueueAnswers), BodyRefused, Refused)
)]
pub(in crate::api) async fn enqueue(
    admitted: Admitted<asks::Enqueue>,
    parent: Parent,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let Admitted { state, caller, .. } = admitted.again()?;
    let mut bound = Bound::now(&state);
    let read = || body::read((&state, &caller), &sent, parent, &mut bound);
    let asked = tasks::heavy(sent.bytes.len(), read).await;
    let asked = asked.inspect_err(|_refused| {
        bound.give_all_back();
        state.metrics.queue.count_refused(EntryRefusal::Invalid, 1);
    })?;
    let results = run(&state, asked.targets, &mut bound).await;
    let durable = answers::durable(&state);
    let items_count = asked.items.as_ref().map_or(0, Vec::len);
    let answered = tasks::heavy((items_count + results.len()) * RESULT_BYTES, || {
        let answer = match asked.items {
            None => EnqueueAnswers::one(results, durable),
            Some(items) => EnqueueAnswers::many(items, results, durable),
        };
        let error = answer.error().map(EntryError::http);
        let part = gravest(answer.codes());
        respond(wanted, StatusCode::ACCEPTED, (error, part), &answer)
    });
    Ok(answered.await)
}

/// The results of all targets, of which those that were refused have theirs.
async fn run(state: &ApiState, targets: Vec<Target>, bound: &mut Bound<'_>) -> Vec<EntryResult> {
    let bytes = targets.len() * RESULT_BYTES;
    let (refused, topics, requests) = tasks::heavy(bytes, || parted(targets)).await;
    let answers = match requests.is_empty() {
        true => Vec::new(),
        false => state.broker.enqueue(requests).await,
    };
    settle(state, bound, &answers);
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
                    Err(error) => EntryResult::of_broker(&topic, &error),
                }
            })
        });
        results.collect()
    };
    tasks::heavy(bytes, join).await
}

/// Counts what became of the entries, and gives back room that they do not take.
fn settle(state: &ApiState, bound: &mut Bound<'_>, answers: &[Result<Enqueued, BrokerError>]) {
    let count_of = |is_so: fn(&Enqueued) -> bool| {
        let enqueued = answers.iter().flatten();
        enqueued.filter(|enqueued| is_so(enqueued)).count() as u64
    };
    let metrics = &state.metrics.queue;
    metrics
        .enqueued
        .add(count_of(|enqueued| !enqueued.duplicate));
    metrics
        .repeated
        .add(count_of(|enqueued| enqueued.duplicate));
    let spared = answers.iter().filter(|answer| is_spared(answer)).count();
    bound.give_back(spared as u64);
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
