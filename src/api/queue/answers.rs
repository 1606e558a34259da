//! What became of entries, as callers are told.
//!
//! In: one result for each target. Out: the answer to one body or to a list of them. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::http::error::as_body;
use fanfare_protocol::error::WireError;
use fanfare_protocol::event::ErrorBody;
use fanfare_protocol::ids::Topic;

/// What became of one target.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EntryResult {
    /// The queue has it.
    Enqueued {
        /// Where it will be published.
        #[schema(value_type = String)]
        topic: Topic,
        /// Its name in the queue, for logs.
        entry: String,
        /// It had been enqueued before under the same `idempotency_key`; this is that entry.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        duplicate: bool,
    },
    /// The queue has it not, or nobody knows.
    Failed {
        /// Where it should have been published.
        topic: String,
        /// Why it will not.
        error: ErrorBody,
    },
}

impl EntryResult {
    /// What a target is answered with that was refused; `topic` as the caller named it.
    pub(super) fn failed(topic: impl Into<String>, error: &WireError) -> Self {
        Self::Failed {
            topic: topic.into(),
            error: as_body(error),
        }
    }
}

/// What became of one body.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct EnqueueAnswer {
    /// `false`: this node runs without Redis, and what it has ends with it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub durable: Option<bool>,
    /// One per target, in the order of the request; none when the body as a whole was refused.
    pub results: Vec<EntryResult>,
    /// How many targets failed; absent when none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<usize>,
    /// Why nothing was taken (the first target's reason); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<ErrorBody>,
}

/// What became of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct EnqueueListAnswer {
    /// `false`: this node runs without Redis, and what it has ends with it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub durable: Option<bool>,
    /// One per body, in the order of the request.
    pub results: Vec<EnqueueAnswer>,
    /// Of how many bodies nothing was taken; absent when of every one something was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<usize>,
    /// Why nothing was taken (the first body's reason); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<ErrorBody>,
}

/// The answer to one body, or to a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum EnqueueAnswers {
    /// To one body.
    One(EnqueueAnswer),
    /// To a list.
    Many(EnqueueListAnswer),
}

/// Of each body of a request the number of its targets, or why it has none.
pub(super) type Items = Vec<Result<usize, WireError>>;

impl EnqueueAnswers {
    /// The results of one body.
    pub(super) fn one(results: Vec<EntryResult>, durable: Option<bool>) -> Self {
        Self::One(EnqueueAnswer {
            durable,
            ..EnqueueAnswer::of(results)
        })
    }

    /// The results of a list, one body's after the other's.
    pub(super) fn many(items: Items, results: Vec<EntryResult>, durable: Option<bool>) -> Self {
        let mut results = results.into_iter();
        let answers = items.into_iter().map(|item| match item {
            Ok(count) => EnqueueAnswer::of(results.by_ref().take(count).collect()),
            Err(error) => EnqueueAnswer {
                error: Some(as_body(&error)),
                ..EnqueueAnswer::default()
            },
        });
        let results: Vec<_> = answers.collect();
        let mut errors = results.iter().filter_map(|answer| answer.error.as_ref());
        let first = errors.next().cloned();
        let failed = first.iter().count() + errors.count();
        Self::Many(EnqueueListAnswer {
            durable,
            failed: (failed > 0).then_some(failed),
            error: first.filter(|_| failed == results.len()),
            results,
        })
    }

    /// Why nothing was taken.
    pub(super) fn error(&self) -> Option<&ErrorBody> {
        match self {
            Self::One(answer) => answer.error.as_ref(),
            Self::Many(answer) => answer.error.as_ref(),
        }
    }
}

impl EnqueueAnswer {
    fn of(results: Vec<EntryResult>) -> Self {
        let mut errors = results.iter().filter_map(|result| match result {
            EntryResult::Failed { error, .. } => Some(error),
            EntryResult::Enqueued { .. } => None,
        });
        let first = errors.next().cloned();
        let failed = first.iter().count() + errors.count();
        Self {
            durable: None,
            failed: (failed > 0).then_some(failed),
            error: first.filter(|_| failed == results.len()),
            results,
        }
    }
}
