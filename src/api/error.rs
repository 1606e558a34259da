//! Errors of the HTTP API on their way to the caller.
//!
//! In: a [`WireError`] or [`HttpError`] from any handler, layer or fallback. Out: a response with the
//! error as an extension, because only the outermost layer ([`super::observe`]) knows the form that
//! the caller reads. Status, headers and body are those of [`crate::http::error`].

use axum::response::{IntoResponse, Response};

use crate::broker::BrokerError;
use crate::http::error::HttpError;
use crate::protocol::error::{ErrorCode, WireError};

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError(pub HttpError);

impl From<WireError> for ApiError {
    fn from(error: WireError) -> Self {
        Self(error.into())
    }
}

impl From<HttpError> for ApiError {
    fn from(error: HttpError) -> Self {
        Self(error)
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> Self {
        broker_error(&error).into()
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
            tracing::error!(
                event = "api_broker_answer_misread",
                error = error as &(dyn std::error::Error + 'static),
                "the broker's answer to an API request makes no sense"
            );
            WireError::new(ErrorCode::Internal, "internal error")
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
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
        }
    }
}
