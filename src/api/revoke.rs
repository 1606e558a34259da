//! `POST /v1/users/{user}/revoke` and `POST /v1/revoke`: tokens that are refused from now on.
//!
//! In: a user, `jti`s, or all tokens of the app, and before which second they were issued. Out: 200 when
//! every live node refuses them, 202 with the nodes that have not said so yet. What is stored holds
//! either way, and is never taken back. Bounds: [`TOKENS_MAX`] `jti`s a call; the store's are told
//! with what to do.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::HttpBody as _;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::about::About;
use super::auth::{Admitted, asks};
use super::body::{Sent, Wanted};
use super::body_fields::{BodyFields, Known};
use super::error::ApiError;
use super::names::UserName;
use super::query::{Fields, NoFields};
use super::schema::{BodyRefused, Refused};
use super::state::{ApiState, Revoked};
use crate::auth::ID_BYTES_MAX;
use crate::policy::Overall;
use crate::revocation::{ANY_TIME, TOKENS_MAX, Target};
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::App;

/// How far `issued_before` of all tokens may lie ahead: until then no new token is taken from anybody.
/// Clocks of issuers differ by less.
const ALL_AHEAD_MAX: Duration = Duration::from_secs(300);

/// Which tokens of the user. This is how it is documented; it is read field by field.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"issued_before": 1_732_190_000}))]
pub struct UserRevokeBody {
    /// Those that were issued (`iat`) before this second, unix time; by default all that may have been
    /// so far: a second and `auth.leeway_s` from now. A token without `iat` counts as issued in 1970.
    #[schema(nullable = false, minimum = 1)]
    pub issued_before: Option<u64>,
}

/// Which tokens: exactly one of `jti` and `all: true`. This is how it is documented; it is read field
/// by field.
#[derive(Debug, Default, ToSchema)]
#[schema(example = json!({"jti": ["4f1c"]}))]
pub struct RevokeBody {
    /// Those of these names, at most 100, each of at most 128 bytes.
    #[schema(nullable = false)]
    pub jti: Option<Vec<String>>,
    /// All of the app. Needs the scope `admin` besides.
    #[schema(nullable = false)]
    pub all: Option<bool>,
    /// Of these, those that were issued (`iat`) before this second, unix time. By default: with `all`
    /// all that may have been so far, with `jti` whenever it was. With `all` at most 300 s from now.
    #[schema(nullable = false, minimum = 1)]
    pub issued_before: Option<u64>,
}

/// How long the sessions of a user are counted: as long as the nodes are waited for.
const COUNTED_WITHIN: Duration = Duration::from_secs(2);

/// A body, where there is one.
pub(super) struct SentOrNothing(Option<Sent>);

impl FromRequest<Arc<ApiState>> for SentOrNothing {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        if request.body().is_end_stream() || request.body().size_hint().exact() == Some(0) {
            return Ok(Self(None));
        }
        Ok(Self(Some(Sent::from_request(request, state).await?)))
    }
}

const USER_FIELDS: Known = Known {
    shown: &["issued_before"],
    hidden: &[],
};
const FIELDS: Known = Known {
    shown: &["jti", "all", "issued_before"],
    hidden: &[],
};

/// What is refused from now on, and where.
#[derive(Debug, Serialize, ToSchema)]
pub struct RevokeAnswer {
    /// The user, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user: Option<String>,
    /// Tokens that were issued before this second are refused. Absent: whenever they were issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub issued_before: Option<u64>,
    /// About how many sessions the user had on all nodes, 0 for a user that nobody knows; those of the
    /// last seconds may be missing, and those with a newer token stay. Absent where it is not about one user, or where that could not be counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub sessions: Option<u64>,
    /// Live nodes that have not said yet that they refuse them: none with 200.
    pub waiting: Vec<String>,
}

/// Revoke a user's tokens: sessions and topics that they opened end, and no node takes them again.
///
/// Tokens issued later are taken. Without a body: those that were issued so far. 200 says that every
/// live node refuses them; 202 that it is stored, and which nodes have not said so within 2 s. They do
/// as soon as they reach Redis. One that does not reach it takes no token from some seconds on; one of a
/// release without revocation goes on taking them. Safe to repeat.
#[utoipa::path(
    post, path = "/v1/users/{user}/revoke", tag = "users", operation_id = "revoke_user",
    params(("user" = String, Path, description = "The user, percent-encoded.")),
    request_body = UserRevokeBody,
    responses(
        (status = 200, description = "Every live node refuses them.", body = RevokeAnswer),
        (status = 202, description = "Stored; `waiting` names the nodes that have not said that they refuse them.", body = RevokeAnswer),
        BodyRefused, Refused
    )
)]
pub(super) async fn revoke_user(
    admitted: Admitted<asks::RevokeUser>,
    wanted: Wanted,
    UserName(user): UserName,
    Fields(NoFields): Fields<NoFields>,
    SentOrNothing(sent): SentOrNothing,
) -> Result<Response, ApiError> {
    let admitted = admitted.again()?;
    let inbox = admitted.inbox(&user)?;
    let issued_before = match &sent {
        Some(sent) => {
            let fields = BodyFields::read(sent.encoding, &sent.bytes, USER_FIELDS)?;
            issued_before(&fields, life_max(&admitted))?
        }
        None => None,
    };
    let about = About::default().with("user", &user.as_str());
    let about = before(about, issued_before);
    admitted.audit("revoke_user", about).await?;
    let (state, app) = (&admitted.state, &admitted.caller.app);
    let targets = [Target::User(user.clone())];
    // Whoever counts sessions may be away: that keeps nobody in.
    let counting = timeout(COUNTED_WITHIN, state.directory.occupancy(&inbox));
    let revoking = revoke(state, app, &targets, issued_before);
    let (answer, nodes) = tokio::join!(revoking, counting);
    let mut answer = answer?;
    let nodes = nodes.ok().and_then(Result::ok);
    answer.user = Some(user.to_string());
    answer.sessions = nodes.map(|nodes| nodes.iter().map(|node| node.sessions).sum());
    Ok(answered(wanted, &answer))
}

/// Revoke single tokens by their `jti`, or all tokens of the app.
///
/// Answers as the call for one user does.
#[utoipa::path(
    post, path = "/v1/revoke", tag = "users", operation_id = "revoke",
    request_body = RevokeBody,
    responses(
        (status = 200, description = "Every live node refuses them.", body = RevokeAnswer),
        (status = 202, description = "Stored; `waiting` names the nodes that have not said that they refuse them.", body = RevokeAnswer),
        BodyRefused, Refused
    )
)]
pub(super) async fn revoke_tokens(
    admitted: Admitted<asks::RevokeTokens>,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
    sent: Sent,
) -> Result<Response, ApiError> {
    let admitted = admitted.again()?;
    let fields = BodyFields::read(sent.encoding, &sent.bytes, FIELDS)?;
    let (targets, issued_before) = targets(&fields, life_max(&admitted))?;
    if targets.contains(&Target::All) {
        let may = admitted
            .caller
            .may_overall(&admitted.state, Overall::RevokeAll);
        may?;
    }
    admitted
        .audit("revoke", about(&targets, issued_before))
        .await?;
    let (state, app) = (&admitted.state, &admitted.caller.app);
    let answer = revoke(state, app, &targets, issued_before).await?;
    Ok(answered(wanted, &answer))
}

/// What the audit says of it.
fn about(targets: &[Target], issued_before: Option<u64>) -> About {
    let ids = targets.iter().filter_map(|target| match target {
        Target::Token(id) => Some(id.to_string()),
        Target::User(_) | Target::All => None,
    });
    let ids: Vec<_> = ids.collect();
    let about = match ids.is_empty() {
        true => About::default().with("all", &true),
        false => About::default().with_all("jti", &ids),
    };
    before(about, issued_before)
}

/// With the time as it was given; `now` where none was.
fn before(about: About, issued_before: Option<u64>) -> About {
    match issued_before {
        None => about.with("issued_before", &"now"),
        Some(ANY_TIME) => about.with("issued_before", &"any"),
        Some(second) => about.with("issued_before", &second),
    }
}

/// How long a token of the call's app may live.
fn life_max(admitted: &Admitted<impl Sized>) -> Duration {
    let settings = admitted.state.apps.or_nobody(&admitted.caller.app);
    settings.auth.token_life_max
}

fn targets(
    fields: &BodyFields<'_>,
    life_max: Duration,
) -> Result<(Vec<Target>, Option<u64>), WireError> {
    let all = fields.flag("all")?.unwrap_or(false);
    let ids = fields.texts("jti", "jti", TOKENS_MAX)?;
    let ahead = match all {
        // Whoever may do this locks everybody out for so long.
        true => ALL_AHEAD_MAX.min(life_max),
        false => life_max,
    };
    let issued_before = issued_before(fields, ahead)?;
    match (ids, all) {
        (None, true) => Ok((vec![Target::All], issued_before)),
        (Some(ids), false) if !ids.is_empty() => {
            if ids
                .iter()
                .any(|id| id.is_empty() || id.len() > ID_BYTES_MAX)
            {
                let text = format!("each `jti` must be text of 1 to {ID_BYTES_MAX} bytes");
                return Err(WireError::bad_request(text));
            }
            let ids = ids.into_iter().map(|id| Target::Token(id.into()));
            Ok((ids.collect(), Some(issued_before.unwrap_or(ANY_TIME))))
        }
        _ => Err(WireError::bad_request(
            "exactly one of `jti` (a list that is not empty) and `all: true` is needed",
        )),
    }
}

fn issued_before(fields: &BodyFields<'_>, ahead: Duration) -> Result<Option<u64>, WireError> {
    let Some(second) = fields.unsigned("issued_before")? else {
        return Ok(None);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ahead_s = ahead.as_secs();
    let latest = now.map_or(0, |now| now.as_secs()) + ahead_s;
    if second == 0 || second > latest {
        let text = format!(
            "`issued_before` must be a time in unix seconds, from 1 to {ahead_s} seconds from now"
        );
        return Err(WireError::bad_request(text));
    }
    Ok(Some(second))
}

async fn revoke(
    state: &ApiState,
    app: &App,
    targets: &[Target],
    issued_before: Option<u64>,
) -> Result<RevokeAnswer, ApiError> {
    let revoked = state.directory.revoke(app, targets, issued_before).await?;
    match revoked {
        Revoked::Stored {
            issued_before,
            waiting,
        } => Ok(RevokeAnswer {
            user: None,
            issued_before: (issued_before < ANY_TIME).then_some(issued_before),
            sessions: None,
            waiting,
        }),
        Revoked::Full(count) => {
            let instead = match targets.first() {
                Some(Target::All) => "",
                Some(Target::User(_)) => "revoke all tokens at once, or ",
                Some(Target::Token(_)) | None => {
                    "revoke by user instead of by `jti`, or all tokens at once, or "
                }
            };
            let text = format!(
                "{count} revocations are kept and no more of this kind can be: {instead}replace the \
                 key that signed them; a revocation is forgotten when no token lives that it names"
            );
            Err(WireError::new(ErrorCode::LimitExceeded, text).into())
        }
    }
}

fn answered(wanted: Wanted, answer: &RevokeAnswer) -> Response {
    let status = match answer.waiting.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    wanted.with(status, answer)
}
