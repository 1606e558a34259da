//! Decides which leases of partitions this node holds. Pure, with time as a value.
//!
//! In: the view with the partitions whose home it names this node, and what Redis answered, with
//! the instants at which it was asked. Out: what to ask next ([`Round`]) and when, and [`Held`], the
//! leases that this node holds in its own eyes. Owner: the task of `partitions`; here is no clock and no
//! Redis. What is held is counted from before the question, so that it ends here no later than
//! in Redis; it is given up here before it is given back there. Bound: one lease a partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::partition_store::LeaseAnswer;
use super::view::View;
use fanfare_protocol::ids::Owner;

/// So often in a lease all that is held is extended: once in vain, and there is time for another try.
const EXTENSIONS_PER_LEASE: u32 = 3;

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    token: u64,
    /// From when on another may have it; `None`: there is no other.
    until: Option<Instant>,
}

impl Lease {
    fn lasts(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The partitions whose lease this node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<u32, Lease>);

impl Held {
    /// All partitions, for ever: there is no other node.
    pub(super) fn all(partitions_count: u32) -> Self {
        let (token, until) = (0, None);
        let all = (0..partitions_count).map(|partition| (partition, Lease { token, until }));
        Self(all.collect())
    }

    /// The token with which this node may act for a partition; `None`: it may not.
    #[must_use]
    pub fn token(&self, partition: u32) -> Option<u64> {
        self.token_at(partition, Instant::now())
    }

    /// The same at this instant.
    pub(super) fn token_at(&self, partition: u32, now: Instant) -> Option<u64> {
        let lease = self.0.get(&partition)?;
        lease.lasts(now).then_some(lease.token)
    }

    /// All partitions for which it may act, ascending.
    #[must_use]
    pub fn partitions(&self) -> BTreeSet<u32> {
        let now = Instant::now();
        let held = self.0.iter().filter(|(_, lease)| lease.lasts(now));
        held.map(|(partition, _)| *partition).collect()
    }

    /// How many leases there are, whether they last or not.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// How many of these leases were not among those.
    pub(super) fn count_beyond(&self, before: &Self) -> usize {
        let new = self.0.keys().filter(|p| !before.0.contains_key(*p));
        new.count()
    }
}

/// What to ask Redis for: first that all of `given` is given back, then for all of `wanted`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Partitions that have another home now, with the tokens under which they were held.
    pub(super) given: Vec<(u32, u64)>,
    /// Partitions whose lease is to be extended or taken.
    pub(super) wanted: BTreeSet<u32>,
    /// Something that was held until now is not any more: all who act are to hear it first.
    pub(super) is_less: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PartitionLeases {
    /// The owner (node and incarnation) under which the leases are held.
    pub(super) me: Owner,
    lease: Duration,
    held: Held,
    /// When the first lease of another ends that should be this node's.
    retry_at: Option<Instant>,
    /// When what is held is to be extended.
    extend_at: Option<Instant>,
}

impl PartitionLeases {
    /// Nothing is held yet.
    pub(super) fn new(me: Owner, lease: Duration) -> Self {
        Self {
            me,
            lease,
            held: Held::default(),
            retry_at: None,
            extend_at: None,
        }
    }

    /// Begins a round: `mine` are the partitions whose home this node is by the view. What is
    /// given back, or was an earlier life's, is held no more from here on. What is missing is wanted
    /// in each round; what is held as soon as some of it is due, and then all of it, so that it stays
    /// together.
    pub(super) fn begin(&mut self, view: &View, mine: BTreeSet<u32>, now: Instant) -> Round {
        let before_count = self.held.count();
        (self.retry_at, self.extend_at) = (None, None);
        if view.me != self.me {
            // What an earlier life held may be somebody else's by now.
            self.held = Held::default();
            self.me = view.me.clone();
        }
        if !view.has_lease_at(now) {
            // A node without a lease of its own takes none. What is held ends by itself.
            return Round {
                is_less: self.held.count() < before_count,
                ..Round::default()
            };
        }
        let held = std::mem::take(&mut self.held).0.into_iter();
        let (kept, given) = held.partition(|(partition, _)| mine.contains(partition));
        self.held = Held(kept);
        let mut wanted = mine;
        self.extend_at = self.held.0.values().filter_map(|l| self.due_at(l)).min();
        if self.extend_at.is_some_and(|at| at <= now) {
            // What is not answered is tried again with the next view, or then.
            self.extend_at = Some(now + self.third());
        } else {
            wanted.retain(|partition| !self.held.0.contains_key(partition));
        }
        Round {
            given: tokens(given),
            wanted,
            is_less: self.held.count() < before_count,
        }
    }

    /// Redis answered what was asked at `asked_at`. Returns whether that takes something from
    /// this node which it held in its own eyes.
    pub(super) fn answered(&mut self, partition: u32, asked_at: Instant, bid: LeaseAnswer) -> bool {
        match bid {
            LeaseAnswer::Held { token } => {
                let until = Some(asked_at + self.lease);
                let lease = Lease { token, until };
                self.extend_at = earlier(self.extend_at, self.due_at(&lease));
                let before = self.held.0.insert(partition, lease);
                before.is_some_and(|before| before.token != token)
            }
            LeaseAnswer::Other { left } => {
                self.retry_at = earlier(self.retry_at, Some(asked_at + left));
                self.held.0.remove(&partition).is_some()
            }
        }
    }

    /// How many leases are held, whether they last or not.
    pub(super) fn held_count(&self) -> usize {
        self.held.count()
    }

    /// When the next round begins, if no view comes before: a lease of another ends that should be
    /// this node's, or what is held is to be extended.
    pub(super) fn next_at(&self) -> Option<Instant> {
        earlier(self.retry_at, self.extend_at)
    }

    /// How long a lease is left as it is.
    fn third(&self) -> Duration {
        self.lease / EXTENSIONS_PER_LEASE
    }

    /// When a lease is to be extended.
    fn due_at(&self, lease: &Lease) -> Option<Instant> {
        let asked_at = lease.until? - self.lease;
        Some(asked_at + self.third())
    }

    /// What is held at this instant.
    pub(super) fn held(&mut self, now: Instant) -> Held {
        self.held.0.retain(|_, lease| lease.lasts(now));
        self.held.clone()
    }

    /// Gives everything up. What is to be given back is returned.
    pub(super) fn end(&mut self) -> Vec<(u32, u64)> {
        tokens(std::mem::take(&mut self.held).0)
    }
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

fn tokens(leases: BTreeMap<u32, Lease>) -> Vec<(u32, u64)> {
    let tokens = leases.into_iter().map(|(p, lease)| (p, lease.token));
    tokens.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeDetails;

    const LEASE: Duration = Duration::from_secs(5);

    fn view(me: &str) -> View {
        View::alone(me.parse().unwrap(), NodeDetails::default(), 8)
    }

    /// A leases of `a~5` that holds partition 3 with token 7 since this instant.
    fn holder(now: Instant) -> PartitionLeases {
        let mut leases = PartitionLeases::new("a~5".parse().unwrap(), LEASE);
        let round = leases.begin(&view("a~5"), BTreeSet::from([3]), now);
        let wanted = BTreeSet::from([3]);
        let first = Round {
            wanted,
            ..Round::default()
        };
        assert_eq!(round, first);
        assert!(!leases.answered(3, now, LeaseAnswer::Held { token: 7 }));
        leases
    }

    #[test]
    fn what_was_not_extended_in_time_is_held_no_more() {
        let now = Instant::now();
        let held = holder(now).held(now);
        assert_eq!((held.token(3), held.token(4)), (Some(7), None));
        assert_eq!(held.partitions(), BTreeSet::from([3]));
        let last = now + LEASE - Duration::from_millis(1);
        assert_eq!(held.token_at(3, last), Some(7));
        assert_eq!(held.token_at(3, now + LEASE), None);
        assert_eq!(holder(now).held(now + LEASE), Held::default());
    }

    #[test]
    fn what_has_another_home_is_given_up_before_it_is_given_back() {
        let now = Instant::now();
        let mut leases = holder(now);
        let round = leases.begin(&view("a~5"), BTreeSet::from([4]), now);
        assert_eq!((round.given, round.is_less), (vec![(3, 7)], true));
        assert_eq!(round.wanted, BTreeSet::from([4]));
        assert_eq!(leases.held(now), Held::default());
    }

    #[test]
    fn who_hears_that_another_has_it_holds_nothing_and_asks_again_when_that_lease_ends() {
        let now = Instant::now();
        let mut leases = holder(now);
        let [late, soon] = [2_000, 900].map(Duration::from_millis);
        assert!(!leases.answered(4, now, LeaseAnswer::Other { left: late }));
        assert!(leases.answered(3, now, LeaseAnswer::Other { left: soon }));
        assert_eq!(leases.next_at(), Some(now + soon));
        assert_eq!(leases.held(now), Held::default());
    }

    #[test]
    fn what_is_held_is_extended_together_when_a_third_of_a_lease_is_over() {
        let now = Instant::now();
        let third = LEASE / 3;
        let mut leases = holder(now);
        assert_eq!(leases.next_at(), Some(now + third));
        // A view in between: what is missing is asked for, and nothing else.
        let mine = || BTreeSet::from([3, 4]);
        let soon = now + third / 2;
        let round = leases.begin(&view("a~5"), mine(), soon);
        assert_eq!(round.wanted, BTreeSet::from([4]));
        leases.answered(4, soon, LeaseAnswer::Held { token: 9 });
        assert_eq!(leases.next_at(), Some(now + third), "the first is due");
        let round = leases.begin(&view("a~5"), mine(), now + third);
        assert_eq!(round.wanted, mine());
        assert_eq!((round.given, round.is_less), (vec![], false));
        for (partition, token) in [(3, 7), (4, 9)] {
            assert!(!leases.answered(partition, now + third, LeaseAnswer::Held { token }));
        }
        assert_eq!(leases.next_at(), Some(now + third * 2));
        // Nor is anything asked for where all is held.
        let round = leases.begin(&view("a~5"), mine(), now + third);
        assert_eq!(round, Round::default());
        assert_eq!(leases.next_at(), Some(now + third * 2));
    }

    #[test]
    fn what_was_not_extended_is_tried_with_the_next_view_and_not_without_a_pause() {
        let now = Instant::now();
        let third = LEASE / 3;
        let mut leases = holder(now);
        let mine = || BTreeSet::from([3]);
        let at = now + third;
        assert_eq!(leases.begin(&view("a~5"), mine(), at).wanted, mine());
        assert_eq!(leases.next_at(), Some(at + third));
        let at = at + LEASE / 5;
        assert_eq!(leases.begin(&view("a~5"), mine(), at).wanted, mine());
        assert_eq!(leases.next_at(), Some(at + third));
        // Given away meanwhile: nothing is left to be extended.
        leases.begin(&view("a~5"), BTreeSet::new(), at);
        assert_eq!(leases.next_at(), None);
    }

    #[test]
    fn a_new_token_takes_the_one_before_it_away() {
        let now = Instant::now();
        let mut leases = holder(now);
        assert!(leases.answered(3, now, LeaseAnswer::Held { token: 9 }));
        assert!(!leases.answered(3, now, LeaseAnswer::Held { token: 9 }));
        assert_eq!(leases.held(now).token(3), Some(9));
    }

    #[test]
    fn another_life_holds_nothing_of_the_earlier_one() {
        let now = Instant::now();
        let mut leases = holder(now);
        let round = leases.begin(&view("a~8"), BTreeSet::from([3]), now);
        assert_eq!((round.given, round.wanted), (vec![], BTreeSet::from([3])));
        assert!(
            round.is_less,
            "all who act are told before the round goes on"
        );
        assert_eq!(leases.held(now), Held::default());
    }

    #[test]
    fn without_a_lease_of_its_own_a_node_asks_for_nothing_and_keeps_what_lasts() {
        let now = Instant::now();
        let mut leases = holder(now);
        let stale = View {
            fresh: false,
            ..view("a~5")
        };
        assert_eq!(leases.begin(&stale, BTreeSet::new(), now), Round::default());
        assert_eq!(leases.held(now).token(3), Some(7));
        assert_eq!(leases.end(), [(3, 7)]);
        assert_eq!(leases.held(now), Held::default());
    }
}
