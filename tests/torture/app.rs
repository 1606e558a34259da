//! The apps of a run: `default`, a second one on the same nodes, in which everything has the names
//! that it has in the first, and a third that comes and goes.
//!
//! In: which app. Out: its name, and its targets of the queue. Users, topics, inboxes, members,
//! idempotency keys and targets are equal by name, so that whatever a node takes by its name alone
//! comes through, and the checker finds it.

use std::ops::Range;

use serde::Serialize;

/// The queue's targets of an app: 8 topics, 8 inboxes.
pub(crate) const TARGETS_COUNT: u16 = 16;

/// An app of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum App {
    Default,
    /// In the file of the nodes, with the load of the first in small.
    Other,
    /// Made and removed by the API, with one session.
    Third,
}

impl App {
    /// Its name.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Other => "other",
            Self::Third => "third",
        }
    }

    /// The app of a target of the queue: the other app has the topics of the first ones once more.
    pub(crate) fn of_target(target: u16) -> Self {
        if target < TARGETS_COUNT {
            Self::Default
        } else {
            Self::Other
        }
    }

    /// Its targets of the queue.
    pub(crate) fn targets(self) -> Range<u16> {
        match self {
            Self::Default => 0..TARGETS_COUNT,
            Self::Other => TARGETS_COUNT..2 * TARGETS_COUNT,
            Self::Third => 0..0,
        }
    }
}
