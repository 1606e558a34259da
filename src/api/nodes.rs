//! `GET /v1/nodes` and `GET /v1/route`: who is there, and who is the home of what.
//!
//! In: the directory's view of the cluster. Out: that view. It may be old for as long as a lease
//! lasts, which costs a caller time and never a message.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::body::Wanted;
use super::error::ApiError;
use super::names::Fields;
use super::publication::invalid_user;
use super::schema::{BadRequest, Refused};
use super::state::{ApiState, NodeStatus, Route};
use crate::protocol::error::WireError;
use crate::protocol::ids::{Topic, User};

/// The cluster.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodesAnswer {
    /// Its members, sorted by name.
    pub nodes: Vec<NodeStatus>,
    /// The number of partitions, the same on every node.
    pub partitions: u32,
}

/// Whose home; exactly one of the two.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub struct RouteParams {
    /// A user.
    user: Option<String>,
    /// A topic.
    topic: Option<String>,
}

/// The members of the cluster, with load, ring share and state.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "cluster", operation_id = "list_nodes",
    responses((status = 200, description = "The members.", body = NodesAnswer), Refused)
)]
pub(super) async fn list_nodes(State(state): State<Arc<ApiState>>, wanted: Wanted) -> Response {
    wanted.ok(&NodesAnswer {
        nodes: state.directory.nodes(),
        partitions: state.config.redis.partitions,
    })
}

/// The home of a user or topic.
#[utoipa::path(
    get, path = "/v1/route", tag = "cluster", operation_id = "get_route",
    params(RouteParams),
    responses((status = 200, description = "The home.", body = Route), BadRequest, Refused)
)]
pub(super) async fn get_route(
    State(state): State<Arc<ApiState>>,
    wanted: Wanted,
    Fields(params): Fields<RouteParams>,
) -> Result<Response, ApiError> {
    let topic = match (params.user, params.topic) {
        (Some(user), None) => {
            let user = User::new(&user).map_err(invalid_user)?;
            Topic::inbox(&state.app, &user)
        }
        (None, Some(topic)) => Topic::new(&state.app, &topic).map_err(WireError::from)?,
        _ => {
            let message = "exactly one of `user` and `topic` is needed";
            return Err(WireError::bad_request(message).into());
        }
    };
    Ok(wanted.ok(&state.directory.home(&topic)))
}
