//! Errors of the HTTP API: one body `{"error":{"code","message"}}` for every cause.
//!
//! In: a [`WireError`] from any handler, layer or fallback. Out: a response with the code's
//! status and the headers that go with it, in the form that the caller reads. The error travels
//! as an extension of the response, because only the outermost layer knows that form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body;
use crate::broker::BrokerError;
use crate::protocol::codec::Wire;
use crate::protocol::error::{ErrorCode, WireError};
use crate::protocol::event::ErrorBody;

/// When a caller should repeat what the node could not take, where nothing better is known.
const RETRY_AFTER_S: u64 = 1;

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError(pub WireError);

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorAnswer {
    /// What went wrong.
    pub error: ErrorBody,
}

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self(error)
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        Self(broker_error(&error))
    }
}

/// What the caller is told when the broker did not do it.
pub(super) fn broker_error(error: &BrokerError) -> WireError {
    match error {
        BrokerError::Unavailable(_) => {
            WireError::unavailable("the broker is not available; nothing was done")
        }
        BrokerError::Refused(_) => WireError::unavailable(error.to_string()),
        BrokerError::Unknown(_) => WireError::unavailable(
            "the broker's answer was lost and the outcome is unknown; repeat the request, \
             publications with the same idempotency_key as before",
        ),
        BrokerError::Unexpected(_) => {
            tracing::error!(event = "api_broker_answer", %error, "the broker's answer to an API request makes no sense");
            WireError::new(ErrorCode::Internal, "internal error")
        }
    }
}

/// The error as it stands in results.
pub(super) fn as_body(error: WireError) -> ErrorBody {
    ErrorBody {
        code: error.code,
        message: error.message.into_owned(),
    }
}

/// The status of a code.
pub(super) fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.status()).expect("every code has a status between 400 and 599")
}

/// Adds the headers that the code asks for.
pub(super) fn add_headers(response: &mut Response, error: &WireError) {
    let headers = response.headers_mut();
    if matches!(error.code, ErrorCode::Unavailable | ErrorCode::RateLimited) {
        let seconds = error
            .retry_after_ms
            .map_or(RETRY_AFTER_S, |ms| ms.div_ceil(1_000));
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    if error.code == ErrorCode::Unauthorized {
        let bearer = HeaderValue::from_static("Bearer");
        headers.insert(header::WWW_AUTHENTICATE, bearer);
    }
}

/// The whole response in one form.
pub(super) fn render(wire: Wire, error: &WireError) -> Response {
    let answer = ErrorAnswer {
        error: as_body(error.clone()),
    };
    let mut response = body::response(wire, status(error.code), &answer);
    add_headers(&mut response, error);
    response
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = status(self.0.code).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_says_decides_whether_the_caller_should_repeat() {
        let text = || "the cause, for the operator".to_owned();
        let rows = [
            (
                BrokerError::Unavailable(text()),
                ErrorCode::Unavailable,
                "nothing was done",
            ),
            (
                BrokerError::Unknown(text()),
                ErrorCode::Unavailable,
                "idempotency_key",
            ),
            (
                BrokerError::Unexpected(text()),
                ErrorCode::Internal,
                "internal",
            ),
        ];
        for (error, code, says) in rows {
            let told = broker_error(&error);
            assert_eq!(told.code, code);
            assert!(told.message.contains(says), "{told}");
            assert!(!told.message.contains("operator"), "{told}");
            let response = render(Wire::Json, &told);
            assert_eq!(response.status().as_u16(), code.status());
            let repeats = response.headers().contains_key(header::RETRY_AFTER);
            assert_eq!(repeats, code == ErrorCode::Unavailable);
        }
    }
}
