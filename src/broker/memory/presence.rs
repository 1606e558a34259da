//! Members of topics in the in-process broker: who is there, and the changes on `%T`.
//!
//! In: sessions that come and go. Out: the members in the state of `%T` and a change for each that
//! came or left, made under the broker's lock, so that the list and the changes share positions.
//! Owns nothing. Bounded by the sessions of the node.

use std::collections::HashMap;
use std::sync::Arc;

use super::outlet::Outlet;
use super::topic::TopicState;
use super::{MemoryBroker, State};
use crate::broker::publication::PresenceChange;
use crate::broker::{Body, BrokerError, FeedEvent, MemberEntry, PRESENCE_RETENTION};
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Position, SessionId, Topic};

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
    ) -> Result<(u64, Position), BrokerError> {
        let now_ms = self.clock.now_ms();
        let State { topics, outlet } = &mut *self.lock();
        let changes = topic.presence();
        let state = topics.entry(changes.clone()).or_default();
        let entered = state.enter(member, owner, now_ms);
        let count = state.members.len() as u64;
        if entered {
            let change = PresenceChange {
                joined: true,
                member: member.clone(),
                owner: owner.clone(),
                count,
            };
            publish_change(outlet, state, changes, change, now_ms);
        }
        Ok((count, state.last(now_ms).unwrap_or_default()))
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
    ) -> Result<(), BrokerError> {
        self.remove(topic, owner, |members| {
            let known = members.get(&session);
            let entered = known.is_some_and(|entry| entry.owner.node == owner.node);
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
        which: impl FnOnce(&HashMap<SessionId, MemberEntry>) -> Vec<SessionId>,
    ) -> u64 {
        let now_ms = self.clock.now_ms();
        let State { topics, outlet } = &mut *self.lock();
        let changes = topic.presence();
        let Some(state) = topics.get_mut(&changes) else {
            return 0;
        };
        let mut removed_count = 0;
        for session in which(&state.members) {
            let Some(left) = state.members.remove(&session) else {
                continue;
            };
            let change = PresenceChange {
                joined: false,
                member: left.member,
                owner: owner.clone(),
                count: state.members.len() as u64,
            };
            publish_change(outlet, state, changes.clone(), change, now_ms);
            removed_count += 1;
        }
        removed_count
    }

    /// As [`crate::broker::Broker::members`].
    ///
    /// # Errors
    /// None.
    pub async fn members(
        &self,
        topic: &Topic,
    ) -> Result<(Vec<MemberEntry>, Position), BrokerError> {
        let now_ms = self.clock.now_ms();
        Ok(self.read(&topic.presence(), |state| {
            let members = state.members.values().cloned().collect();
            (members, state.last(now_ms).unwrap_or_default())
        }))
    }
}

fn publish_change(
    outlet: &mut Outlet,
    state: &mut TopicState,
    topic: Topic,
    change: PresenceChange,
    now_ms: u64,
) {
    let entry = state.append(Body::Presence(Arc::new(change)), PRESENCE_RETENTION, now_ms);
    if state.wanted {
        outlet.push(FeedEvent::Delivery { topic, entry });
    }
}
