//! Why heartbeats bring nothing: for the log, and for whoever asks how the node does.
//!
//! In: what became of each heartbeat. Out: two lines of the log for each time without an answer, a
//! level with the last reason, counts, and for how long it has lasted. Owner: the membership task.
//! Bound: one reason.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::lease_store::LeaseError;
use crate::redis::RedisError;
use crate::telemetry::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub(super) struct Trouble {
    reason: watch::Sender<Option<String>>,
    metrics: Arc<Metrics>,
    /// Since when heartbeats bring nothing.
    since: Option<Instant>,
    was_refused: bool,
    /// What the log has said since a heartbeat was answered.
    is_missed_told: bool,
}

impl Trouble {
    /// No trouble yet, and where the reason is seen.
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, watch::Receiver<Option<String>>) {
        let (reason, seen) = watch::channel(None);
        let trouble = Self {
            reason,
            metrics,
            since: None,
            was_refused: false,
            is_missed_told: false,
        };
        (trouble, seen)
    }

    /// Redis answers.
    pub(super) fn answered(&self) {
        self.show(None);
    }

    /// A heartbeat was answered.
    pub(super) fn over(&mut self) {
        self.answered();
        self.metrics.control.heartbeats_answered.add(1);
        self.since = None;
        if self.is_missed_told || self.was_refused {
            (self.is_missed_told, self.was_refused) = (false, false);
            info!(
                event = "heartbeat_answered",
                "heartbeats are answered again"
            );
        }
    }

    /// A heartbeat was not answered as it should. `is_news`: that is worth a line. Returns whether it
    /// is the first that brought nothing.
    pub(super) fn missed(&mut self, error: &LeaseError, is_news: bool) -> bool {
        self.metrics.control.heartbeats_missed.add(1);
        self.show(Some(reason(error)));
        if is_news && !std::mem::replace(&mut self.is_missed_told, true) {
            let error = error as &(dyn std::error::Error + 'static);
            warn!(
                event = "heartbeat_missed",
                error, "a heartbeat was not answered, the last view is kept"
            );
        }
        self.begins()
    }

    /// Redis takes no writes. Returns the same.
    pub(super) fn refused(&mut self, error: &LeaseError) -> bool {
        self.metrics.control.heartbeats_refused.add(1);
        self.show(Some(reason(error)));
        if !std::mem::replace(&mut self.was_refused, true) {
            let error = error as &(dyn std::error::Error + 'static);
            warn!(
                event = "heartbeat_refused",
                error, "Redis takes no writes, the leases stay as they are"
            );
        }
        self.begins()
    }

    /// For how long heartbeats have brought nothing.
    pub(super) fn lasted(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether one was refused since one was answered.
    pub(super) fn was_refused(&self) -> bool {
        self.was_refused
    }

    fn begins(&mut self) -> bool {
        let is_first = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        is_first
    }

    fn show(&self, reason: Option<String>) {
        self.reason.send_if_modified(|shown| {
            let is_changed = *shown != reason;
            *shown = reason;
            is_changed
        });
    }
}

/// What became of a heartbeat, as the end of a sentence about it.
fn reason(error: &LeaseError) -> String {
    match error {
        LeaseError::Redis(error) if error.refusal().is_some() => format!("refused: {error}"),
        LeaseError::Redis(error @ RedisError::Failed(_)) => format!("not carried out: {error}"),
        LeaseError::Redis(error) => format!("not answered: {error}"),
        LeaseError::Late(_) | LeaseError::Unexpected(_) => format!("not answered: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_heartbeat_is_counted_and_the_first_that_brings_nothing_is_known() {
        let metrics = Arc::new(Metrics::new(0));
        let (mut trouble, _seen) = Trouble::new(Arc::clone(&metrics));
        let late = LeaseError::Late(Duration::from_secs(1));
        for _ in 0..2 {
            trouble.over();
            let firsts = [
                trouble.refused(&late),
                trouble.missed(&late, true),
                trouble.missed(&late, true),
            ];
            assert_eq!(firsts, [true, false, false]);
            assert!(trouble.was_refused());
        }
        trouble.over();
        assert!(!trouble.was_refused());
        assert_eq!(trouble.lasted(), Duration::ZERO);
        let counts = &metrics.control;
        let counted = [
            &counts.heartbeats_answered,
            &counts.heartbeats_refused,
            &counts.heartbeats_missed,
        ];
        assert_eq!(counted.map(|counter| counter.get()), [3, 2, 4]);
    }
}
