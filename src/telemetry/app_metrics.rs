//! The instruments of apps.
//!
//! In: readings of what is stored. Out: families. Any thread counts.

use super::counter::Counter;
use super::family::{Family, Kind};

/// See the module.
#[derive(Debug, Default)]
pub struct AppMetrics {
    /// Apps that this node knows.
    pub apps: Counter,
    /// Stored apps with faults.
    pub refused: Counter,
    /// Readings that failed.
    pub failed: Counter,
}

impl AppMetrics {
    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        vec![
            Family::of(
                Kind::Gauge,
                "fanfare_apps",
                "Apps that this node knows, with default; no series is of one app.",
                &self.apps,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_apps_refused",
                "Stored apps that have faults, so that they are as they were before, or not there.",
                &self.refused,
            ),
            Family::of(
                Kind::Counter,
                "fanfare_app_reads_failed_total",
                "Readings of stored apps that Redis did not answer; what is known stays.",
                &self.failed,
            ),
        ]
    }
}
