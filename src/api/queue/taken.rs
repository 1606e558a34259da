//! Entries that this node has put into the queue and no figure knows yet.
//!
//! In: what is taken, and the figures as they come. Out: how many entries wait, as far as is known.
//! Whatever makes the figures grow, and whatever this node publishes, may be one of those that it took.
//! Owner: [`crate::api::state::ApiState`], for the node's life. Bound: a number for each [`SLOT`] of the
//! time after which the figures know an entry.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A partition is looked at once a second, and that may be late by as much.
const LOOKED_AT_AFTER: Duration = Duration::from_secs(2);
/// Entries that were taken within such a time are one number.
const SLOT: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub struct Taken {
    ledger: Mutex<Ledger>,
    /// After this time an entry is part of the figures, or gone.
    told_after: Duration,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Entries of the cluster, due and delayed, as last told.
    told: u64,
    /// Entries that this node has published since its start.
    published: u64,
    /// When entries were taken and how many of them are not told yet, the oldest first.
    slots: VecDeque<(Instant, u64)>,
    /// Their sum.
    untold: u64,
}

impl Taken {
    /// Of a node in a cluster with heartbeats this far apart: the home of a partition tells what it has
    /// seen with its next one, and another node hears it with its own.
    #[must_use]
    pub fn told_by(heartbeats: Duration) -> Self {
        Self {
            ledger: Mutex::default(),
            told_after: LOOKED_AT_AFTER + heartbeats * 2,
        }
    }

    /// The figures say this now.
    pub(super) fn told(&self, told: u64, published: u64, now: Instant) {
        self.lock().told(told, published, (now, self.told_after));
    }

    /// Whoever has it reads and changes it alone.
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn told(&mut self, told: u64, published: u64, (now, told_after): (Instant, Duration)) {
        let grown = told.saturating_sub(self.told);
        let published_since = published.saturating_sub(self.published);
        (self.told, self.published) = (told, published);
        let mut known = grown.saturating_add(published_since);
        while let Some((at, count)) = self.slots.front_mut() {
            let is_old = now.saturating_duration_since(*at) >= told_after;
            let gone = if is_old { *count } else { known.min(*count) };
            known = known.saturating_sub(gone);
            *count -= gone;
            self.untold -= gone;
            if *count > 0 {
                return;
            }
            self.slots.pop_front();
        }
    }

    /// Entries that wait, as far as is known.
    pub(super) fn waiting(&self) -> u64 {
        self.told.saturating_add(self.untold)
    }

    /// One more is taken.
    pub(super) fn take(&mut self, now: Instant) {
        self.untold += 1;
        match self.slots.back_mut() {
            Some((at, count)) if now.saturating_duration_since(*at) < SLOT => *count += 1,
            _ => self.slots.push_back((now, 1)),
        }
    }

    /// So many of those that were taken last are not there.
    pub(super) fn give_back(&mut self, mut count: u64) {
        while let Some((_, taken)) = self.slots.back_mut() {
            let gone = count.min(*taken);
            *taken -= gone;
            self.untold -= gone;
            count -= gone;
            if *taken > 0 {
                return;
            }
            self.slots.pop_back();
        }
    }
}
