//! How long each worker was at work.
//!
//! In: of each worker, what its runtime says of its thread. Out: one family. Bound: the first
//! [`WORKERS_TOLD`] workers have a series each, the others one together.

use std::borrow::Cow;
use std::time::Duration;

use super::family::{Family, Kind, LabelPair, Sample, Value};

/// So many workers are told one by one.
const WORKERS_TOLD: usize = 64;

/// The family over all workers, in their order.
#[must_use]
pub(super) fn family(workers: impl Iterator<Item = Duration>) -> Family {
    let mut samples: Vec<Sample> = Vec::new();
    for (index, time) in workers.enumerate() {
        let seconds = time.as_secs_f64();
        match samples.get_mut(WORKERS_TOLD) {
            Some(Sample {
                value: Value::Real(sum),
                ..
            }) => *sum += seconds,
            _ => samples.push(Sample {
                labels: vec![label(index)],
                value: Value::Real(seconds),
            }),
        }
    }
    Family {
        name: "fanfare_worker_busy_seconds_total",
        help: "Time that the thread of a worker was at work and did not wait: deliveries, sessions, timers. One second a second is all of it. Workers from the 65th on are told together.",
        kind: Kind::Counter,
        samples,
        is_sparse: false,
    }
}

fn label(index: usize) -> LabelPair {
    let word = match index {
        WORKERS_TOLD.. => Cow::Borrowed("others"),
        _ => Cow::Owned(index.to_string()),
    };
    ("worker", word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_beyond_those_that_are_told_share_a_series() {
        let told = |count| {
            let times = (0..count).map(|_| Duration::from_millis(500));
            family(times).samples
        };
        assert_eq!(told(2).len(), 2);
        let many = told(1_024);
        assert_eq!(many.len(), WORKERS_TOLD + 1);
        assert_eq!(many[0].labels, [("worker", "0".into())]);
        assert_eq!(many[WORKERS_TOLD].labels, [("worker", "others".into())]);
        assert_eq!(many[WORKERS_TOLD].value, Value::Real(480.0));
    }
}
