//! `POST /v1/publish` and `POST /v1/batch`.
//!
//! In: bodies that [`super::publication`] has read. Out: one result per target, in the order of
//! the request. Targets are independent: those of one topic are published one after the other in
//! the request's order, those of different topics at the same time. Bounds: at most
//! [`TOPICS_AT_ONCE`] publications of one request wait for the broker; a batch has at most
//! `api.targets_max` items and [`BATCH_TARGETS_FACTOR`] times as many targets.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Sent, Wanted};
use super::error::ApiError;
use super::publication::{self, Item, PublishBody};
use super::query::{Fields, NoFields};
use super::schema::{BodyRefused, Refused};
use super::state::ApiState;
use crate::broker::{BrokerError, PublishRequest, Published};
use crate::http::error::{HttpError, as_body};
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::event::ErrorBody;
use crate::protocol::ids::{Position, Topic};

/// Publications of one request that wait for the broker at the same time. Enough to hide a round
/// trip, few enough that one request does not fill the publish queue.
const TOPICS_AT_ONCE: usize = 128;

/// How many times `api.targets_max` targets the items of a batch may have together. A body of
/// 8 MiB could name two million, whose results nobody should have to hold.
const BATCH_TARGETS_FACTOR: usize = 100;

/// What became of one target.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TargetResult {
    /// The broker has it.
    Published {
        /// Where it was published.
        topic: String,
        /// Where it stands, also on topics without history.
        position: Position,
        /// It had been published before under the same `idempotency_key`.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// It was not published, or nobody knows.
    Failed {
        /// Where it should have been published.
        topic: String,
        /// Why it was not.
        error: ErrorBody,
    },
}

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
    State(state): State<Arc<ApiState>>,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let item = Item::read(&state, sent.wire, &sent.bytes)?;
    let answer = run(&state, vec![Ok(item)])
        .await
        .pop()
        .expect("one item has one answer");
    Ok(respond(wanted, answer.error.as_ref(), &answer))
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
    State(state): State<Arc<ApiState>>,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let items_max = state.config.api.targets_max;
    let bodies = publication::list(sent.wire, &sent.bytes)?;
    if bodies.is_empty() {
        return Err(WireError::bad_request("the batch is empty").into());
    }
    if bodies.len() > items_max {
        return Err(too_many("items", bodies.len(), items_max));
    }
    let mut items = Vec::with_capacity(bodies.len());
    let (mut targets_count, targets_max) = (0, items_max * BATCH_TARGETS_FACTOR);
    for bytes in bodies {
        let item = Item::read(&state, sent.wire, bytes);
        targets_count += item.as_ref().map_or(0, |item| item.targets.len());
        if targets_count > targets_max {
            return Err(too_many("targets", targets_count, targets_max));
        }
        items.push(item);
    }
    let results = run(&state, items).await;
    let failed = results.iter().filter(|r| r.error.is_some()).count();
    let error = match failed == results.len() {
        true => results[0].error.clone(),
        false => None,
    };
    let answer = BatchAnswer {
        failed: (failed > 0).then_some(failed),
        error,
        results,
    };
    Ok(respond(wanted, answer.error.as_ref(), &answer))
}

fn too_many(what: &str, count: usize, max: usize) -> ApiError {
    WireError::new(
        ErrorCode::LimitExceeded,
        format!("{count} {what} are more than {max}"),
    )
    .into()
}

/// 200, or the status of the error that stands for all.
fn respond(wanted: Wanted, error: Option<&ErrorBody>, answer: &impl Serialize) -> Response {
    let Some(error) = error else {
        return wanted.ok(answer);
    };
    let error = HttpError::new(error.code, error.message.clone());
    let mut response = wanted.with(error.status(), answer);
    error.add_headers(response.headers_mut());
    response
}

/// Publications to one topic in the order of the request, each with its target's number.
type Chain = Vec<(usize, PublishRequest)>;

/// Publishes everything and gives one answer per item.
async fn run(state: &ApiState, items: Vec<Result<Item, WireError>>) -> Vec<PublishAnswer> {
    // Per item its number of targets or its refusal; all targets in one row; a chain per topic.
    let mut shape = Vec::with_capacity(items.len());
    let mut names = Vec::new();
    let mut results: Vec<Option<Result<Published, WireError>>> = Vec::new();
    let mut chains: HashMap<Topic, Chain> = HashMap::new();
    for item in items {
        shape.push(item.map(|item| {
            let count = item.targets.len();
            for target in item.targets {
                let result = match target.request {
                    Ok(request) => {
                        let chain = chains.entry(request.topic.clone()).or_default();
                        chain.push((results.len(), request));
                        None
                    }
                    Err(error) => Some(Err(error)),
                };
                names.push(target.topic);
                results.push(result);
            }
            count
        }));
    }
    let mut running = stream::iter(chains.into_values())
        .map(|chain| publish_chain(chain, |request| state.broker.publish(request)))
        .buffer_unordered(TOPICS_AT_ONCE);
    while let Some(done) = running.next().await {
        for (at, result) in done {
            results[at] = Some(result);
        }
    }
    if results.iter().flatten().any(Result::is_ok) {
        state.broker.relieved().await;
    }
    let mut targets = names.into_iter().zip(results);
    shape
        .into_iter()
        .map(|item| match item {
            Ok(count) => answer(targets.by_ref().take(count)),
            Err(error) => PublishAnswer {
                error: Some(as_body(&error)),
                ..PublishAnswer::default()
            },
        })
        .collect()
}

/// Publishes in order and stops at the first failure: were the rest published, repeating what
/// failed would put it behind what followed it.
async fn publish_chain<F>(
    chain: Chain,
    publish: impl Fn(PublishRequest) -> F,
) -> Vec<(usize, Result<Published, WireError>)>
where
    F: Future<Output = Result<Published, BrokerError>>,
{
    let mut results = Vec::with_capacity(chain.len());
    let mut failed = false;
    for (at, request) in chain {
        let result = if failed {
            Err(WireError::unavailable(
                "not tried, because an earlier publication to the same topic failed",
            ))
        } else {
            let published = publish(request).await;
            published.map_err(|error| error.told())
        };
        failed = result.is_err();
        results.push((at, result));
    }
    results
}

fn answer(
    targets: impl Iterator<Item = (String, Option<Result<Published, WireError>>)>,
) -> PublishAnswer {
    let results: Vec<_> = targets
        .map(|(topic, result)| match result {
            Some(Ok(published)) => TargetResult::Published {
                topic,
                position: published.position,
                duplicate: published.duplicate,
            },
            Some(Err(error)) => TargetResult::Failed {
                topic,
                error: as_body(&error),
            },
            None => unreachable!("every target without a refusal is in one chain"),
        })
        .collect();
    let mut errors = results.iter().filter_map(|result| match result {
        TargetResult::Failed { error, .. } => Some(error),
        TargetResult::Published { .. } => None,
    });
    let first = errors.next().cloned();
    let failed = first.iter().count() + errors.count();
    PublishAnswer {
        failed: (failed > 0).then_some(failed),
        error: first.filter(|_| failed == results.len()),
        results,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::broker::publication::Publication;
    use crate::config::Retention;
    use crate::protocol::data::Data;
    use crate::protocol::ids::{App, Priority};

    fn request(n: u64) -> PublishRequest {
        PublishRequest {
            topic: Topic::everyone(&App::default_app()),
            publication: Publication {
                data: Data::Json("1".into()),
                user: None,
                priority: Priority::Normal,
                key: None,
                conflate: false,
                removed: false,
                time_ms: n,
                ttl_ms: None,
                exclude: None,
            },
            retention: Retention {
                entries_max: 0,
                age_ms: 0,
            },
            replicas: crate::config::Replicas::default(),
            idempotency: None,
        }
    }

    #[tokio::test]
    async fn behind_a_failure_nothing_more_is_published_to_the_topic() {
        let asked = RefCell::new(Vec::new());
        let chain = (0..4).map(|n| (10 + n, request(n as u64))).collect();
        let results = publish_chain(chain, async |request: PublishRequest| {
            let n = request.publication.time_ms;
            asked.borrow_mut().push(n);
            match n {
                1 => Err(BrokerError::Unknown("reset".into())),
                ms => Ok(Published {
                    position: Position { ms, seq: 0 },
                    duplicate: false,
                }),
            }
        })
        .await;
        assert_eq!(*asked.borrow(), [0, 1]);
        let places: Vec<_> = results.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [10, 11, 12, 13]);
        assert!(results[0].1.is_ok());
        let error = |at: usize| results[at].1.clone().unwrap_err();
        assert!(error(1).message.contains("unknown"), "{}", error(1));
        for at in [2, 3] {
            assert_eq!(error(at).code, ErrorCode::Unavailable);
            assert!(error(at).message.starts_with("not tried"));
        }
    }
}
