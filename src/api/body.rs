//! Bodies in both forms: what a request holds, and in which form the caller wants its answer.
//!
//! In: headers and bytes of a request. Out: [`Sent`], the whole body with its form, and
//! [`Wanted`], which makes responses. Bounds: one body at most `api.body_bytes_max` (413), all
//! bodies together as [`super::body_budget`] says (429), and a body must arrive within
//! [`BODY_TIMEOUT`] (408).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use super::error::ApiError;
use super::state::ApiState;
use crate::http::error::HttpError;
use crate::http::media::Form;
use crate::tasks;
use fanfare_protocol::error::{ErrorCode, WireError};
use fanfare_protocol::form::Encoding;

/// Longest time for a body to arrive. A caller inside the data centre needs far less; one that
/// stops in the middle must not hold its part of the budget.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// The form of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Wanted(pub Form);

impl Wanted {
    /// A 200 with this body.
    #[must_use]
    pub fn ok(self, body: &impl Serialize) -> Response {
        self.with(StatusCode::OK, body)
    }

    /// Another status with this body.
    #[must_use]
    pub fn with(self, status: StatusCode, body: &impl Serialize) -> Response {
        self.0.response(status, body).map(Body::from)
    }
}

impl<S: Sync> FromRequestParts<S> for Wanted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(Form::wanted(&parts.headers)))
    }
}

/// A whole request body. It holds its part of the budget until it is dropped.
#[derive(Debug)]
pub struct Sent {
    /// Its form.
    pub encoding: Encoding,
    /// Its bytes.
    pub bytes: Bytes,
    _budget: OwnedSemaphorePermit,
}

impl FromRequest<Arc<ApiState>> for Sent {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        // What is refused before its end leaves the rest of its body on the connection.
        let refused = |error: WireError| ApiError(HttpError::from(error).closing());
        let encoding = readable(request.headers()).map_err(refused)?;
        let bytes_max = state.config.api.body_bytes_max;
        let announced = match request.headers().get(header::CONTENT_LENGTH) {
            Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()),
            None => None,
        };
        if announced.is_some_and(|length: usize| length > bytes_max) {
            return Err(refused(too_large(bytes_max)));
        }
        let budget = state.bodies.take(announced, bytes_max);
        let budget = budget.map_err(refused)?;
        let mut collected = pin!(Limited::new(request.into_body(), bytes_max).collect());
        // Most bodies have come with their head, and need no timer.
        let collected = match collected.as_mut().now_or_never() {
            Some(collected) => Ok(collected),
            None => tokio::time::timeout(BODY_TIMEOUT, collected).await,
        };
        let bytes = match collected {
            Err(_elapsed) => {
                let text = "the body did not arrive in time";
                return Err(WireError::new(ErrorCode::RequestTimeout, text).into());
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(refused(too_large(bytes_max)));
            }
            Ok(Err(_broken)) => {
                return Err(refused(WireError::bad_request(
                    "the body could not be read",
                )));
            }
            Ok(Ok(collected)) => {
                let mut parts = collected.aggregate();
                let length = parts.remaining();
                tasks::heavy(length, || parts.copy_to_bytes(length)).await
            }
        };
        Ok(Self {
            encoding,
            bytes,
            _budget: budget,
        })
    }
}

/// The form of a body that can be read.
fn readable(headers: &HeaderMap) -> Result<Encoding, WireError> {
    let unsupported = |text| WireError::new(ErrorCode::UnsupportedMediaType, text);
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_plain = |coding: &[u8]| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    };
    if !codings.all(is_plain) {
        return Err(unsupported("a body is read without Content-Encoding only"));
    }
    let form = Form::sent(headers).ok_or_else(|| {
        unsupported("the content type must be application/json or application/msgpack")
    })?;
    Ok(form.encoding)
}

fn too_large(bytes_max: usize) -> WireError {
    WireError::new(
        ErrorCode::TooLarge,
        format!("the body is longer than {bytes_max} bytes"),
    )
}
