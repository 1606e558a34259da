//! Names in a request's path, and the lengths of pages, checked before a handler sees them.
//!
//! In: the percent-decoded path and the query's pairs. Out: typed values, or the error that says which
//! one is wrong. Nothing is kept here.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::ApiError;
use super::publication::invalid_user;
use super::query::Pairs;
use super::state::ApiState;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::ids::{NodeId, Position, User};

/// The name of a topic in the path; whether it is one is known together with the caller's app.
#[derive(Debug)]
pub(super) struct TopicName(pub(super) String);

/// The user that the path names.
#[derive(Debug)]
pub(super) struct UserName(pub(super) User);

/// The node that the path names.
#[derive(Debug)]
pub(super) struct NodeName(pub(super) NodeId);

impl FromRequestParts<Arc<ApiState>> for TopicName {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        Ok(Self(path_name(parts).await?))
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
        .map_err(|_rejection| WireError::bad_request("the name in the path is not UTF-8"))?;
    Ok(name)
}

/// How many entries a page shall have.
///
/// # Errors
/// `bad_request` for none or no number, `limit_exceeded` above the most.
pub(super) fn page_limit(pairs: &Pairs) -> Result<Option<u32>, WireError> {
    // What is beyond 32 bits is beyond every page.
    let read = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        digits
            .then(|| text.parse().unwrap_or(u32::MAX))
            .filter(|limit| *limit > 0)
    };
    pairs.get("limit", "an integer above 0", read)
}

/// The same within the node's bound.
///
/// # Errors
/// `limit_exceeded` above the most.
pub(super) fn within(asked: Option<u32>, state: &ApiState) -> Result<u32, WireError> {
    /// Entries in a page where the caller names no number. Part of the contract.
    const DEFAULT: u32 = 100;
    let most = state.config.session.page_max;
    match asked {
        Some(limit) if limit > most => Err(WireError::new(
            ErrorCode::LimitExceeded,
            format!("`limit` must be at most {most}"),
        )),
        asked => Ok(asked.unwrap_or(DEFAULT.min(most))),
    }
}

/// What a position must be.
const POSITION: &str = "a position: MILLISECONDS-SEQUENCE, for example 1732190000000-7";

/// A position in the query.
///
/// # Errors
/// `bad_request` for what is none.
pub(super) fn position(pairs: &Pairs, name: &str) -> Result<Option<Position>, WireError> {
    pairs.get(name, POSITION, |text| text.parse().ok())
}
