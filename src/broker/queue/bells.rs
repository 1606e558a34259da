//! The doorbells: partitions in whose queue something new waits.
//!
//! In: word from the broker that a partition was rung for, from any thread. Out: the set of those that
//! were, to the one consumer. A level and not a queue: twice rung is once heard. Bound: one number a
//! partition.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub struct Bells {
    rung: Mutex<BTreeSet<u32>>,
    wake: Notify,
}

impl Bells {
    /// Something new may wait in the partition.
    pub fn ring(&self, partition: u32) {
        let is_news = self.lock().insert(partition);
        if is_news {
            self.wake.notify_one();
        }
    }

    /// Waits for a ring and takes all that were rung. Cancel-safe: a dropped future takes nothing.
    pub async fn heard(&self) -> BTreeSet<u32> {
        loop {
            let rung = std::mem::take(&mut *self.lock());
            if !rung.is_empty() {
                return rung;
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rang_twice_is_heard_once_and_nothing_is_missed() {
        let bells = Bells::default();
        for partition in [7, 3, 7] {
            bells.ring(partition);
        }
        assert_eq!(bells.heard().await, BTreeSet::from([3, 7]));
        let (heard, ()) = tokio::join!(bells.heard(), async { bells.ring(7) });
        assert_eq!(heard, BTreeSet::from([7]));
    }
}
