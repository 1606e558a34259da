//! `POST /v1/queue/dead/redrive` and `DELETE /v1/queue/dead`.
//!
//! In: which letters ([`super::selection`]). Out: how many were done with, and what failed, by id. What
//! is done is in [`super::done`]. Bounds: [`LETTERS_MAX`] letters a call, [`ENQUEUE_MAX`] of them held at
//! once.

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::done::{Done, Letters, Rest};
use super::letters::{LETTERS_MAX, LetterId};
use super::selection::{Given, PLACE, Selection, WHY};
use super::whose::Whose;
use crate::api::auth::{Admitted, asks};
use crate::api::body::{Sent, Wanted};
use crate::api::body_fields::{BodyFields, Known};
use crate::api::error::ApiError;
use crate::api::query::{Fields, NoFields, Pairs, QueryFields};
use crate::api::schema::{BadRequest, BodyRefused, Refused};
use crate::broker::queue::{ENQUEUE_MAX, Why};
use crate::tasks;
use fanfare_protocol::error::WireError;

/// Which letters: exactly one of `ids`, `why` and `all: true`. This is how it is documented; it is
/// read field by field.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"why": "failed"}))]
pub struct RedriveBody {
    /// Of these ids, at most 1,000.
    #[schema(nullable = false)]
    pub ids: Option<Vec<String>>,
    /// All that died of this: `bad_entry`, `wrong_partition`, `too_large`, `expired`, `failed`,
    /// `crashed` or `unknown_app`.
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
    admitted: Admitted<asks::RedriveDead>,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let admitted = admitted.again()?;
    let selection = tasks::heavy(sent.bytes.len(), || selection_of(&sent)).await?;
    admitted.audit("redrive_dead", selection.about()).await?;
    let state = admitted.state;
    let whose = Whose::of(&state, &admitted.caller);
    let mut done = Done::new(&state, &whose);
    match selection {
        Selection::Ids(ids) => {
            for ids in ids.chunks(ENQUEUE_MAX) {
                let letters = done.found(ids).await;
                done.redrive(letters).await;
            }
        }
        Selection::All { why, after } => {
            let mut walk = Letters::new((&*state, &whose), why, after);
            while let Some(letters) = walk.portion().await {
                done.redrive(letters).await;
            }
            done.walked(walk);
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
    admitted: Admitted<asks::DropDead>,
    wanted: Wanted,
    Fields(params): Fields<DropParams>,
) -> Result<Response, ApiError> {
    let selection = params.selection()?;
    admitted.audit("drop_dead", selection.about()).await?;
    let state = admitted.state;
    let whose = Whose::of(&state, &admitted.caller);
    let mut done = Done::new(&state, &whose);
    match selection {
        Selection::Ids(ids) => done.drop_each(ids).await,
        Selection::All { why, after } => {
            let mut walk = Letters::new((&*state, &whose), why, after);
            while let Some(letters) = walk.portion().await {
                let ids = letters.iter().map(LetterId::of).collect();
                done.drop_all(ids).await;
            }
            done.walked(walk);
        }
    }
    Ok(wanted.ok(&DropAnswer {
        dropped: done.count,
        rest: done.rest,
    }))
}
