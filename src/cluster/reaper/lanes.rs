//! What dead nodes left in topics and is to be removed, sorted by the server that has it.
//!
//! In: what was found in indexes. Out: the next topic to clean, of a lane that has room. A lane is a
//! server, as for occupancy (`cluster::due`): it has the members of a topic and its occupancy.
//! So a server that hangs, or is slow, holds up what it has, and nothing else. Pure. Bounds: [`WAITING_MAX`] topics wait in a lane, [`IN_FLIGHT_MAX`] are cleaned
//! at once. At the bound a partition is turned away; it is named when there is room for a part of its
//! index, and no more partitions at once than there is room for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::due::Lane;
use fanfare_protocol::ids::{Owner, Topic};

/// Topics of one lane that wait.
pub(super) const WAITING_MAX: usize = 1_024;
/// Topics of one lane that are cleaned at the same time.
pub(super) const IN_FLIGHT_MAX: usize = 128;
/// Room that is kept for a partition that was named: a part of an index is about as large.
const PART_MAX: usize = 256;

/// What a dead owner left in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remains {
    /// In whose index it was found.
    pub(super) partition: u32,
    /// As it is there.
    pub(super) entry: String,
    pub(super) owner: Owner,
    pub(super) topic: Topic,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Remains>,
    in_flight_count: usize,
    turned_away: BTreeSet<u32>,
    /// Partitions that were named and have not come yet.
    named: BTreeSet<u32>,
}

impl Queue {
    /// Names partitions for which there is room again.
    fn name(&mut self) -> BTreeSet<u32> {
        let mut names = BTreeSet::new();
        while self.waiting.len() + (self.named.len() + 1) * PART_MAX <= WAITING_MAX {
            let Some(partition) = self.turned_away.pop_first() else {
                break;
            };
            self.named.insert(partition);
            names.insert(partition);
        }
        names
    }

    fn is_idle(&self) -> bool {
        let is_awaited = !self.turned_away.is_empty() || !self.named.is_empty();
        self.waiting.is_empty() && self.in_flight_count == 0 && !is_awaited
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, Queue>,
}

impl Lanes {
    /// Takes what is to be removed. `false`: there is no room, and the partition is named by
    /// [`Self::ended`] or [`Self::came`] when there is.
    pub(super) fn push(&mut self, lane: Lane, remains: Remains) -> bool {
        let queue = self.lanes.entry(lane).or_default();
        let has_room = queue.waiting.len() < WAITING_MAX;
        match has_room {
            true => queue.waiting.push_back(remains),
            false => {
                queue.turned_away.insert(remains.partition);
            }
        }
        has_room
    }

    /// The next to clean; [`Self::ended`] follows.
    pub(super) fn take(&mut self) -> Option<(Lane, Remains)> {
        let mut free = self.lanes.iter_mut();
        free.find_map(|(lane, queue)| {
            if queue.in_flight_count >= IN_FLIGHT_MAX {
                return None;
            }
            let remains = queue.waiting.pop_front()?;
            queue.in_flight_count += 1;
            Some((*lane, remains))
        })
    }

    /// One of this lane was cleaned, or could not be. Returns the partitions for which there is room
    /// again; [`Self::came`] follows for each.
    pub(super) fn ended(&mut self, lane: &Lane) -> BTreeSet<u32> {
        self.change(lane, |queue| queue.in_flight_count -= 1)
    }

    /// A partition that was named has brought a part of what it has, or nothing. Returns the same.
    pub(super) fn came(&mut self, lane: &Lane, partition: u32) -> BTreeSet<u32> {
        self.change(lane, |queue| {
            queue.named.remove(&partition);
        })
    }

    fn change(&mut self, lane: &Lane, change: impl FnOnce(&mut Queue)) -> BTreeSet<u32> {
        let Some(queue) = self.lanes.get_mut(lane) else {
            return BTreeSet::new();
        };
        change(queue);
        let names = queue.name();
        if queue.is_idle() {
            self.lanes.remove(lane);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::keyspace::ServerId;

    fn lane(number: usize) -> Lane {
        Some(ServerId::numbered(number))
    }

    fn remains(partition: u32, number: usize) -> Remains {
        let name = format!("default:t{number}");
        Remains {
            partition,
            entry: format!("{name} a~1"),
            owner: "a~1".parse().unwrap(),
            topic: Topic::from_qualified(&name).unwrap(),
        }
    }

    /// How many of each lane are begun.
    fn begin(lanes: &mut Lanes) -> BTreeMap<Lane, usize> {
        let mut begun = BTreeMap::new();
        while let Some((lane, _)) = lanes.take() {
            *begun.entry(lane).or_default() += 1;
        }
        begun
    }

    #[test]
    fn a_lane_that_hangs_keeps_no_other_from_its_turn() {
        let mut lanes = Lanes::default();
        for number in 0..WAITING_MAX {
            assert!(lanes.push(lane(0), remains(0, number)));
        }
        assert_eq!(begin(&mut lanes), [(lane(0), IN_FLIGHT_MAX)].into());
        for number in 0..3 {
            assert!(lanes.push(lane(1), remains(1, number)));
        }
        assert_eq!(begin(&mut lanes), [(lane(1), 3)].into());
    }

    /// Cleans one after the other until somebody is named.
    fn named(lanes: &mut Lanes) -> (usize, BTreeSet<u32>) {
        let mut done = 0;
        while let Some((of, _)) = lanes.take() {
            done += 1;
            let named = lanes.ended(&of);
            if !named.is_empty() {
                return (done, named);
            }
        }
        (done, BTreeSet::new())
    }

    #[test]
    fn whoever_finds_a_lane_full_is_named_when_there_is_room_for_a_part() {
        let mut lanes = Lanes::default();
        let mut number = 0;
        while lanes.push(lane(0), remains(7, number)) {
            number += 1;
        }
        assert_eq!(number, WAITING_MAX);
        assert!(!lanes.push(lane(0), remains(8, number)));
        assert_eq!(named(&mut lanes), (PART_MAX, [7].into()));
        // What is kept for the one is not promised to the other.
        assert_eq!(named(&mut lanes), (PART_MAX, [8].into()));
        for number in 0..PART_MAX {
            assert!(lanes.push(lane(0), remains(7, number)));
        }
        for partition in [7, 8] {
            assert_eq!(lanes.came(&lane(0), partition), [].into());
        }
        let left = WAITING_MAX - PART_MAX;
        assert_eq!(named(&mut lanes), (left, [].into()));
        assert!(lanes.lanes.is_empty(), "an idle lane is none");
    }

    /// Each would else read its index again in vain for each part of another.
    #[test]
    fn no_more_are_named_than_there_is_room_for() {
        let mut lanes = Lanes::default();
        for number in 0..WAITING_MAX {
            assert!(lanes.push(lane(0), remains(0, number)));
        }
        for partition in 0..100 {
            assert!(!lanes.push(lane(0), remains(partition, 0)));
        }
        let rooms = WAITING_MAX / PART_MAX;
        let rooms = u32::try_from(rooms).unwrap();
        let mut names = BTreeSet::new();
        for _ in 0..=rooms {
            names.extend(named(&mut lanes).1);
        }
        assert_eq!(names, (0..rooms).collect(), "though nothing waits any more");
        // One that has nothing left makes room for the next.
        for partition in 0..100 {
            let next = partition + rooms;
            let next = (next < 100).then_some(next);
            assert_eq!(lanes.came(&lane(0), partition), next.into_iter().collect());
        }
        assert!(lanes.lanes.is_empty());
    }
}
