//! How many sessions of this node belong to each topic, over all workers.
//!
//! In: joins and leaves of sessions. Out: the limit of sessions per user (an inbox is joined by
//! exactly its user's sessions), and the level that the cluster's occupancy writes to the broker.
//! Bound: topics with local members. One lock, held for one map operation, on joining and leaving
//! only; the delivery path never comes here.

use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;

use crate::cluster::occupancy::Occupancy;
use fanfare_protocol::ids::Topic;

/// See the module.
#[derive(Debug)]
pub struct Registry {
    counts: Mutex<FxHashMap<Topic, u64>>,
    occupancy: Arc<Occupancy>,
}

impl Registry {
    /// Nobody belongs to anything.
    #[must_use]
    pub fn new(occupancy: Arc<Occupancy>) -> Self {
        Self {
            counts: Mutex::default(),
            occupancy,
        }
    }

    /// Counts a member in, unless `most` are in already.
    #[must_use]
    pub fn join(&self, topic: &Topic, most: u64) -> bool {
        let mut counts = self.lock();
        let count = counts.entry(topic.clone()).or_default();
        if *count >= most {
            return false;
        }
        *count += 1;
        self.occupancy.set(topic.clone(), *count);
        true
    }

    /// Counts a member out.
    pub fn leave(&self, topic: &Topic) {
        let mut counts = self.lock();
        let Some(count) = counts.get_mut(topic) else {
            return;
        };
        *count -= 1;
        self.occupancy.set(topic.clone(), *count);
        if *count == 0 {
            counts.remove(topic);
        }
    }

    /// How many members a topic has on this node.
    #[cfg(test)]
    pub(crate) fn count(&self, topic: &Topic) -> u64 {
        self.lock().get(topic).copied().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<Topic, u64>> {
        self.counts.lock().expect("no holder of this lock panics")
    }
}
