//! Who may call the API: whoever presents one of the configured keys, while there is a node behind.
//!
//! In: the request's `Authorization` header and where the node stands in its life. Out: what
//! handlers read ([`Admitted`]), or 401 or 503. Health, metrics and the OpenAPI document ask for no
//! admission.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use super::state::ApiState;
use crate::config::Secret;
use crate::http;
use crate::http::error::HttpError;
use crate::lifecycle::Lifecycle;
use fanfare_protocol::error::{ErrorCode, WireError};

/// The keys in force, which can be replaced while the API serves. The lock is held for one look or
/// one replacement.
#[derive(Debug)]
pub struct ApiKeys(RwLock<Vec<Secret>>);

impl ApiKeys {
    /// These keys.
    #[must_use]
    pub fn new(keys: &[Secret]) -> Self {
        Self(RwLock::new(keys.to_vec()))
    }

    /// Goes on with these keys.
    pub fn replace(&self, keys: &[Secret]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    fn have(&self, presented: &[u8]) -> bool {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        is_valid(&keys, presented)
    }
}

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

/// Compares with every key to the end, so that the time tells nothing about which or how much
/// of one was right (their lengths apart).
fn is_valid(keys: &[Secret], presented: &[u8]) -> bool {
    let mut found = Choice::from(0);
    for Secret(key) in keys {
        // An empty key can never be presented rightly, whatever was configured.
        found |= key.as_bytes().ct_eq(presented) & Choice::from(u8::from(!key.is_empty()));
    }
    found.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_configured_key_is_valid_and_nothing_else() {
        let keys = [
            Secret("one".into()),
            Secret(String::new()),
            Secret("two".into()),
        ];
        for good in ["one", "two"] {
            assert!(is_valid(&keys, good.as_bytes()));
        }
        for bad in ["", "on", "onee", "ONE", "three"] {
            assert!(!is_valid(&keys, bad.as_bytes()), "{bad:?}");
        }
        assert!(!is_valid(&[], b"one"));
    }
}
