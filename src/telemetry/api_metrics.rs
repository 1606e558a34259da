//! The instruments of the HTTP API.
//!
//! In: each answer, with its route, its status and how long it took. Out: families. Any thread counts.

use std::time::Duration;

use super::counter::{Counter, Longest};
use super::family::{Family, Kind, Label as _, Table};
use super::histogram::Histogram;
use super::labels::{ApiRefusal, Route, Status};
use fanfare_protocol::error::ErrorCode;

/// See the module.
#[derive(Debug, Default)]
pub struct ApiMetrics {
    requests: Table<Route, Table<Status, Counter>>,
    seconds: Table<Route, Histogram>,
    /// Callers that were refused, by why.
    pub refused: Table<ApiRefusal, Counter>,
    /// Errors that callers were told by calls under `/v1/`, by code.
    pub errors: Table<ErrorCode, Counter>,
    /// Calls under `/v1/` whose callers had waited for long enough.
    pub given_up: Counter,
    /// The longest request.
    pub longest: Longest,
    /// Answers that were given up, because nobody took them.
    pub cut_off: Counter,
}

impl ApiMetrics {
    /// A request was answered.
    pub fn answered(&self, route: Route, status: Status, took: Duration) {
        self.requests.of(route).of(status).add(1);
        self.seconds.of(route).count(took);
        self.longest.note(took);
    }

    /// A caller was told an error, of all that was asked for or of a part.
    pub fn told(&self, route: Route, code: ErrorCode) {
        if route.is_call() {
            self.errors.of(code).add(1);
        }
    }

    /// How long the requests took that are calls.
    pub fn calls(&self) -> impl Iterator<Item = &Histogram> {
        let calls = Route::ALL.iter().filter(|route| route.is_call());
        calls.map(|route| self.seconds.of(*route))
    }

    /// How many requests of a route were answered so.
    #[must_use]
    pub fn requests(&self, route: Route, status: Status) -> u64 {
        self.requests.of(route).of(status).get()
    }

    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let requests = Family::of(
            Kind::Counter,
            "fanfare_api_requests_total",
            "Requests to the HTTP API, by the template of their path and the status of their answer, 499 where the caller went away before it (what was asked for may have been done); pairs that did not occur are left out.",
            &self.requests,
        );
        vec![
            requests.sparse(),
            Family::of(
                Kind::Counter,
                "fanfare_api_errors_total",
                "Errors that callers of /v1/ were told, by code; a request of which a part failed counts once, by the error of the node's if there is one, though its status is that of success.",
                &self.errors,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_api_refused_total",
                "Calls of /v1/ and targets of publications that were refused for who asked: no_key, wrong_key (too_many counts those of them that were answered with 429), expired, app, scope, topic; and audit for acts that were not done because the audit could not be written, acts for those of a client that asked for too many at once.",
                &self.refused,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_api_given_up_total",
                "Requests to /v1/ whose callers went away without an answer, after they had waited for at least 100 ms.",
                &self.given_up,
            ),
            Family::of(
                Kind::Histogram,
                "fanfare_api_request_seconds",
                "From when the head of a request was read to when its answer was there to be written, or its caller had gone; without the time that its body took to come.",
                &self.seconds,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_api_answers_cut_off_total",
                "Connections to the API that were ended because their caller did not take an answer in time.",
                &self.cut_off,
            ),
        ]
    }
}
