//! Topics for which something is to be written now, sorted by the server that must take it.
//!
//! In: topics, by [`super::occupancy_buffer`]. Out: those of one lane at a time. A lane is a server: it
//! has the topic and the index of its partition. So a server that does not answer holds up what it
//! has, and nothing else. Pure, but for the question which server it is. A topic whose server has
//! changed since it came stays in the lane of before: it may wait longer, and is written all the
//! same. Bound: one entry a topic, one lane for each server for which something is due.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use crate::redis::keyspace::ServerId;
use fanfare_protocol::ids::Topic;

/// The server with a topic and its partition's index; `None` while none has it.
pub(super) type Lane = Option<ServerId>;

/// Knows the lane of a topic.
#[derive(Clone)]
pub(super) struct LaneOf(Arc<dyn Fn(&Topic) -> Lane + Send + Sync>);

impl LaneOf {
    pub(super) fn new(lane_of: impl Fn(&Topic) -> Lane + Send + Sync + 'static) -> Self {
        Self(Arc::new(lane_of))
    }
}

impl Default for LaneOf {
    /// One lane for all.
    fn default() -> Self {
        Self::new(|_| Lane::default())
    }
}

impl fmt::Debug for LaneOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneOf").finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Due {
    lane_of: LaneOf,
    lanes: BTreeMap<Lane, HashSet<Topic>>,
}

impl Due {
    pub(super) fn by(lane_of: LaneOf) -> Self {
        let lanes = BTreeMap::new();
        Self { lane_of, lanes }
    }

    pub(super) fn insert(&mut self, topic: Topic) {
        let lane = (self.lane_of.0)(&topic);
        self.lanes.entry(lane).or_default().insert(topic);
    }

    pub(super) fn remove(&mut self, topic: &Topic) {
        let lane = (self.lane_of.0)(topic);
        if let Some(topics) = self.lanes.get_mut(&lane) {
            topics.remove(topic);
            if topics.is_empty() {
                self.lanes.remove(&lane);
            }
        }
    }

    /// Takes up to so many topics of a lane.
    pub(super) fn take(&mut self, lane: &Lane, topics_max: usize) -> Vec<Topic> {
        let Some(topics) = self.lanes.get_mut(lane) else {
            return Vec::new();
        };
        let taken: Vec<_> = topics.iter().take(topics_max).cloned().collect();
        for topic in &taken {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.lanes.remove(lane);
        }
        taken
    }

    /// The lanes in which something is due.
    pub(super) fn lanes(&self) -> impl Iterator<Item = &Lane> {
        self.lanes.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.lanes.clear();
    }
}
