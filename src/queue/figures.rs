//! What waits in the partitions that this node holds, as its passes saw it last.
//!
//! In: depths by partition, and what is held no more. Out: their sums, for heartbeats, metrics and the API.
//! Owner: the consumer; whoever asks sees the sums of its last second. Bound: one entry a partition.
//!
//! A lease also ends where the broker is away, and then nobody else need have the partition: what waited
//! there is told as it was seen last until the broker is whole again, and forgotten then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::broker::queue::Depths;
use crate::cluster::queue_told::QueueTold;

/// Redis' clock as it was told, unix milliseconds, and when.
#[derive(Debug, Clone, Copy)]
struct Told {
    now_ms: u64,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Figures {
    partitions: BTreeMap<u32, (Depths, Instant)>,
    /// Those of them that this node does not hold any more.
    let_go: BTreeSet<u32>,
    clock: Option<Told>,
}

impl Figures {
    /// Redis' clock says so now.
    pub fn tick(&mut self, now_ms: u64, at: Instant) {
        self.clock = Some(Told { now_ms, at });
    }

    /// A partition stands so.
    pub fn set(&mut self, partition: u32, depths: Depths, at: Instant) {
        self.let_go.remove(&partition);
        self.partitions.insert(partition, (depths, at));
    }

    /// Nothing waits in a partition. Of its dead letters nothing new is known.
    pub fn set_bare(&mut self, partition: u32, at: Instant) {
        let before = self.partitions.get(&partition);
        let dead = before.map_or(0, |(depths, _)| depths.dead);
        let depths = Depths {
            dead,
            ..Depths::default()
        };
        self.set(partition, depths, at);
    }

    /// Whether a partition was last seen before this.
    #[must_use]
    pub fn is_older(&self, partition: u32, than: Instant) -> bool {
        let seen = self.partitions.get(&partition);
        seen.is_none_or(|(_, at)| *at < than)
    }

    /// This node does not hold it any more; it is told until [`Self::forget`].
    pub fn let_go(&mut self, partition: u32) {
        self.let_go.insert(partition);
    }

    /// This node holds it again.
    pub fn hold(&mut self, partition: u32) {
        self.let_go.remove(&partition);
    }

    /// Those that are told and not held.
    pub fn let_go_of(&self) -> impl Iterator<Item = u32> {
        self.let_go.iter().copied()
    }

    /// Another node counts it from now on.
    pub fn forget(&mut self, partition: u32) {
        self.let_go.remove(&partition);
        self.partitions.remove(&partition);
    }

    /// How many entries are due here.
    #[must_use]
    pub fn due_count(&self) -> u64 {
        let due = self.partitions.values().flat_map(|(depths, _)| depths.due);
        due.sum()
    }

    /// The sums at this instant. Of the depth this part (0 to 1) is pressure.
    #[must_use]
    pub fn told(&self, pressure: f64, at: Instant) -> QueueTold {
        let mut told = QueueTold::default();
        let now_ms = self.clock.map(|clock| {
            let since = at.saturating_duration_since(clock.at).as_millis();
            clock.now_ms + u64::try_from(since).unwrap_or(u64::MAX)
        });
        for (depths, _) in self.partitions.values() {
            let age = |oldest_ms: Option<u64>| match (oldest_ms, now_ms) {
                // What waits has an age: 0 stands for nothing.
                (Some(oldest_ms), Some(now_ms)) => now_ms.saturating_sub(oldest_ms).max(1),
                _ => 0,
            };
            told = told.and(&QueueTold {
                due: depths.due,
                oldest_ms: depths.oldest_ms.map(age),
                later: depths.later,
                dead: depths.dead,
                pressure: 0,
            });
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let pressure = (told.depth() as f64 * pressure.clamp(0.0, 1.0)).round() as u64;
        QueueTold { pressure, ..told }
    }
}

/// The sums as the consumer told them last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SharedFigures(Arc<Mutex<QueueTold>>);

impl SharedFigures {
    /// What the consumer has found.
    pub(super) fn set(&self, told: QueueTold) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = told;
    }

    /// The sums.
    #[must_use]
    pub fn get(&self) -> QueueTold {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn partitions_add_up_with_the_age_of_the_oldest_and_pressure_is_a_part_of_the_depth() {
        let (mut figures, at) = (Figures::default(), Instant::now());
        figures.tick(10_000, at);
        figures.set(
            1,
            Depths {
                due: [1, 0, 2, 0],
                later: 3,
                dead: 4,
                next_due_ms: None,
                oldest_ms: [Some(9_000), None, Some(10_001), None],
            },
            at,
        );
        figures.set(
            2,
            Depths {
                due: [0, 0, 0, 5],
                oldest_ms: [None, None, None, Some(8_000)],
                ..Depths::default()
            },
            at,
        );
        let told = figures.told(0.25, at + Duration::from_millis(500));
        assert_eq!(told.due, [1, 0, 2, 5]);
        assert_eq!(told.oldest_ms, [1_500, 0, 499, 2_500]);
        assert_eq!((told.later, told.dead, told.pressure), (3, 4, 2));
        assert_eq!(figures.due_count(), 8);
        assert!(!figures.is_older(1, at) && figures.is_older(1, at + Duration::from_secs(1)));
        assert!(figures.is_older(3, at));
        // While nobody can say who has it, it is told, and grows older.
        figures.let_go(2);
        assert_eq!(figures.let_go_of().collect::<Vec<_>>(), [2]);
        let told = figures.told(0.0, at + Duration::from_secs(60));
        assert_eq!((told.due[3], told.oldest_ms[3]), (5, 62_000));
        // It was let go for a moment only.
        figures.hold(2);
        assert_eq!(figures.let_go_of().count(), 0);
        figures.let_go(2);
        figures.forget(2);
        assert_eq!(figures.let_go_of().count(), 0);
        assert_eq!(
            figures.told(2.0, at).pressure,
            3,
            "never more than the depth"
        );
        figures.set_bare(1, at);
        let told = figures.told(1.0, at);
        assert_eq!((told.depth(), told.later, told.dead), (0, 0, 4));
    }
}
