//! `GET /v1/users/{user}`, its inbox, and ending its sessions.
//!
//! In: a user's name from the path. Out: what the directory and the broker know of the inbox,
//! because every session of a user has joined it. A user exists as soon as it is named.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::about::About;
use super::auth::{Admitted, asks};
use super::body::Wanted;
use super::error::ApiError;
use super::history::{self, HistoryAnswer, HistoryParams};
use super::names::UserName;
use super::query::{Fields, NoFields};
use super::schema::{BadRequest, Refused};
use super::state::NodeSessions;
use crate::http::bodies::Route;
use crate::tasks;
use fanfare_protocol::ids::{Position, Topic};

/// One user.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserAnswer {
    /// The user.
    pub user: String,
    /// Sessions on all nodes.
    pub sessions: u64,
    /// Where they are.
    pub nodes: Vec<NodeSessions>,
    /// Where the user is at home.
    pub home: Route,
}

/// A user's inbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct InboxAnswer {
    /// `@USER`.
    pub topic: Topic,
    /// The cursor: everything up to here was taken; `0-0` when nothing was.
    pub position: Position,
    /// The newest position, `0-0` when none is known.
    pub last: Position,
    /// Retained messages above the cursor, counted up to 1,000.
    pub pending: u64,
    /// The page that was asked for; without `since` it begins with the oldest retained.
    #[serde(flatten)]
    pub page: HistoryAnswer,
}

/// The user whose sessions end.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisconnectAnswer {
    /// The user.
    pub user: String,
}

/// One user's sessions on every node.
#[utoipa::path(
    get, path = "/v1/users/{user}", tag = "users", operation_id = "get_user",
    params(("user" = String, Path, description = "The user, percent-encoded.")),
    responses((status = 200, description = "The user.", body = UserAnswer), BadRequest, Refused)
)]
pub(super) async fn get_user(
    admitted: Admitted<asks::SeeUser>,
    wanted: Wanted,
    UserName(user): UserName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    let inbox = admitted.inbox(&user)?;
    let state = admitted.state;
    let nodes = state.directory.occupancy(&inbox).await?;
    Ok(wanted.ok(&UserAnswer {
        user: user.to_string(),
        sessions: nodes.iter().map(|node| node.sessions).sum(),
        nodes,
        home: state.directory.home(&inbox),
    }))
}

/// The user's inbox: cursor, what is pending, and a page of what is retained.
#[utoipa::path(
    get, path = "/v1/users/{user}/inbox", tag = "users", operation_id = "get_inbox",
    params(("user" = String, Path, description = "The user, percent-encoded."), HistoryParams),
    responses((status = 200, description = "The inbox.", body = InboxAnswer), BadRequest, Refused)
)]
pub(super) async fn get_inbox(
    admitted: Admitted<asks::History>,
    wanted: Wanted,
    UserName(user): UserName,
    Fields(params): Fields<HistoryParams>,
) -> Result<Response, ApiError> {
    let inbox = admitted.inbox(&user)?;
    let state = admitted.state;
    let query = params.query(&state, inbox.clone())?;
    let summary = state.broker.inbox(&inbox, query.retention).await?;
    let page = history::read(&state, query).await?;
    let answer = InboxAnswer {
        topic: inbox,
        position: summary.cursor.unwrap_or_default(),
        last: summary.last,
        pending: summary.pending,
        page,
    };
    let bytes = answer.page.bytes();
    Ok(tasks::heavy(bytes, || wanted.ok(&answer)).await)
}

/// End the user's sessions, on every node.
///
/// They are closed with 4002. 200 says that every node was told; the sessions end soon after.
#[utoipa::path(
    post, path = "/v1/users/{user}/disconnect", tag = "users", operation_id = "disconnect",
    params(("user" = String, Path, description = "The user, percent-encoded.")),
    responses((status = 200, description = "Every node was told.", body = DisconnectAnswer), BadRequest, Refused)
)]
pub(super) async fn disconnect(
    admitted: Admitted<asks::Disconnect>,
    wanted: Wanted,
    UserName(user): UserName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    admitted.inbox(&user)?;
    let about = About::default().with("user", &user.as_str());
    admitted.audit("disconnect", about).await?;
    let (state, app) = (&admitted.state, &admitted.caller.app);
    state.directory.disconnect(app, &user).await?;
    Ok(wanted.ok(&DisconnectAnswer {
        user: user.to_string(),
    }))
}
