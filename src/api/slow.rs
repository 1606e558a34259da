//! What the log says of a request that took long.
//!
//! In: method, route and time of each answered request. Out: a line of the log above `log.slow_ms`,
//! with the route and not the path, because paths name topics and users. Bounds: those of the log.

use std::time::Duration;

use axum::http::{Method, StatusCode};

use crate::telemetry::family::Label as _;
use crate::telemetry::labels::Route;

/// Tells of a request that took longer than `slow`; with zero of none.
pub(super) fn tell(
    slow: Duration,
    took: Duration,
    (method, route): (&Method, Route),
    status: StatusCode,
) {
    if slow.is_zero() || took <= slow {
        return;
    }
    let (method, route) = (known(method), route.word());
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let status = status.as_u16();
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
fn known(method: &Method) -> &str {
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
