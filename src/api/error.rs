//! Errors of the HTTP API on their way to the caller.
//!
//! In: a [`WireError`] or [`HttpError`] from any handler, layer or fallback. Out: a response with the
//! error as an extension, because only the outermost step ([`super::Api::answer`]) knows the form that
//! the caller reads. Status, headers and body are those of [`crate::http::error`].

use axum::response::{IntoResponse, Response};

use crate::broker::BrokerError;
use crate::http::error::HttpError;
use fanfare_protocol::error::WireError;

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
        error.told().into()
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
    use crate::broker::unavailable;

    #[test]
    fn callers_are_told_each_failure_of_the_broker_in_its_words() {
        for error in unavailable::all() {
            let told = error.told();
            let ApiError(answer) = error.into();
            assert_eq!(answer.error, told);
            assert_eq!(answer.status().as_u16(), told.code.status());
        }
    }
}
