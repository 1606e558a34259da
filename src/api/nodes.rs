//! `GET /v1/nodes`, `GET /v1/route` and `POST /v1/nodes/{node}/drain`: who is there, who is the
//! home of what, and the order to leave.
//!
//! In: the directory's view of the cluster. Out: that view. It may be old, for as long as Redis is
//! away or takes no writes, and each member says how old: that costs a caller time and never a
//! message. The order to leave goes to every node, and the one that it names obeys.

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::about::About;
use super::auth::{Admitted, asks};
use super::body::Wanted;
use super::error::ApiError;
use super::names::NodeName;
use super::publication::invalid_user;
use super::query::{Fields, NoFields, Pairs, QueryFields};
use super::schema::{BadRequest, Refused};
use super::state::NodeStatus;
use crate::http::bodies::Route;
use crate::tasks;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::User;

/// About what a node takes in an answer.
const NODE_BYTES: usize = 512;

/// The cluster.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodesAnswer {
    /// Its members, sorted by name.
    pub nodes: Vec<NodeStatus>,
    /// The number of partitions, the same on every node.
    pub partitions: u32,
}

/// The node that was told to leave.
#[derive(Debug, Serialize, ToSchema)]
pub struct DrainAnswer {
    /// Its name.
    pub node: String,
}

/// Whose home; exactly one of the two.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RouteParams {
    /// A user.
    #[param(nullable = false)]
    user: Option<String>,
    /// A topic.
    #[param(nullable = false)]
    topic: Option<String>,
}

impl QueryFields for RouteParams {
    const NAMES: &'static [&'static str] = &["user", "topic"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let text = |name| pairs.text(name).map(str::to_owned);
        Ok(Self {
            user: text("user"),
            topic: text("topic"),
        })
    }
}

/// The members of the cluster, with load, ring share and state.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, description = "The members.", body = NodesAnswer), BadRequest, Refused)
)]
pub(super) async fn list_nodes(
    Admitted { state, .. }: Admitted<asks::SeeNodes>,
    wanted: Wanted,
    Fields(NoFields): Fields<NoFields>,
) -> Response {
    let answer = NodesAnswer {
        nodes: state.directory.nodes(),
        partitions: state.config.redis.partitions,
    };
    let bytes = answer.nodes.len() * NODE_BYTES;
    tasks::heavy(bytes, || wanted.ok(&answer)).await
}

/// The home of a user or topic.
#[utoipa::path(
    get, path = "/v1/route", tag = "cluster", operation_id = "get_route",
    params(RouteParams),
    responses((status = 200, description = "The home.", body = Route), BadRequest, Refused)
)]
pub(super) async fn get_route(
    admitted: Admitted<asks::Home>,
    wanted: Wanted,
    Fields(params): Fields<RouteParams>,
) -> Result<Response, ApiError> {
    let topic = match (params.user, params.topic) {
        (Some(user), None) => {
            let user = User::new(&user).map_err(invalid_user)?;
            admitted.inbox(&user)?
        }
        (None, Some(topic)) => admitted.topic(&topic)?,
        _ => {
            let message = "exactly one of `user` and `topic` is needed";
            return Err(WireError::bad_request(message).into());
        }
    };
    Ok(wanted.ok(&admitted.state.directory.home(&topic)))
}

/// Drain a node: it takes nobody in any more, sends its sessions away at its pace, and ends.
///
/// Any node may be asked. 200 says that the node was told; `GET /v1/nodes` shows how far it is.
#[utoipa::path(
    post, path = "/v1/nodes/{node}/drain", tag = "cluster", operation_id = "drain_node",
    params(("node" = String, Path, description = "The node's name.")),
    responses(
        (status = 200, description = "The node was told.", body = DrainAnswer),
        BadRequest, Refused
    )
)]
pub(super) async fn drain_node(
    admitted: Admitted<asks::Drain>,
    wanted: Wanted,
    NodeName(node): NodeName,
    Fields(NoFields): Fields<NoFields>,
) -> Result<Response, ApiError> {
    const OPERATION: &str = "drain_node";
    let state = &admitted.state;
    let nodes = state.directory.nodes();
    if !nodes.iter().any(|one| one.node == node.as_str()) {
        let message = format!("no node `{node}` has a lease");
        return Err(WireError::new(ErrorCode::NotFound, message).into());
    }
    let about = About::default().with("node", &node.as_str());
    match node == state.config.server.node_id {
        // It must be able to leave while Redis is away.
        true => admitted.audit_if_possible(OPERATION, about).await,
        false => admitted.audit(OPERATION, about).await?,
    }
    state.directory.drain(&node).await?;
    Ok(wanted.ok(&DrainAnswer {
        node: node.to_string(),
    }))
}
