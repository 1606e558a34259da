//! `POST /v1/publish` and `POST /v1/batch`.
//!
//! In: bodies that [`super::publication`] has read. Out: one result per target, in the order of
//! the request. Targets are independent: those of one topic are published one after the other in
//! the request's order, those of different topics at the same time. Bounds: at most
//! [`TOPICS_AT_ONCE`] publications of one request wait for the broker; a batch has at most
//! `api.targets_max` items and [`BATCH_TARGETS_FACTOR`] times as many targets. Long bodies are read,
//! and long answers written, by [`tasks::heavy`].

use std::collections::HashMap;

use axum::http::StatusCode;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::{Admitted, Caller, asks};
use super::body::{Sent, Wanted};
use super::error::ApiError;
use super::publication::{self, PublishBody, Target, TargetResult};
use super::query::{Fields, NoFields};
use super::schema::{BodyRefused, Refused};
use super::state::ApiState;
use super::trace::{self, Parent};
use crate::broker::PublishRequest;
use crate::http::error::{HttpError, as_body};
use crate::tasks;
use crate::telemetry::alerts::gravest;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;
use fanfare_protocol::ids::Topic;

/// Publications of one request that wait for the broker at the same time. Enough to hide a round
/// trip, few enough that one request does not fill the publish queue.
const TOPICS_AT_ONCE: usize = 128;

/// How many times `api.targets_max` targets the items of a batch may have together. A body of
/// 8 MiB could name two million, whose results nobody should have to hold.
pub(super) const BATCH_TARGETS_FACTOR: usize = 100;

/// About what a target's result takes in an answer.
pub(super) const RESULT_BYTES: usize = 128;

/// Where [`publish`] is called.
pub(super) const PATH: &str = "/v1/publish";

/// What became of one publication.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct PublishAnswer {
    /// One per target, in the order of the request; none when the publication as a whole was
    /// refused.
    pub results: Vec<TargetResult>,
    /// How many targets failed; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<usize>,
    /// Why nothing was published (the first target's reason); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<ErrorBody>,
}

/// What became of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer {
    /// One per item, in the order of the request.
    pub results: Vec<PublishAnswer>,
    /// How many items published nothing; absent when every one published something.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<usize>,
    /// Why nothing was published (the first item's reason); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<ErrorBody>,
}

/// Publish one message to one or many targets.
///
/// Targets are independent: 200 says that at least one was published, and `failed` how many were
/// not. When none was, the status is that of the first target's error.
#[utoipa::path(
    post, path = "/v1/publish", tag = "publish", operation_id = "publish",
    request_body = PublishBody,
    responses((status = 200, description = "At least one target was published.", body = PublishAnswer), BodyRefused, Refused)
)]
pub(super) async fn publish(
    admitted: Admitted<asks::Publish>,
    parent: Parent,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let Admitted { state, caller, .. } = admitted.again()?;
    let read = || publication::read((&state, &caller), sent.encoding, &sent.bytes, parent);
    let targets = tasks::heavy(sent.bytes.len(), read).await?;
    let results = run(&state, targets, parent).await;
    let answered = tasks::heavy(results.len() * RESULT_BYTES, || {
        let answer = PublishAnswer::of(results);
        let error = http(answer.error.as_ref());
        let part = gravest(answer.codes());
        respond(wanted, StatusCode::OK, (error, part), &answer)
    });
    Ok(answered.await)
}

/// Publish many messages.
///
/// Items are independent, as targets are; those to the same topic keep their order.
#[utoipa::path(
    post, path = "/v1/batch", tag = "publish", operation_id = "batch",
    request_body = Vec<PublishBody>,
    responses((status = 200, description = "At least one item was published, in part or whole.", body = BatchAnswer), BodyRefused, Refused)
)]
pub(super) async fn batch(
    admitted: Admitted<asks::Publish>,
    parent: Parent,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let Admitted { state, caller, .. } = admitted.again()?;
    let read = || read_batch((&state, &caller), &sent, parent);
    let (items, targets) = tasks::heavy(sent.bytes.len(), read).await?;
    let results = run(&state, targets, parent).await;
    let answered = tasks::heavy((items.len() + results.len()) * RESULT_BYTES, || {
        let answer = BatchAnswer::of(items, results);
        let error = http(answer.error.as_ref());
        let part = gravest(answer.results.iter().flat_map(PublishAnswer::codes));
        respond(wanted, StatusCode::OK, (error, part), &answer)
    });
    Ok(answered.await)
}

/// Of each item of a batch the number of its targets, or why it has none.
type Items = Vec<Result<usize, WireError>>;

/// Reads the items of a batch, and all their targets one after the other.
fn read_batch(
    (state, caller): (&ApiState, &Caller),
    sent: &Sent,
    parent: Parent,
) -> Result<(Items, Vec<Target>), ApiError> {
    let items_max = state.config.api.targets_max;
    let bodies = publication::list(sent.encoding, &sent.bytes, items_max)?
        .map_err(|count| too_many("items", count, items_max))?;
    if bodies.is_empty() {
        return Err(WireError::bad_request("the batch is empty").into());
    }
    let mut items = Vec::with_capacity(bodies.len());
    let (mut targets, targets_max) = (Vec::new(), items_max * BATCH_TARGETS_FACTOR);
    for bytes in bodies {
        let item =
            publication::read((state, caller), sent.encoding, bytes, parent).map(|mut more| {
                let count = more.len();
                targets.append(&mut more);
                count
            });
        if targets.len() > targets_max {
            return Err(too_many("targets", targets.len(), targets_max));
        }
        items.push(item);
    }
    Ok((items, targets))
}

/// What a caller is told who named more than a request may have.
pub(super) fn too_many(what: &str, count: usize, max: usize) -> ApiError {
    WireError::new(
        ErrorCode::LimitExceeded,
        format!("{count} {what} are more than {max}"),
    )
    .into()
}

fn http(error: Option<&ErrorBody>) -> Option<HttpError> {
    error.map(|error| HttpError::new(error.code, error.message.clone()))
}

/// The status of what was done, or that of the error that stands for all. Where only a part failed, this
/// code is counted.
pub(super) fn respond(
    wanted: Wanted,
    done: StatusCode,
    (error, part): (Option<HttpError>, Option<ErrorCode>),
    answer: &impl Serialize,
) -> Response {
    let Some(error) = error else {
        let mut response = wanted.with(done, answer);
        if let Some(code) = part {
            response.extensions_mut().insert(code);
        }
        return response;
    };
    let mut response = wanted.with(error.status(), answer);
    error.add_headers(response.headers_mut());
    // It is counted where all answers are.
    response.extensions_mut().insert(error.error.code);
    response
}

/// Publications to one topic in the order of the request, each with its target's number.
type Chain = Vec<(usize, PublishRequest)>;

/// Publishes to every target and gives the results in their order.
async fn run(state: &ApiState, targets: Vec<Target>, parent: Parent) -> Vec<TargetResult> {
    let results = match <[Target; 1]>::try_from(targets) {
        // Most publications have one target, which needs nothing beside it.
        Ok([Ok(request)]) => vec![publish_one(state, request, parent).await],
        Ok([Err(refused)]) => vec![refused],
        Err(targets) => publish_many(state, targets, parent).await,
    };
    if results.iter().any(TargetResult::is_published) {
        state.broker.relieved().await;
    }
    results
}

async fn publish_one(
    state: &ApiState,
    mut request: PublishRequest,
    parent: Parent,
) -> TargetResult {
    let topic = request.topic.clone();
    let traced = trace::publication(state, &topic, request.trace, parent);
    request.trace = traced.context();
    let published = state.broker.publish(request).await;
    trace::published(traced, &published);
    match published {
        Ok(published) => TargetResult::Published {
            topic,
            position: published.position,
            duplicate: published.duplicate,
        },
        Err(error) => TargetResult::failed(topic.name(), &error.told()),
    }
}

/// Publishes to each topic in the order of the request, to [`TOPICS_AT_ONCE`] at the same time.
async fn publish_many(state: &ApiState, targets: Vec<Target>, parent: Parent) -> Vec<TargetResult> {
    let bytes = targets.len() * RESULT_BYTES;
    let (mut results, chains) = tasks::heavy(bytes, || by_topic(targets)).await;
    let mut running = stream::iter(chains.into_values())
        .map(|chain| publish_chain(chain, |request| publish_one(state, request, parent)))
        .buffer_unordered(TOPICS_AT_ONCE);
    while let Some(done) = running.next().await {
        for (at, result) in done {
            results[at] = Some(result);
        }
    }
    let expected = "every target without a refusal is in one chain";
    let all = || results.into_iter().map(|result| result.expect(expected));
    tasks::heavy(bytes, || all().collect()).await
}

/// The targets that are refused in their places, and the others sorted by their topics.
fn by_topic(targets: Vec<Target>) -> (Vec<Option<TargetResult>>, HashMap<Topic, Chain>) {
    let mut results = Vec::with_capacity(targets.len());
    let mut chains: HashMap<Topic, Chain> = HashMap::new();
    for (at, target) in targets.into_iter().enumerate() {
        results.push(match target {
            Ok(request) => {
                let chain = chains.entry(request.topic.clone()).or_default();
                chain.push((at, request));
                None
            }
            Err(refused) => Some(refused),
        });
    }
    (results, chains)
}

/// Publishes in order and stops at the first failure: were the rest published, repeating what
/// failed would put it behind what followed it.
async fn publish_chain<F: Future<Output = TargetResult>>(
    chain: Chain,
    publish: impl Fn(PublishRequest) -> F,
) -> Vec<(usize, TargetResult)> {
    let mut results = Vec::with_capacity(chain.len());
    let mut failed = false;
    for (at, request) in chain {
        // A broker that answers at once would keep the thread for the whole request.
        tokio::task::coop::consume_budget().await;
        let result = if failed {
            let text = "not tried, because an earlier publication to the same topic failed";
            TargetResult::failed(request.topic.name(), &WireError::unavailable(text))
        } else {
            publish(request).await
        };
        failed = !result.is_published();
        results.push((at, result));
    }
    results
}

impl BatchAnswer {
    fn of(items: Items, results: Vec<TargetResult>) -> Self {
        let mut results = results.into_iter();
        let answers = items.into_iter().map(|item| match item {
            Ok(count) => PublishAnswer::of(results.by_ref().take(count).collect()),
            Err(error) => PublishAnswer {
                error: Some(as_body(&error)),
                ..PublishAnswer::default()
            },
        });
        let results: Vec<_> = answers.collect();
        let failed = results.iter().filter(|r| r.error.is_some()).count();
        let error = match failed == results.len() {
            true => results[0].error.clone(),
            false => None,
        };
        Self {
            failed: (failed > 0).then_some(failed),
            error,
            results,
        }
    }
}

impl PublishAnswer {
    /// Of what failed, why.
    fn codes(&self) -> impl Iterator<Item = ErrorCode> {
        let targets = self.results.iter().filter_map(|result| match result {
            TargetResult::Failed { error, .. } => Some(error.code),
            TargetResult::Published { .. } => None,
        });
        self.error.iter().map(|error| error.code).chain(targets)
    }

    fn of(results: Vec<TargetResult>) -> Self {
        let mut errors = results.iter().filter_map(|result| match result {
            TargetResult::Failed { error, .. } => Some(error),
            TargetResult::Published { .. } => None,
        });
        let first = errors.next().cloned();
        let failed = first.iter().count() + errors.count();
        Self {
            failed: (failed > 0).then_some(failed),
            error: first.filter(|_| failed == results.len()),
            results,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::broker::BrokerError;
    use crate::broker::publication::Publication;
    use crate::config::Retention;
    use fanfare_protocol::data::Data;
    use fanfare_protocol::ids::{App, Position};

    fn request(n: u64) -> PublishRequest {
        let nothing = Retention {
            entries_max: 0,
            age_ms: 0,
        };
        let topic = Topic::everyone(&App::default_app());
        PublishRequest::new(topic, Publication::new(Data::Json("1".into()), n), nothing)
    }

    /// Once a batch of which half the targets failed was a 200 and counted nowhere.
    #[test]
    fn a_request_of_which_a_part_failed_is_counted_by_the_error_of_the_nodes() {
        let published = || TargetResult::Published {
            topic: Topic::everyone(&App::default_app()),
            position: Position { ms: 1, seq: 0 },
            duplicate: false,
        };
        let away = || TargetResult::failed("a", &WireError::unavailable("away"));
        let wanted = Wanted(crate::http::media::Form::wanted(
            &axum::http::HeaderMap::new(),
        ));
        let counted = |items: Items, results| {
            let answer = BatchAnswer::of(items, results);
            let part = gravest(answer.results.iter().flat_map(PublishAnswer::codes));
            let error = http(answer.error.as_ref());
            let response = respond(wanted, StatusCode::OK, (error, part), &answer);
            let code = response.extensions().get::<ErrorCode>().copied();
            (response.status().as_u16(), code)
        };
        let unreadable = || Err(WireError::bad_request("no data"));
        let unavailable = Some(ErrorCode::Unavailable);
        let all = counted(vec![Ok(2)], vec![published(), published()]);
        assert_eq!(all, (200, None));
        let half = counted(vec![Ok(1), Ok(1)], vec![published(), away()]);
        assert_eq!(half, (200, unavailable));
        let both = counted(vec![unreadable(), Ok(2)], vec![published(), away()]);
        assert_eq!(both, (200, unavailable));
        let ours = counted(vec![unreadable(), Ok(1)], vec![published()]);
        assert_eq!(ours, (200, Some(ErrorCode::BadRequest)));
        assert_eq!(counted(vec![Ok(1)], vec![away()]), (503, unavailable));
    }

    #[tokio::test]
    async fn behind_a_failure_nothing_more_is_published_to_the_topic() {
        let asked = RefCell::new(Vec::new());
        let chain = (0..4).map(|n| (10 + n, request(n as u64))).collect();
        let results = publish_chain(chain, async |request: PublishRequest| {
            let n = request.publication.time_ms;
            asked.borrow_mut().push(n);
            let topic = request.topic;
            match n {
                1 => {
                    let error = BrokerError::Unknown("reset".into());
                    TargetResult::failed(topic.name(), &error.told())
                }
                ms => TargetResult::Published {
                    topic,
                    position: Position { ms, seq: 0 },
                    duplicate: false,
                },
            }
        })
        .await;
        assert_eq!(*asked.borrow(), [0, 1]);
        let places: Vec<_> = results.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [10, 11, 12, 13]);
        assert!(results[0].1.is_published());
        let error = |at: usize| match &results[at].1 {
            TargetResult::Failed { error, .. } => error,
            published => panic!("{published:?}"),
        };
        assert!(error(1).message.contains("unknown"), "{:?}", error(1));
        for at in [2, 3] {
            assert_eq!(error(at).code, ErrorCode::Unavailable);
            assert!(error(at).message.starts_with("not tried"));
        }
    }
}
