//! A partition that is looked through: what was found in its index and is not done with yet.
//!
//! In: parts of the index, what became of what was found. Out: where to read on, and in the end the
//! [`Outcome`]. Pure. An index is read from its start to its end; what a full lane turns away
//! is found again by a reading of that lane's own, which begins where the first of it was turned
//! away and ends where the lane is full again. Where the full lane is that of the server which has
//! the index, reading on is no faster than the lane, and the reading itself stops there. So nothing
//! is read again and again for want of room. Bounds: what the lanes hold, and one place a lane.

use std::collections::{BTreeMap, BTreeSet};

use super::agenda::Outcome;
use crate::cluster::due::Lane;
use fanfare_protocol::ids::Owner;

/// Where an index begins.
const START: &str = "0";

/// Where a reading is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) cursor: String,
    /// For what this lane turned away; `None`: for all that is there.
    pub(super) of: Option<Lane>,
    /// The lane that has room for this part.
    pub(super) named_by: Option<Lane>,
}

impl Place {
    /// The first of a look.
    pub(super) fn start() -> Self {
        Self {
            cursor: START.to_owned(),
            of: None,
            named_by: None,
        }
    }

    /// The next part of the same reading.
    pub(super) fn next(self, cursor: String) -> Self {
        Self {
            cursor,
            named_by: None,
            ..self
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Readings that are on their way or have their turn soon.
    readings_count: usize,
    /// Where to go on as soon as a lane has room.
    kept: BTreeMap<Lane, Place>,
    /// What was found, until it is out of the index or could not be removed.
    pub(super) found: BTreeSet<String>,
    /// What of it is removed and still is in the index.
    pub(super) removed: Vec<String>,
    pub(super) is_unindexing: bool,
    /// Something was left for these to write it again first.
    pub(super) waits_for: BTreeSet<Owner>,
    /// Something else was left.
    pub(super) has_failed: bool,
    /// This node was not to act for the partition any more.
    pub(super) is_lost: bool,
}

impl Look {
    /// The index is read from its start. What was turned away before is found on the way.
    pub(super) fn begin(&mut self) {
        self.readings_count += 1;
        self.kept.clear();
    }

    /// A lane turned something away that was found at this place, in an index on a server with a
    /// lane of its own. Whether the reading stops.
    pub(super) fn turned_away(&mut self, lane: Lane, at: &Place, own: Lane) -> bool {
        let stops = match at.of {
            Some(of) => of == lane,
            None => own == lane,
        };
        if stops || at.of.is_none() {
            let place = Place {
                cursor: at.cursor.clone(),
                of: Some(lane).filter(|_| lane != own || at.of.is_some()),
                named_by: None,
            };
            self.kept.entry(lane).or_insert(place);
        }
        stops
    }

    /// A reading has stopped, or was the last part.
    pub(super) fn ended(&mut self) {
        self.readings_count -= 1;
    }

    /// Where to go on, now that a lane has room.
    pub(super) fn go_on(&mut self, lane: &Lane) -> Option<Place> {
        let place = self.kept.remove(lane)?;
        self.readings_count += 1;
        Some(Place {
            named_by: Some(*lane),
            ..place
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.readings_count == 0 && self.kept.is_empty() && self.found.is_empty()
    }

    pub(super) fn outcome(self) -> Outcome {
        match (self.has_failed, self.is_lost, self.waits_for.is_empty()) {
            (true, ..) => Outcome::Failed,
            (false, true, _) => Outcome::Lost,
            (false, false, false) => Outcome::Waits(self.waits_for),
            (false, false, true) => Outcome::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::keyspace::ServerId;

    fn lane(server: usize) -> Lane {
        Some(ServerId::numbered(server))
    }

    fn at(cursor: &str, of: Option<Lane>) -> Place {
        Place {
            cursor: cursor.to_owned(),
            of,
            named_by: None,
        }
    }

    fn goes_on(look: &mut Look, lane: Lane) -> Option<Place> {
        let place = look.go_on(&lane)?;
        assert_eq!(place.named_by, Some(lane));
        let named_by = None;
        Some(Place { named_by, ..place })
    }

    #[test]
    fn a_reading_stops_where_the_lane_of_its_own_server_is_full_and_goes_on_there() {
        let mut look = Look::default();
        look.begin();
        assert!(look.turned_away(lane(0), &at("7", None), lane(0)));
        look.ended();
        assert!(!look.is_over());
        assert_eq!(goes_on(&mut look, lane(0)), Some(at("7", None)));
        assert_eq!(goes_on(&mut look, lane(0)), None);
        look.ended();
        assert!(look.is_over());
        assert_eq!(look.outcome(), Outcome::Done);
    }

    #[test]
    fn what_the_lane_of_another_server_turns_away_holds_up_no_reading_but_its_own() {
        let mut look = Look::default();
        look.begin();
        assert!(!look.turned_away(lane(1), &at("7", None), lane(0)));
        assert!(!look.turned_away(lane(1), &at("8", None), lane(0)));
        assert!(!look.turned_away(lane(2), &at("9", None), lane(0)));
        look.ended();
        let goes = goes_on(&mut look, lane(1));
        assert_eq!(goes, Some(at("7", Some(lane(1)))));
        let reading = at("8", Some(lane(1)));
        assert!(!look.turned_away(lane(2), &reading, lane(0)));
        assert!(!look.turned_away(lane(0), &reading, lane(0)));
        assert!(look.turned_away(lane(1), &reading, lane(0)));
        look.ended();
        let goes = goes_on(&mut look, lane(0));
        assert_eq!(goes, None, "it was not for that one");
        let goes = goes_on(&mut look, lane(2));
        assert_eq!(goes, Some(at("9", Some(lane(2)))));
        assert_eq!(goes_on(&mut look, lane(1)), Some(reading));
        look.ended();
        look.ended();
        assert!(look.is_over());
    }

    #[test]
    fn a_look_from_the_start_finds_again_what_was_turned_away_before() {
        let mut look = Look::default();
        look.begin();
        look.turned_away(lane(1), &at("7", None), lane(0));
        look.ended();
        look.begin();
        assert_eq!(goes_on(&mut look, lane(1)), None);
        look.turned_away(lane(1), &at("3", None), lane(0));
        look.ended();
        let goes = goes_on(&mut look, lane(1));
        assert_eq!(goes, Some(at("3", Some(lane(1)))));
    }

    #[test]
    fn what_failed_counts_before_what_was_lost_and_that_before_what_waits() {
        let waits_for: BTreeSet<Owner> = ["a~2".parse().unwrap()].into();
        let outcome = |has_failed, is_lost| {
            let look = Look {
                waits_for: waits_for.clone(),
                has_failed,
                is_lost,
                ..Look::default()
            };
            look.outcome()
        };
        assert_eq!(outcome(true, true), Outcome::Failed);
        assert_eq!(outcome(false, true), Outcome::Lost);
        assert_eq!(outcome(false, false), Outcome::Waits(waits_for.clone()));
    }
}
