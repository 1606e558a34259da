//! Members of topics: who is in, kept per node, shown by every node.
//!
//! In: sessions that joined with `presence: true`. Out: the broker's member entries of `%T` and the
//! changes on its stream. Owner of: this node's own members, so that they can be written again
//! under a new incarnation. Bounds: the topics of this node's sessions. A leave that the broker does
//! not take is kept as a level and tried until it does; members of a node without a lease are left
//! out of every snapshot, and removed without a word by whoever meets them a minute later.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio::sync::watch;

use crate::broker::interest::Interest;
use crate::broker::{Broker, BrokerError, MemberEntry};
use crate::cluster::view::View;
use crate::protocol::event::Member;
use crate::protocol::ids::{Owner, Position, SessionId, Topic};

/// How long a leave rests after the broker did not take it.
const RETRY: Duration = Duration::from_millis(500);

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
    mine: Mutex<FxHashMap<(Topic, SessionId), Member>>,
    leaving: Interest<(Topic, SessionId)>,
}

impl Presence {
    /// Without members. [`Self::run`] must be spawned.
    #[must_use]
    pub fn new(broker: Arc<Broker>, view: watch::Receiver<Arc<View>>) -> Self {
        Self {
            broker,
            view,
            mine: Mutex::default(),
            leaving: Interest::default(),
        }
    }

    /// Makes a session a member. Returns how many there are. A dropped future may have entered;
    /// [`Self::leave`] undoes it.
    ///
    /// # Errors
    /// [`BrokerError`]: then it is no member, or it leaves as soon as the broker is back. Before the
    /// node has its first lease nobody enters: no life of it would own the entry.
    pub async fn enter(&self, topic: &Topic, member: Member) -> Result<u64, BrokerError> {
        let me = self.view.borrow().me.clone();
        if me.incarnation == 0 {
            let why = "this node has no lease yet".to_owned();
            return Err(BrokerError::Unavailable(why));
        }
        let key = (topic.clone(), member.session);
        self.leaving.unwant(key.clone());
        self.members().insert(key.clone(), member.clone());
        match self.broker.enter(topic, &member, &me).await {
            Ok((count, _)) => Ok(count),
            Err(error) => {
                self.leave(key.0, key.1);
                Err(error)
            }
        }
    }

    /// Ends a membership, in the background.
    pub fn leave(&self, topic: Topic, session: SessionId) {
        let key = (topic, session);
        if self.members().remove(&key).is_some() {
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
        let (live, dead): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|e| view.is_live(&e.owner));
        self.remove_abandoned(topic, &view, dead).await;
        let mut members: Vec<_> = live.into_iter().map(|e| e.member).collect();
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

    async fn remove_abandoned(&self, topic: &Topic, view: &View, dead: Vec<MemberEntry>) {
        for entry in dead.iter().filter(|e| view.is_abandoned(&e.owner)) {
            // Another reader tries again.
            let _ = self
                .broker
                .leave(topic, entry.member.session, &entry.owner, true)
                .await;
        }
    }

    /// Carries out leaves, and writes every member again when this node gets a new incarnation.
    /// Never ends.
    pub async fn run(&self) {
        let mut view = self.view.clone();
        let mut me = view.borrow_and_update().me.clone();
        loop {
            tokio::select! {
                leaving = self.leaving.changed() => {
                    for (key, _) in leaving.into_iter().filter(|(_, wish)| wish.is_some()) {
                        self.leave_now(key).await;
                    }
                }
                Ok(()) = view.changed() => {
                    let now = view.borrow_and_update().me.clone();
                    if now != me {
                        me = now;
                        self.enter_again(&me).await;
                    }
                }
            }
        }
    }

    /// Waits until no leave is open, at most so long. For the end of the process.
    pub async fn settle(&self, deadline: Duration) {
        let me = self.view.borrow().me.clone();
        let keys: Vec<_> = self.members().drain().map(|(key, _)| key).collect();
        let open = self
            .leaving
            .take()
            .into_iter()
            .filter(|(_, wish)| wish.is_some());
        let all = async {
            for (topic, session) in keys.into_iter().chain(open.map(|(key, _)| key)) {
                if self
                    .broker
                    .leave(&topic, session, &me, false)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        // What is left when time is up belongs to a node without a lease and is not shown.
        let _ = tokio::time::timeout(deadline, all).await;
    }

    async fn leave_now(&self, key: (Topic, SessionId)) {
        // It may have come back while the leave waited.
        if self.members().contains_key(&key) {
            return;
        }
        let me = self.view.borrow().me.clone();
        if self.broker.leave(&key.0, key.1, &me, false).await.is_err() {
            self.leaving.want(key);
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn enter_again(&self, me: &Owner) {
        let members: Vec<_> = self
            .members()
            .iter()
            .map(|(k, m)| (k.0.clone(), m.clone()))
            .collect();
        for (topic, member) in members {
            while self.broker.enter(&topic, &member, me).await.is_err() {
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    fn members(&self) -> std::sync::MutexGuard<'_, FxHashMap<(Topic, SessionId), Member>> {
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
        _view: watch::Sender<Arc<View>>,
    }

    fn rig() -> Rig {
        rig_of("a~5")
    }

    fn rig_of(me: &str) -> Rig {
        let (memory, _) = MemoryBroker::new(Clock::System, Arc::new(Metrics::new(1)));
        let me = me.parse().expect("an owner");
        let view = watch::Sender::new(Arc::new(View::alone(me, NodeDetails::default(), 256)));
        let broker = Arc::new(Broker::Memory(memory));
        Rig {
            presence: Presence::new(broker, view.subscribe()),
            topic: Topic::new(&App::default_app(), "t").expect("a name"),
            _view: view,
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
        assert!(rig.presence.members().is_empty(), "nor is it later");
        rig._view.send_modify(|view| {
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
    async fn members_of_nodes_without_a_lease_are_not_shown_and_are_removed_after_a_minute() {
        let rig = rig();
        rig.enter(1).await;
        let dead: Owner = "b~1".parse().expect("an owner");
        let broker = Arc::clone(&rig.presence.broker);
        let entered = broker.enter(&rig.topic, &member(2), &dead).await;
        entered.expect("the broker is here");
        let kept = async || {
            let members = broker.members(&rig.topic).await;
            members.expect("the broker is here").0.len()
        };
        assert_eq!((rig.count().await, kept().await), (1, 2), "young");
        rig._view.send_modify(|view| {
            let mut later = View::clone(view);
            later.time_us = 61_000_000;
            *view = Arc::new(later);
        });
        assert_eq!((rig.count().await, kept().await), (1, 1), "abandoned");
    }
}
