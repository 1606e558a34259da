//! `POST /v1/queue/dead/redrive` and `DELETE /v1/queue/dead`.
//!
//! In: which letters ([`super::selection`]). Out: how many were done with, and what failed, by id.
//! Redriving is enqueuing under an idempotency key made from the letter's id, then dropping the letter:
//! whoever repeats it after either step adds nothing. Bounds: [`LETTERS_MAX`] letters a call,
//! [`ENQUEUE_MAX`] of them held at once, [`CALLS_AT_ONCE`] calls of the broker.

use std::collections::BTreeMap;

use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::bound::Bound;
use super::letters::{self, LETTERS_MAX, LetterId, Walk};
use super::selection::{Given, PLACE, Selection, WHY};
use crate::api::auth::Admitted;
use crate::api::body::{Sent, Wanted};
use crate::api::body_fields::{BodyFields, Known};
use crate::api::error::ApiError;
use crate::api::query::{Fields, NoFields, Pairs, QueryFields};
use crate::api::schema::{BadRequest, BodyRefused, Refused};
use crate::api::state::ApiState;
use crate::api::unix_ms;
use crate::broker::BrokerError;
use crate::broker::queue::{DEAD_LIFE_MS, DeadLetter, ENQUEUE_MAX, EnqueueRequest, Why};
use crate::broker::queue::{entry, once};
use crate::http::error::as_body;
use crate::tasks;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::event::ErrorBody;

/// Calls of the broker that one request waits for at the same time.
const CALLS_AT_ONCE: usize = 16;

/// Whose idempotency keys those of redriven letters are. No publisher's text has this form.
const PUBLISHER: &str = "dead";

/// Which letters: exactly one of `ids`, `why` and `all: true`. This is how it is documented; it is
/// read field by field.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"why": "failed"}))]
pub struct RedriveBody {
    /// Of these ids, at most 1,000.
    #[schema(nullable = false)]
    pub ids: Option<Vec<String>>,
    /// All that died of this: `bad_entry`, `wrong_partition`, `too_large`, `expired`, `failed` or
    /// `crashed`.
    #[schema(nullable = false)]
    pub why: Option<String>,
    /// All.
    #[schema(nullable = false)]
    pub all: Option<bool>,
    /// `next` of the call before, with `why` and `all`.
    #[schema(nullable = false)]
    pub after: Option<String>,
}

const FIELDS: Known = Known {
    shown: &["ids", "why", "all", "after"],
    hidden: &[],
};

/// Which letters: exactly one of `ids`, `why` and `all=true`.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DropParams {
    /// Of these ids, at most 1,000, separated by commas.
    #[param(nullable = false)]
    ids: Option<String>,
    /// All that died of this.
    #[param(nullable = false, value_type = Option<String>)]
    why: Option<Why>,
    /// All.
    #[param(nullable = false)]
    all: Option<bool>,
    /// `next` of the call before, with `why` and `all`.
    #[param(nullable = false, value_type = Option<String>)]
    after: Option<LetterId>,
}

impl QueryFields for DropParams {
    const NAMES: &'static [&'static str] = FIELDS.shown;

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        Ok(Self {
            ids: pairs.text("ids").map(str::to_owned),
            why: pairs.get("why", WHY, Why::of)?,
            all: pairs.get("all", "true or false", |text| text.parse().ok())?,
            after: pairs.get("after", PLACE, |text| text.parse().ok())?,
        })
    }
}

impl DropParams {
    fn selection(self) -> Result<Selection, WireError> {
        let split = |ids: String| -> Vec<String> {
            let parts = ids.split(',').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        let given = Given {
            ids: self.ids.map(split),
            why: self.why,
            all: self.all.unwrap_or(false),
            after: self.after,
        };
        given.selection()
    }
}

/// What a body asks for.
fn selection_of(sent: &Sent) -> Result<Selection, WireError> {
    let fields = BodyFields::read(sent.encoding, &sent.bytes, FIELDS)?;
    let given = Given {
        ids: fields.texts("ids", "ids", LETTERS_MAX)?,
        why: fields.get("why", WHY, |value| Why::of(&value.text()?))?,
        all: fields.flag("all")?.unwrap_or(false),
        after: fields.get("after", PLACE, |value| value.text()?.parse().ok())?,
    };
    given.selection()
}

/// What was redriven.
#[derive(Debug, Serialize, ToSchema)]
pub struct RedriveAnswer {
    /// So many letters are entries again.
    pub redriven: u64,
    /// What was done with the others.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What was dropped.
#[derive(Debug, Serialize, ToSchema)]
pub struct DropAnswer {
    /// So many letters are gone.
    pub dropped: u64,
    /// What was done with the others.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a call left.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Rest {
    /// Letters with which it was not done, and why.
    pub failed: Vec<FailedLetter>,
    /// There may be more than one call takes: those after `next`.
    pub more: bool,
    /// Continues as `after`; there with `more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
}

/// A letter with which it was not done.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailedLetter {
    /// Which.
    pub id: String,
    /// Why: `not_found` where there is none of this id.
    pub error: ErrorBody,
}

/// Make entries of dead letters again.
///
/// Each stands at the end of its queue, without its `expires_at` where that is over, and is no dead
/// letter any more. Repeating the call after an answer was lost adds nothing twice. At most 1,000 a
/// call; `more` says that there may be others, which `next` continues.
#[utoipa::path(
    post, path = "/v1/queue/dead/redrive", tag = "queue", operation_id = "redrive_dead",
    request_body = RedriveBody,
    responses((status = 200, description = "What was redriven.", body = RedriveAnswer), BodyRefused, Refused)
)]
pub(in crate::api) async fn redrive_dead(
    Admitted(state): Admitted,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let selection = tasks::heavy(sent.bytes.len(), || selection_of(&sent)).await?;
    let mut done = Done::new(&state);
    match selection {
        Selection::Ids(ids) => {
            for ids in ids.chunks(ENQUEUE_MAX) {
                let letters = done.found(ids).await;
                done.redrive(letters).await;
            }
        }
        Selection::All { why, after } => {
            let mut walk = Letters::new(&state, why, after);
            while let Some(letters) = walk.next().await? {
                done.redrive(letters).await;
            }
            (done.rest.more, done.rest.next) = walk.end().await?;
        }
    }
    Ok(wanted.ok(&RedriveAnswer {
        redriven: done.count,
        rest: done.rest,
    }))
}

/// Drop dead letters for good.
///
/// At most 1,000 a call; `more` says that there may be others, which `next` continues.
#[utoipa::path(
    delete, path = "/v1/queue/dead", tag = "queue", operation_id = "drop_dead",
    params(DropParams),
    responses((status = 200, description = "What was dropped.", body = DropAnswer), BadRequest, Refused)
)]
pub(in crate::api) async fn drop_dead(
    Admitted(state): Admitted,
    wanted: Wanted,
    Fields(params): Fields<DropParams>,
) -> Result<Response, ApiError> {
    let mut done = Done::new(&state);
    match params.selection()? {
        Selection::Ids(ids) => done.drop_each(ids).await,
        Selection::All { why, after } => {
            let mut walk = Letters::new(&state, why, after);
            while let Some(letters) = walk.next().await? {
                let ids = letters.iter().map(LetterId::of).collect();
                done.drop_all(ids).await;
            }
            (done.rest.more, done.rest.next) = walk.end().await?;
        }
    }
    Ok(wanted.ok(&DropAnswer {
        dropped: done.count,
        rest: done.rest,
    }))
}

/// A walk over the letters that a call is about, in portions.
struct Letters<'a> {
    walk: Walk<'a>,
    why: Option<Why>,
    count: usize,
    last: Option<LetterId>,
}

impl<'a> Letters<'a> {
    fn new(state: &'a ApiState, why: Option<Why>, after: Option<LetterId>) -> Self {
        Self {
            walk: Walk::after(state, after),
            why,
            count: 0,
            last: after,
        }
    }

    async fn one(&mut self) -> Result<Option<DeadLetter>, BrokerError> {
        while let Some(letter) = self.walk.next().await? {
            if self.why.is_none_or(|why| why == letter.why) {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// The next portion; `None` where there are no more, or a call takes no more.
    async fn next(&mut self) -> Result<Option<Vec<DeadLetter>>, BrokerError> {
        let mut letters = Vec::new();
        while letters.len() < ENQUEUE_MAX && self.count < LETTERS_MAX {
            let Some(letter) = self.one().await? else {
                break;
            };
            self.last = Some(LetterId::of(&letter));
            self.count += 1;
            letters.push(letter);
        }
        Ok((!letters.is_empty()).then_some(letters))
    }

    /// Whether there are more, and where they begin.
    async fn end(&mut self) -> Result<(bool, Option<String>), BrokerError> {
        let more = self.one().await?.is_some();
        let next = self.last.filter(|_| more).map(|last| last.to_string());
        Ok((more, next))
    }
}

/// What a call has done.
struct Done<'a> {
    state: &'a ApiState,
    bound: Bound,
    count: u64,
    rest: Rest,
}

impl<'a> Done<'a> {
    fn new(state: &'a ApiState) -> Self {
        Self {
            state,
            bound: Bound::now(state),
            count: 0,
            rest: Rest::default(),
        }
    }

    fn failed(&mut self, id: LetterId, error: &WireError) {
        self.rest.failed.push(FailedLetter {
            id: id.to_string(),
            error: as_body(error),
        });
    }

    /// The letters of these ids.
    async fn found(&mut self, ids: &[LetterId]) -> Vec<DeadLetter> {
        let state = self.state;
        let asked =
            stream::iter(ids.iter().copied()).map(async |id| (id, letters::find(state, id).await));
        let found: Vec<_> = asked.buffered(CALLS_AT_ONCE).collect().await;
        let mut letters = Vec::with_capacity(found.len());
        for (id, found) in found {
            match found {
                Ok(Some(letter)) => letters.push(letter),
                Ok(None) => self.failed(id, &not_found()),
                Err(error) => self.failed(id, &error.told()),
            }
        }
        letters
    }

    /// Enqueues letters again and drops those that the queue has.
    async fn redrive(&mut self, letters: Vec<DeadLetter>) {
        let (mut ids, mut requests) = (Vec::new(), Vec::new());
        for letter in letters {
            let id = LetterId::of(&letter);
            match self.request(&letter) {
                Ok(request) => {
                    ids.push(id);
                    requests.push(request);
                }
                Err(error) => self.failed(id, &error),
            }
        }
        if requests.is_empty() {
            return;
        }
        let mut enqueued = Vec::with_capacity(ids.len());
        let answers = self.state.broker.enqueue(requests).await;
        for (id, answer) in ids.into_iter().zip(answers) {
            match answer {
                Ok(_) => enqueued.push(id),
                Err(error) => self.failed(id, &error.told()),
            }
        }
        self.drop_all(enqueued).await;
    }

    /// What enqueues a letter again.
    fn request(&mut self, letter: &DeadLetter) -> Result<EnqueueRequest, WireError> {
        let mut message = entry::decode(&letter.kept).map_err(|_unreadable| {
            WireError::bad_request("what was kept of it cannot be read, so it cannot be redriven")
        })?;
        self.bound.take(letter.priority)?;
        message.publication.priority = letter.priority;
        let now_ms = unix_ms();
        message.expires_ms = message.expires_ms.filter(|ends_ms| *ends_ms > now_ms);
        let key = LetterId::of(letter).to_string();
        let digest = once::digest(PUBLISHER, &key, &message.topic);
        let namespace = self.state.config.namespace(&message.topic);
        Ok(EnqueueRequest {
            not_before_ms: None,
            replicas: namespace.replicas(),
            // As long as the letter could be there.
            idempotency: Some((digest, DEAD_LIFE_MS)),
            message,
        })
    }

    /// Drops letters that are known, whoever drops them too.
    async fn drop_all(&mut self, ids: Vec<LetterId>) {
        let mut partitions: BTreeMap<u32, Vec<LetterId>> = BTreeMap::new();
        for id in ids {
            partitions.entry(id.partition).or_default().push(id);
        }
        let broker = &self.state.broker;
        let calls = stream::iter(partitions).map(async |(partition, ids)| {
            let positions: Vec<_> = ids.iter().map(|id| id.id).collect();
            (ids, broker.drop_dead(partition, &positions).await)
        });
        let ends: Vec<_> = calls.buffered(CALLS_AT_ONCE).collect().await;
        for (ids, end) in ends {
            match end {
                Ok(_) => self.count += ids.len() as u64,
                Err(error) => {
                    let error = error.told();
                    ids.into_iter().for_each(|id| self.failed(id, &error));
                }
            }
        }
    }

    /// Drops letters that may not be there, each by a call of its own that tells.
    async fn drop_each(&mut self, ids: Vec<LetterId>) {
        let state = self.state;
        let calls = stream::iter(ids).map(async |id| (id, letters::drop_one(state, id).await));
        let ends: Vec<_> = calls.buffered(CALLS_AT_ONCE).collect().await;
        for (id, end) in ends {
            match end {
                Ok(false) => self.failed(id, &not_found()),
                Ok(true) => self.count += 1,
                Err(error) => self.failed(id, &error.told()),
            }
        }
    }
}

fn not_found() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no dead letter of this id")
}
