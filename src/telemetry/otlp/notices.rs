//! What the log tells of one signal on its way to the collector.
//!
//! In: each failure, each success, each word beside a success. Out: lines of the log. Owner: a courier.
//! Bounds: in [`WINDOW`] a reason is told once, at most [`REASONS_MAX`] are told, and so is at most one
//! recovery for each failure that was told: a collector that comes and goes does not fill the log.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::family::Label as _;
use crate::telemetry::otlp_metrics::Signal;

/// For how long a reason is not told again.
const WINDOW: Duration = Duration::from_secs(60);
/// Most reasons that are told in it.
const REASONS_MAX: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Notices {
    signal: Signal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: Told,
    warnings: Told,
    /// How many items have failed since the last recovery that was told.
    lost: u64,
}

/// What was told of one kind.
#[derive(Debug, Default)]
struct Told {
    /// What stands in the log as it is now.
    stands: Option<String>,
    begun_at: Option<Instant>,
    /// In the window that began then.
    reasons: Vec<String>,
}

impl Told {
    /// Whether this is to be told now.
    fn is_due(&mut self, why: &str, now: Instant) -> bool {
        if self.stands.as_deref() == Some(why) {
            return false;
        }
        if self.begun_at.is_none_or(|at| now - at >= WINDOW) {
            self.begun_at = Some(now);
            self.reasons.clear();
        }
        if self.reasons.len() >= REASONS_MAX || self.reasons.iter().any(|told| told == why) {
            return false;
        }
        self.reasons.push(why.to_owned());
        self.stands = Some(why.to_owned());
        true
    }
}

impl Notices {
    /// Nothing was told yet.
    pub(super) fn new(signal: Signal) -> Self {
        Self {
            signal,
            state: Mutex::default(),
        }
    }

    /// Items were not taken and never will be.
    pub(super) fn lost(&self, items: u64) {
        self.state().lost += items;
    }

    /// A request was not taken, or not all of it.
    pub(super) fn failure(&self, why: &str, is_again: bool) {
        if !self.state().failures.is_due(why, Instant::now()) {
            return;
        }
        let signal = self.signal.word();
        match is_again {
            true => tracing::warn!(
                event = "telemetry_export_failed",
                signal,
                reason = why,
                "the collector does not take what is sent; it is tried again, and what it never takes is counted"
            ),
            false => tracing::warn!(
                event = "telemetry_export_failed",
                signal,
                reason = why,
                "the collector does not take what was sent; that is counted and not tried again"
            ),
        }
    }

    /// A request was taken as a whole; the collector may have said something beside it.
    pub(super) fn success(&self, word: &str) {
        let mut state = self.state();
        let is_warned = !word.is_empty() && state.warnings.is_due(word, Instant::now());
        let recovered = state.failures.stands.take();
        let items = match recovered {
            Some(_) => std::mem::take(&mut state.lost),
            None => 0,
        };
        drop(state);
        let signal = self.signal.word();
        if recovered.is_some() {
            tracing::info!(
                event = "telemetry_export_recovered",
                signal,
                items,
                "the collector takes what is sent again; so many items were lost"
            );
        }
        if is_warned {
            tracing::warn!(
                event = "telemetry_export_warned",
                signal,
                reason = word,
                "the collector took what was sent, and warns"
            );
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_and_another_one_too_until_there_are_many() {
        let (mut told, begin) = (Told::default(), Instant::now());
        assert!(told.is_due("absent", begin));
        assert!(!told.is_due("absent", begin));
        assert!(told.is_due("401", begin));
        assert!(!told.is_due("absent", begin), "it was told in this minute");
        assert!(told.is_due("c", begin) && told.is_due("d", begin));
        assert!(!told.is_due("e", begin), "they are too many");
        let later = begin + WINDOW;
        assert!(!told.is_due("d", later), "that stands there");
        assert!(told.is_due("e", later));
    }

    #[test]
    fn what_comes_and_goes_is_told_once_in_a_window() {
        let (mut told, begin) = (Told::default(), Instant::now());
        let mut count = 0;
        for second in 0..120 {
            let now = begin + Duration::from_secs(second);
            count += u32::from(told.is_due("absent", now));
            // It recovers.
            told.stands = None;
        }
        assert_eq!(count, 2);
    }
}
