//! What dead nodes left in topics and is to be removed, sorted by the servers that must take part.
//!
//! In: what was found in indexes. Out: the next topic to clean, of a lane that has room. A lane is a
//! pair of servers, as for occupancy (`cluster::due`): the one with the members of a topic, and the one
//! with its occupancy. So a server that hangs, or is slow, holds up what it has a part in, and
//! nothing else. Pure. Bounds: [`WAITING_MAX`] topics wait in a lane, [`IN_FLIGHT_MAX`] are cleaned
//! at once. At the bound a partition is turned away; it is named again when half of that is done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cluster::due::Lane;
use crate::protocol::ids::{Owner, Topic};

/// Topics of one lane that wait.
pub(super) const WAITING_MAX: usize = 1_024;
/// Topics of one lane that are cleaned at the same time.
pub(super) const IN_FLIGHT_MAX: usize = 128;

/// What a dead owner left in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remains {
    /// In whose index it was found.
    pub(super) partition: u32,
    /// As it stands there.
    pub(super) entry: String,
    pub(super) owner: Owner,
    pub(super) topic: Topic,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Remains>,
    in_flight_count: usize,
    turned_away: BTreeSet<u32>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Lane, Queue>,
}

impl Lanes {
    /// Takes what is to be removed. `false`: there is no room, and the partition is told by
    /// [`Self::ended`] when there is.
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
    /// again.
    pub(super) fn ended(&mut self, lane: &Lane) -> BTreeSet<u32> {
        let Some(queue) = self.lanes.get_mut(lane) else {
            return BTreeSet::new();
        };
        queue.in_flight_count -= 1;
        let mut again = BTreeSet::new();
        if queue.waiting.len() <= WAITING_MAX / 2 {
            again = std::mem::take(&mut queue.turned_away);
        }
        if queue.waiting.is_empty() && queue.in_flight_count == 0 {
            self.lanes.remove(lane);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::keyspace::ServerId;

    fn lane(number: usize) -> Lane {
        [Some(ServerId::numbered(number)), None]
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

    #[test]
    fn whoever_finds_a_lane_full_is_named_when_half_of_it_is_done() {
        let mut lanes = Lanes::default();
        let mut number = 0;
        while lanes.push(lane(0), remains(7, number)) {
            number += 1;
        }
        assert_eq!(number, WAITING_MAX);
        assert!(!lanes.push(lane(0), remains(8, number)));
        let mut again = BTreeSet::new();
        let mut done = 0;
        while again.is_empty() {
            let (of, _) = lanes.take().expect("the others wait");
            again = lanes.ended(&of);
            done += 1;
        }
        assert_eq!((again, done), ([7, 8].into(), WAITING_MAX / 2));
        while let Some((of, _)) = lanes.take() {
            assert!(lanes.ended(&of).is_empty());
        }
        assert!(lanes.lanes.is_empty(), "an idle lane is none");
    }
}
