//! `GET /v1/topics` and what hangs below one topic.
//!
//! In: a topic's name from the path. Out: what the directory and the broker know of it. A topic
//! exists as soon as it is named: one that nobody has joined or published to is answered with
//! zeros, not with 404.

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::auth::{Admitted, asks};
use super::body::Wanted;
use super::error::ApiError;
use super::history::{self, HistoryAnswer, HistoryParams};
use super::names::{self, TopicName};
use super::query::{Fields, NoFields, Pairs, QueryFields};
use super::schema::{BadRequest, Refused};
use super::state::{MembersPage, NodeSessions, TopicsPage};
use crate::http::bodies::Route;
use crate::tasks;
use fanfare_protocol::error::WireError;
use fanfare_protocol::ids::{Position, SessionId, Topic};

/// About what a topic, or a member without its `info`, takes in an answer.
const ENTRY_BYTES: usize = 128;

/// Which page of topics.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TopicsParams {
    /// `next` of the page before.
    #[param(nullable = false)]
    after: Option<String>,
    /// Topics in the page; 100 by default, at most 1,000 by default.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
}

impl QueryFields for TopicsParams {
    const NAMES: &'static [&'static str] = &["after", "limit"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        Ok(Self {
            after: pairs.text("after").map(str::to_owned),
            limit: names::page_limit(pairs)?,
        })
    }
}

/// Which page of members.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PresenceParams {
    /// The last session of the page before.
    #[param(nullable = false)]
    after: Option<SessionId>,
    /// Members in the page; 100 by default, at most 1,000 by default.
    #[param(nullable = false, minimum = 1)]
    limit: Option<u32>,
}

impl QueryFields for PresenceParams {
    const NAMES: &'static [&'static str] = &["after", "limit"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let session = "a session: 32 hexadecimal digits";
        Ok(Self {
            after: pairs.get("after", session, |text| text.parse().ok())?,
            limit: names::page_limit(pairs)?,
        })
    }
}

/// One topic.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopicAnswer {
    /// Its name.
    pub topic: Topic,
    /// Its namespace; `@` for inboxes and everyone.
    pub namespace: String,
    /// Sessions that have joined, on all nodes.
    pub sessions: u64,
    /// Where they are.
    pub nodes: Vec<NodeSessions>,
    /// Its newest position, as far as one is remembered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub position: Option<Position>,
    /// Where it is at home.
    pub home: Route,
    /// How much it keeps.
    pub history: Kept,
}

/// How much a topic keeps.
#[derive(Debug, Serialize, ToSchema)]
pub struct Kept {
    /// Most entries; 0: no history.
    pub entries_max: u32,
    /// Age of the oldest entry, in milliseconds.
    pub age_ms: u64,
}

/// Topics that sessions have joined, on any node.
#[utoipa::path(
    get, path = "/v1/topics", tag = "topics", operation_id = "list_topics",
    params(TopicsParams),
    responses((status = 200, description = "A page of topics.", body = TopicsPage), BadRequest, Refused)
)]
pub(super) async fn list_topics(
    Admitted { state, caller, .. }: Admitted<asks::ListTopics>,
    wanted: Wanted,
    Fields(params): Fields<TopicsParams>,
) -> Result<Response, ApiError> {
    let limit = names::within(params.limit, &state)?;
    let after = params
        .after
        .map(|name| Topic::new(&caller.app, &name))
        .transpose()
        .map_err(WireError::from)?;
    let page = state
        .directory
        .topics(&caller.app, after.as_ref(), limit)
        .await?;
    let bytes = page.topics.len() * ENTRY_BYTES;
    Ok(tasks::heavy(bytes, || wanted.ok(&page)).await)
}

/// One topic: who has joined it, where its home is, how much it keeps.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "topics", operation_id = "get_topic",
    params(("topic" = String, Path, description = "The topic, percent-encoded.")),
    responses((status = 200, description = "The topic.", body = TopicAnswer), BadRequest, Refused)
)]
pub(super) async fn get_topic(
    admitted: Admitted<asks::Inspect>,
    wanted: Wanted,
    TopicName(name): TopicName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    let topic = admitted.topic(&name)?;
    let state = admitted.state;
    let settings = state.apps.of_topic(&topic);
    let retention = settings.namespace(&topic).retention();
    let nodes = state.directory.occupancy(&topic).await?;
    let last = state.broker.last(&topic, retention, false).await?;
    Ok(wanted.ok(&TopicAnswer {
        namespace: topic.namespace().to_owned(),
        sessions: nodes.iter().map(|node| node.sessions).sum(),
        nodes,
        position: last,
        home: state.directory.home(&topic),
        history: Kept {
            entries_max: retention.entries_max,
            age_ms: retention.age_ms,
        },
        topic,
    }))
}

/// What the topic retains, a page at a time.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/history", tag = "topics", operation_id = "get_history",
    params(("topic" = String, Path, description = "The topic, percent-encoded."), HistoryParams),
    responses((status = 200, description = "A page of publications.", body = HistoryAnswer), BadRequest, Refused)
)]
pub(super) async fn get_history(
    admitted: Admitted<asks::History>,
    wanted: Wanted,
    TopicName(name): TopicName,
    Fields(params): Fields<HistoryParams>,
) -> Result<Response, ApiError> {
    let topic = admitted.topic(&name)?;
    let state = admitted.state;
    let query = params.query(&state, topic)?;
    let page = history::read(&state, query).await?;
    Ok(tasks::heavy(page.bytes(), || wanted.ok(&page)).await)
}

/// The topic's members, a page at a time.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/presence", tag = "topics", operation_id = "get_presence",
    params(("topic" = String, Path, description = "The topic, percent-encoded."), PresenceParams),
    responses((status = 200, description = "A page of members.", body = MembersPage), BadRequest, Refused)
)]
pub(super) async fn get_presence(
    admitted: Admitted<asks::Presence>,
    wanted: Wanted,
    TopicName(name): TopicName,
    Fields(params): Fields<PresenceParams>,
) -> Result<Response, ApiError> {
    let topic = admitted.topic(&name)?;
    let state = admitted.state;
    let limit = names::within(params.limit, &state)?;
    let page = state.directory.members(&topic, params.after, limit).await?;
    let infos = page
        .members
        .iter()
        .filter_map(|member| member.info.as_ref());
    let bytes =
        infos.map(|info| info.bytes_count()).sum::<usize>() + page.members.len() * ENTRY_BYTES;
    Ok(tasks::heavy(bytes, || wanted.ok(&page)).await)
}
