//! The audit inside the process.
//!
//! In and out: as [`crate::broker::audit`]. Owner of the entries, under a lock of their own that is held
//! for one of them, or one page. Bound: [`ENTRIES_MAX`] of about 1.2 kB each; it ends with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::MemoryBroker;
use crate::broker::audit::{AuditEntry, Audited, ENTRIES_MAX};
use fanfare_protocol::ids::Position;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Audit(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    all: BTreeMap<Position, AuditEntry>,
    /// The places of each client's, the oldest first.
    of: HashMap<String, VecDeque<Position>>,
}

impl Entries {
    fn add(&mut self, ms: u64, entry: AuditEntry) {
        let last = self.all.last_key_value().map(|(id, _)| *id);
        let last = last.unwrap_or_default();
        let id = match ms > last.ms {
            true => Position { ms, seq: 0 },
            // The clock stands, or stepped back.
            false => Position {
                ms: last.ms,
                seq: last.seq + 1,
            },
        };
        self.of
            .entry(entry.client.clone())
            .or_default()
            .push_back(id);
        self.all.insert(id, entry);
        if self.all.len() > ENTRIES_MAX {
            self.make_room();
        }
    }

    /// The oldest entry of the client that has most goes.
    fn make_room(&mut self) {
        let most = self.of.values_mut().max_by_key(|places| places.len());
        if let Some(oldest) = most.and_then(VecDeque::pop_front) {
            self.all.remove(&oldest);
        }
        self.of.retain(|_, places| !places.is_empty());
    }
}

impl MemoryBroker {
    /// As [`crate::broker::Broker::audit`].
    pub fn audit(&self, entry: AuditEntry) {
        let ms = self.clock.now_ms();
        let mut entries = self.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.add(ms, entry);
    }

    /// As [`crate::broker::Broker::audited`].
    #[must_use]
    pub fn audited(&self, before: Option<Position>, limit: usize) -> Vec<Audited> {
        let entries = self.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        let below = match before {
            Some(before) => entries.all.range(..before),
            None => entries.all.range(..),
        };
        let newest_first = below.rev().take(limit);
        let told = newest_first.map(|(id, entry)| Audited {
            id: *id,
            entry: entry.clone(),
        });
        told.collect()
    }
}
