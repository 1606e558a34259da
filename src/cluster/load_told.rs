//! What a node says of its load with its heartbeats.
//!
//! In: the last seconds of its performance history, and its alerts. Out: the same for `GET /v1/nodes`
//! of any node. Pure. Bound: [`BYTES_MAX`] as JSON. Load is never at rest, and what moves little is not
//! said anew ([`LoadTold::is_near`]): else each heartbeat of each node were news to all others. What has
//! ended is little by no measure, and nothing is told as more than twice of what it is, but for a few
//! percent, milliseconds or calls.

use serde::{Deserialize, Serialize};

/// Most bytes of it, as JSON.
pub const BYTES_MAX: usize = 512;

/// See the module. Nodes of another release may leave fields out or add some.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadTold {
    /// Processor time, of all cores that the process can use.
    pub cpu_percent: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Requests to the API and commands of sessions.
    pub requests_per_s: u64,
    /// Messages that were pushed to sessions.
    pub deliveries_per_s: u64,
    /// How long requests and commands took, in the mean.
    pub response_ms: u64,
    /// Errors that callers and sessions were told.
    pub errors_per_s: u64,
    /// The alerts that are raised.
    pub alerts: Vec<String>,
}

impl LoadTold {
    /// Whether it differs so little that it need not be said: by less than a sixteenth, or than a small
    /// step and by half, and in no alert. What begins or ends is said.
    #[must_use]
    pub fn is_near(&self, other: &Self) -> bool {
        const MEMORY_STEP: u64 = 8 << 20;
        /// Whatever it is by half: of so few nobody asks how many there are.
        const FEW: u64 = 4;
        let near = |before: u64, now: u64, step: u64| {
            let step = step.min((before.min(now) / 2).max(FEW));
            let is_as_before = (before == 0) == (now == 0);
            is_as_before && before.abs_diff(now) < (before / 16).max(step)
        };
        near(self.cpu_percent, other.cpu_percent, 5)
            && near(self.memory_bytes, other.memory_bytes, MEMORY_STEP)
            && near(self.requests_per_s, other.requests_per_s, 16)
            && near(self.deliveries_per_s, other.deliveries_per_s, 64)
            && near(self.response_ms, other.response_ms, 20)
            && near(self.errors_per_s, other.errors_per_s, 4)
            && self.alerts == other.alerts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::alerts::Alert;
    use crate::telemetry::family::Label as _;

    #[test]
    fn the_most_that_can_be_said_is_within_its_bound() {
        let all = LoadTold {
            cpu_percent: u64::MAX,
            memory_bytes: u64::MAX,
            requests_per_s: u64::MAX,
            deliveries_per_s: u64::MAX,
            response_ms: u64::MAX,
            errors_per_s: u64::MAX,
            alerts: Alert::ALL.iter().map(|a| a.word().to_owned()).collect(),
        };
        let text = serde_json::to_string(&all).unwrap();
        assert!(text.len() <= BYTES_MAX, "{} bytes", text.len());
    }

    #[test]
    fn small_moves_are_near_and_large_ones_and_alerts_are_not() {
        let load = LoadTold {
            cpu_percent: 40,
            memory_bytes: 1 << 30,
            requests_per_s: 1_000,
            deliveries_per_s: 100,
            response_ms: 30,
            errors_per_s: 2,
            ..LoadTold::default()
        };
        let near = LoadTold {
            cpu_percent: 44,
            memory_bytes: (1 << 30) + (60 << 20),
            requests_per_s: 1_050,
            deliveries_per_s: 149,
            response_ms: 44,
            errors_per_s: 5,
            ..load.clone()
        };
        assert!(load.is_near(&near));
        let far: [fn(&mut LoadTold); 7] = [
            |load| load.cpu_percent = 45,
            |load| load.memory_bytes += 64 << 20,
            |load| load.requests_per_s -= 63,
            |load| load.deliveries_per_s = 164,
            |load| load.response_ms = 50,
            |load| load.errors_per_s = 6,
            |load| load.alerts = vec!["cpu_high".to_owned()],
        ];
        for change in far {
            let mut other = load.clone();
            change(&mut other);
            assert!(!load.is_near(&other), "{other:?}");
        }
    }

    #[test]
    fn load_that_ends_or_falls_to_half_is_told() {
        let told = |before: u64, now: u64| {
            let load = |deliveries_per_s| LoadTold {
                deliveries_per_s,
                ..LoadTold::default()
            };
            !load(before).is_near(&load(now))
        };
        for (before, now) in [(3, 0), (0, 1), (60, 0), (60, 20), (60, 1), (20, 60)] {
            assert!(told(before, now), "{before} is told, and it is {now}");
        }
        for (before, now) in [(0, 0), (60, 45), (3, 1), (1_000, 950)] {
            assert!(!told(before, now), "{before}, {now}");
        }
    }

    #[test]
    fn a_load_of_another_release_can_be_read() {
        let load: LoadTold = serde_json::from_str(r#"{"cpu_percent":7,"humour":3}"#).unwrap();
        assert_eq!((load.cpu_percent, load.alerts.len()), (7, 0));
    }
}
