//! Members of topics in the in-process broker: who is there, and the changes on `%T`.
//!
//! In: sessions that come and go. Out: the members in the state of `%T` and a change for each that
//! came or left, made under the broker's lock, so that list, counts and changes share positions.
//! Owner of each topic's members, by their sessions, so that a page costs what it holds. Bounded
//! by the sessions of the node.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::MemoryBroker;
use super::topic::TopicState;
use crate::broker::feed_sender::FeedSender;
use crate::broker::member::{Entered, MemberCounts, MemberEntry, MemberPage, PRESENCE_RETENTION};
use crate::broker::publication::PresenceChange;
use crate::broker::size::member_bytes;
use crate::broker::{Body, BrokerError, FeedEvent, Page};
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Owner, SessionId, Topic};

/// The members of one topic, and how many each owner has.
#[derive(Debug, Default)]
pub(super) struct Members {
    entries: BTreeMap<SessionId, MemberEntry>,
    counts: BTreeMap<Owner, u64>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.entries.len() as u64
    }

    fn counts(&self) -> MemberCounts {
        let counts = self.counts.iter();
        counts
            .map(|(owner, count)| (owner.clone(), *count))
            .collect()
    }

    /// Makes a session a member. `false`: it was one, and its subscribers know it. A later
    /// generation, or the same of a later life of its node, takes the entry over.
    fn enter(&mut self, entered: MemberEntry) -> bool {
        let session = entered.member.session;
        let Some(known) = self.entries.get_mut(&session) else {
            *self.counts.entry(entered.owner.clone()).or_default() += 1;
            self.entries.insert(session, entered);
            return true;
        };
        let rank = |entry: &MemberEntry| (entry.generation, entry.owner.incarnation);
        if rank(&entered) > rank(known) {
            let since_ms = known.since_ms;
            let owner = entered.owner.clone();
            let before = std::mem::replace(
                known,
                MemberEntry {
                    since_ms,
                    ..entered
                },
            );
            *self.counts.entry(owner).or_default() += 1;
            self.uncount(&before.owner);
        }
        false
    }

    fn remove(&mut self, session: SessionId) -> Option<MemberEntry> {
        let removed = self.entries.remove(&session)?;
        self.uncount(&removed.owner);
        Some(removed)
    }

    fn uncount(&mut self, owner: &Owner) {
        if let Some(count) = self.counts.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(owner);
            }
        }
    }

    /// A page of those after a session.
    fn page(&self, after: Option<SessionId>, page: Page) -> MemberPage {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.entries.range((start, Bound::Unbounded)).peekable();
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        while entries.len() < page.entries_max as usize
            && let Some((_, entry)) = rest.next_if(|(_, entry)| {
                bytes = bytes.saturating_add(member_bytes(&entry.member));
                entries.is_empty() || bytes <= page.bytes_max
            })
        {
            entries.push(entry.clone());
        }
        let last = entries.last().map(|entry| entry.member.session).or(after);
        MemberPage {
            next: last.filter(|_| rest.peek().is_some()),
            counts: self.counts(),
            entries,
            ..MemberPage::default()
        }
    }
}

/// The calls have the signatures of the Redis engine; here none of them waits, and none fails.
#[allow(clippy::unused_async)]
impl MemoryBroker {
    /// As [`crate::broker::Broker::enter`].
    ///
    /// # Errors
    /// None.
    pub async fn enter(
        &self,
        topic: &Topic,
        member: &Member,
        owner: &Owner,
        generation: u64,
    ) -> Result<Entered, BrokerError> {
        let now_ms = self.clock.now_ms();
        let changes = topic.presence();
        let entered = self.lock().change(&changes, now_ms, |state, sender| {
            let is_new = state.members.enter(MemberEntry {
                member: member.clone(),
                owner: owner.clone(),
                generation,
                since_ms: now_ms,
            });
            if is_new {
                let change = PresenceChange {
                    joined: true,
                    member: member.clone(),
                    owner: owner.clone(),
                    count: state.members.count(),
                };
                publish_change(sender, state, changes.clone(), change, now_ms);
            }
            Entered {
                counts: state.members.counts(),
                position: state.last(now_ms).unwrap_or_default(),
            }
        });
        Ok(entered)
    }

    /// As [`crate::broker::Broker::leave`].
    ///
    /// # Errors
    /// None.
    pub async fn leave(
        &self,
        topic: &Topic,
        session: SessionId,
        owner: &Owner,
        generation: u64,
    ) -> Result<(), BrokerError> {
        self.remove(topic, owner, |members| {
            let known = members.get(&session);
            let entered = known.is_some_and(|entry| {
                entry.owner.node == owner.node && entry.generation <= generation
            });
            entered.then_some(session).into_iter().collect()
        });
        Ok(())
    }

    /// As [`crate::broker::Broker::reap`].
    ///
    /// # Errors
    /// None.
    pub async fn reap(&self, topic: &Topic, owner: &Owner) -> Result<u64, BrokerError> {
        Ok(self.remove(topic, owner, |members| {
            let of_owner = |entry: &&MemberEntry| entry.owner == *owner;
            let left = members.values().filter(of_owner);
            left.map(|entry| entry.member.session).collect()
        }))
    }

    /// Removes members, tells each as a leave of this owner, and returns how many there were.
    fn remove(
        &self,
        topic: &Topic,
        owner: &Owner,
        which: impl FnOnce(&BTreeMap<SessionId, MemberEntry>) -> Vec<SessionId>,
    ) -> u64 {
        let now_ms = self.clock.now_ms();
        let changes = topic.presence();
        let mut state = self.lock();
        if !state.topics.contains_key(&changes) {
            return 0;
        }
        state.change(&changes, now_ms, |state, sender| {
            let mut removed_count = 0;
            for session in which(&state.members.entries) {
                let Some(left) = state.members.remove(session) else {
                    continue;
                };
                let change = PresenceChange {
                    joined: false,
                    member: left.member,
                    owner: owner.clone(),
                    count: state.members.count(),
                };
                publish_change(sender, state, changes.clone(), change, now_ms);
                removed_count += 1;
            }
            removed_count
        })
    }

    /// As [`crate::broker::Broker::members`].
    ///
    /// # Errors
    /// None.
    pub async fn members(
        &self,
        topic: &Topic,
        after: Option<SessionId>,
        page: Page,
    ) -> Result<MemberPage, BrokerError> {
        let now_ms = self.clock.now_ms();
        Ok(self.read(&topic.presence(), |state| MemberPage {
            position: state.last(now_ms).unwrap_or_default(),
            ..state.members.page(after, page)
        }))
    }
}

fn publish_change(
    sender: &mut FeedSender,
    state: &mut TopicState,
    topic: Topic,
    change: PresenceChange,
    now_ms: u64,
) {
    let entry = state.append(Body::Presence(Arc::new(change)), PRESENCE_RETENTION, now_ms);
    if state.wanted {
        let trace = None;
        sender.push(FeedEvent::Delivery {
            topic,
            entry,
            trace,
        });
    }
}
