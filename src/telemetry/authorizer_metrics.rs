//! The instruments of authorizers: what they answered, how long that took, and what waits.
//!
//! In: each enquiry, from any thread. Out: families. Bound: one series for each authorizer of the
//! configuration, of which there are at most
//! [`AUTHORIZERS_MAX`](crate::config::authorizer::AUTHORIZERS_MAX).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::counter::Counter;
use super::family::{Cells, Family, Kind, LabelPair, Sample, Table, Value};
use super::labels::label;

label! {
    /// What became of an enquiry.
    Authorization, "result" {
        /// It said yes.
        Allowed: "allowed",
        /// It said no.
        Denied: "denied",
        /// It granted what it must not.
        Lied: "lied",
        /// It gave no answer that could be used.
        Failed: "failed",
        /// It gave none in time.
        TimedOut: "timed_out",
        /// It was not asked: too many enquiries waited, or this one for too long.
        Busy: "busy",
        /// It was not asked: it had failed too often.
        Suspended: "suspended",
    }
}

/// Time that adds up.
#[derive(Debug, Default)]
pub struct Spent(Counter);

impl Spent {
    /// Adds some.
    pub fn add(&self, time: Duration) {
        self.0
            .add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

impl Cells for Spent {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        into.push(Sample {
            labels: labels.to_vec(),
            value: Value::Real(Duration::from_micros(self.0.get()).as_secs_f64()),
        });
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct AuthorizerMetrics {
    /// What became of enquiries.
    pub results: Table<Authorization, Counter>,
    /// Those without an answer that could be used, by the authorizer's name; set once.
    failures: OnceLock<Vec<(String, Arc<Counter>)>>,
    /// From enquiries to their answers.
    pub time: Spent,
    /// Enquiries that wait for a place.
    pub waiting: Counter,
    /// Authorizers that are not asked for a moment.
    pub suspended: Counter,
}

impl AuthorizerMetrics {
    /// Where the failures of these authorizers are counted, in their order. The first call counts.
    #[must_use]
    pub fn named(&self, names: impl Iterator<Item = String>) -> Vec<Arc<Counter>> {
        let named = self
            .failures
            .get_or_init(|| names.map(|name| (name, Arc::default())).collect());
        named.iter().map(|(_, count)| Arc::clone(count)).collect()
    }

    /// All of them.
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut failures = Family {
            kind: Kind::Counter,
            name: "fanfare_authorizer_failures_total",
            help: "Enquiries that ended as unavailable, by authorizer. There are as many series as [[authorizers]] has entries.",
            samples: Vec::new(),
            is_sparse: false,
        };
        for (name, count) in self.failures.get().into_iter().flatten() {
            let label = ("authorizer", name.clone().into());
            count.read(&[label], &mut failures.samples);
        }
        vec![
            Family::of(
                Kind::Counter,
                "fanfare_authorizations_total",
                "Enquiries to authorizers, by what became of them.",
                &self.results,
            ),
            failures,
            Family::of(
                Kind::Counter,
                "fanfare_authorization_seconds_total",
                "From when authorizers were asked to their answers, or to when there was none in time, all together. What waits for a place is not in it.",
                &self.time,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_authorizations_waiting",
                "Enquiries that wait for a place; 1,024 for each authorizer are the most.",
                &self.waiting,
            ),
            Family::of(
                Kind::Gauge,
                "fanfare_authorizers_suspended",
                "Authorizers that are not asked for a moment, because they failed too often.",
                &self.suspended,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use crate::config::authorizer::AUTHORIZERS_MAX;
    use crate::telemetry::family::Value;
    use crate::telemetry::metrics::{Metrics, SERIES_MAX};

    #[test]
    fn as_many_authorizers_as_may_be_stay_within_the_bound_of_series() {
        let metrics = Metrics::new(1_024);
        let names = (0..AUTHORIZERS_MAX).map(|number| number.to_string());
        let tables = metrics.authorizers.named(names);
        assert_eq!(tables.len(), AUTHORIZERS_MAX);
        let families = metrics.families();
        let samples = families.iter().flat_map(|family| &family.samples);
        let lines = samples.map(|sample| match &sample.value {
            Value::Spread(spread) => spread.counts.len() + 2,
            Value::Whole(_) | Value::Real(_) => 1,
        });
        let all: usize = lines.sum();
        assert!(all <= SERIES_MAX, "{all}");
    }
}
