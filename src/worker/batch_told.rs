//! Who was told to go in one batch of rebalancing, so that it is seen who of them comes back here.
//!
//! In: the workers of a node write the inbox of each session that they tell to go, and report each inbox
//! that is joined. Out: how many were told, how many of them can be known again, and how many came back.
//! Shared by all workers, because whoever comes back may come to another one. Bounds: [`KNOWN_MAX`] hashes,
//! made with a key of their own for each batch; no name is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use fanfare_protocol::ids::Topic;

/// Most who are known of one batch: enough for any verdict. Later ones are told and not known.
const KNOWN_MAX: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub struct BatchTold {
    key: RandomState,
    told: AtomicU64,
    known: AtomicU64,
    returned: AtomicU64,
    /// By hash, how many sessions of a user went and did not come back yet.
    away: Mutex<HashMap<u64, u32>>,
}

impl BatchTold {
    /// A session was told to go; it is known by this inbox, if it has one.
    pub fn told(&self, inbox: Option<&Topic>) {
        self.told.fetch_add(1, Ordering::Relaxed);
        let Some(inbox) = inbox.filter(|_| self.known() < KNOWN_MAX) else {
            return;
        };
        self.known.fetch_add(1, Ordering::Relaxed);
        *self.away().entry(self.key.hash_one(inbox)).or_default() += 1;
    }

    /// A session joined this inbox.
    pub fn joined(&self, inbox: &Topic) {
        // Most sessions come when nobody is away, and need no lock.
        if self.returned() == self.known() {
            return;
        }
        let hash = self.key.hash_one(inbox);
        let mut away = self.away();
        if let Some(count) = away.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                away.remove(&hash);
            }
            self.returned.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn away(&self) -> std::sync::MutexGuard<'_, HashMap<u64, u32>> {
        // What is counted is whole after each step.
        let locked = self.away.lock();
        locked.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many were told.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// How many of them can be known again.
    #[must_use]
    pub fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// How many of these came back.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;

    fn inbox(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).unwrap()
    }

    #[test]
    fn whoever_comes_back_is_counted_once_for_each_session_that_went_and_nobody_else() {
        let batch = BatchTold::default();
        for name in ["@a", "@a", "@b"] {
            batch.told(Some(&inbox(name)));
        }
        batch.told(None);
        for name in ["@c", "@a", "@a", "@a"] {
            batch.joined(&inbox(name));
        }
        assert_eq!((batch.all(), batch.known(), batch.returned()), (4, 3, 2));
        batch.joined(&inbox("@b"));
        batch.joined(&inbox("@b"));
        assert_eq!(batch.returned(), 3);
    }

    #[test]
    fn no_more_are_known_than_the_bound() {
        let batch = BatchTold::default();
        for number in 0..=KNOWN_MAX {
            batch.told(Some(&inbox(&format!("@{number}"))));
        }
        assert_eq!((batch.all(), batch.known()), (KNOWN_MAX + 1, KNOWN_MAX));
        assert_eq!(batch.away().len() as u64, KNOWN_MAX);
    }
}
