//! What is traced of requests to the API, and by which context what they ask for goes on.
//!
//! In: the header of a request, and the fields of bodies. Out: a span of the request, in which handlers
//! find their [`Parent`], and one for each publication. Owns nothing. Bounds: those of the tracer. What a
//! caller says is believed where it has a key; probes and what leads nowhere begin no trace.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Request, StatusCode};

use super::auth;
use super::counting::known;
use super::state::ApiState;
use crate::broker::{BrokerError, Published};
use crate::telemetry::family::Label as _;
use crate::telemetry::labels::{Route, Status};
use crate::telemetry::trace::context::TraceContext;
use crate::telemetry::trace::sampler::Caller;
use crate::telemetry::trace::span::Attribute;
use crate::telemetry::trace::traced::Traced;
use crate::telemetry::trace::tracer::{Cause, Destination};
use fanfare_protocol::ids::Topic;

const HEADER: &str = "traceparent";

/// By which what a request asks for goes on; `None`: it is not traced.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parent {
    /// That of the request's span, or of its header.
    pub(super) context: Option<TraceContext>,
    /// Whether the request has a span.
    has_span: bool,
}

impl FromRequestParts<Arc<ApiState>> for Parent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<ApiState>) -> Result<Self, Infallible> {
        let of_request = parts.extensions.get::<Self>().copied();
        Ok(of_request.unwrap_or_default())
    }
}

/// Begins the span of a request, and leaves word of it for the handler.
pub(super) fn begin<B>(state: &ApiState, route: Route, request: &mut Request<B>) -> Traced {
    if !begins_traces(route) {
        return Traced::default();
    }
    let values = request.headers().get_all(HEADER).iter();
    let parent = state
        .tracer
        .read_header(values.map(|value| value.to_str().ok()));
    let caller = || match auth::has_key(state, request.headers()) {
        true => Caller::Backend,
        false => Caller::Stranger,
    };
    let method = request.method();
    let name = || format!("{} {}", known(method), route.word()).into();
    let mut traced = state.tracer.request(parent, caller, name);
    traced.set("http.request.method", || match known(method) {
        "other" => Attribute::text("_OTHER"),
        method => Attribute::text(method),
    });
    traced.set("http.route", || Attribute::text(route.word()));
    if let context @ Some(_) = traced.context() {
        let has_span = traced.has_span();
        let parent = Parent { context, has_span };
        request.extensions_mut().insert(parent);
    }
    traced
}

/// The request is answered.
pub(super) fn end(mut traced: Traced, status: StatusCode) {
    traced.set("http.response.status_code", || {
        Attribute::Whole(status.as_u16().into())
    });
    if status.is_server_error() {
        traced.fail(Status::from(status.as_u16()).word());
    }
    traced.end();
}

fn begins_traces(route: Route) -> bool {
    !matches!(
        route,
        Route::Health
            | Route::Live
            | Route::Ready
            | Route::Detailed
            | Route::Metrics
            | Route::OpenApi
            | Route::Other
    )
}

/// By which the publications of a body go on: by its own field, or else by its request. A field that is
/// none is as one that is not there.
pub(super) fn of_body(
    state: &ApiState,
    field: Option<&str>,
    parent: Parent,
) -> Option<TraceContext> {
    match field.and_then(|text| state.tracer.read(text)) {
        None => parent.context,
        Some(own) => state.tracer.follows(&own).then_some(own),
    }
}

/// Begins the span of a publication that goes on by this context, under its request or another span.
pub(super) fn publication(
    state: &ApiState,
    topic: &Topic,
    trace: Option<TraceContext>,
    parent: Parent,
) -> Traced {
    let settings = state.apps.of_topic(topic);
    let to = Destination {
        topic,
        namespace: settings.namespace_name(topic),
    };
    let of_span = parent.context.filter(|_| parent.has_span);
    let cause = match trace {
        Some(own) if trace != of_span => Cause::Followed(own),
        trace => Cause::Part(trace),
    };
    let is_own = matches!(cause, Cause::Followed(_));
    let mut traced = state.tracer.publication("publish", cause, to);
    traced.link(of_span.filter(|_| is_own));
    traced
}

/// The broker has answered.
pub(super) fn published(mut traced: Traced, outcome: &Result<Published, BrokerError>) {
    if outcome.as_ref().is_ok_and(|published| published.duplicate) {
        traced.set("fanfare.duplicate", || Attribute::Flag(true));
    }
    let position = outcome.as_ref().map(|published| published.position);
    traced.published(position.map_err(|error| error.told().code.name()));
}
