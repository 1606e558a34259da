//! Who may call the API: whoever presents one of the configured keys, while there is a node behind.
//!
//! In: the request's `Authorization` header and where the node stands in its life. Out: what
//! handlers read ([`Admitted`]), or 401 or 503. Health, metrics and the OpenAPI document ask for no
//! admission.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

use super::error::ApiError;
use super::state::ApiState;
use crate::http;
use crate::http::error::HttpError;
use crate::lifecycle::Lifecycle;
use fanfare_protocol::error::{ErrorCode, WireError};

/// What handlers read, for a call with the right key while the node runs. Every call below `/v1/`
/// takes this first: a caller without a key learns nothing of what else is wrong.
pub(super) struct Admitted(pub(super) Arc<ApiState>);

impl FromRequestParts<Arc<ApiState>> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<ApiState>,
    ) -> Result<Self, ApiError> {
        require_key(state, &parts.headers)?;
        require_running(state)?;
        Ok(Self(Arc::clone(state)))
    }
}

/// 401 without a key or with a wrong one.
fn require_key(state: &ApiState, headers: &HeaderMap) -> Result<(), HttpError> {
    let refused = match http::request::bearer(headers) {
        Ok(Some(key)) if state.keys.have(key) => return Ok(()),
        Ok(Some(_)) => {
            HttpError::new(ErrorCode::Unauthorized, "this is no valid API key").presented()
        }
        Ok(None) => HttpError::new(
            ErrorCode::Unauthorized,
            "a valid API key is needed: Authorization: Bearer KEY",
        ),
        Err(several) => several,
    };
    state.metrics.control.api_unauthorized.add(1);
    tracing::debug!(event = "api_key_refused", reason = %refused.error.message, "a call was refused");
    // A body that is not read would be taken for the next request.
    Err(match http::request::has_body(headers) {
        true => refused.closing(),
        false => refused,
    })
}

/// Whether a request has a valid key; it is refused, or not, by whoever handles it.
pub(super) fn has_key(state: &ApiState, headers: &HeaderMap) -> bool {
    matches!(http::request::bearer(headers), Ok(Some(key)) if state.keys.have(key))
}

/// 503 while there is no node behind the call.
fn require_running(state: &ApiState) -> Result<(), WireError> {
    match state.directory.lifecycle() {
        Lifecycle::Ready | Lifecycle::Draining => Ok(()),
        Lifecycle::Starting => Err(WireError::unavailable("this node is starting")),
        Lifecycle::Closing | Lifecycle::Stopped => {
            Err(WireError::unavailable("this node is stopping"))
        }
    }
}
