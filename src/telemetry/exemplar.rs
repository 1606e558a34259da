//! Observations that have a trace: of each bucket of a histogram the last one.
//!
//! In: durations, and by which trace they can be looked at. Out: the same counts as of any histogram,
//! and in OpenMetrics a way from a bucket to a trace. Any thread counts; only what is recorded takes the
//! lock. Bound: one a bucket.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::family::{Cells, LabelPair, Sample, Value};
use super::histogram::{BOUNDS, Exemplar, Histogram};
use super::trace::context::TraceContext;

/// A histogram that keeps them. See the module.
#[derive(Debug, Default)]
pub struct TracedHistogram {
    /// All that was counted.
    pub durations: Histogram,
    last: Mutex<[Option<Exemplar>; BOUNDS + 1]>,
}

impl TracedHistogram {
    /// Counts one, from any thread; it becomes the exemplar of its bucket where its trace is recorded.
    pub fn count(&self, duration: Duration, context: Option<TraceContext>) {
        let us = self.durations.count(duration);
        let Some(context) = context.filter(TraceContext::is_sampled) else {
            return;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let at_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last[Histogram::<BOUNDS>::place(us)] = Some(Exemplar { context, us, at_ms });
    }
}

impl Cells for TracedHistogram {
    fn read(&self, labels: &[LabelPair], into: &mut Vec<Sample>) {
        let mut spread = self.durations.spread();
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        spread.exemplars = last.to_vec();
        drop(last);
        into.push(Sample {
            labels: labels.to_vec(),
            value: Value::Spread(spread),
        });
    }
}
