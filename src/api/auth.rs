//! Who may call the API: whoever presents one of the configured keys.
//!
//! In: the request's `Authorization` header. Out: the request goes on, or 401. Health, metrics
//! and the OpenAPI document are routed past this layer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use super::state::ApiState;
use crate::config::Secret;
use crate::protocol::error::{ErrorCode, WireError};

/// Lets the request pass if its key is right.
///
/// # Errors
/// 401 `unauthorized` without a key or with a wrong one.
pub async fn require_key(
    State(state): State<Arc<ApiState>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !is_valid(&state.config.api.keys, bearer(request.headers())) {
        state.metrics.control.api_unauthorized.add(1);
        return Err(WireError::new(
            ErrorCode::Unauthorized,
            "a valid API key is needed: Authorization: Bearer KEY",
        )
        .into());
    }
    Ok(next.run(request).await)
}

/// The key of an `Authorization: Bearer KEY` header. The scheme's case is free (RFC 9110, 11.1).
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, key) = headers
        .get(header::AUTHORIZATION)?
        .as_bytes()
        .split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key)
}

/// Compares with every key to the end, so that the time tells nothing about which or how much
/// of one was right (their lengths apart).
fn is_valid(keys: &[Secret], presented: Option<&[u8]>) -> bool {
    let presented = presented.unwrap_or_default();
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
            assert!(is_valid(&keys, Some(good.as_bytes())));
        }
        for bad in ["", "on", "onee", "ONE", "three"] {
            assert!(!is_valid(&keys, Some(bad.as_bytes())), "{bad:?}");
        }
        assert!(!is_valid(&keys, None));
        assert!(!is_valid(&[], Some(b"one")));
    }

    #[test]
    fn the_key_follows_the_scheme_in_any_case() {
        let of = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|key| String::from_utf8_lossy(key).into_owned())
        };
        assert_eq!(of("Bearer k").as_deref(), Some("k"));
        assert_eq!(of("bearer k").as_deref(), Some("k"));
        assert_eq!(of("Basic k"), None);
        assert_eq!(of("Bearer"), None);
    }
}
