//! Which local sessions belong to which topic, and how far each of them is.
//!
//! In: sessions join and leave; deliveries move a topic's last position. Out: the members to push
//! to. Owned by one worker thread; no locks. Bound: topics per session times sessions. Joining and
//! leaving are constant in the number of a topic's members: both sides of a membership know
//! where the other stands, and removal swaps the last one into the hole.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use slotmap::{SlotMap, new_key_type};
use tokio::sync::oneshot;

use crate::broker::interest::WishNumber;
use fanfare_protocol::ids::{Position, Priority, Topic};

use super::outgoing::Outgoing;

new_key_type! {
    /// A session on this worker. Keys of ended sessions are never used again.
    pub struct SessionKey;
    /// A topic with local members on this worker.
    pub struct TopicKey;
}

/// How one session gets one topic's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Joined, but nothing is sent before the session has answered its client.
    Starting {
        /// A failover happened meanwhile: what the session was told of above this is void.
        void_above: Option<Position>,
    },
    /// Live deliveries above this position are pushed.
    Push {
        /// What the session has already, from a catch-up that ran ahead of the feed.
        after: Position,
    },
    /// The session reads pages from the recent window or the history until it has caught up.
    Pull {
        /// What it has.
        at: Position,
        /// The number of the page that it waits for. A page with another number is of an earlier
        /// stay, or of before a failover.
        asked: Option<u32>,
        /// The highest priority among what it waits for, as far as that is known.
        urgency: Priority,
    },
}

impl Mode {
    /// A catch-up from this position on.
    #[must_use]
    pub fn pull(at: Position, urgency: Priority) -> Self {
        Self::Pull {
            at,
            asked: None,
            urgency,
        }
    }
}

/// One session's membership of a topic.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// Who.
    pub session: SessionKey,
    /// How it gets messages.
    pub mode: Mode,
    /// What its next page may reach is limited: it lost the right to read history on the way.
    pub is_limited: bool,
    /// Where the session keeps its reference to this membership.
    reference: u32,
}

/// A session's reference to one membership.
#[derive(Debug, Clone, Copy)]
pub struct Reference {
    /// The topic.
    pub topic: TopicKey,
    /// Where the member stands in the topic's list.
    index: u32,
}

/// A topic with at least one local member.
#[derive(Debug)]
pub struct HubTopic {
    /// Its name.
    pub name: Topic,
    /// Whether it can be read again.
    pub has_history: bool,
    /// The wish for it that the dispatcher is to answer. An answer to another one is of an earlier
    /// stay of this worker in the topic.
    pub wish: Option<WishNumber>,
    /// The last position that this worker has seen; `None` until the dispatcher has answered.
    pub last: Option<Position>,
    /// Who belongs to it.
    pub members: Vec<Member>,
    /// The newest deliveries, as far as [`super::recent`] keeps them.
    pub recent: VecDeque<Arc<Outgoing>>,
    /// Told when the dispatcher has answered.
    pub waiting: Vec<oneshot::Sender<()>>,
}

/// All topics of one worker.
#[derive(Debug, Default)]
pub struct Hub {
    by_name: FxHashMap<Topic, TopicKey>,
    topics: SlotMap<TopicKey, HubTopic>,
}

/// What a leaving session must be told of its other references.
#[derive(Debug, PartialEq, Eq)]
pub struct Left {
    /// The member that took the hole: its session, its reference, its new index.
    moved: Option<(SessionKey, u32, u32)>,
}

impl Hub {
    /// The topic's key, if it has local members.
    #[must_use]
    pub fn find(&self, name: &Topic) -> Option<TopicKey> {
        self.by_name.get(name).copied()
    }

    /// The topic behind a key.
    pub fn get_mut(&mut self, key: TopicKey) -> Option<&mut HubTopic> {
        self.topics.get_mut(key)
    }

    /// The topic behind a key.
    #[must_use]
    pub fn get(&self, key: TopicKey) -> Option<&HubTopic> {
        self.topics.get(key)
    }

    /// Every topic.
    pub fn iter(&self) -> impl Iterator<Item = &HubTopic> {
        self.topics.values()
    }

    /// Adds a session in [`Mode::Starting`]. `references` are the session's own; the new one is
    /// appended. Returns the topic and whether it is new on this worker.
    pub fn join(
        &mut self,
        name: &Topic,
        has_history: bool,
        session: SessionKey,
        references: &mut Vec<Reference>,
    ) -> (TopicKey, bool) {
        let known = self.find(name);
        let key = known.unwrap_or_else(|| {
            let key = self.topics.insert(HubTopic {
                name: name.clone(),
                has_history,
                wish: None,
                last: None,
                // Most topics are inboxes, and most users have one session.
                members: Vec::with_capacity(1),
                recent: VecDeque::new(),
                waiting: Vec::new(),
            });
            self.by_name.insert(name.clone(), key);
            key
        });
        let members = &mut self.topics[key].members;
        references.push(Reference {
            topic: key,
            index: index(members.len()),
        });
        members.push(Member {
            session,
            mode: Mode::Starting { void_above: None },
            is_limited: false,
            reference: index(references.len() - 1),
        });
        (key, known.is_none())
    }

    /// The membership behind a reference.
    pub fn member_mut(&mut self, reference: Reference) -> &mut Member {
        &mut self.topics[reference.topic].members[reference.index as usize]
    }

    /// Removes the membership at `at` of `references`. The caller calls [`Left::settle`] with the
    /// moved session's references. Gives the topic's name back when nobody is left: it is forgotten
    /// here.
    pub fn leave(&mut self, references: &mut Vec<Reference>, at: usize) -> (Left, Option<Topic>) {
        let reference = references.swap_remove(at);
        if let Some(moved) = references.get(at) {
            self.topics[moved.topic].members[moved.index as usize].reference = index(at);
        }
        let topic = &mut self.topics[reference.topic];
        topic.members.swap_remove(reference.index as usize);
        let moved = topic
            .members
            .get(reference.index as usize)
            .map(|m| (m.session, m.reference, reference.index));
        if !topic.members.is_empty() {
            return (Left { moved }, None);
        }
        let emptied = self.topics.remove(reference.topic).map(|topic| topic.name);
        if let Some(name) = &emptied {
            self.by_name.remove(name);
        }
        (Left { moved }, emptied)
    }
}

impl Left {
    /// The session whose reference must be corrected with [`Self::settle`], if any.
    #[must_use]
    pub fn moved_session(&self) -> Option<SessionKey> {
        self.moved.map(|(session, _, _)| session)
    }

    /// Corrects the moved session's reference.
    pub fn settle(&self, references: &mut [Reference]) {
        if let Some((_, reference, now_at)) = self.moved {
            references[reference as usize].index = now_at;
        }
    }
}

fn index(n: usize) -> u32 {
    u32::try_from(n).expect("sessions and topics are bounded far below 2^32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fanfare_protocol::ids::App;
    use proptest::prelude::*;

    type Sessions = SlotMap<SessionKey, Vec<Reference>>;

    fn leave(hub: &mut Hub, sessions: &mut Sessions, key: SessionKey, at: usize) {
        let (left, _) = hub.leave(&mut sessions[key], at);
        if let Some(moved) = left.moved_session() {
            left.settle(&mut sessions[moved]);
        }
    }

    fn check(hub: &Hub, sessions: &Sessions) -> Result<(), TestCaseError> {
        let mut memberships = 0;
        for (key, references) in sessions {
            for (at, reference) in references.iter().enumerate() {
                let member = hub.topics[reference.topic].members[reference.index as usize];
                prop_assert_eq!(member.session, key);
                prop_assert_eq!(member.reference as usize, at);
                memberships += 1;
            }
        }
        let members: usize = hub.iter().map(|t| t.members.len()).sum();
        prop_assert_eq!(members, memberships);
        prop_assert_eq!(hub.by_name.len(), hub.topics.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn both_sides_of_every_membership_agree_after_any_joins_and_leaves(
            steps in prop::collection::vec((0usize..6, 0usize..5, any::<bool>()), 0..200),
        ) {
            let mut hub = Hub::default();
            let mut sessions = Sessions::default();
            let keys: Vec<_> = (0..6).map(|_| sessions.insert(Vec::new())).collect();
            let names: Vec<_> = (0..5)
                .map(|n| Topic::new(&App::default_app(), &format!("t{n}")).unwrap())
                .collect();
            for (session, topic, join) in steps {
                let key = keys[session];
                let joined = hub.find(&names[topic]).and_then(|t| {
                    sessions[key].iter().position(|r| r.topic == t)
                });
                match (join, joined) {
                    (true, None) => {
                        hub.join(&names[topic], true, key, &mut sessions[key]);
                    }
                    (false, Some(at)) => leave(&mut hub, &mut sessions, key, at),
                    _ => {}
                }
                check(&hub, &sessions)?;
            }
        }
    }
}
