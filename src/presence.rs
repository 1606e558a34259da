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
    /// [`BrokerError`]: then it is no member, or it leaves as soon as the broker is back.
    pub async fn enter(&self, topic: &Topic, member: Member) -> Result<u64, BrokerError> {
        let key = (topic.clone(), member.session);
        self.leaving.unwant(key.clone());
        self.members().insert(key.clone(), member.clone());
        let me = self.view.borrow().me.clone();
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
                    for (key, _) in leaving.into_iter().filter(|(_, wanted)| *wanted) {
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
            .filter(|(_, wanted)| *wanted);
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
