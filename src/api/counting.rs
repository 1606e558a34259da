//! What becomes of a request, in numbers, and in the log where it took long.
//!
//! In: method, route, status and time of each request, also of those whose caller went away before
//! the answer, and when its body came ([`Arriving`]). Out: what is counted of it, and a line of the log
//! above `log.slow_ms`, with the route and not the path, because paths name topics and users. What a
//! caller takes to send its body is no time of the node's. Bounds: those of the log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::HttpBody;
use axum::http::{Method, StatusCode};
use hyper::body::{Frame, SizeHint};

use super::state::ApiState;
use crate::tasks::running::Stopwatch;
use crate::telemetry::family::Label as _;
use crate::telemetry::labels::Route;
use fanfare_protocol::error::ErrorCode;

/// The status of a request that has none, because nobody is there for it.
const CALLER_GONE: u16 = 499;
/// Who goes away after it has waited for so long has given up on the node; who does so sooner has changed
/// its mind. Twice as long as 99 of 100 answers take where all is well.
const GAVE_UP_AFTER: Duration = Duration::from_millis(100);

/// A request from its head to its answer. Counted once, also where its caller goes away meanwhile:
/// then this is dropped with the rest of the request.
pub(super) struct Counting {
    state: Arc<ApiState>,
    arrival: Arc<Arrival>,
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
            arrival: Arc::new(Arrival::begin()),
            route,
            method: method.clone(),
            status: None,
            code: None,
        }
    }

    /// Its body, of which it is known when it came.
    pub(super) fn arriving<B>(&self, body: B) -> Arriving<B> {
        Arriving {
            body,
            arrival: Arc::clone(&self.arrival),
        }
    }

    /// It has an answer, with this code if it is an error, or was one in part.
    pub(super) fn answered(mut self, status: StatusCode, code: Option<ErrorCode>) {
        self.status = Some(status);
        self.code = code;
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let took = self.arrival.worked();
        let status = self.status.map_or(CALLER_GONE, |status| status.as_u16());
        let api = &self.state.metrics.api;
        self.code
            .into_iter()
            .for_each(|code| api.told(self.route, code));
        if self.status.is_none() && self.route.is_call() && took >= GAVE_UP_AFTER {
            api.given_up.add(1);
        }
        api.answered(self.route, status.into(), took);
        let slow = self.state.config.log.slow;
        tell(slow, took, (&self.method, self.route), status);
    }
}

/// How long a request takes, and how much of that the node waited for its body.
#[derive(Debug)]
struct Arrival {
    watch: Stopwatch,
    /// Since when the body is waited for, in microseconds of the watch; 0: it is not.
    waits_from_us: AtomicU64,
    waited_us: AtomicU64,
}

impl Arrival {
    fn begin() -> Self {
        Self {
            watch: Stopwatch::begin(),
            waits_from_us: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
        }
    }

    fn now_us(&self) -> u64 {
        let us = self.watch.took().as_micros();
        u64::try_from(us).unwrap_or(u64::MAX).max(1)
    }

    /// The body is waited for from now on, if it was not before.
    fn waits(&self) {
        if self.waits_from_us.load(Relaxed) == 0 {
            self.waits_from_us.store(self.now_us(), Relaxed);
        }
    }

    /// It is not any more: something of it has come, or nobody wants it.
    fn comes(&self) {
        let from_us = self.waits_from_us.swap(0, Relaxed);
        if from_us > 0 {
            let waited_us = self.now_us().saturating_sub(from_us);
            self.waited_us.fetch_add(waited_us, Relaxed);
        }
    }

    /// How long the node had what it needed.
    fn worked(&self) -> Duration {
        self.comes();
        let waited = Duration::from_micros(self.waited_us.load(Relaxed));
        self.watch.took().saturating_sub(waited)
    }
}

/// A body that says when it is waited for.
pub(super) struct Arriving<B> {
    body: B,
    arrival: Arc<Arrival>,
}

impl<B: HttpBody + Unpin> HttpBody for Arriving<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Pending => self.arrival.waits(),
            Poll::Ready(_) => self.arrival.comes(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Arriving<B> {
    fn drop(&mut self) {
        self.arrival.comes();
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
    use axum::body::Body;
    use bytes::Bytes;
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_waited_for_is_no_time_of_the_nodes() {
        let arrival = Arc::new(Arrival::begin());
        let (sender, comes) = tokio::sync::oneshot::channel::<Bytes>();
        let frames = stream::once(comes).chain(stream::pending());
        let mut body = Arriving {
            body: Body::from_stream(frames),
            arrival: Arc::clone(&arrival),
        };
        let asked = body.frame().now_or_never();
        assert!(asked.is_none(), "nothing has come");
        std::thread::sleep(Duration::from_millis(300));
        sender.send("1".into()).expect("it is read");
        assert!(body.frame().await.is_some());
        let (waited, took) = (arrival.waited_us.load(Relaxed), arrival.watch.took());
        assert!(waited >= 300_000, "{waited}");
        assert!(arrival.worked() <= took - Duration::from_millis(300));
        // Work that follows is the node's.
        let before = arrival.worked();
        std::thread::sleep(Duration::from_millis(50));
        assert!(arrival.worked() >= before + Duration::from_millis(50));
        // One that is given up while it is waited for is waited for no longer.
        assert!(body.frame().now_or_never().is_none());
        drop(body);
        let waited = arrival.waited_us.load(Relaxed);
        std::thread::sleep(Duration::from_millis(50));
        arrival.comes();
        assert_eq!(arrival.waited_us.load(Relaxed), waited);
    }

    #[test]
    fn a_method_of_a_callers_own_is_not_told() {
        assert_eq!(known(&Method::DELETE), "DELETE");
        assert_eq!(known(&Method::from_bytes(b"ADA").expect("a word")), "other");
    }
}
