//! Local occupancy as a level: how many sessions each topic has here, and what of it is written.
//!
//! In: counts of sessions, and who may have members in Redis. Out: batches of changes for the
//! store, each of one lane ([`Due`]), and pages for a node alone. Pure: no clock, no Redis; the owner calls [`OccupancyBuffer::tick`]
//! once a second. What must be written is always derived from the latest count and from what is
//! known to be in Redis, so any number of changes between two writes is one write. A topic
//! stays in the index while it has sessions or members of this node, so that whoever cleans up
//! after it finds both. Bound: one count and one mark per topic with local sessions or with
//! something of this node left in Redis.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::due::{Due, Lane, LaneOf};
use crate::redis::RedisError;
use fanfare_protocol::ids::{Owner, Topic};

/// What is known to be in Redis for a topic. Nothing known means nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Index and count.
    Count(u64),
    /// Being taken away, or a write failed or its answer was lost: anything may be there.
    Unknown,
}

/// One write that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) topic: Topic,
    pub(super) kind: ChangeKind,
}

/// What to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeKind {
    /// Index, then count; a count of 0 is none.
    Appear(u64),
    /// Count only, the index is there; a count of 0 is none.
    Count(u64),
    /// Take the count away, then the index.
    Vanish,
}

/// Why a topic was not written.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What Redis said, or that it said nothing.
    pub why: RedisError,
    /// No member of the topic came since.
    pub is_new: bool,
}

/// What a topic has on this node; not both are 0.
#[derive(Debug, Clone, Copy, Default)]
struct Local {
    sessions: u64,
    /// Members that may be in Redis.
    members: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct OccupancyBuffer {
    partitions_count: u32,
    /// Whether anything is written; a node alone only answers from here.
    writes: bool,
    /// In the order of pages: by partition, then by topic.
    wanted: BTreeMap<(u32, Topic), Local>,
    /// The owner (node and incarnation) under which `written` is in Redis.
    written_as: Option<Owner>,
    written: HashMap<Topic, Written>,
    /// Why the last write failed.
    failures: HashMap<Topic, Failure>,
    /// Due now: the first session came, or the last one left.
    urgent: Due,
    /// Due at the next tick: other counts, and what failed.
    later: HashSet<Topic>,
    /// Taken and without a result yet.
    taken: HashSet<Topic>,
    /// Those of them that were taken before Redis lost what stood there. What their answers say was
    /// done may be lost with it.
    doubted: HashSet<Topic>,
}

impl OccupancyBuffer {
    pub(super) fn new(partitions_count: u32, writes: bool) -> Self {
        Self {
            partitions_count,
            writes,
            wanted: BTreeMap::new(),
            written_as: None,
            written: HashMap::new(),
            failures: HashMap::new(),
            urgent: Due::default(),
            later: HashSet::new(),
            taken: HashSet::new(),
            doubted: HashSet::new(),
        }
    }

    /// The same, with a lane for each server that must take what is written.
    #[must_use]
    pub(super) fn in_lanes(self, lane_of: LaneOf) -> Self {
        let urgent = Due::by(lane_of);
        Self { urgent, ..self }
    }

    /// Takes the latest count of a topic's sessions.
    pub(super) fn set(&mut self, topic: Topic, sessions: u64) {
        self.change_local(topic, |local| local.sessions = sessions);
    }

    /// A member of the topic may be in Redis from now on.
    pub(super) fn pin(&mut self, topic: Topic) {
        if let Some(failure) = self.failures.get_mut(&topic) {
            failure.is_new = false;
        }
        self.change_local(topic, |local| local.members += 1);
    }

    /// A member that was held is surely gone.
    pub(super) fn unpin(&mut self, topic: Topic) {
        self.change_local(topic, |local| {
            local.members = local.members.saturating_sub(1);
        });
    }

    fn change_local(&mut self, topic: Topic, change: impl FnOnce(&mut Local)) {
        let place = self.place(&topic);
        let mut local = self.wanted.get(&place).copied().unwrap_or_default();
        change(&mut local);
        if local.sessions + local.members > 0 {
            self.wanted.insert(place, local);
        } else {
            self.wanted.remove(&place);
        }
        if self.writes {
            self.sort_in(topic);
        }
    }

    /// Whether the topic is in the index under this name, and stays there while it is held.
    /// Nothing has to, where nothing is written.
    pub(super) fn is_indexed(&self, topic: &Topic, owner: &Owner) -> bool {
        let stands = || matches!(self.written.get(topic), Some(Written::Count(_)));
        !self.writes || (self.written_as.as_ref() == Some(owner) && stands())
    }

    /// Why the last write of this topic failed, if it did.
    pub(super) fn failure(&self, topic: &Topic) -> Option<&Failure> {
        self.failures.get(topic)
    }

    /// The lanes in which something is due now.
    pub(super) fn due(&self) -> Vec<Lane> {
        self.urgent.lanes().copied().collect()
    }

    /// Takes up to so many changes of a lane that are due now. A topic is not taken again before its
    /// result was given to [`Self::wrote`] or [`Self::failed`].
    pub(super) fn take(&mut self, lane: &Lane, changes_max: usize) -> Vec<Change> {
        let topics = self.urgent.take(lane, changes_max);
        let mut changes = Vec::with_capacity(topics.len());
        for topic in topics {
            if self.taken.contains(&topic) {
                // In another lane: it has moved.
                self.later.insert(topic);
            } else if let Some(kind) = self.change(&topic) {
                if kind == ChangeKind::Vanish {
                    self.written.insert(topic.clone(), Written::Unknown);
                }
                self.taken.insert(topic.clone());
                changes.push(Change { topic, kind });
            }
        }
        changes
    }

    /// A change is in Redis, or was there before Redis lost what it had.
    pub(super) fn wrote(&mut self, change: Change) {
        self.failures.remove(&change.topic);
        self.taken.remove(&change.topic);
        if self.doubted.remove(&change.topic) {
            // What is there now is not known, and was due since the loss.
            self.written.insert(change.topic.clone(), Written::Unknown);
            self.later.remove(&change.topic);
            self.urgent.insert(change.topic);
            return;
        }
        match change.kind {
            ChangeKind::Appear(n) | ChangeKind::Count(n) => {
                self.written.insert(change.topic.clone(), Written::Count(n));
            }
            ChangeKind::Vanish => {
                self.written.remove(&change.topic);
            }
        }
        self.sort_in(change.topic);
    }

    /// A change may or may not be in Redis, in part or whole. It is due again at the next
    /// tick, by the count of then.
    pub(super) fn failed(&mut self, topic: Topic, why: Option<RedisError>) {
        if let Some(why) = why {
            let is_new = true;
            self.failures.insert(topic.clone(), Failure { why, is_new });
        }
        self.taken.remove(&topic);
        self.doubted.remove(&topic);
        self.written.insert(topic.clone(), Written::Unknown);
        self.urgent.remove(&topic);
        self.later.insert(topic);
    }

    /// A second has passed: what waited is due.
    pub(super) fn tick(&mut self) {
        for topic in std::mem::take(&mut self.later) {
            self.urgent.insert(topic);
        }
    }

    /// Whether what is in Redis is there under this name.
    pub(super) fn is_written_as(&self, owner: &Owner) -> bool {
        self.written_as.as_ref() == Some(owner)
    }

    /// The node has a new incarnation: nothing is in Redis under it. What is under the
    /// old one is removed by the homes. What is taken has no result any more.
    pub(super) fn start_over(&mut self, owner: Owner) {
        self.written_as = Some(owner);
        self.written.clear();
        self.failures.clear();
        self.later.clear();
        self.taken.clear();
        self.doubted.clear();
        self.urgent.clear();
        for (_, topic) in self.wanted.keys() {
            self.urgent.insert(topic.clone());
        }
    }

    /// Redis may have lost what stood there: everything is written again, under the same name, and
    /// what should not be there is taken away.
    pub(super) fn write_again(&mut self) {
        if !self.writes {
            return;
        }
        let wanted = self.wanted.keys().map(|(_, topic)| topic.clone());
        let known: Vec<_> = wanted.chain(self.written.keys().cloned()).collect();
        for topic in known {
            self.written.insert(topic.clone(), Written::Unknown);
            self.urgent.insert(topic);
        }
        self.later.clear();
        self.doubted.clone_from(&self.taken);
    }

    /// Nothing is written from now on; counts are still taken.
    pub(super) fn stop(&mut self) {
        self.writes = false;
        self.written.clear();
        self.failures.clear();
        self.urgent.clear();
        self.later.clear();
        self.taken.clear();
        self.doubted.clear();
    }

    /// Whether everything is in Redis as it should be, or is not written at all.
    pub(super) fn is_settled(&self) -> bool {
        self.urgent.is_empty() && self.later.is_empty() && self.taken.is_empty()
    }

    /// Whether nothing is in Redis, and nothing should.
    pub(super) fn is_bare(&self) -> bool {
        self.is_settled() && self.wanted.is_empty() && self.written.is_empty()
    }

    /// Whether something is due now.
    pub(super) fn is_due(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Local sessions of a topic.
    pub(super) fn sessions(&self, topic: &Topic) -> u64 {
        let local = self.wanted.get(&self.place(topic));
        local.map_or(0, |local| local.sessions)
    }

    /// Topics with local sessions, after the given one.
    pub(super) fn after(&self, after: Option<&Topic>) -> impl Iterator<Item = (&Topic, u64)> {
        let start = after.map_or(Bound::Unbounded, |topic| Bound::Excluded(self.place(topic)));
        self.wanted
            .range((start, Bound::Unbounded))
            .filter(|(_, local)| local.sessions > 0)
            .map(|((_, topic), local)| (topic, local.sessions))
    }

    fn place(&self, topic: &Topic) -> (u32, Topic) {
        (topic.partition(self.partitions_count), topic.clone())
    }

    fn change(&self, topic: &Topic) -> Option<ChangeKind> {
        let wanted = self.wanted.get(&self.place(topic));
        match (wanted.map(|local| local.sessions), self.written.get(topic)) {
            (None, None) => None,
            (None, Some(_)) => Some(ChangeKind::Vanish),
            (Some(n), Some(Written::Count(m))) => (n != *m).then_some(ChangeKind::Count(n)),
            (Some(n), None | Some(Written::Unknown)) => Some(ChangeKind::Appear(n)),
        }
    }

    fn sort_in(&mut self, topic: Topic) {
        match self.change(&topic) {
            None => {
                self.urgent.remove(&topic);
                self.later.remove(&topic);
            }
            // What failed waits for the tick however often it changes meanwhile, or a broker
            // that is away would be asked at the rate of the changes.
            Some(_) if self.written.get(&topic) == Some(&Written::Unknown) => {
                self.later.insert(topic);
            }
            Some(ChangeKind::Count(_)) => {
                self.urgent.remove(&topic);
                self.later.insert(topic);
            }
            Some(ChangeKind::Appear(_) | ChangeKind::Vanish) => {
                self.later.remove(&topic);
                self.urgent.insert(topic);
            }
        }
    }
}

#[cfg(test)]
mod tests;
