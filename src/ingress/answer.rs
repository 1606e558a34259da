//! Plain HTTP answers of the public door: small, whole, JSON.
//!
//! In: a status and what to say. Out: a response; the headers that its status asks for are on it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use crate::protocol::error::ErrorCode;

/// The body of every answer at the public door: small and whole.
pub type Body = Full<Bytes>;

/// The answer to a request that may not come in.
pub type Refused = Box<Response<Body>>;

/// What clients are asked to wait when there is no room or no broker.
pub const SOON: Duration = Duration::from_secs(1);

/// 503: come again after so long, in whole seconds, at least one.
#[must_use]
pub fn busy(text: &str, wait: Duration) -> Response<Body> {
    let mut response = refuse(503, ErrorCode::Unavailable, text);
    let seconds = wait.as_millis().div_ceil(1_000).max(1);
    let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// An error with its code, in the words of the protocol.
#[must_use]
pub fn refuse(status: u16, code: ErrorCode, message: &str) -> Response<Body> {
    json(
        status,
        &serde_json::json!({ "error": { "code": code, "message": message } }),
    )
}

/// JSON under this status.
#[must_use]
pub fn json(status: u16, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
