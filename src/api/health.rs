//! Health in four depths, and the metrics. None of them needs a key.
//!
//! In: the directory, the broker's health and the process itself. Out: short answers for probes
//! (`/health/live`, `/health/ready`), for load balancers (`/health`), for people
//! (`/health/detailed`) and for Prometheus (`/metrics`). They ask nothing of Redis and of the
//! workers, so they answer when those are stuck, and say so.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::Wanted;
use super::state::{ApiState, Component};
use crate::http::bodies::{LiveAnswer, ReadyAnswer};
use crate::http::media;
use crate::lifecycle::Lifecycle;
use crate::telemetry::process;
use crate::telemetry::text::{self, TextForm};

/// The node in one line.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthAnswer {
    /// `ok`, or `unavailable` when the node is not ready.
    pub status: &'static str,
    /// The node's name.
    pub node: String,
    /// Where it stands in its life.
    pub lifecycle: Lifecycle,
    /// Its release.
    pub version: &'static str,
}

/// The node in detail.
#[derive(Debug, Serialize, ToSchema)]
pub struct DetailedAnswer {
    /// The line that `/health` gives.
    #[serde(flatten)]
    pub summary: HealthAnswer,
    /// The commit that the binary was built from.
    pub commit: &'static str,
    /// Why the node is not ready.
    pub reasons: Vec<String>,
    /// The node's parts and how they do.
    pub components: Vec<Component>,
    /// What the operator should know about the configuration.
    pub warnings: Vec<String>,
    /// Seconds since the node started.
    pub uptime_s: u64,
    /// Sessions open on this node.
    pub sessions: u64,
    /// Resident memory of the process, in bytes, where the system tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub memory_bytes: Option<u64>,
}

/// The process runs, and none of its parts hangs.
#[utoipa::path(
    get, path = "/health/live", tag = "health", operation_id = "health_live", security(()),
    responses(
        (status = 200, description = "The process runs.", body = LiveAnswer),
        (status = 503, description = "A part of it hangs; it should be started anew.", body = LiveAnswer),
    )
)]
pub(super) async fn live(State(state): State<Arc<ApiState>>, wanted: Wanted) -> Response {
    let reasons = state.directory.not_live();
    let live = reasons.is_empty();
    wanted.with(status(live), &LiveAnswer { live, reasons })
}

/// The node should get new sessions.
#[utoipa::path(
    get, path = "/health/ready", tag = "health", operation_id = "health_ready", security(()),
    responses(
        (status = 200, description = "The node is ready.", body = ReadyAnswer),
        (status = 503, description = "The node is not ready, and why.", body = ReadyAnswer),
    )
)]
pub(super) async fn ready(State(state): State<Arc<ApiState>>, wanted: Wanted) -> Response {
    let reasons = state.directory.not_ready();
    let answer = ReadyAnswer {
        ready: reasons.is_empty(),
        reasons: Some(reasons),
        partial: state.directory.partial(),
    };
    wanted.with(status(answer.ready), &answer)
}

/// The node in one line.
#[utoipa::path(
    get, path = "/health", tag = "health", operation_id = "health", security(()),
    responses(
        (status = 200, description = "The node is ready.", body = HealthAnswer),
        (status = 503, description = "The node is not ready.", body = HealthAnswer),
    )
)]
pub(super) async fn health(State(state): State<Arc<ApiState>>, wanted: Wanted) -> Response {
    let is_ready = state.directory.not_ready().is_empty();
    wanted.with(status(is_ready), &summary(&state, is_ready))
}

/// The node in detail, ready or not.
#[utoipa::path(
    get, path = "/health/detailed", tag = "health", operation_id = "health_detailed", security(()),
    responses((status = 200, description = "The node, its parts, what is wrong.", body = DetailedAnswer))
)]
pub(super) async fn detailed(State(state): State<Arc<ApiState>>, wanted: Wanted) -> Response {
    let reasons = state.directory.not_ready();
    wanted.ok(&DetailedAnswer {
        summary: summary(&state, reasons.is_empty()),
        commit: state.commit,
        reasons,
        components: state.directory.components(),
        warnings: state.directory.warnings(),
        uptime_s: state.started.elapsed().as_secs(),
        sessions: state.metrics.sessions(),
        memory_bytes: process::resident_bytes(),
    })
}

/// All that is counted of the node and its process, as Prometheus text 0.0.4, or as OpenMetrics 1.0
/// where `Accept` likes that at least as much.
#[utoipa::path(
    get, path = "/metrics", tag = "health", operation_id = "metrics", security(()),
    responses((status = 200, description = "Prometheus text; OpenMetrics 1.0 where `Accept` asks for that.", body = String, content_type = "text/plain; version=0.0.4"))
)]
pub(super) async fn metrics(State(state): State<Arc<ApiState>>, headers: HeaderMap) -> Response {
    state.metrics.view_age.set(state.directory.view_age());
    state.metrics.feed_lag.set(state.directory.feed_lag());
    let open = media::weight(&headers, "application/openmetrics-text", "1.0.0");
    let form = match open > 0.0 && open >= media::weight_of_any(&headers, "text/plain", "0.0.4") {
        true => TextForm::OpenMetrics,
        false => TextForm::Prometheus,
    };
    let text = text::write(&state.metrics.families(), form);
    ([(header::CONTENT_TYPE, form.content_type())], text).into_response()
}

fn status(is_well: bool) -> StatusCode {
    match is_well {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn summary(state: &ApiState, is_ready: bool) -> HealthAnswer {
    HealthAnswer {
        status: if is_ready { "ok" } else { "unavailable" },
        node: state.config.server.node_id.to_string(),
        lifecycle: state.directory.lifecycle(),
        version: env!("CARGO_PKG_VERSION"),
    }
}
