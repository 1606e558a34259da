//! `GET /v1/performance`: how this node did in the last quarter of an hour, day or week.
//!
//! In: the performance history. Out: of each measure the least, mean and greatest value and the newest
//! one, errors by code, and whether memory grows. It asks nobody. Bounds: those of the history; at most
//! half as many are read at once as there are cores ([`tasks::heavy`]).

use std::collections::BTreeMap;
use std::time::Instant;

use axum::response::Response;
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::auth::{Admitted, asks};
use super::body::Wanted;
use super::error::ApiError;
use super::query::{Fields, Pairs, QueryFields};
use super::schema::{BadRequest, Refused};
use crate::tasks;
use crate::telemetry::alerts;
use crate::telemetry::family::Label as _;
use crate::telemetry::history::growth::Growth;
use crate::telemetry::history::measure::{Measure, Point};
use crate::telemetry::history::{self, Window};
use fanfare_protocol::error::{ErrorCode, WireError};

/// The limit of growth where the alert is off.
const GROWTH_PERCENT: u64 = 10;
/// What callers who gave up stand under, beside the codes of errors.
const GAVE_UP: &str = "gave_up";

/// A window of the history.
#[derive(Debug, Serialize, ToSchema)]
pub struct PerformanceAnswer {
    /// The node that was asked, of which all of this is.
    pub node: String,
    /// As it was asked for.
    pub window: &'static str,
    /// How much of the window is known, in seconds: less where the node has not run for so long.
    pub covered_s: f64,
    /// When the newest second ended, unix milliseconds by the node's clock. 0: none has yet.
    pub newest: u64,
    /// How long ago that was, in milliseconds.
    pub age_ms: u64,
    /// By name. What was not measured in the window is left out.
    pub measures: BTreeMap<&'static str, MeasureAnswer>,
    /// How many errors sessions and callers were told, by code, and as `gave_up` callers who went away
    /// without an answer after 100 ms or more; what none had is left out. A request that failed in part
    /// is one, and a welcome too.
    pub errors: BTreeMap<&'static str, u64>,
    /// The alerts that are raised now.
    pub alerts: Vec<&'static str>,
    /// Whether memory grows.
    pub memory_growth: GrowthAnswer,
}

/// A measure in a window.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeasureAnswer {
    /// Of the second in which it was least.
    pub min: f64,
    /// Of a level or a pace over all seconds; of times over all that was timed.
    pub mean: f64,
    /// Of the second in which it was greatest.
    pub max: f64,
    /// Of the newest second, where it was measured in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub latest: Option<f64>,
}

/// What is thought of the memory of the node, whatever the window: by the last six hours, and where
/// it is slow by the last three days.
#[derive(Debug, Serialize, ToSchema)]
pub struct GrowthAnswer {
    /// `none`, `suspected` (it grows like a leak), `with_sessions` (it grows as they do), or
    /// `too_short` for a verdict.
    pub verdict: &'static str,
    /// By how much of its mean memory grows in an hour, or in a day, as the reason says.
    pub percent: f64,
    /// Why, for people.
    pub reason: String,
}

impl From<Growth> for GrowthAnswer {
    fn from(growth: Growth) -> Self {
        Self {
            verdict: growth.verdict.word(),
            percent: rounded(growth.percent),
            reason: growth.reason,
        }
    }
}

/// Which window.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PerformanceParams {
    /// `15m` (by seconds), `24h` (by minutes) or `7d` (by quarters of an hour). Default `15m`.
    #[param(value_type = Option<String>, nullable = false)]
    window: Window,
}

impl QueryFields for PerformanceParams {
    const NAMES: &'static [&'static str] = &["window"];

    fn read(pairs: &Pairs) -> Result<Self, WireError> {
        let read = |text: &str| Window::ALL.into_iter().find(|window| window.word() == text);
        let [first, second, third] = Window::ALL.map(Window::word);
        let window = pairs.get("window", &format!("{first}, {second} or {third}"), read)?;
        Ok(Self {
            window: window.unwrap_or(Window::Quarter),
        })
    }
}

/// How this node did: measures with their least, mean and greatest value, errors, and whether memory
/// grows.
///
/// It is kept in the process for seven days, and a restart forgets it. Each node answers for itself.
#[utoipa::path(
    get, path = "/v1/performance", tag = "cluster", operation_id = "get_performance",
    params(PerformanceParams),
    responses((status = 200, description = "The window.", body = PerformanceAnswer), BadRequest, Refused)
)]
pub(super) async fn get_performance(
    Admitted { state, .. }: Admitted<asks::SeePerformance>,
    wanted: Wanted,
    Fields(PerformanceParams { window }): Fields<PerformanceParams>,
) -> Result<Response, ApiError> {
    let percent_max = state.config.alerts.growth.unwrap_or(GROWTH_PERCENT);
    let look = || {
        let growth = state.history.growth(percent_max as f64);
        (growth, state.history.summary(window, Instant::now()))
    };
    // Some 2,000 points are read, while others go on.
    let (growth, summary) = tasks::heavy(history::BYTES_MAX, look).await;
    let mut answer = PerformanceAnswer {
        node: state.config.server.node_id.to_string(),
        window: window.word(),
        covered_s: 0.0,
        newest: 0,
        age_ms: 0,
        measures: BTreeMap::new(),
        errors: BTreeMap::new(),
        alerts: alerts::raised(&state.metrics.alerts),
        memory_growth: growth.into(),
    };
    if let Some(summary) = summary {
        // Of the time in which the process stood still nothing is known.
        answer.covered_s = rounded(summary.all.range(Measure::Sessions).weight);
        answer.age_ms = u64::try_from(summary.age.as_millis()).unwrap_or(u64::MAX);
        answer.newest = super::unix_ms().saturating_sub(answer.age_ms);
        answer.measures = measures(&summary.all, &summary.newest);
        answer.errors = errors(&summary.all);
    }
    Ok(wanted.ok(&answer))
}

fn measures(all: &Point, newest: &Point) -> BTreeMap<&'static str, MeasureAnswer> {
    let measures = Measure::ALL.iter().filter_map(|measure| {
        let range = all.range(*measure);
        let answer = MeasureAnswer {
            min: rounded(range.min),
            mean: rounded(range.mean()?),
            max: rounded(range.max),
            latest: newest.range(*measure).mean().map(rounded),
        };
        Some((measure.word(), answer))
    });
    measures.collect()
}

fn errors(all: &Point) -> BTreeMap<&'static str, u64> {
    let codes = ErrorCode::ALL.into_iter();
    let told = codes.map(|code| (code.name(), all.errors(code)));
    let given_up = all.range(Measure::GivenUp).sum.max(0.0).round() as u64;
    let told = told.chain([(GAVE_UP, given_up)]);
    told.filter(|(_, count)| *count > 0).collect()
}

/// To a thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
