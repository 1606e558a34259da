//! Bodies in both forms: what a request holds, and in which form the caller wants its answer.
//!
//! In: headers and bytes of a request. Out: [`Sent`], the whole body with its form, and
//! [`Wanted`], which makes responses. Bounds: one body at most `api.body_bytes_max` (413), all
//! bodies together [`BODIES_AT_ONCE`] times that (429), and a body must arrive within
//! [`BODY_TIMEOUT`] (400).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::state::ApiState;
use crate::protocol::codec::Wire;
use crate::protocol::error::{ErrorCode, WireError};

/// Content type of JSON.
pub const JSON: &str = "application/json";
/// Content type of MessagePack.
pub const MSGPACK: &str = "application/msgpack";

/// How many bodies of the longest length may be held at the same time. With the default of
/// 8 MiB that is 128 MiB; short bodies never meet it.
pub const BODIES_AT_ONCE: usize = 16;

/// Longest time that a refused body is still taken.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time for a body to arrive. A caller inside the data centre needs far less; one that
/// stops in the middle must not hold its part of the budget.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes that one permit of the budget stands for, so that the count fits the semaphore.
const PERMIT_BYTES: usize = 1_024;

/// The form of the answer.
#[derive(Debug, Clone, Copy)]
pub struct Wanted(pub Wire);

impl Wanted {
    /// The first form that `Accept` names, else that of the request's body, else JSON.
    #[must_use]
    pub fn by(headers: &HeaderMap) -> Self {
        let accepted = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(form_of);
        Self(
            accepted
                .or_else(|| sent_form(headers))
                .unwrap_or(Wire::Json),
        )
    }

    /// A 200 with this body.
    #[must_use]
    pub fn ok(self, body: &impl Serialize) -> Response {
        response(self.0, StatusCode::OK, body)
    }
}

impl<S: Sync> FromRequestParts<S> for Wanted {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::by(&parts.headers))
    }
}

/// A response with a body in this form.
pub(super) fn response(wire: Wire, status: StatusCode, body: &impl Serialize) -> Response {
    let (bytes, content_type) = match wire {
        Wire::Json => (
            serde_json::to_vec(body).expect("answers have text keys and finite numbers"),
            JSON,
        ),
        Wire::MsgPack => (
            rmp_serde::to_vec_named(body).expect("answers are maps, lists and scalars"),
            MSGPACK,
        ),
    };
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The form that a media type names, its parameters ignored.
fn form_of(media_type: &str) -> Option<Wire> {
    let essence = media_type.split(';').next()?.trim();
    if essence.eq_ignore_ascii_case(JSON) {
        Some(Wire::Json)
    } else if essence.eq_ignore_ascii_case(MSGPACK) {
        Some(Wire::MsgPack)
    } else {
        None
    }
}

fn sent_form(headers: &HeaderMap) -> Option<Wire> {
    let value = headers.get(header::CONTENT_TYPE)?;
    form_of(value.to_str().ok()?)
}

/// Bytes of bodies that may be held at the same time.
#[derive(Debug)]
pub struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    /// Room for [`BODIES_AT_ONCE`] bodies of the longest length.
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        let permits = BODIES_AT_ONCE * body_bytes_max.div_ceil(PERMIT_BYTES);
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Takes what a body of this length needs, without waiting.
    fn take(&self, length: usize) -> Result<OwnedSemaphorePermit, WireError> {
        let permits = u32::try_from(length.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.0)
            .try_acquire_many_owned(permits)
            .map_err(|_full| {
                WireError::new(
                    ErrorCode::RateLimited,
                    "too many large request bodies at the same time",
                )
            })
    }
}

/// A whole request body. It holds its part of the budget until it is dropped.
#[derive(Debug)]
pub struct Sent {
    /// Its form.
    pub wire: Wire,
    /// Its bytes.
    pub bytes: Bytes,
    _budget: OwnedSemaphorePermit,
}

impl FromRequest<Arc<ApiState>> for Sent {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<ApiState>) -> Result<Self, ApiError> {
        let wire = sent_form(request.headers()).ok_or_else(|| {
            WireError::new(
                ErrorCode::UnsupportedMediaType,
                "the content type must be application/json or application/msgpack",
            )
        })?;
        let bytes_max = state.config.api.body_bytes_max;
        // A body without a length may turn out to be of any length up to the limit.
        let length = match request.headers().get(header::CONTENT_LENGTH) {
            Some(value) => value.to_str().ok().and_then(|text| text.parse().ok()),
            None => None,
        };
        let length = length.unwrap_or(bytes_max);
        if length > bytes_max {
            discard(request.into_body(), bytes_max).await;
            return Err(too_large(bytes_max).into());
        }
        let budget = state.bodies.take(length)?;
        let collected = Limited::new(request.into_body(), bytes_max).collect();
        let bytes = match tokio::time::timeout(BODY_TIMEOUT, collected).await {
            Err(_elapsed) => {
                return Err(WireError::bad_request("the body did not arrive in time").into());
            }
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(too_large(bytes_max).into());
            }
            Ok(Err(_broken)) => {
                return Err(WireError::bad_request("the body could not be read").into());
            }
            Ok(Ok(collected)) => collected.to_bytes(),
        };
        Ok(Self {
            wire,
            bytes,
            _budget: budget,
        })
    }
}

/// Takes a body that is refused, up to a second limit: closing with unread bytes would reset the
/// connection, and the caller would never see the answer.
async fn discard(mut body: Body, bytes_max: usize) {
    let mut taken = 0;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await
            && taken <= 2 * bytes_max
        {
            taken += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // A caller that is slower than that does not want the answer.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, all).await;
}

fn too_large(bytes_max: usize) -> WireError {
    WireError::new(
        ErrorCode::TooLarge,
        format!("the body is longer than {bytes_max} bytes"),
    )
}
