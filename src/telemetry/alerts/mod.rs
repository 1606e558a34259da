//! What the node calls wrong by itself, so that it is told without a collector.
//!
//! In: what was seen of the last minutes ([`seen`]), and the limits of `[alerts]`. Out: which alerts are
//! raised and cleared ([`judge`]), and how each stands ([`AlertCell`]), for `/metrics`, the details of
//! health and heartbeats. An alert is told and changes nothing: the node stays ready. Owner: the thread
//! of the performance history. Bound: one cell for each alert.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::counter::Counter;
use super::family::{Cells, Family, Kind, Label as _, LabelPair, Sample, Table};
use super::labels::label;
use crate::config::alerts::Alerts;
use fanfare_protocol::error::ErrorCode;

pub mod judge;
pub mod seen;

label! {
    /// What can be wrong.
    Alert, "alert" {
        /// Too many requests and commands fail.
        ErrorRate: "error_rate",
        /// They take long in the mean.
        MeanResponse: "mean_response",
        /// The process has most of its memory.
        MemoryHigh: "memory_high",
        /// It uses most of its cores.
        CpuHigh: "cpu_high",
        /// Too many who come are turned away.
        ConnectionsRefused: "connections_refused",
        /// An entry of the queue waits for long.
        QueueAge: "queue_age",
        /// Memory grows and goes on growing.
        MemoryGrowing: "memory_growing",
        /// One piece of work takes very long.
        ProcessingSlow: "processing_slow",
    }
}

/// What the node, or what it needs, is at fault for.
const FAILURES: [ErrorCode; 3] = [
    ErrorCode::Unavailable,
    ErrorCode::Internal,
    ErrorCode::RateLimited,
];

/// By which of several errors a call is counted of which each failed a part: the first that the node is
/// at fault for, or else the first.
#[must_use]
pub fn gravest(codes: impl Iterator<Item = ErrorCode>) -> Option<ErrorCode> {
    let mut first = None;
    for code in codes {
        if FAILURES.contains(&code) {
            return Some(code);
        }
        first = first.or(Some(code));
    }
    first
}

/// How many there are.
const ALERTS: usize = Alert::ProcessingSlow as usize + 1;

impl Alert {
    /// In what its value and its limit are.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::MeanResponse => "ms",
            Self::QueueAge | Self::ProcessingSlow => "s",
            _ => "%",
        }
    }
}

/// Above which value each alert is raised; `None`: never.
#[derive(Debug, Clone)]
pub struct Thresholds([Option<f64>; ALERTS]);

impl Thresholds {
    /// Those of the configuration.
    #[must_use]
    pub fn of(alerts: &Alerts) -> Self {
        let percent = |limit: Option<u64>| limit.map(|limit| limit as f64);
        let seconds = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs_f64());
        Self([
            percent(alerts.error),
            seconds(alerts.response).map(|seconds| 1_000.0 * seconds),
            percent(alerts.memory),
            percent(alerts.cpu),
            percent(alerts.refused),
            seconds(alerts.queue_age),
            percent(alerts.growth),
            seconds(alerts.processing),
        ])
    }

    /// Of one of them.
    #[must_use]
    pub fn get(&self, alert: Alert) -> Option<f64> {
        self.0[alert.place()]
    }
}

/// How an alert stands.
#[derive(Debug, Default)]
pub struct AlertCell {
    raised: Counter,
    /// As bits.
    value: AtomicU64,
}

impl AlertCell {
    /// It is raised or not, and this is its value. Of the one who judges.
    pub fn set(&self, is_raised: bool, value: f64) {
        self.raised.set(u64::from(is_raised));
        self.value.store(value.to_bits(), Relaxed);
    }

    /// Whether it is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.raised.get() > 0
    }

    /// Its value when it was judged last; 0 where there was too little to judge by.
    #[must_use]
    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Relaxed))
    }
}

impl Cells for AlertCell {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        self.raised.read(labels, into);
    }
}

/// How all of them stand.
pub type Board = Table<Alert, AlertCell>;

/// As a metric.
#[must_use]
pub(super) fn family(board: &Board) -> Family {
    Family::of(
        Kind::Gauge,
        "fanfare_alert",
        "1 while the node calls something wrong by itself, by the limits of [alerts].",
        board,
    )
}

/// The words of those that are raised.
#[must_use]
pub fn raised(board: &Board) -> Vec<&'static str> {
    let all = Alert::ALL.iter();
    let raised = all.filter(|alert| board.of(**alert).is_raised());
    raised.map(|alert| alert.word()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn each_alert_has_its_limit_from_the_configuration_and_0_turns_it_off() {
        let mut config = load::defaults().alerts;
        let of = |thresholds: &Thresholds| {
            let all = Alert::ALL.iter();
            all.map(|alert| thresholds.get(*alert)).collect::<Vec<_>>()
        };
        let limits = [5.0, 1_000.0, 80.0, 80.0, 10.0, 60.0, 10.0, 30.0];
        assert_eq!(of(&Thresholds::of(&config)), limits.map(Some));
        config.cpu = None;
        config.processing = None;
        let thresholds = Thresholds::of(&config);
        assert_eq!(thresholds.get(Alert::CpuHigh), None);
        assert_eq!(thresholds.get(Alert::ProcessingSlow), None);
        assert_eq!(thresholds.get(Alert::MemoryHigh), Some(80.0));
    }

    #[test]
    fn of_several_errors_that_of_the_node_counts() {
        let gravest = |codes: &[ErrorCode]| gravest(codes.iter().copied());
        let (bad, away) = (ErrorCode::BadRequest, ErrorCode::Unavailable);
        assert_eq!(gravest(&[]), None);
        assert_eq!(gravest(&[bad, ErrorCode::NotFound]), Some(bad));
        assert_eq!(gravest(&[bad, away, ErrorCode::Internal]), Some(away));
    }

    #[test]
    fn what_is_raised_is_told_by_name() {
        let board = Board::default();
        board.of(Alert::QueueAge).set(true, 61.5);
        assert_eq!(raised(&board), ["queue_age"]);
        let told: Vec<_> = family(&board)
            .samples
            .into_iter()
            .map(|s| s.value)
            .collect();
        assert_eq!(told.len(), ALERTS);
        assert_eq!(
            told[Alert::QueueAge.place()],
            crate::telemetry::family::Value::Whole(1)
        );
        assert_eq!(board.of(Alert::QueueAge).value(), 61.5);
    }
}
