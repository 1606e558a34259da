//! Members of topics: who is in, kept per node, shown by every node.
//!
//! In: sessions that joined with `presence: true`. Out: the broker's member entries of `%T` and the
//! changes on its stream. Owner of: this node's own members, so that they can be written again
//! under a new incarnation. Before the first member of a topic is written, the topic stands in the
//! index of its partition, and after the last is gone it is taken out (`cluster::occupancy`): so
//! the home finds what a dead node left (`cluster::reaper`). Bounds: the topics of this node's
//! sessions; [`CALLS_IN_FLIGHT_MAX`] calls when many are written again or leave. A leave that the
//! broker does not take is kept as a level and tried until it does. One that it took is remembered
//! for [`LEFT_FOR`] (at most [`LEFT_MAX`], then the oldest is forgotten), because a replica that
//! takes over may not have it: then it is carried out once more. Snapshots leave out the dead.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::broker::interest::Interest;
use crate::broker::{Broker, BrokerError, BrokerHealth};
use crate::cluster::occupancy::Occupancy;
use crate::cluster::settled::Settled;
use crate::cluster::view::View;
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Position, SessionId, Topic};

/// How long a leave rests after the broker did not take it.
const RETRY: Duration = Duration::from_millis(500);
/// Longest wait for a topic's place in the index: what a command may take by default.
const INDEX_PATIENCE: Duration = Duration::from_secs(2);
/// How long a leave is remembered: several times what a failover of Redis was seen to lose.
const LEFT_FOR: Duration = Duration::from_secs(60);
/// Leaves that are remembered.
const LEFT_MAX: usize = 16_384;
/// Calls of one pass over this node's members that wait for the broker at the same time.
const CALLS_IN_FLIGHT_MAX: usize = 64;

/// One membership.
type Key = (Topic, SessionId);

/// A page of members and the position that it belongs to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MembersPage {
    /// All member sessions of live nodes.
    pub count: u64,
    /// This page of them, by session id.
    pub members: Vec<Member>,
    /// The newest change included.
    pub position: Position,
    /// There is another page.
    pub more: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Presence {
    broker: Arc<Broker>,
    view: watch::Receiver<Arc<View>>,
    occupancy: Arc<Occupancy>,
    /// What may stand in the broker; `None`: it is to leave.
    mine: Mutex<FxHashMap<Key, Option<Member>>>,
    leaving: Interest<Key>,
    /// Leaves that the broker took, and when.
    left: Mutex<VecDeque<(Instant, Key)>>,
}

impl Presence {
    /// Without members. [`Self::run`] must be spawned.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        view: watch::Receiver<Arc<View>>,
        occupancy: Arc<Occupancy>,
    ) -> Self {
        Self {
            broker,
            view,
            occupancy,
            mine: Mutex::default(),
            leaving: Interest::default(),
            left: Mutex::default(),
        }
    }

    /// Makes a session a member. Returns how many there are. A dropped future may have entered;
    /// [`Self::leave`] undoes it.
    ///
    /// # Errors
    /// [`BrokerError`]: then it is no member, or it leaves as soon as the broker is back. While the
    /// node has no lease nobody enters: no life of it would own the entry.
    pub async fn enter(&self, topic: &Topic, member: Member) -> Result<u64, BrokerError> {
        let view = self.view.borrow().clone();
        if !view.has_lease() {
            let why = "this node has no lease".to_owned();
            return Err(BrokerError::Unavailable(why));
        }
        let key = (topic.clone(), member.session);
        self.leaving.unwant(key.clone());
        if self
            .mine()
            .insert(key.clone(), Some(member.clone()))
            .is_none()
        {
            self.occupancy.hold(topic.clone());
        }
        let entered = self.enter_as(view.me.clone(), topic, &member).await;
        if entered.is_err() {
            self.leave(key.0, key.1);
        }
        entered
    }

    /// Writes a member under this life of the node. Where the life changed meanwhile, what was
    /// written may have undone what [`Self::run`] wrote for the new one, and is written again.
    async fn enter_as(
        &self,
        mut me: Owner,
        topic: &Topic,
        member: &Member,
    ) -> Result<u64, BrokerError> {
        loop {
            let indexed = timeout(INDEX_PATIENCE, self.occupancy.indexed(topic, &me)).await;
            if indexed.is_err() {
                let why = "the index of members cannot be written".to_owned();
                return Err(BrokerError::Unavailable(why));
            }
            let (count, _) = self.broker.enter(topic, member, &me).await?;
            let now = self.view.borrow().me.clone();
            if now == me {
                return Ok(count);
            }
            me = now;
        }
    }

    /// Ends a membership, in the background.
    pub fn leave(&self, topic: Topic, session: SessionId) {
        let key = (topic, session);
        let known = self.mine().get_mut(&key).map(|member| *member = None);
        if known.is_some() {
            self.leaving.want(key);
        }
    }

    /// A page of members of live nodes, by session id, after the one named.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn page(
        &self,
        topic: &Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Result<MembersPage, BrokerError> {
        let (entries, position) = self.broker.members(topic).await?;
        let view = self.view.borrow().clone();
        let live = entries.into_iter().filter(|e| view.may_live(&e.owner));
        let mut members: Vec<_> = live.map(|e| e.member).collect();
        members.sort_by_key(|m| m.session);
        let count = members.len() as u64;
        members.retain(|m| after.is_none_or(|after| m.session > after));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = members.len() > limit;
        members.truncate(limit);
        Ok(MembersPage {
            count,
            members,
            position,
            more,
        })
    }

    /// Carries out leaves, and writes every member again when this node gets a new incarnation,
    /// which is told, or the broker is back, which may have lost what it had. Never ends.
    pub async fn run(&self, settled: &Settled) {
        let (mut view, mut health) = (self.view.clone(), self.broker.health());
        let mut written_as = Some(view.borrow_and_update().me.clone());
        written_as.iter().for_each(|me| settled.tell(me));
        loop {
            let look = tokio::select! {
                leaving = self.leaving.changed() => {
                    for (key, _) in leaving.into_iter().filter(|(_, wish)| wish.is_some()) {
                        self.leave_now(key).await;
                    }
                    false
                }
                Ok(()) = view.changed() => true,
                Ok(()) = health.changed() => {
                    let is_back = *health.borrow_and_update() == BrokerHealth::Up;
                    if is_back {
                        self.occupancy.write_again();
                        written_as = None;
                    }
                    is_back
                }
            };
            if !look {
                continue;
            }
            let now = view.borrow_and_update().clone();
            let is_due = now.has_lease() && written_as.as_ref() != Some(&now.me);
            // What fails is tried again with the next heartbeat.
            if is_due && self.enter_again(&now.me).await && self.leave_again(&now.me).await {
                settled.tell(&now.me);
                written_as = Some(now.me.clone());
            }
        }
    }

    /// Lets every member leave, and waits until that is done, at most so long. For the end of the
    /// process.
    pub async fn settle(&self, deadline: Duration) {
        // Taken first, because the lock must not be held while leaving.
        let keys: Vec<_> = self.mine().keys().cloned().collect();
        for (topic, session) in &keys {
            self.leave(topic.clone(), *session);
        }
        let leaving = stream::iter(keys).map(|key| self.carry_out(key));
        let all = leaving
            .buffer_unordered(CALLS_IN_FLIGHT_MAX)
            .collect::<Vec<_>>();
        // What is left when time is up belongs to a node without a lease: it is not shown, and the
        // home removes it.
        let _ = timeout(deadline, all).await;
    }

    async fn leave_now(&self, key: Key) {
        if !self.carry_out(key.clone()).await {
            self.leaving.want(key);
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Carries out a leave. `false`: the broker did not take it.
    async fn carry_out(&self, key: Key) -> bool {
        // It may have come back while the leave waited.
        if !matches!(self.mine().get(&key), Some(None)) {
            return true;
        }
        let me = self.view.borrow().me.clone();
        if self.broker.leave(&key.0, key.1, &me).await.is_err() {
            return false;
        }
        self.remember(key.clone());
        // Or come back meanwhile: its entry follows the leave, and the topic stays held.
        let gone = match self.mine().entry(key) {
            Entry::Occupied(known) if known.get().is_none() => Some(known.remove_entry()),
            _ => None,
        };
        if let Some(((topic, _), _)) = gone {
            self.occupancy.let_go(topic);
        }
        true
    }

    /// Writes all members under this life of the node. `false`: some could not be written.
    async fn enter_again(&self, me: &Owner) -> bool {
        // Taken first, because the lock must not be held while entering.
        let mine = self.mine().clone().into_iter();
        let members = mine.filter_map(|((topic, _), member)| Some((topic, member?)));
        let entered = stream::iter(members)
            .map(|(topic, member)| async move {
                let entered = self.enter_as(me.clone(), &topic, &member).await;
                entered.is_ok()
            })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX);
        entered.all(std::future::ready).await
    }

    /// Carries out once more the leaves that the broker may have lost since it took them. `false`:
    /// it did not take them.
    async fn leave_again(&self, me: &Owner) -> bool {
        let keys: Vec<_> = self.left().iter().map(|(_, key)| key.clone()).collect();
        let again = stream::iter(keys)
            .map(|(topic, session)| async move {
                let is_back = self.mine().contains_key(&(topic.clone(), session));
                is_back || self.broker.leave(&topic, session, me).await.is_ok()
            })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX);
        again.all(std::future::ready).await
    }

    fn remember(&self, key: Key) {
        let mut left = self.left();
        while let Some((at, _)) = left.front()
            && (left.len() >= LEFT_MAX || at.elapsed() > LEFT_FOR)
        {
            left.pop_front();
        }
        left.push_back((Instant::now(), key));
    }

    fn left(&self) -> std::sync::MutexGuard<'_, VecDeque<(Instant, Key)>> {
        self.left.lock().expect("no holder of this lock panics")
    }

    fn mine(&self) -> std::sync::MutexGuard<'_, FxHashMap<Key, Option<Member>>> {
        self.mine.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::{MemoryBroker, clock::Clock};
    use crate::cluster::view::NodeDetails;
    use crate::protocol::ids::App;
    use crate::telemetry::metrics::Metrics;

    struct Rig {
        presence: Presence,
        topic: Topic,
        view: watch::Sender<Arc<View>>,
    }

    fn rig() -> Rig {
        rig_of("a~5")
    }

    fn rig_of(me: &str) -> Rig {
        let (memory, _) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(1)));
        let me = me.parse().expect("an owner");
        let view = watch::Sender::new(Arc::new(View::alone(me, NodeDetails::default(), 256)));
        let broker = Arc::new(Broker::Memory(memory));
        let occupancy = Arc::new(Occupancy::alone(view.subscribe()));
        Rig {
            presence: Presence::new(broker, view.subscribe(), occupancy),
            topic: Topic::new(&App::default_app(), "t").expect("a name"),
            view,
        }
    }

    fn member(session: u128) -> Member {
        Member {
            user: None,
            session: SessionId(session),
            info: None,
        }
    }

    impl Rig {
        async fn enter(&self, session: u128) -> u64 {
            let entered = self.presence.enter(&self.topic, member(session)).await;
            entered.expect("the broker is here")
        }

        async fn leave(&self, session: u128) -> bool {
            let key = (self.topic.clone(), SessionId(session));
            self.presence.leave(key.0.clone(), key.1);
            self.presence.carry_out(key).await
        }

        async fn count(&self) -> u64 {
            let page = self.presence.page(&self.topic, None, 10).await;
            page.expect("the broker is here").count
        }
    }

    /// Leaves are carried out one after the other. One that was taken up for this, and has not had
    /// its turn yet, must not remove the session's next membership.
    #[tokio::test]
    async fn a_leave_that_is_carried_out_after_the_session_came_back_removes_nothing() {
        let rig = rig();
        let key = (rig.topic.clone(), SessionId(1));
        assert_eq!(rig.enter(1).await, 1);
        rig.presence.leave(key.0.clone(), key.1);
        let taken = rig.presence.leaving.take();
        assert!(taken[&key].is_some());
        assert_eq!(rig.enter(1).await, 1);
        rig.presence.leave_now(key.clone()).await;
        assert_eq!(rig.count().await, 1);
        rig.presence.leave(key.0.clone(), key.1);
        rig.presence.leave_now(key).await;
        assert_eq!(rig.count().await, 0);
    }

    /// As a replica that took over without the last writes gives a member back.
    #[tokio::test]
    async fn a_leave_that_the_broker_lost_is_carried_out_once_more_unless_the_session_is_back() {
        let rig = rig();
        let me = rig.view.borrow().me.clone();
        for session in 1..=3 {
            rig.enter(session).await;
        }
        for session in 1..=2 {
            assert!(rig.leave(session).await);
        }
        assert_eq!(rig.enter(2).await, 2);
        let entered = rig.presence.broker.enter(&rig.topic, &member(1), &me).await;
        assert_eq!(entered.expect("the broker is here").0, 3);
        assert!(rig.presence.leave_again(&me).await);
        let page = rig.presence.page(&rig.topic, None, 10).await;
        let sessions: Vec<_> = page.unwrap().members.iter().map(|m| m.session.0).collect();
        assert_eq!(sessions, [2, 3]);
    }

    #[tokio::test]
    async fn of_the_leaves_that_the_broker_took_only_so_many_are_remembered() {
        let rig = rig();
        for session in 0..LEFT_MAX as u128 + 5 {
            let key = (rig.topic.clone(), SessionId(session));
            rig.presence.remember(key);
        }
        let left = rig.presence.left();
        assert_eq!((left.len(), left[0].1.1), (LEFT_MAX, SessionId(5)));
    }

    #[tokio::test]
    async fn before_the_node_has_a_lease_nobody_enters_and_nothing_is_written() {
        let rig = rig_of("a~0");
        let refused = rig.presence.enter(&rig.topic, member(1)).await;
        assert!(
            matches!(refused, Err(BrokerError::Unavailable(_))),
            "{refused:?}"
        );
        let written = rig.presence.broker.members(&rig.topic).await;
        assert_eq!(written, Ok((Vec::new(), Position::ZERO)));
        assert!(rig.presence.mine().is_empty(), "nor is it later");
        rig.view.send_modify(|view| {
            let mut leased = View::clone(view);
            leased.me.incarnation = 5;
            leased.nodes[0].owner.incarnation = 5;
            *view = Arc::new(leased);
        });
        assert_eq!(rig.enter(1).await, 1);
    }

    #[tokio::test]
    async fn at_the_end_of_the_process_every_member_leaves() {
        let rig = rig();
        for session in 1..=3 {
            rig.enter(session).await;
        }
        rig.presence.leave(rig.topic.clone(), SessionId(1));
        rig.presence.settle(Duration::from_secs(20)).await;
        assert_eq!(rig.count().await, 0);
    }

    #[tokio::test]
    async fn members_of_nodes_without_a_lease_are_not_shown() {
        let rig = rig();
        rig.enter(1).await;
        let dead: Owner = "b~1".parse().expect("an owner");
        let broker = Arc::clone(&rig.presence.broker);
        let entered = broker.enter(&rig.topic, &member(2), &dead).await;
        entered.expect("the broker is here");
        assert_eq!(rig.count().await, 1);
        // A node that came since the last heartbeat is not in the view yet.
        let young: Owner = "c~9".parse().expect("an owner");
        let entered = broker.enter(&rig.topic, &member(3), &young).await;
        entered.expect("the broker is here");
        assert_eq!(rig.count().await, 2);
    }

    #[tokio::test]
    async fn while_the_node_has_no_lease_any_more_nobody_enters() {
        let rig = rig();
        rig.enter(1).await;
        rig.view.send_modify(|view| {
            let stale = View::clone(view);
            *view = Arc::new(View {
                fresh: false,
                ..stale
            });
        });
        let refused = rig.presence.enter(&rig.topic, member(2)).await;
        assert!(
            matches!(refused, Err(BrokerError::Unavailable(_))),
            "{refused:?}"
        );
        assert_eq!(rig.presence.mine().len(), 1);
    }

    /// A call that was on its way while the lease ended is carried out under the life that is over,
    /// perhaps after the node wrote its members under the new one.
    #[tokio::test]
    async fn a_member_that_enters_while_the_life_changes_belongs_to_the_new_one() {
        let rig = rig();
        rig.view.send_modify(|view| {
            let mut renewed = View::clone(view);
            renewed.me.incarnation = 9;
            renewed.nodes[0].owner.incarnation = 9;
            *view = Arc::new(renewed);
        });
        let before: Owner = "a~5".parse().expect("an owner");
        let entered = rig.presence.enter_as(before, &rig.topic, &member(1)).await;
        assert_eq!(entered, Ok(1));
        let (members, _) = rig
            .presence
            .broker
            .members(&rig.topic)
            .await
            .expect("it is here");
        assert_eq!(members[0].owner, rig.view.borrow().me);
    }
}
