//! Why heartbeats bring nothing: told in the log, and to whoever asks how the node stands.
//!
//! In: heartbeats that were refused or not answered. Out: two lines of the log for each time without
//! an answer, and a level with the last reason. Owner: the membership task. Bound: one reason.

use tokio::sync::watch;
use tracing::{info, warn};

use super::lease_store::LeaseError;
use crate::redis::RedisError;

/// See the module.
#[derive(Debug)]
pub(super) struct Trouble {
    reason: watch::Sender<Option<String>>,
    /// What the log has said since a heartbeat was answered.
    is_missed_told: bool,
    is_refused_told: bool,
}

impl Trouble {
    /// No trouble yet, and where the reason is seen.
    pub(super) fn new() -> (Self, watch::Receiver<Option<String>>) {
        let (reason, seen) = watch::channel(None);
        let trouble = Self {
            reason,
            is_missed_told: false,
            is_refused_told: false,
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
        if self.is_missed_told || self.is_refused_told {
            (self.is_missed_told, self.is_refused_told) = (false, false);
            info!(
                event = "heartbeat_answered",
                "heartbeats are answered again"
            );
        }
    }

    /// A heartbeat was not answered as it should. `is_news`: that is worth a line.
    pub(super) fn missed(&mut self, error: &LeaseError, is_news: bool) {
        self.show(Some(reason(error)));
        if is_news && !std::mem::replace(&mut self.is_missed_told, true) {
            let error = error as &(dyn std::error::Error + 'static);
            warn!(
                event = "heartbeat_missed",
                error, "a heartbeat was not answered, the last view is kept"
            );
        }
    }

    /// Redis takes no writes.
    pub(super) fn refused(&mut self, error: &LeaseError) {
        self.show(Some(reason(error)));
        if !std::mem::replace(&mut self.is_refused_told, true) {
            let error = error as &(dyn std::error::Error + 'static);
            warn!(
                event = "heartbeat_refused",
                error, "Redis takes no writes, the leases stay as they are"
            );
        }
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
