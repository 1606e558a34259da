//! What a node says of the queue: of the partitions whose home it is.
//!
//! In: figures of its consumer, sent with each heartbeat. Out: the same of all nodes together. Since
//! a partition has one home, the sum counts each entry once; while a partition gets another home an entry
//! may count twice or not at all for a heartbeat. Pure.

use serde::{Deserialize, Serialize};

/// See the module. Priorities as `broker::queue::PRIORITIES` has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueTold {
    /// Due entries by priority.
    pub due: [u64; 4],
    /// Age of the oldest due entry by priority, in milliseconds; 0 where none waits.
    pub oldest_ms: [u64; 4],
    /// Entries that are to come later.
    pub later: u64,
    /// Dead letters.
    pub dead: u64,
    /// The part of the depth that more nodes would work off.
    pub pressure: u64,
}

impl QueueTold {
    /// All due entries.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.due.iter().sum()
    }

    /// This and what another node says.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let each = |of: fn(u64, u64) -> u64, mine: [u64; 4], its: [u64; 4]| {
            std::array::from_fn(|rank| of(mine[rank], its[rank]))
        };
        Self {
            due: each(u64::saturating_add, self.due, other.due),
            oldest_ms: each(u64::max, self.oldest_ms, other.oldest_ms),
            later: self.later.saturating_add(other.later),
            dead: self.dead.saturating_add(other.dead),
            pressure: self.pressure.saturating_add(other.pressure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_oldest_of_all_stands() {
        let one = QueueTold {
            due: [1, 2, 3, 4],
            oldest_ms: [5, 0, 9, 0],
            later: 6,
            dead: 7,
            pressure: 8,
        };
        let other = QueueTold {
            due: [10, 0, 0, 1],
            oldest_ms: [1, 2, 0, 0],
            ..QueueTold::default()
        };
        let all = one.and(&other);
        assert_eq!((all.due, all.oldest_ms), ([11, 2, 3, 5], [5, 2, 9, 0]));
        assert_eq!((all.later, all.dead, all.pressure), (6, 7, 8));
        assert_eq!(all.depth(), 21);
    }
}
