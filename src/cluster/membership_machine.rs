//! What an answer to a heartbeat means for this node: pure, with time as a value.
//!
//! In: answers of the lease store with the instants at which they were asked for, or the fact
//! that none came. Out: the present [`View`] and [`MembershipState`]. Owner: the membership task. Here
//! is no clock and no Redis. Bounded by the number of live nodes.
//!
//! ```text
//! Joining ── held ──▶ Member ──▶ Member with a new incarnation (the lease had ended)
//!    ├── a living process has the name ──▶ NameTaken
//!    └─────────────┬────┴── another process took the name ──▶ Superseded
//!                  └── leave ──▶ Left                       (these three are final)
//! ```

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::context_readers::ContextReaders;
use super::ring::Ring;
use super::roster::Beat;
use super::roster::End;
use super::view::{NodeInfo, View};
use fanfare_protocol::ids::{NodeId, Owner};

/// The state of this node in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipState {
    /// Redis has not answered yet. The node has no incarnation and is not ready.
    Joining,
    /// The node holds its name. When the owner changes, the lease had ended (the process was
    /// paused, or Redis was away or lost its data), and everything that this node keeps under
    /// the old owner is to be written again under the new one.
    Member(Owner),
    /// Another process took this node's name later: drain and exit 69.
    Superseded {
        /// The other's incarnation.
        newest: u64,
    },
    /// A process that lives has this node's name, and keeps it: exit 69.
    NameTaken,
    /// The lease was given back.
    Left,
}

impl MembershipState {
    /// The incarnation under which this node is a member.
    pub(super) fn incarnation(&self) -> Option<u64> {
        match self {
            Self::Member(owner) => Some(owner.incarnation),
            _ => None,
        }
    }

    /// Whether nothing can follow.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Joining | Self::Member(_))
    }
}

/// How names become a ring.
pub(super) type Deal = fn(&[NodeId], u32) -> Arc<Ring>;

/// The state that answers move.
#[derive(Debug)]
pub(super) struct MembershipMachine {
    pub(super) standing: MembershipState,
    pub(super) view: Arc<View>,
    /// How those ended that are not in the view any more, where that is known.
    pub(super) gone: Vec<(NodeId, End)>,
    /// [`Ring::new`], except in simulations: the same few names come and go there many thousand
    /// times, and to deal a ring takes longer than all the rest.
    pub(super) deal: Deal,
    readers: ContextReaders,
    lease: Duration,
}

impl MembershipMachine {
    /// A node before its first answer, with a view that is not fresh and shows only itself. A
    /// `lease` of [`Duration::MAX`] never ends.
    pub(super) fn new(view: View, lease: Duration) -> Self {
        Self {
            standing: MembershipState::Joining,
            view: Arc::new(View {
                fresh: false,
                ..view
            }),
            gone: Vec::new(),
            deal: |names, partitions_count| Arc::new(Ring::new(names, partitions_count)),
            readers: ContextReaders::default(),
            lease,
        }
    }

    /// Redis answered the heartbeat that was sent at `sent_at`.
    pub(super) fn answered(&mut self, beat: Beat, sent_at: Instant) {
        self.standing = match beat {
            Beat::Superseded { newest } => MembershipState::Superseded { newest },
            Beat::Held {
                incarnation,
                time_us,
                nodes,
                gone,
            } => {
                let me = Owner {
                    node: self.view.me.node.clone(),
                    incarnation,
                };
                let left = gone.iter().filter(|(_, end)| *end == End::Left);
                let left = left.filter_map(|(name, _)| self.view.node(name));
                let bare = left.map(|node| node.owner.clone()).collect();
                // A node that was paused has told nobody that its lease is over.
                let is_over = self.view.until.is_some_and(|until| until <= sent_at);
                if !self.view.fresh || is_over || self.view.me != me {
                    self.readers.interrupted();
                }
                let both = (&self.view.nodes[..], &nodes[..]);
                let contexts_from = self.readers.told(both, &gone, self.lease, sent_at);
                self.gone = gone;
                self.view = Arc::new(View {
                    bare,
                    ring: self.ring(&nodes),
                    me: me.clone(),
                    nodes,
                    fresh: true,
                    time_us,
                    until: sent_at.checked_add(self.lease),
                    told_at: sent_at,
                    contexts_from,
                });
                MembershipState::Member(me)
            }
        };
        if self.standing.is_final() {
            self.grow_stale();
        }
    }

    /// Redis did not answer. The view stays, and is fresh until the lease must have ended.
    pub(super) fn unanswered(&mut self, now: Instant) {
        if self.view.until.is_some_and(|until| until <= now) {
            self.grow_stale();
        }
    }

    /// Redis answered at `sent_at` or later that it takes no writes, and that this node's lease
    /// lasts for so long all the same: so does the view, also one that was stale. Who lives stays
    /// as it was.
    pub(super) fn refused(&mut self, left: Duration, sent_at: Instant, now: Instant) {
        let until = sent_at.checked_add(left);
        if self.standing.incarnation().is_some() && until > self.view.until {
            let view = View::clone(&self.view);
            self.view = Arc::new(View {
                fresh: true,
                until,
                ..view
            });
        }
        self.unanswered(now);
    }

    /// A process that lives has the name.
    pub(super) fn turned_away(&mut self) {
        self.standing = MembershipState::NameTaken;
        self.grow_stale();
    }

    fn grow_stale(&mut self) {
        self.readers.interrupted();
        if self.view.fresh {
            let view = View::clone(&self.view);
            self.view = Arc::new(View {
                fresh: false,
                contexts_from: None,
                ..view
            });
        }
    }

    /// The ring over these nodes. It is dealt anew only when names came or went.
    fn ring(&self, nodes: &[NodeInfo]) -> Arc<Ring> {
        let names = |nodes: &[NodeInfo]| -> Vec<_> {
            nodes.iter().map(|node| node.owner.node.clone()).collect()
        };
        let (before, now) = (names(&self.view.nodes), names(nodes));
        if before == now {
            Arc::clone(&self.view.ring)
        } else {
            (self.deal)(&now, self.view.ring.partitions_count())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeDetails;

    const LEASE: Duration = Duration::from_secs(5);

    fn course() -> MembershipMachine {
        let me = "a~0".parse().unwrap();
        MembershipMachine::new(View::alone(me, NodeDetails::default(), 256), LEASE)
    }

    fn held(incarnation: u64, others: &[&str]) -> Beat {
        let mut owners = vec![format!("a~{incarnation}")];
        owners.extend(others.iter().map(ToString::to_string));
        Beat::Held {
            incarnation,
            time_us: incarnation + 1,
            nodes: owners
                .iter()
                .map(|owner| NodeInfo {
                    owner: owner.parse().unwrap(),
                    details: NodeDetails::default(),
                })
                .collect(),
            gone: Vec::new(),
        }
    }

    fn member(owner: &str) -> MembershipState {
        MembershipState::Member(owner.parse().unwrap())
    }

    #[test]
    fn contexts_are_sent_from_some_time_after_the_first_view_and_each_that_follows_a_break() {
        let details = NodeDetails {
            reads_context: true,
            ..NodeDetails::default()
        };
        let me = "a~0".parse().unwrap();
        let mut course = MembershipMachine::new(View::alone(me, details, 256), LEASE);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let reads = |incarnation| {
            let mut beat = held(incarnation, &["b~1"]);
            if let Beat::Held { nodes, .. } = &mut beat {
                let all = nodes.iter_mut();
                all.for_each(|node| node.details.reads_context = true);
            }
            beat
        };
        assert_eq!(course.view.contexts_from, None);
        for seconds in [0, 1, 5] {
            course.answered(reads(1), at(seconds));
            assert_eq!(course.view.contexts_from, Some(at(10)));
        }
        // It was paused for some leases, and nobody else took its place.
        course.answered(reads(1), at(60));
        assert_eq!(course.view.contexts_from, Some(at(70)));
        // Redis came back without what it had, and this lease is another.
        course.answered(reads(2), at(61));
        assert_eq!(course.view.contexts_from, Some(at(71)));
        // It was away until the lease had ended, and then took no writes for a while.
        course.unanswered(at(67));
        assert_eq!(
            (course.view.fresh, course.view.contexts_from),
            (false, None)
        );
        course.refused(LEASE, at(68), at(68));
        assert_eq!((course.view.fresh, course.view.contexts_from), (true, None));
        course.answered(reads(2), at(70));
        assert_eq!(course.view.contexts_from, Some(at(80)));
        course.answered(held(2, &[]), at(90));
        assert_eq!(course.view.contexts_from, None, "b says nothing of them");
    }

    #[test]
    fn a_view_names_the_lives_that_left_nothing_behind() {
        let mut course = course();
        let now = Instant::now();
        course.answered(held(1, &["b~1", "c~1"]), now);
        let end = |name: &str, end| (NodeId::new(name).unwrap(), end);
        let Beat::Held {
            incarnation,
            time_us,
            nodes,
            ..
        } = held(1, &[])
        else {
            unreachable!()
        };
        let told = [("b", End::Left), ("c", End::Lapsed), ("d", End::Left)];
        let beat = Beat::Held {
            incarnation,
            time_us,
            nodes,
            gone: told.map(|(name, how)| end(name, how)).into(),
        };
        course.answered(beat, now);
        assert_eq!(course.view.bare, ["b~1".parse().unwrap()]);
        course.answered(held(1, &[]), now);
        assert_eq!(course.view.bare, []);
    }

    #[test]
    fn a_refused_heartbeat_shows_a_lease_for_as_long_as_redis_says() {
        let mut course = course();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        course.refused(LEASE, start, start);
        assert!(!course.view.fresh, "it never had one");
        course.answered(held(1, &[]), start);
        // Others were answered a moment ago: no more than the rest.
        course.refused(Duration::from_secs(2), at(3), at(3));
        assert_eq!(course.view.until, Some(at(5)));
        course.refused(Duration::ZERO, at(4), at(4));
        assert!(course.view.has_lease_at(at(4)), "an answer has said so");
        course.refused(Duration::ZERO, at(5), at(5));
        assert!(!course.view.fresh);
        // Nobody was answered for long: a whole lease, though it seemed over.
        for seconds in [8, 12, 16] {
            course.refused(LEASE, at(seconds), at(seconds + 1));
            assert_eq!(course.view.until, Some(at(seconds) + LEASE));
            assert!(course.view.fresh);
            assert_eq!(course.view.told_at, start, "nobody has told who lives");
        }
        course.unanswered(at(20));
        assert!(course.view.fresh);
        course.unanswered(at(21));
        assert!(!course.view.fresh);
        assert_eq!(course.standing, member("a~1"));
    }

    #[test]
    fn an_end_is_final_whatever_redis_says_of_the_lease() {
        let (mut course, now) = (course(), Instant::now());
        course.answered(held(7, &[]), now);
        course.answered(Beat::Superseded { newest: 9 }, now);
        course.refused(LEASE, now, now);
        assert!(!course.view.fresh);
    }

    #[test]
    fn before_the_first_answer_the_node_is_joining_and_sees_nothing_fresh() {
        let mut course = course();
        course.unanswered(Instant::now());
        assert_eq!(course.standing, MembershipState::Joining);
        assert!(!course.view.fresh);
        assert_eq!(course.view.nodes.len(), 1);
    }

    #[test]
    fn the_first_answer_makes_a_member_and_a_view_of_all_nodes() {
        let mut course = course();
        course.answered(held(7, &["b~3"]), Instant::now());
        assert_eq!(course.standing, member("a~7"));
        assert!(course.view.fresh);
        assert!(course.view.is_live(&"a~7".parse().unwrap()));
        assert!(course.view.is_live(&"b~3".parse().unwrap()));
        assert!(course.view.ring.share(&course.view.nodes[1].owner.node) > 0.3);
    }

    #[test]
    fn the_last_view_is_kept_while_redis_is_away_and_is_stale_after_a_lease() {
        let (mut course, start) = (course(), Instant::now());
        course.answered(held(7, &["b~3"]), start);
        course.unanswered(start + LEASE - Duration::from_millis(1));
        assert!(course.view.fresh);
        course.unanswered(start + LEASE);
        assert!(!course.view.fresh);
        assert_eq!(course.view.nodes.len(), 2);
        assert_eq!(course.standing, member("a~7"));
        course.answered(held(7, &["b~3"]), start + 2 * LEASE);
        assert!(course.view.fresh);
    }

    #[test]
    fn a_new_incarnation_changes_the_owner_and_compares_the_partitions_again() {
        let mut course = course();
        course.answered(held(7, &[]), Instant::now());
        course.answered(held(9, &[]), Instant::now());
        assert_eq!(course.standing, member("a~9"));
        assert_eq!(course.view.me, "a~9".parse().unwrap());
    }

    #[test]
    fn the_ring_is_dealt_anew_only_when_names_change() {
        let mut course = course();
        course.answered(held(7, &["b~3"]), Instant::now());
        let first = Arc::clone(&course.view.ring);
        course.answered(held(7, &["b~8"]), Instant::now());
        assert!(Arc::ptr_eq(&first, &course.view.ring));
        course.answered(held(7, &["c~1"]), Instant::now());
        assert_ne!(*first, *course.view.ring);
    }

    #[test]
    fn a_newer_process_of_the_name_ends_the_course() {
        let mut course = course();
        course.answered(held(7, &[]), Instant::now());
        course.answered(Beat::Superseded { newest: 9 }, Instant::now());
        assert_eq!(course.standing, MembershipState::Superseded { newest: 9 });
        assert!(course.standing.is_final());
        assert!(!course.view.fresh);
    }
}
