//! What waits in the partitions whose home this node is, as its passes and counts saw it last.
//!
//! In: depths by partition, and what has another home. Out: their sums, for heartbeats, metrics and the API.
//! Owner: the consumer; whoever asks sees the sums of its last second. Bound: one entry a partition.
//!
//! What nothing new is known of is told as it was seen last. A partition may also get another home while
//! its master is away, and then that one knows nothing of it: it is told here until the master is back,
//! and forgotten then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ids;
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
    /// Those of them whose home this node is no more.
    let_go: BTreeSet<u32>,
    clock: Option<Told>,
}

impl Figures {
    /// Redis' clock says so now.
    pub fn tick(&mut self, now_ms: u64, at: Instant) {
        self.clock = Some(Told { now_ms, at });
    }

    /// It said so then, as far as nobody has heard it since.
    pub fn tick_first(&mut self, now_ms: u64, at: Instant) {
        self.clock.get_or_insert(Told { now_ms, at });
    }

    /// A partition stands so. What has an id that no clock gave it has waited since it was seen first.
    pub fn set(&mut self, partition: u32, mut depths: Depths, at: Instant) {
        if let Some(now_ms) = self.now_ms(at) {
            let before = self.partitions.get(&partition);
            let before = before.map_or([None; 4], |(depths, _)| depths.oldest_ms);
            let is_of_a_clock = |of: &u64| ids::is_of_a_clock(*of, now_ms);
            for (oldest_ms, before) in depths.oldest_ms.iter_mut().zip(before) {
                *oldest_ms = oldest_ms.map(|of| match is_of_a_clock(&of) {
                    true => of,
                    false => before.filter(is_of_a_clock).unwrap_or(now_ms),
                });
            }
        }
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

    /// It has another home; what is known of it is told until [`Self::forget`].
    pub fn let_go(&mut self, partition: u32) {
        if self.partitions.contains_key(&partition) {
            self.let_go.insert(partition);
        }
    }

    /// This node is its home again.
    pub fn take(&mut self, partition: u32) {
        self.let_go.remove(&partition);
    }

    /// Those that are told and have another home.
    pub fn let_go_of(&self) -> impl Iterator<Item = u32> {
        self.let_go.iter().copied()
    }

    /// Another node counts it from now on.
    pub fn forget(&mut self, partition: u32) {
        self.let_go.remove(&partition);
        self.partitions.remove(&partition);
    }

    /// Redis' clock at this instant.
    fn now_ms(&self, at: Instant) -> Option<u64> {
        let clock = self.clock?;
        let since: Duration = at.saturating_duration_since(clock.at);
        let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Some(clock.now_ms.saturating_add(since_ms))
    }

    /// The sums at this instant. Of the depth this part (0 to 1) is pressure, but for partitions that stand
    /// still: more nodes would not work them off.
    #[must_use]
    pub fn told(&self, pressure: f64, blocked: &BTreeSet<u32>, at: Instant) -> QueueTold {
        let (mut told, mut moving) = (QueueTold::default(), 0_u64);
        let now_ms = self.now_ms(at);
        for (partition, (depths, _)) in &self.partitions {
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
            if !blocked.contains(partition) && !self.let_go.contains(partition) {
                moving = moving.saturating_add(depths.due.iter().sum());
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let pressure = (moving as f64 * pressure.clamp(0.0, 1.0)).round() as u64;
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
        let none = BTreeSet::new();
        let told = figures.told(0.25, &none, at + Duration::from_millis(500));
        assert_eq!(told.due, [1, 0, 2, 5]);
        assert_eq!(told.oldest_ms, [1_500, 0, 499, 2_500]);
        assert_eq!((told.later, told.dead, told.pressure), (3, 4, 2));
        let told = figures.told(0.25, &[2].into(), at);
        assert_eq!((told.depth(), told.pressure), (8, 1), "of what moves");
        assert!(!figures.is_older(1, at) && figures.is_older(1, at + Duration::from_secs(1)));
        assert!(figures.is_older(3, at));
        // While nobody can say who has it, it is told, and grows older.
        figures.let_go(2);
        assert_eq!(figures.let_go_of().collect::<Vec<_>>(), [2]);
        let told = figures.told(1.0, &none, at + Duration::from_secs(60));
        assert_eq!((told.due[3], told.oldest_ms[3]), (5, 62_000));
        assert_eq!(told.pressure, 3);
        // It was let go for a moment only.
        figures.take(2);
        assert_eq!(figures.let_go_of().count(), 0);
        figures.let_go(2);
        figures.forget(2);
        // Nothing is known of it.
        figures.let_go(2);
        assert_eq!(figures.let_go_of().count(), 0);
        assert_eq!(
            figures.told(2.0, &none, at).pressure,
            3,
            "never more than the depth"
        );
        figures.set_bare(1, at);
        let told = figures.told(1.0, &none, at);
        assert_eq!((told.depth(), told.later, told.dead), (0, 0, 4));
    }

    #[test]
    fn what_has_an_id_of_no_clock_waits_since_it_was_seen() {
        let (mut figures, at) = (Figures::default(), Instant::now());
        let now_ms = 1_800_000_000_000;
        figures.tick_first(now_ms, at);
        figures.tick_first(7, at);
        let none = BTreeSet::new();
        for id_ms in [1, 0, 2_100_000_000_000, u64::MAX] {
            figures.forget(1);
            let depths = Depths {
                due: [1, 0, 0, 0],
                oldest_ms: [Some(id_ms), None, None, None],
                ..Depths::default()
            };
            let mut oldest = |seconds: u64| {
                let at = at + Duration::from_secs(seconds);
                figures.set(1, depths, at);
                figures.told(0.0, &none, at).oldest_ms[0]
            };
            assert_eq!([0, 1, 9].map(&mut oldest), [1, 1_000, 9_000], "{id_ms}");
        }
    }
}
