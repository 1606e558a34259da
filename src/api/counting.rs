//! What becomes of a request, in numbers, and in the log where it took long.
//!
//! In: method, route, status and time of each request, also of those whose caller went away before
//! the answer. Out: what is counted of it, and a line of the log above `log.slow_ms`, with the route and
//! not the path, because paths name topics and users. Bounds: those of the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{Method, StatusCode};

use super::state::ApiState;
use crate::telemetry::family::Label as _;
use crate::telemetry::labels::Route;
use fanfare_protocol::error::ErrorCode;

/// The status of a request that has none, because nobody is there for it.
const CALLER_GONE: u16 = 499;

/// A request from its head to its answer. Counted once, also where its caller goes away meanwhile:
/// then this is dropped with the rest of the request.
pub(super) struct Counting {
    state: Arc<ApiState>,
    begun_at: Instant,
    route: Route,
    method: Method,
    status: Option<StatusCode>,
    code: Option<ErrorCode>,
}

impl Counting {
    /// A request of this route begins.
    pub(super) fn begin(state: &Arc<ApiState>, route: Route, method: &Method) -> Self {
        Self {
            state: Arc::clone(state),
            begun_at: Instant::now(),
            route,
            method: method.clone(),
            status: None,
            code: None,
        }
    }

    /// It has an answer, with this code if it is an error.
    pub(super) fn answered(mut self, status: StatusCode, code: Option<ErrorCode>) {
        self.status = Some(status);
        self.code = code;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let took = self.begun_at.elapsed();
        let status = self.status.map_or(CALLER_GONE, |status| status.as_u16());
        let api = &self.state.metrics.api;
        self.code
            .into_iter()
            .for_each(|code| api.told(self.route, code));
        api.answered(self.route, status.into(), took);
        let slow = self.state.config.log.slow;
        tell(slow, took, (&self.method, self.route), status);
    }
}

/// Tells of a request that took longer than `slow`; with zero of none.
fn tell(slow: Duration, took: Duration, (method, route): (&Method, Route), status: u16) {
    if slow.is_zero() || took <= slow {
        return;
    }
    let (method, route) = (known(method), route.word());
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    tracing::warn!(
        event = "request_slowed",
        method,
        route,
        status,
        duration_ms,
        "a request to the API took long"
    );
}

/// A method of the API's, and no word of a caller's.
pub(super) fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::DELETE | Method::HEAD => method.as_str(),
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_of_a_callers_own_is_not_told() {
        assert_eq!(known(&Method::DELETE), "DELETE");
        assert_eq!(known(&Method::from_bytes(b"ADA").expect("a word")), "other");
    }
}
