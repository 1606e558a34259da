//! The doorbells: partitions in whose queue something new waits.
//!
//! In: word from the broker that a partition was rung for, from any thread. Out: those that were, with
//! the most urgent that rang for each, to the one consumer. A level and not a queue: twice rung is once
//! heard. Bound: one number and one ring a partition.
//!
//! On the bell's channel the message of a ring is the name of the most urgent priority that it is for.
//! Nodes of before sent an empty one and read none, so both understand each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use fanfare_protocol::ids::Priority;

/// What is known of what a bell rings for; what is more urgent is greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ring {
    /// Nothing of it is critical.
    #[default]
    Lower,
    /// Nobody said: some of it may be.
    Unsaid,
    /// Some of it is critical.
    Critical,
}

impl Ring {
    /// A ring for an entry of this priority.
    #[must_use]
    pub fn of(priority: Priority) -> Self {
        match priority {
            Priority::Critical => Self::Critical,
            Priority::High | Priority::Normal | Priority::Low => Self::Lower,
        }
    }

    /// What a message on the bell's channel says; one that is no name of a priority says nothing.
    #[must_use]
    pub fn read(message: &[u8]) -> Self {
        match message {
            b"critical" => Self::Critical,
            b"high" | b"normal" | b"low" => Self::Lower,
            _ => Self::Unsaid,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Bells {
    rung: Mutex<BTreeMap<u32, Ring>>,
    wake: Notify,
}

impl Bells {
    /// Something new may wait in the partition.
    pub fn ring(&self, partition: u32, ring: Ring) {
        let mut rung = self.lock();
        let is_news = !rung.contains_key(&partition);
        let heard = rung.entry(partition).or_default();
        *heard = ring.max(*heard);
        drop(rung);
        if is_news {
            self.wake.notify_one();
        }
    }

    /// Waits for a ring and takes all that were rung, with the most urgent ring of each. Cancel-safe: a dropped future takes nothing.
    pub async fn heard(&self) -> BTreeMap<u32, Ring> {
        loop {
            let rung = std::mem::take(&mut *self.lock());
            if !rung.is_empty() {
                return rung;
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Ring>> {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_rang_twice_is_heard_once_and_nothing_is_missed() {
        let bells = Bells::default();
        for (partition, ring) in [
            (7, Ring::Lower),
            (3, Ring::Unsaid),
            (7, Ring::Critical),
            (7, Ring::Unsaid),
        ] {
            bells.ring(partition, ring);
        }
        let expected = BTreeMap::from([(3, Ring::Unsaid), (7, Ring::Critical)]);
        assert_eq!(bells.heard().await, expected);
        let (heard, ()) = tokio::join!(bells.heard(), async { bells.ring(7, Ring::Lower) });
        assert_eq!(heard, BTreeMap::from([(7, Ring::Lower)]));
    }

    #[test]
    fn a_ring_is_read_by_the_name_of_a_priority_and_any_other_says_nothing() {
        for (message, ring) in [
            ("critical", Ring::Critical),
            ("high", Ring::Lower),
            ("normal", Ring::Lower),
            ("low", Ring::Lower),
            ("", Ring::Unsaid),
            ("Critical", Ring::Unsaid),
            ("0", Ring::Unsaid),
        ] {
            assert_eq!(Ring::read(message.as_bytes()), ring, "{message}");
        }
    }
}
