//! Which partitions are to be looked through, and when: pure, time comes as ticks.
//!
//! In: what is held, who lives, a tick a second, and what became of each look. Out: the next
//! partition to look through. Owner: the reaper's task. Bound: a few entries a held partition.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::ids::Owner;

/// In so many ticks every partition is looked through once, whatever happens.
const SWEEP_TICKS: u32 = 60;
/// Longest rest of a partition in which something fails again and again, in ticks: Redis may have
/// been away.
const REST_TICKS_MAX: u32 = 8;

/// What became of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is left that this node should remove.
    Done,
    /// Something is left for a node to write it again first: the next tick is soon enough.
    Waits,
    /// Something could not be removed. It is tried again, less often each time.
    Failed,
}

/// Until a partition is looked through again.
#[derive(Debug, Clone, Copy)]
struct Rest {
    left_ticks: u32,
    whole_ticks: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    todo: BTreeSet<u32>,
    looking: BTreeSet<u32>,
    rests: BTreeMap<u32, Rest>,
    held: BTreeSet<u32>,
    live: BTreeSet<Owner>,
    turn: u32,
}

impl Agenda {
    /// Takes what is held and who lives now.
    pub(super) fn note(&mut self, held: BTreeSet<u32>, live: BTreeSet<Owner>) {
        let somebody_died = self.live.iter().any(|owner| !live.contains(owner));
        let is_due = |partition: &&u32| somebody_died || !self.held.contains(partition);
        let due: Vec<_> = held.iter().filter(is_due).copied().collect();
        self.todo.extend(due);
        if somebody_died {
            // What failed before says nothing of what is left now.
            self.rests.clear();
        }
        self.todo.retain(|partition| held.contains(partition));
        self.rests.retain(|partition, _| held.contains(partition));
        (self.held, self.live) = (held, live);
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.turn = (self.turn + 1) % SWEEP_TICKS;
        let is_due = |partition: &&u32| **partition % SWEEP_TICKS == self.turn;
        self.todo.extend(self.held.iter().filter(is_due));
        for (partition, rest) in &mut self.rests {
            rest.left_ticks = rest.left_ticks.saturating_sub(1);
            if rest.left_ticks == 0 {
                self.todo.insert(*partition);
            }
        }
    }

    /// The next partition to look through, of those that may be begun. None is read twice at a
    /// time.
    pub(super) fn take(&mut self, may_begin: impl Fn(u32) -> bool) -> Option<u32> {
        let mut free = self.todo.difference(&self.looking).copied();
        let partition = free.find(|partition| may_begin(*partition))?;
        self.todo.remove(&partition);
        self.looking.insert(partition);
        if let Some(rest) = self.rests.get_mut(&partition) {
            // It has its turn; the next rest begins when that is over.
            rest.left_ticks = u32::MAX;
        }
        Some(partition)
    }

    /// A partition that was taken has been read. What was found is being removed, and it may be taken
    /// again meanwhile.
    pub(super) fn read(&mut self, partition: u32) {
        self.looking.remove(&partition);
    }

    /// A partition is to be looked through again.
    pub(super) fn again(&mut self, partition: u32) {
        if self.held.contains(&partition) {
            self.todo.insert(partition);
        }
    }

    /// A partition that was taken has been looked through, and what was found is removed or not.
    pub(super) fn looked(&mut self, partition: u32, outcome: Outcome) {
        self.looking.remove(&partition);
        let before = self.rests.remove(&partition);
        let whole_ticks = match outcome {
            Outcome::Done => return,
            Outcome::Waits => 1,
            Outcome::Failed => before.map_or(1, |rest| rest.whole_ticks * 2),
        };
        if self.held.contains(&partition) {
            let whole_ticks = whole_ticks.min(REST_TICKS_MAX);
            let left_ticks = whole_ticks;
            let rest = Rest {
                left_ticks,
                whole_ticks,
            };
            self.rests.insert(partition, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(agenda: &mut Agenda, held: &[u32], live: &[&str]) -> Vec<u32> {
        let live = live.iter().map(|owner| owner.parse().unwrap()).collect();
        agenda.note(held.iter().copied().collect(), live);
        all(agenda, Outcome::Done)
    }

    /// Takes all that is due, with this outcome.
    fn all(agenda: &mut Agenda, outcome: Outcome) -> Vec<u32> {
        let due: Vec<_> = std::iter::from_fn(|| agenda.take(|_| true)).collect();
        for partition in &due {
            agenda.looked(*partition, outcome);
        }
        due
    }

    #[test]
    fn what_was_taken_is_looked_through_and_all_when_somebody_died() {
        let mut agenda = Agenda::default();
        assert_eq!(noted(&mut agenda, &[47, 48], &["a~1", "b~1"]), [47, 48]);
        assert_eq!(noted(&mut agenda, &[47, 48, 49], &["a~1", "b~1"]), [49]);
        assert_eq!(
            noted(&mut agenda, &[47, 49], &["a~1", "b~1", "c~1"]),
            [0; 0]
        );
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~1"]), [47, 49]);
        // A new life of a node is the death of the one before.
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~2"]), [47, 49]);
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~2"]), [0; 0]);
    }

    #[test]
    fn what_is_held_no_more_is_not_looked_through() {
        let mut agenda = Agenda::default();
        agenda.note([100, 101].into(), BTreeSet::new());
        agenda.note([101].into(), BTreeSet::new());
        assert_eq!(all(&mut agenda, Outcome::Failed), [101]);
        agenda.note([].into(), BTreeSet::new());
        agenda.tick();
        assert_eq!(agenda.take(|_| true), None);
    }

    #[test]
    fn what_is_looked_through_when_somebody_dies_has_another_turn() {
        let mut agenda = Agenda::default();
        agenda.note([7].into(), ["b~1".parse().unwrap()].into());
        assert_eq!(agenda.take(|_| true), Some(7));
        agenda.note([7].into(), BTreeSet::new());
        assert_eq!(agenda.take(|_| true), None, "not twice at a time");
        agenda.looked(7, Outcome::Done);
        assert_eq!(agenda.take(|_| true), Some(7));
    }

    #[test]
    fn what_was_read_may_be_read_again_while_it_is_removed() {
        let mut agenda = Agenda::default();
        agenda.note([7, 8].into(), BTreeSet::new());
        assert_eq!(agenda.take(|partition| partition == 8), Some(8));
        agenda.again(8);
        assert_eq!(agenda.take(|partition| partition == 8), None);
        agenda.read(8);
        assert_eq!(agenda.take(|partition| partition == 8), Some(8));
        agenda.again(9);
        assert_eq!(agenda.take(|partition| partition != 7), None, "not held");
        assert_eq!(agenda.take(|_| true), Some(7));
    }

    #[test]
    fn what_fails_rests_longer_each_time_and_holds_up_nobody() {
        let mut agenda = Agenda::default();
        let turns = |agenda: &mut Agenda, outcome| {
            let mut turns = Vec::new();
            for tick in 1..=10 {
                agenda.tick();
                let due = all(agenda, outcome);
                turns.extend(due.contains(&59).then_some(tick));
            }
            turns
        };
        agenda.note([58, 59].into(), BTreeSet::new());
        assert_eq!(agenda.take(|_| true), Some(58));
        assert_eq!(
            agenda.take(|_| true),
            Some(59),
            "while the first one is busy"
        );
        agenda.looked(58, Outcome::Done);
        agenda.looked(59, Outcome::Failed);
        assert_eq!(turns(&mut agenda, Outcome::Failed), [1, 3, 7]);
        agenda.note([].into(), BTreeSet::new());
        agenda.note([58, 59].into(), BTreeSet::new());
        all(&mut agenda, Outcome::Waits);
        let every = Vec::from_iter(1..=10);
        assert_eq!(turns(&mut agenda, Outcome::Waits), every);
    }

    #[test]
    fn every_partition_has_its_turn_in_a_sweep() {
        let mut agenda = Agenda::default();
        let held: Vec<u32> = (0..256).collect();
        noted(&mut agenda, &held, &[]);
        let mut seen = BTreeSet::new();
        for _ in 0..SWEEP_TICKS {
            agenda.tick();
            let due = all(&mut agenda, Outcome::Done);
            assert!(due.len() <= 5, "{due:?}");
            seen.extend(due);
        }
        assert_eq!(seen.len(), 256);
    }
}
