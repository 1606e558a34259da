//! The audit inside the process.
//!
//! In and out: as [`crate::broker::audit`]. Owner of the entries, under a lock of their own that is held
//! for one of them, or one page. Bound: [`ENTRIES_MAX`] of about 700 bytes each; it ends with the process.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::MemoryBroker;
use crate::broker::audit::{AuditEntry, Audited, ENTRIES_MAX};
use fanfare_protocol::ids::Position;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Audit(Mutex<VecDeque<Audited>>);

impl MemoryBroker {
    /// As [`crate::broker::Broker::audit`].
    pub fn audit(&self, entry: AuditEntry) {
        let ms = self.clock.now_ms();
        let mut entries = self.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = entries.back().map(|last| last.id).unwrap_or_default();
        let id = match ms > last.ms {
            true => Position { ms, seq: 0 },
            // The clock stands, or stepped back.
            false => Position {
                ms: last.ms,
                seq: last.seq + 1,
            },
        };
        entries.push_back(Audited { id, entry });
        if entries.len() > ENTRIES_MAX {
            entries.pop_front();
        }
    }

    /// As [`crate::broker::Broker::audited`].
    #[must_use]
    pub fn audited(&self, before: Option<Position>, limit: usize) -> Vec<Audited> {
        let entries = self.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest_first = entries.iter().rev();
        let below = newest_first.filter(|one| before.is_none_or(|before| one.id < before));
        below.take(limit).cloned().collect()
    }
}
