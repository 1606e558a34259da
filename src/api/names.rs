//! Names and numbers in a request's path and query, checked before a handler sees them.
//!
//! In: the percent-decoded path and the query. Out: typed values, or the error that says which
//! one is wrong. Nothing is kept here.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use super::publication::invalid_user;
use super::state::ApiState;
use crate::protocol::error::WireError;
use crate::protocol::ids::{NodeId, Topic, User};

/// The topic that the path names.
#[derive(Debug)]
pub(super) struct TopicName(pub(super) Topic);

/// The user that the path names.
#[derive(Debug)]
pub(super) struct UserName(pub(super) User);

/// The node that the path names.
#[derive(Debug)]
pub(super) struct NodeName(pub(super) NodeId);

/// The fields of the query.
#[derive(Debug)]
pub(super) struct Fields<T>(pub(super) T);

impl FromRequestParts<Arc<ApiState>> for TopicName {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let name = path_name(parts).await?;
        let topic = Topic::new(&state.app, &name).map_err(WireError::from)?;
        Ok(Self(topic))
    }
}

impl FromRequestParts<Arc<ApiState>> for UserName {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let name = path_name(parts).await?;
        Ok(Self(User::new(&name).map_err(invalid_user)?))
    }
}

impl FromRequestParts<Arc<ApiState>> for NodeName {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        let name = path_name(parts).await?;
        let invalid = |error| WireError::bad_request(format!("the node's name: {error}"));
        Ok(Self(NodeId::new(&name).map_err(invalid)?))
    }
}

async fn path_name(parts: &mut Parts) -> Result<String, WireError> {
    let Path(name) = Path::<String>::from_request_parts(parts, &())
        .await
        .map_err(|rejection| WireError::bad_request(rejection.body_text()))?;
    Ok(name)
}

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Fields<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Query(fields) = Query::try_from_uri(&parts.uri)
            .map_err(|rejection| WireError::bad_request(rejection.body_text()))?;
        Ok(Self(fields))
    }
}

/// How many entries a page shall have.
///
/// # Errors
/// `bad_request` for none, `limit_exceeded` above the most.
pub(super) fn page_limit(asked: Option<u32>, state: &ApiState) -> Result<u32, WireError> {
    /// Entries in a page where the caller names no number. Part of the contract.
    const DEFAULT: u32 = 100;
    let most = state.config.session.page_max;
    match asked {
        None => Ok(DEFAULT.min(most)),
        Some(0) => Err(WireError::bad_request("`limit` must be at least 1")),
        Some(limit) if limit > most => Err(WireError::new(
            crate::protocol::error::ErrorCode::LimitExceeded,
            format!("`limit` must be at most {most}"),
        )),
        Some(limit) => Ok(limit),
    }
}
