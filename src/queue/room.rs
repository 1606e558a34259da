//! How many passes may run at once, of all masters and of each.
//!
//! In: the masters that have partitions, and passes that begin and end. Out: whether another one of a master
//! may begin. Pure. Owner: the consumer. Bounds: `queue.workers` of all masters together, of which each has
//! an even share; but of each master one, so that one that hangs holds up its own partitions only.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::FeedNumber;

/// See the module.
#[derive(Debug)]
pub(super) struct Room {
    workers_max: usize,
    /// The masters that have partitions which are held.
    masters: BTreeSet<FeedNumber>,
    /// How many passes each master has, where it has any.
    counts: BTreeMap<FeedNumber, usize>,
}

impl Room {
    /// Of `queue.workers`.
    pub(super) fn new(workers_max: usize) -> Self {
        Self {
            workers_max,
            masters: BTreeSet::new(),
            counts: BTreeMap::new(),
        }
    }

    /// These masters have partitions now.
    pub(super) fn note(&mut self, masters: BTreeSet<FeedNumber>) {
        self.masters = masters;
    }

    /// Whether one more pass of a master may begin, of `wanted` for each.
    pub(super) fn has(&self, master: FeedNumber, wanted: usize) -> bool {
        let Some(count) = self.counts.get(&master) else {
            return true;
        };
        let share = self.workers_max / self.masters.len().max(1);
        *count < wanted.min(share) && self.running() < self.workers_max
    }

    /// Whether no master has any, of `wanted` for each.
    pub(super) fn is_full(&self, wanted: usize) -> bool {
        let mut masters = self.masters.iter();
        masters.all(|master| !self.has(*master, wanted))
    }

    /// A pass of a master begins.
    pub(super) fn begun(&mut self, master: FeedNumber) {
        *self.counts.entry(master).or_default() += 1;
    }

    /// One has ended.
    pub(super) fn ended(&mut self, master: FeedNumber) {
        if let Some(count) = self.counts.get_mut(&master) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&master);
            }
        }
    }

    /// How many are on their way.
    pub(super) fn running(&self) -> usize {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(workers_max: usize, masters: u32) -> Room {
        let mut room = Room::new(workers_max);
        room.note((0..masters).map(FeedNumber).collect());
        room
    }

    /// Begins all that may, of each master in turn. Returns how many each has.
    fn fill(room: &mut Room, masters: u32, wanted: usize) -> Vec<usize> {
        let mut counts = vec![0; masters as usize];
        while !room.is_full(wanted) {
            for master in 0..masters {
                if room.has(FeedNumber(master), wanted) {
                    room.begun(FeedNumber(master));
                    counts[master as usize] += 1;
                }
            }
        }
        counts
    }

    #[test]
    fn each_master_has_an_even_share_and_no_more_than_is_wanted() {
        assert_eq!(fill(&mut room(20, 3), 3, 100), [6; 3]);
        assert_eq!(fill(&mut room(20, 3), 3, 2), [2; 3]);
        assert_eq!(fill(&mut room(20, 1), 1, 100), [20]);
    }

    #[test]
    fn with_fewer_workers_than_masters_each_master_has_one() {
        for workers_max in 1..3 {
            let mut room = room(workers_max, 3);
            assert_eq!(fill(&mut room, 3, 100), [1; 3]);
            // The others go on while the first hangs.
            for master in [1, 2, 1] {
                let master = FeedNumber(master);
                assert!(!room.has(master, 100));
                room.ended(master);
                assert!(room.has(master, 100) && !room.is_full(100));
                room.begun(master);
            }
            assert_eq!(room.running(), 3);
        }
    }

    #[test]
    fn what_a_master_of_before_has_on_its_way_takes_no_ones_only_pass() {
        let mut room = room(2, 1);
        assert_eq!(fill(&mut room, 1, 100), [2]);
        room.note([FeedNumber(7)].into());
        assert!(room.has(FeedNumber(7), 100));
        room.begun(FeedNumber(7));
        assert!(room.is_full(100));
        assert_eq!(room.running(), 3);
    }
}
