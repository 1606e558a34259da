//! What became of entries, as callers are told.
//!
//! In: one result for each target. Out: the answer to one body or to a list of them. Pure.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::state::ApiState;
use crate::broker::unavailable::Unavailable;
use crate::broker::{Broker, BrokerError};
use crate::http::error::{HttpError, as_body};
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;
use fanfare_protocol::ids::Topic;

/// What answers say of a queue that ends with this process; nothing of one that does not.
pub(super) fn durable(state: &ApiState) -> Option<bool> {
    matches!(&*state.broker, Broker::Memory(_)).then_some(false)
}

/// Why an entry, or all of them, were not taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryError {
    /// Code and sentence.
    #[serde(flatten)]
    pub error: ErrorBody,
    /// Repeat it after so many milliseconds; there where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after_ms: Option<u64>,
    /// Nothing was done with it, because an earlier entry for the same target failed. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_tried: bool,
}

impl EntryError {
    fn of(error: &WireError) -> Self {
        Self {
            error: as_body(error),
            retry_after_ms: error.retry_after_ms,
            not_tried: false,
        }
    }

    /// The same as HTTP tells it.
    pub(super) fn http(&self) -> HttpError {
        let mut error = HttpError::new(self.error.code, self.error.message.clone());
        error.error.retry_after_ms = self.retry_after_ms;
        error
    }

    /// How long it stays: what will never pass above what passes when there is room, and that above
    /// what passes when the broker is back.
    fn lasts(&self) -> u8 {
        match self.error.code {
            ErrorCode::Unavailable => 0,
            ErrorCode::RateLimited => 1,
            _ => 2,
        }
    }
}

/// How many failed, and the error that stands for all where all of so many did: of those that last
/// longest the first.
fn summed<'a>(
    errors: impl Iterator<Item = &'a EntryError>,
    all_count: usize,
) -> (Option<usize>, Option<EntryError>) {
    let (mut count, mut told): (usize, Option<&EntryError>) = (0, None);
    for error in errors {
        count += 1;
        if told.is_none_or(|told| error.lasts() > told.lasts()) {
            told = Some(error);
        }
    }
    let told = told.filter(|_| count == all_count).cloned();
    ((count > 0).then_some(count), told)
}

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
        error: EntryError,
    },
}

impl EntryResult {
    /// What a target is answered with that was refused; `topic` as the caller named it.
    pub(super) fn failed(topic: impl Into<String>, error: &WireError) -> Self {
        Self::Failed {
            topic: topic.into(),
            error: EntryError::of(error),
        }
    }

    /// What a target is answered with that the broker did not take.
    pub(super) fn of_broker(topic: &Topic, error: &BrokerError) -> Self {
        let not_tried = matches!(error, BrokerError::Unavailable(Unavailable::NotTried));
        Self::Failed {
            topic: topic.name().into(),
            error: EntryError {
                not_tried,
                ..EntryError::of(&error.told())
            },
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
    /// Why nothing was taken (of the reasons that last longest the first); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<EntryError>,
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
    /// Why nothing was taken (of the reasons that last longest the first); absent when anything was.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub error: Option<EntryError>,
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

impl EnqueueAnswer {
    /// Of what failed, why.
    fn codes(&self) -> impl Iterator<Item = ErrorCode> {
        let targets = self.results.iter().filter_map(|result| match result {
            EntryResult::Failed { error, .. } => Some(error.error.code),
            EntryResult::Enqueued { .. } => None,
        });
        let whole = self.error.iter().map(|error| error.error.code);
        whole.chain(targets)
    }
}

impl EnqueueAnswers {
    /// Of what failed, why.
    pub(super) fn codes(&self) -> impl Iterator<Item = ErrorCode> {
        let answers = match self {
            Self::One(answer) => std::slice::from_ref(answer),
            Self::Many(list) => &*list.results,
        };
        answers.iter().flat_map(EnqueueAnswer::codes)
    }

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
                error: Some(EntryError::of(&error)),
                ..EnqueueAnswer::default()
            },
        });
        let results: Vec<_> = answers.collect();
        let errors = results.iter().filter_map(|answer| answer.error.as_ref());
        let (failed, error) = summed(errors, results.len());
        Self::Many(EnqueueListAnswer {
            durable,
            failed,
            error,
            results,
        })
    }

    /// Why nothing was taken.
    pub(super) fn error(&self) -> Option<&EntryError> {
        match self {
            Self::One(answer) => answer.error.as_ref(),
            Self::Many(answer) => answer.error.as_ref(),
        }
    }
}

impl EnqueueAnswer {
    fn of(results: Vec<EntryResult>) -> Self {
        let errors = results.iter().filter_map(|result| match result {
            EntryResult::Failed { error, .. } => Some(error),
            EntryResult::Enqueued { .. } => None,
        });
        let (failed, error) = summed(errors, results.len());
        Self {
            durable: None,
            failed,
            error,
            results,
        }
    }
}
