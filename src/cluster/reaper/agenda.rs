//! Which partitions are to be looked through, and when: pure, time comes as ticks.
//!
//! In: what is held, who lives ([`Lives`]), a tick a second, and what became of each look. Out: the
//! next partition to look through. A node that left in order with nothing left behind is no reason to
//! look. What waits for a node is looked through when that node has written its members again, and not
//! before. Owner: the reaper's task. Bound: a few entries a held partition, and one for each node that
//! it waits for.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_protocol::ids::Owner;

/// In so many ticks every partition is looked through once, whatever happens.
const SWEEP_TICKS: u32 = 60;
/// Longest rest of a partition in which something fails again and again, in ticks: Redis may have
/// been away.
const REST_TICKS_MAX: u32 = 8;

/// What became of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is left that this node should remove.
    Done,
    /// Something is left for these lives to write it again first, and nothing else.
    Waits(BTreeSet<Owner>),
    /// Something could not be removed. It is tried again, less often each time.
    Failed,
    /// This node was not to act for the partition any more. Should it all the same, that is tried as
    /// what failed is.
    Lost,
}

/// Who lives.
#[derive(Debug, Default)]
pub(super) struct Lives {
    pub(super) live: BTreeSet<Owner>,
    /// Of those the ones that may have to write again what is under their earlier lives.
    pub(super) unsettled: BTreeSet<Owner>,
    /// Lives that ended in order since the last time, with nothing left behind.
    pub(super) bare: BTreeSet<Owner>,
}

/// Until a partition is looked through again.
#[derive(Debug)]
struct Rest {
    left_ticks: u32,
    whole_ticks: u32,
    /// Until one of these has settled; none: it is not waited for anybody.
    waits_for: BTreeSet<Owner>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    todo: BTreeSet<u32>,
    looking: BTreeSet<u32>,
    rests: BTreeMap<u32, Rest>,
    held: BTreeSet<u32>,
    live: BTreeSet<Owner>,
    unsettled: BTreeSet<Owner>,
    turn: u32,
}

impl Agenda {
    /// Takes what is held and who lives now.
    pub(super) fn note(&mut self, held: BTreeSet<u32>, lives: Lives) {
        let leaves_something = |o: &Owner| !lives.live.contains(o) && !lives.bare.contains(o);
        let somebody_died = self.live.iter().any(leaves_something);
        let is_due = |partition: &&u32| somebody_died || !self.held.contains(partition);
        let due: Vec<_> = held.iter().filter(is_due).copied().collect();
        self.todo.extend(due);
        if somebody_died {
            // What failed before says nothing of what is left now.
            self.rests.clear();
        }
        self.todo.retain(|partition| held.contains(partition));
        self.rests.retain(|partition, _| held.contains(partition));
        self.held = held;
        (self.live, self.unsettled) = (lives.live, lives.unsettled);
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.turn = (self.turn + 1) % SWEEP_TICKS;
        let is_due = |partition: &&u32| **partition % SWEEP_TICKS == self.turn;
        self.todo.extend(self.held.iter().filter(is_due));
        for (partition, rest) in &mut self.rests {
            rest.left_ticks = rest.left_ticks.saturating_sub(1);
            let waits = !rest.waits_for.is_empty() && rest.waits_for.is_subset(&self.unsettled);
            if rest.left_ticks == 0 && !waits {
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

    /// A partition that was taken has been looked through, and what was found is removed or not.
    pub(super) fn looked(&mut self, partition: u32, outcome: Outcome) {
        self.looking.remove(&partition);
        let before = self.rests.remove(&partition);
        let waits_for = match outcome {
            Outcome::Done => return,
            Outcome::Waits(waits_for) => waits_for,
            Outcome::Failed | Outcome::Lost => BTreeSet::new(),
        };
        if self.held.contains(&partition) {
            let whole_ticks = before.map_or(1, |rest| rest.whole_ticks * 2);
            let whole_ticks = whole_ticks.min(REST_TICKS_MAX);
            let rest = Rest {
                left_ticks: whole_ticks,
                whole_ticks,
                waits_for,
            };
            self.rests.insert(partition, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(owners: &[&str]) -> BTreeSet<Owner> {
        owners.iter().map(|owner| owner.parse().unwrap()).collect()
    }

    fn lives(live: &[&str]) -> Lives {
        Lives {
            live: owners(live),
            ..Lives::default()
        }
    }

    fn noted(agenda: &mut Agenda, held: &[u32], live: &[&str]) -> Vec<u32> {
        agenda.note(held.iter().copied().collect(), lives(live));
        all(agenda, &Outcome::Done)
    }

    /// Takes all that is due, with this outcome.
    fn all(agenda: &mut Agenda, outcome: &Outcome) -> Vec<u32> {
        let due: Vec<_> = std::iter::from_fn(|| agenda.take(|_| true)).collect();
        for partition in &due {
            agenda.looked(*partition, outcome.clone());
        }
        due
    }

    /// In which of the next ten ticks a partition has its turn.
    fn turns(agenda: &mut Agenda, partition: u32, outcome: &Outcome) -> Vec<u32> {
        let mut turns = Vec::new();
        for tick in 1..=10 {
            agenda.tick();
            let due = all(agenda, outcome);
            turns.extend(due.contains(&partition).then_some(tick));
        }
        turns
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
        agenda.note([100, 101].into(), Lives::default());
        agenda.note([101].into(), Lives::default());
        assert_eq!(all(&mut agenda, &Outcome::Failed), [101]);
        agenda.note([].into(), Lives::default());
        agenda.tick();
        assert_eq!(agenda.take(|_| true), None);
    }

    #[test]
    fn what_is_looked_through_when_somebody_dies_has_another_turn() {
        let mut agenda = Agenda::default();
        agenda.note([7].into(), lives(&["b~1"]));
        assert_eq!(agenda.take(|_| true), Some(7));
        agenda.note([7].into(), Lives::default());
        assert_eq!(agenda.take(|_| true), None, "not twice at a time");
        agenda.looked(7, Outcome::Done);
        assert_eq!(agenda.take(|_| true), Some(7));
    }

    #[test]
    fn what_was_read_may_be_read_again_while_it_is_removed() {
        let mut agenda = Agenda::default();
        agenda.note([7, 8].into(), lives(&["b~1"]));
        assert_eq!(agenda.take(|partition| partition == 8), Some(8));
        agenda.note([7, 8].into(), Lives::default());
        assert_eq!(agenda.take(|partition| partition == 8), None);
        agenda.read(8);
        assert_eq!(agenda.take(|partition| partition == 8), Some(8));
        assert_eq!(agenda.take(|_| true), Some(7));
    }

    #[test]
    fn what_fails_rests_longer_each_time_and_holds_up_nobody() {
        let mut agenda = Agenda::default();
        agenda.note([58, 59].into(), Lives::default());
        assert_eq!(agenda.take(|_| true), Some(58));
        assert_eq!(
            agenda.take(|_| true),
            Some(59),
            "while the first one is busy"
        );
        agenda.looked(58, Outcome::Done);
        agenda.looked(59, Outcome::Failed);
        assert_eq!(turns(&mut agenda, 59, &Outcome::Failed), [1, 3, 7]);
    }

    #[test]
    fn what_waits_for_a_node_is_not_read_before_that_has_settled() {
        let mut agenda = Agenda::default();
        let unsettled = |unsettled: &[&str]| Lives {
            unsettled: owners(unsettled),
            ..lives(&["a~2", "b~2"])
        };
        let waits = Outcome::Waits(owners(&["a~2", "b~2"]));
        agenda.note([59].into(), unsettled(&["a~2", "b~2"]));
        assert_eq!(all(&mut agenda, &waits), [59]);
        assert_eq!(turns(&mut agenda, 59, &waits), [0; 0]);
        // One of them has; of the other there is something left.
        agenda.note([59].into(), unsettled(&["b~2"]));
        let waits = Outcome::Waits(owners(&["b~2"]));
        assert_eq!(turns(&mut agenda, 59, &waits), [1]);
        // It is waited for no longer, for whatever reason.
        agenda.note([59].into(), unsettled(&[]));
        assert_eq!(turns(&mut agenda, 59, &Outcome::Done), [1]);
        assert_eq!(turns(&mut agenda, 59, &Outcome::Done), [0; 0]);
    }

    /// After an outage all nodes have new lives, and settle one after the other.
    #[test]
    fn what_waits_for_many_is_read_less_often_each_time() {
        let mut agenda = Agenda::default();
        let mut left = owners(&["a~2", "b~2", "c~2", "d~2", "e~2", "f~2", "g~2", "h~2"]);
        let lives = |left: &BTreeSet<Owner>| Lives {
            unsettled: left.clone(),
            ..lives(&[])
        };
        agenda.note([59].into(), lives(&left));
        all(&mut agenda, &Outcome::Waits(left.clone()));
        let mut turns = Vec::new();
        for tick in 1..=8 {
            left.pop_first();
            agenda.note([59].into(), lives(&left));
            agenda.tick();
            let outcome = match left.is_empty() {
                true => Outcome::Done,
                false => Outcome::Waits(left.clone()),
            };
            turns.extend(all(&mut agenda, &outcome).contains(&59).then_some(tick));
        }
        assert_eq!(turns, [1, 3, 7]);
    }

    #[test]
    fn who_leaves_nothing_behind_is_no_reason_to_look() {
        let mut agenda = Agenda::default();
        assert_eq!(noted(&mut agenda, &[7], &["a~1", "b~1", "c~1"]), [7]);
        let bare = |bare: &[&str], live: &[&str]| Lives {
            bare: owners(bare),
            ..lives(live)
        };
        agenda.note([7].into(), bare(&["b~1"], &["a~1", "c~1"]));
        assert_eq!(agenda.take(|_| true), None);
        // Another one dies in the same moment.
        agenda.note([7].into(), bare(&["c~1"], &[]));
        assert_eq!(all(&mut agenda, &Outcome::Done), [7]);
    }

    #[test]
    fn every_partition_has_its_turn_in_a_sweep() {
        let mut agenda = Agenda::default();
        let held: Vec<u32> = (0..256).collect();
        noted(&mut agenda, &held, &[]);
        let mut seen = BTreeSet::new();
        for _ in 0..SWEEP_TICKS {
            agenda.tick();
            let due = all(&mut agenda, &Outcome::Done);
            assert!(due.len() <= 5, "{due:?}");
            seen.extend(due);
        }
        assert_eq!(seen.len(), 256);
    }
}
