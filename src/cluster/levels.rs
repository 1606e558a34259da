//! Local occupancy as a level: how many sessions each topic has here, and what of it is written.
//!
//! In: counts of sessions, and who may have members in Redis. Out: batches of changes for the
//! store, each of one lane ([`Due`]), and pages for a node alone. Pure: no clock, no Redis; the owner calls [`Levels::tick`]
//! once a second. What must be written is always derived from the latest count and from what is
//! known to stand in Redis, so any number of changes between two writes is one write. A topic
//! stays in the index while it has sessions or members of this node, so that whoever cleans up
//! after it finds both. Bound: one count and one mark per topic with local sessions or with
//! something of this node left in Redis.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::due::{Due, Lane, LaneOf};
use crate::protocol::ids::{Owner, Topic};
use crate::redis::RedisError;

/// What is known to stand in Redis for a topic. Nothing known means nothing there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Index and count.
    Count(u64),
    /// Being taken away, or a write failed or its answer was lost: anything may stand there.
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
    /// Count only, the index stands; a count of 0 is none.
    Count(u64),
    /// Take the count away, then the index.
    Vanish,
}

/// What a topic has on this node; not both are 0.
#[derive(Debug, Clone, Copy, Default)]
struct Local {
    sessions: u64,
    /// Members that may stand in Redis.
    members: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Levels {
    partitions_count: u32,
    /// Whether anything is written; a node alone only answers from here.
    writes: bool,
    /// In the order of pages: by partition, then by topic.
    wanted: BTreeMap<(u32, Topic), Local>,
    /// Under whose name.
    written_as: Option<Owner>,
    written: HashMap<Topic, Written>,
    /// Why the last write failed.
    failures: HashMap<Topic, RedisError>,
    /// Due now: the first session came, or the last one left.
    urgent: Due,
    /// Due at the next tick: other counts, and what failed.
    later: HashSet<Topic>,
    /// Taken and without a result yet.
    taken: HashSet<Topic>,
}

impl Levels {
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
        }
    }

    /// The same, with a lane for each pair of servers that must take what is written.
    #[must_use]
    pub(super) fn in_lanes(self, lane_of: LaneOf) -> Self {
        let urgent = Due::by(lane_of);
        Self { urgent, ..self }
    }

    /// Takes the latest count of a topic's sessions.
    pub(super) fn set(&mut self, topic: Topic, sessions: u64) {
        self.change_local(topic, |local| local.sessions = sessions);
    }

    /// A member of the topic may stand in Redis from now on.
    pub(super) fn hold(&mut self, topic: Topic) {
        self.change_local(topic, |local| local.members += 1);
    }

    /// A member that was held is surely gone.
    pub(super) fn let_go(&mut self, topic: Topic) {
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

    /// Whether the topic stands in the index under this name, and stays there while it is held.
    /// Nothing has to, where nothing is written.
    pub(super) fn is_indexed(&self, topic: &Topic, owner: &Owner) -> bool {
        let stands = || matches!(self.written.get(topic), Some(Written::Count(_)));
        !self.writes || (self.written_as.as_ref() == Some(owner) && stands())
    }

    /// Why the last write of this topic failed, if it did.
    pub(super) fn failure(&self, topic: &Topic) -> Option<&RedisError> {
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

    /// A change stands in Redis.
    pub(super) fn wrote(&mut self, change: Change) {
        self.failures.remove(&change.topic);
        self.taken.remove(&change.topic);
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

    /// A change may or may not stand in Redis, in part or whole. It is due again at the next
    /// tick, by the count of then.
    pub(super) fn failed(&mut self, topic: Topic, why: Option<RedisError>) {
        if let Some(why) = why {
            self.failures.insert(topic.clone(), why);
        }
        self.taken.remove(&topic);
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

    /// Whether what stands in Redis stands there under this name.
    pub(super) fn is_written_as(&self, owner: &Owner) -> bool {
        self.written_as.as_ref() == Some(owner)
    }

    /// The node has a new incarnation: nothing stands in Redis under it. What stands under the
    /// old one is removed by the homes. What is taken has no result any more.
    pub(super) fn start_over(&mut self, owner: Owner) {
        self.written_as = Some(owner);
        self.written.clear();
        self.failures.clear();
        self.later.clear();
        self.taken.clear();
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
    }

    /// Nothing is written from now on; counts are still taken.
    pub(super) fn stop(&mut self) {
        self.writes = false;
        self.written.clear();
        self.failures.clear();
        self.urgent.clear();
        self.later.clear();
        self.taken.clear();
    }

    /// Whether everything stands in Redis as it is, or is not written at all.
    pub(super) fn is_settled(&self) -> bool {
        self.urgent.is_empty() && self.later.is_empty() && self.taken.is_empty()
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
mod tests {
    use super::*;
    use crate::protocol::ids::App;

    fn topic(name: &str) -> Topic {
        Topic::new(&App::default_app(), name).unwrap()
    }

    fn owner(text: &str) -> Owner {
        text.parse().unwrap()
    }

    fn levels(counts: &[(&str, u64)]) -> Levels {
        let mut levels = Levels::new(256, true);
        for (name, n) in counts {
            levels.set(topic(name), *n);
        }
        levels
    }

    fn kinds(changes: &[Change]) -> Vec<ChangeKind> {
        changes.iter().map(|c| c.kind).collect()
    }

    fn write_all(levels: &mut Levels) -> Vec<ChangeKind> {
        let changes = levels.take(&Lane::default(), 100);
        let kinds = kinds(&changes);
        for change in changes {
            levels.wrote(change);
        }
        kinds
    }

    #[test]
    fn the_first_session_and_the_last_are_due_at_once_and_counts_once_a_tick() {
        let mut levels = levels(&[("a", 1)]);
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
        levels.set(topic("a"), 2);
        levels.set(topic("a"), 3);
        assert_eq!(write_all(&mut levels), []);
        assert!(!levels.is_settled(), "a count waits");
        levels.tick();
        assert_eq!(write_all(&mut levels), [ChangeKind::Count(3)]);
        levels.set(topic("a"), 0);
        assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
        assert!(levels.is_settled());
    }

    #[test]
    fn changes_that_cancel_out_are_not_written() {
        let mut levels = levels(&[("a", 1), ("a", 0), ("b", 2)]);
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(2)]);
        levels.set(topic("b"), 0);
        levels.set(topic("b"), 2);
        assert!(levels.is_settled());
    }

    #[test]
    fn a_change_during_a_write_follows_it_by_the_latest_level() {
        let mut levels = levels(&[("a", 1)]);
        let taken = levels.take(&Lane::default(), 100);
        assert!(!levels.is_settled(), "a change is on its way");
        levels.set(topic("a"), 0);
        for change in taken {
            levels.wrote(change);
        }
        assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
        assert!(levels.is_settled());
    }

    #[test]
    fn what_failed_is_tried_at_the_tick_whole_and_by_the_latest_level() {
        let mut levels = levels(&[("a", 1)]);
        let fail = |levels: &mut Levels| {
            for change in levels.take(&Lane::default(), 100) {
                levels.failed(change.topic, None);
            }
        };
        fail(&mut levels);
        levels.set(topic("a"), 4);
        assert!(!levels.is_due(), "it waits for the tick");
        levels.tick();
        assert_eq!(
            kinds(&levels.take(&Lane::default(), 100)),
            [ChangeKind::Appear(4)]
        );
        levels.failed(topic("a"), None);
        // The failed write may have been done, so its absence is written too.
        levels.set(topic("a"), 0);
        levels.tick();
        assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
        assert!(levels.is_settled());
    }

    #[test]
    fn under_a_new_incarnation_everything_is_written_again_and_nothing_is_taken_away() {
        let mut levels = levels(&[("a", 1), ("b", 2)]);
        write_all(&mut levels);
        levels.set(topic("b"), 0);
        levels.start_over(owner("n~2"));
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
        assert!(levels.is_settled());
    }

    #[test]
    fn what_redis_may_have_lost_is_written_again_and_what_should_be_gone_taken_away() {
        let mut levels = levels(&[("a", 1), ("b", 2), ("c", 0)]);
        levels.start_over(owner("n~1"));
        write_all(&mut levels);
        levels.set(topic("b"), 0);
        levels.write_again();
        assert!(!levels.is_indexed(&topic("a"), &owner("n~1")));
        let mut kinds = write_all(&mut levels);
        kinds.sort_unstable_by_key(|kind| *kind == ChangeKind::Vanish);
        assert_eq!(kinds, [ChangeKind::Appear(1), ChangeKind::Vanish]);
        assert!(levels.is_settled() && levels.is_indexed(&topic("a"), &owner("n~1")));
        levels.stop();
        levels.write_again();
        assert!(levels.is_settled(), "nothing is written any more");
    }

    #[test]
    fn a_topic_stays_in_the_index_until_its_last_member_is_gone() {
        let mut levels = Levels::new(256, true);
        let me = owner("n~1");
        levels.start_over(me.clone());
        levels.hold(topic("a"));
        assert!(!levels.is_indexed(&topic("a"), &me), "it is due");
        levels.set(topic("a"), 1);
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(1)]);
        assert!(levels.is_indexed(&topic("a"), &me));
        levels.set(topic("a"), 0);
        levels.tick();
        assert_eq!(write_all(&mut levels), [ChangeKind::Count(0)]);
        assert_eq!(levels.after(None).count(), 0, "it is not occupied");
        levels.hold(topic("a"));
        levels.let_go(topic("a"));
        assert!(levels.is_settled() && levels.is_indexed(&topic("a"), &me));
        levels.let_go(topic("a"));
        assert_eq!(write_all(&mut levels), [ChangeKind::Vanish]);
        assert!(!levels.is_indexed(&topic("a"), &me));
        levels.hold(topic("a"));
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(0)]);
        levels.start_over(owner("n~2"));
        assert!(!levels.is_indexed(&topic("a"), &me), "nor under a new name");
        assert!(!levels.is_indexed(&topic("a"), &owner("n~2")));
    }

    #[test]
    fn what_is_on_its_way_out_of_the_index_is_not_relied_on() {
        let mut levels = levels(&[("a", 1)]);
        levels.start_over(owner("n~1"));
        write_all(&mut levels);
        levels.set(topic("a"), 0);
        let taken = levels.take(&Lane::default(), 100);
        levels.hold(topic("a"));
        assert!(!levels.is_indexed(&topic("a"), &owner("n~1")));
        for change in taken {
            levels.wrote(change);
        }
        assert_eq!(write_all(&mut levels), [ChangeKind::Appear(0)]);
        assert!(levels.is_indexed(&topic("a"), &owner("n~1")));
    }

    #[test]
    fn what_is_not_written_any_more_is_settled_and_still_counted() {
        let mut levels = levels(&[("a", 1)]);
        levels.stop();
        levels.set(topic("a"), 2);
        assert!(levels.is_settled() && !levels.is_due());
        assert_eq!(levels.sessions(&topic("a")), 2);
    }

    #[test]
    fn a_batch_is_bounded_and_the_rest_stays_due() {
        let mut levels = levels(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(levels.take(&Lane::default(), 2).len(), 2);
        assert!(levels.is_due());
        assert_eq!(levels.take(&Lane::default(), 2).len(), 1);
        assert!(!levels.is_due());
    }

    #[test]
    fn pages_go_by_partition_and_topic_and_continue_after_any_topic() {
        let levels = levels(&[("a", 1), ("b", 2), ("c", 3), ("d", 4)]);
        let all: Vec<_> = levels.after(None).map(|(t, n)| (t.clone(), n)).collect();
        assert_eq!(all.len(), 4);
        assert!(all.is_sorted_by_key(|(t, _)| (t.partition(256), t.clone())));
        let rest: Vec<_> = levels.after(Some(&all[1].0)).collect();
        assert_eq!(rest, [(&all[2].0, all[2].1), (&all[3].0, all[3].1)]);
    }
}
