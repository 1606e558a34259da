//! `GET /v1/queue/dead`: what could not be published, a page at a time.
//!
//! In: a place and a length. Out: letters with what is readable of them, and the partitions that cannot
//! be read. Bounds: `session.page_max` letters and `session.page_bytes_max` bytes a page, one letter at
//! least, and what a [`Walk`] looks at.

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::answers;
use super::faults::PartitionFault;
use super::letters::LetterId;
use super::selection::{PLACE, WHY};
use super::walk::Walk;
use super::whose::Whose;
use crate::api::auth::{Admitted, asks};
use crate::api::body::Wanted;
use crate::api::error::ApiError;
use crate::api::names;
use crate::api::query::{Fields, Pairs, QueryFields};
use crate::api::schema::{BadRequest, Refused};
use crate::broker::queue::{DeadLetter, Why, accepted_ms, entry};
use crate::tasks;
use fanfare_protocol::data::Data;
use fanfare_protocol::error::WireError;
use fanfare_protocol::ids::{Priority, Topic};

/// About what a letter takes in an answer beside what it carries.
const LETTER_BYTES: usize = 256;

/// Which page.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeadParams {
    /// `next` of the page before.
    #[param(nullable = false, value_type = Option<String>)]
    after: Option<LetterId>,
    /// Letters in the page; 100 by default, at most 1,000 by default.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
    /// Only those that died of this.
    #[param(nullable = false, value_type = Option<String>)]
    why: Option<Why>,
}

impl QueryFields for DeadParams {
    const NAMES: &'static [&'static str] = &["after", "limit", "why"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        Ok(Self {
            after: pairs.get("after", PLACE, |text| text.parse().ok())?,
            limit: names::page_limit(pairs)?,
            why: pairs.get("why", WHY, Why::of)?,
        })
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadPage {
    /// In the order of partitions, of one partition the oldest first. May be fewer than asked for, and
    /// none though there is more: a call looks at 10,000 letters at most.
    pub letters: Vec<Letter>,
    /// There may be another page.
    pub more: bool,
    /// Continues the pages as `after`; there with `more`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<String>,
    /// Partitions that could not be read, and why; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub failed: Option<Vec<PartitionFault>>,
    /// `false`: this node runs without Redis, and what it has ends with it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub durable: Option<bool>,
}

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Letter {
    /// Its name among the dead letters: `PARTITION:MILLISECONDS-SEQUENCE`.
    pub id: String,
    /// Where it should have been published; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    pub topic: Option<Topic>,
    /// The priority under which it stood in the queue.
    pub priority: Priority,
    /// Its name in the queue.
    pub entry: String,
    /// Why it is dead: `bad_entry`, `wrong_partition`, `too_large`, `expired`, `failed`, `crashed`
    /// or `unknown_app`.
    pub why: &'static str,
    /// The same for people.
    pub error: String,
    /// When it was accepted, unix milliseconds; absent where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub accepted: Option<u64>,
    /// The message.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Value>)]
    pub data: Option<Data>,
    /// Of an entry that a backend wrote itself and that could not be read: its fields, names and
    /// values, as far as they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<Vec<String>>>)]
    pub fields: Option<Vec<(String, String)>>,
}

impl Letter {
    fn of(letter: DeadLetter) -> Self {
        let message = entry::decode(&letter.kept).ok();
        let accepted = accepted_ms(&letter.entry);
        Self {
            id: LetterId::of(&letter).to_string(),
            fields: match message {
                None => entry::decode_fields(&letter.kept),
                Some(_) => None,
            },
            topic: message.as_ref().map(|message| message.topic.clone()),
            data: message.map(|message| message.publication.data),
            priority: letter.priority,
            entry: letter.entry,
            why: letter.why.as_str(),
            error: letter.error,
            accepted,
        }
    }
}

/// Entries that could not be published, with why, in pages.
#[utoipa::path(
    get, path = "/v1/queue/dead", tag = "queue", operation_id = "list_dead",
    params(DeadParams),
    responses((status = 200, description = "A page of dead letters.", body = DeadPage), BadRequest, Refused)
)]
pub(in crate::api) async fn list_dead(
    Admitted { state, caller, .. }: Admitted<asks::SeeDead>,
    wanted: Wanted,
    Fields(params): Fields<DeadParams>,
) -> Result<Response, ApiError> {
    let limit = names::within(params.limit, &state)? as usize;
    let bytes_max = state.config.session.page_bytes_max;
    let whose = Whose::of(&state, &caller);
    let mut walk = Walk::after(&*state, params.after);
    let (mut letters, mut bytes, mut more) = (Vec::new(), 0, false);
    let mut last = params.after;
    while let Some(letter) = walk.next().await {
        let is_wanted = params.why.is_none_or(|why| why == letter.why) && whose.has(&letter);
        let letter_bytes = letter.kept.len() + LETTER_BYTES;
        let is_full = bytes + letter_bytes > bytes_max && !letters.is_empty();
        more = letters.len() == limit || (is_wanted && is_full);
        if more {
            break;
        }
        last = Some(LetterId::of(&letter));
        if is_wanted {
            bytes += letter_bytes;
            letters.push(letter);
        } else if walk.is_long() {
            more = true;
            break;
        }
    }
    let faults = std::mem::take(&mut walk.faults);
    let answered = tasks::heavy(bytes, || {
        wanted.ok(&DeadPage {
            letters: letters.into_iter().map(Letter::of).collect(),
            more,
            next: last.filter(|_| more).map(|last| last.to_string()),
            failed: (!faults.is_empty()).then_some(faults),
            durable: answers::durable(&state),
        })
    });
    Ok(answered.await)
}
