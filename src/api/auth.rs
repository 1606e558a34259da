//! Who may call the API: whoever presents one of the configured keys.
//!
//! In: the request's `Authorization` header. Out: the request goes on, or 401. Health, metrics
//! and the OpenAPI document are routed past this layer.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use super::state::ApiState;
use crate::config::Secret;
use crate::http;
use crate::http::error::HttpError;
use crate::protocol::error::ErrorCode;

/// The keys in force, which can be replaced while the API serves. The lock is held for one look or
/// one replacement.
#[derive(Debug)]
pub struct ApiKeys(RwLock<Arc<[Secret]>>);

impl ApiKeys {
    /// These keys.
    #[must_use]
    pub fn new(keys: &[Secret]) -> Self {
        Self(RwLock::new(keys.into()))
    }

    /// Goes on with these keys.
    pub fn replace(&self, keys: &[Secret]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    fn now(&self) -> Arc<[Secret]> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Lets the request pass if its key is right.
///
/// # Errors
/// 401 `unauthorized` without a key or with a wrong one.
pub async fn require_key(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let presented = http::request::bearer(request.headers());
    let refused = match presented {
        Ok(Some(key)) if is_valid(&state.keys.now(), key) => {
            return Ok(next.run(request).await);
        }
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
    Err(match http::request::has_body(request.headers()) {
        true => refused.closing(),
        false => refused,
    }
    .into())
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
