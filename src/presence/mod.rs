//! Members of topics: who is in, kept per node, shown by every node.
//!
//! In: sessions that enter and leave, and questions for pages. Out: the broker's member entries of
//! `%T` and the changes on its stream. Owner of this node's memberships ([`memberships`]), which
//! [`runner`] brings to the broker through one lane for each master ([`queue`]): so one that is
//! away holds up its own topics only. Before the first member of a topic is written, the topic
//! stands in the index of its partition, and after the last is surely gone it is taken out
//! (`cluster::occupancy`): so the home finds what a dead node left (`cluster::reaper`). Bounds: the
//! topics of this node's sessions; a page has the bytes that are asked for, and looks at
//! [`LOOKED_AT_MAX`] members at the most. Members
//! of a node without a lease are left out of pages and counts.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use crate::broker::member::MemberCounts;
use crate::broker::unavailable::Unavailable;
use crate::broker::{Broker, BrokerError, Page};
use crate::cluster::occupancy::Occupancy;
use crate::cluster::settled::Settled;
use crate::cluster::view::View;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{Position, SessionId, Topic};

mod left;
mod memberships;
mod queue;
mod runner;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use memberships::{Index, Memberships};
use queue::Keys;

/// One session in one topic.
type Key = (Topic, SessionId);

/// Longest wait of a session for its membership: for its topic's place in the index, its turn in
/// the lane, and the broker.
const ENTER_PATIENCE: Duration = Duration::from_secs(5);
/// Members of dead nodes that are passed over for one page. A home removes them within seconds.
const LOOKED_AT_MAX: usize = 4_096;
/// Members that are asked for at once where some of the dead were met.
const LOOKED_AT_MIN: usize = 256;

/// A page of members and the position that it belongs to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MembersPage {
    /// All member sessions of live nodes.
    pub count: u64,
    /// This page of them, by session id.
    pub members: Vec<Member>,
    /// The newest change included; of what is newer the page may show some.
    pub position: Position,
    /// There is another page.
    pub more: bool,
}

/// What the broker answered to who entered.
type Answer = Result<MemberCounts, BrokerError>;

/// What sessions and the runner share, under one lock that is held for map operations.
#[derive(Debug, Default)]
struct State {
    memberships: Memberships,
    /// Who waits, by the generation that they wait for. One a session that enters.
    waiting: FxHashMap<u64, Vec<oneshot::Sender<Answer>>>,
    /// For which something is due, and somebody waits.
    asked: Keys,
    /// For which something is due.
    due: Keys,
}

/// See the module.
#[derive(Debug)]
pub struct Presence {
    broker: Arc<Broker>,
    view: watch::Receiver<Arc<View>>,
    occupancy: Arc<Occupancy>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    /// Something is due.
    wake: Notify,
    /// Some membership has ended.
    ended: Notify,
    started: Instant,
}

impl Presence {
    /// Without members. [`Self::run`] must be spawned.
    #[must_use]
    pub fn new(
        broker: Arc<Broker>,
        view: watch::Receiver<Arc<View>>,
        occupancy: Arc<Occupancy>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let mut state = State::default();
        state.memberships.renew(view.borrow().me.incarnation);
        Self {
            broker,
            view,
            occupancy,
            metrics,
            state: Mutex::new(state),
            wake: Notify::new(),
            ended: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Makes a session a member. Returns how many there are on live nodes. For a session that is
    /// one already this changes nothing and returns the same. A dropped future may have entered;
    /// [`Self::leave`] undoes it.
    ///
    /// # Errors
    /// [`BrokerError`]: then a session that was no member is none, or leaves as soon as the broker
    /// is back. While the node has no lease nobody enters: no life of it would own the entry.
    pub async fn enter(&self, topic: &Topic, member: Member) -> Result<u64, BrokerError> {
        if !self.view.borrow().has_lease() {
            return Err(self.no_lease());
        }
        let key = (topic.clone(), member.session);
        let (waits, answer) = oneshot::channel();
        let generation = {
            let mut state = self.state();
            let (generation, index) = state.memberships.enter(&key, member);
            state.waiting.entry(generation).or_default().push(waits);
            state.asked.push(key.clone());
            self.index(&key.0, index);
            generation
        };
        self.wake.notify_one();
        match timeout(ENTER_PATIENCE, answer).await {
            Ok(Ok(Ok(counts))) => Ok(self.living(&counts)),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(Unavailable::Left.into()),
            Err(_) => Err(self.abandon(&key, generation)),
        }
    }

    /// Nobody waits for this entering any more.
    fn abandon(&self, key: &Key, generation: u64) -> BrokerError {
        let may_be_done = {
            let mut state = self.state();
            state.waiting.remove(&generation);
            let (may_be_done, index) = state.memberships.abandon(key, generation);
            state.due.push(key.clone());
            self.index(&key.0, index);
            may_be_done
        };
        self.wake.notify_one();
        if may_be_done {
            return BrokerError::Unknown("the broker does not answer".to_owned());
        }
        // What keeps the index or the lane says more than that nothing came of them.
        let why = self.broker.check(&key.0.presence()).err();
        why.unwrap_or(Unavailable::MembersUnwritten.into())
    }

    /// Why nobody enters while the node has no lease.
    fn no_lease(&self) -> BrokerError {
        let why = match &*self.broker {
            Broker::Memory(_) => None,
            Broker::Redis(redis) => redis.lease_refused(),
        };
        why.unwrap_or(Unavailable::NoLease.into())
    }

    /// Ends a membership, in the background. It is told as soon as the topic's master takes it.
    pub fn leave(&self, topic: Topic, session: SessionId) {
        self.leave_in(&mut self.state(), (topic, session));
        self.wake.notify_one();
    }

    fn leave_in(&self, state: &mut State, key: Key) {
        if let Some(generation) = state.memberships.generation(&key) {
            state.waiting.remove(&generation);
        }
        let index = state.memberships.leave(&key);
        self.index(&key.0, index);
        state.due.push(key);
    }

    /// A page of members of live nodes, by session id, after the one named: at most so many, and so
    /// many bytes in the longer wire form, the first of them apart.
    ///
    /// # Errors
    /// [`BrokerError`]; unavailable also while so many of a dead node stand before the page that
    /// it cannot be filled.
    pub async fn page(
        &self,
        topic: &Topic,
        after: Option<SessionId>,
        size: Page,
    ) -> Result<MembersPage, BrokerError> {
        let limit = size.entries_max as usize;
        // One more than asked for says whether there is another page.
        let wanted = limit.saturating_add(1);
        let mut left = Page {
            entries_max: size.entries_max.saturating_add(1),
            ..size
        };
        let mut next = self.broker.members(topic, after, left).await?;
        let mut page = MembersPage {
            count: self.living(&next.counts),
            position: next.position,
            ..MembersPage::default()
        };
        let mut looked_at_count = 0;
        loop {
            let view = self.view.borrow().clone();
            looked_at_count += next.entries.len();
            let live = next.entries.into_iter().filter(|e| view.may_live(&e.owner));
            page.more = !fill(
                &mut page.members,
                live.map(|e| e.member),
                &mut left.bytes_max,
            );
            if page.more {
                break;
            }
            let Some(after) = next.next.filter(|_| page.members.len() < wanted) else {
                break;
            };
            if looked_at_count >= limit.saturating_add(LOOKED_AT_MAX) {
                if page.members.is_empty() && limit > 0 {
                    return Err(Unavailable::MembersReaped.into());
                }
                page.more = true;
                break;
            }
            let missing = wanted - page.members.len();
            left.entries_max = u32::try_from(missing.max(LOOKED_AT_MIN)).unwrap_or(u32::MAX);
            next = self.broker.members(topic, Some(after), left).await?;
        }
        page.more |= page.members.len() > limit;
        page.members.truncate(limit);
        Ok(page)
    }

    /// Brings memberships to the broker as they are wished, and tells when all stand under a new
    /// life of the node. Never ends.
    pub async fn run(&self, settled: &Settled) {
        runner::Runner::new(self, settled).run().await;
    }

    /// Lets every member leave, and waits until that is done, at most so long; returns whether it
    /// is. For the end of the process, while [`Self::run`] goes on. What is left then belongs to a
    /// node without a lease: it is not shown, and the home removes it.
    pub async fn settle(&self, deadline: Duration) -> bool {
        {
            let mut state = self.state();
            let inside: Vec<_> = state.memberships.inside().cloned().collect();
            for key in inside {
                self.leave_in(&mut state, key);
            }
        }
        self.wake.notify_one();
        let all = async {
            loop {
                let ended = self.ended.notified();
                if self.state().memberships.is_settled() {
                    return;
                }
                ended.await;
            }
        };
        timeout(deadline, all).await.is_ok()
    }

    /// Sessions of live nodes.
    fn living(&self, counts: &MemberCounts) -> u64 {
        let view = self.view.borrow();
        let live = counts.iter().filter(|(owner, _)| view.may_live(owner));
        live.map(|(_, count)| count).sum()
    }

    /// Holds a topic in the index, or lets it go. Under the lock, so that both come in their order.
    fn index(&self, topic: &Topic, index: Index) {
        match index {
            Index::Stays => {}
            Index::Pin => self.occupancy.pin(topic.clone()),
            Index::Unpin => self.occupancy.unpin(topic.clone()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Takes members as far as the bytes that are left hold them: the first of a page in any case.
/// Returns whether all were taken.
fn fill(
    page: &mut Vec<Member>,
    more: impl Iterator<Item = Member>,
    bytes_left: &mut usize,
) -> bool {
    for member in more {
        let bytes = member.longest();
        if bytes > *bytes_left && !page.is_empty() {
            return false;
        }
        *bytes_left = bytes_left.saturating_sub(bytes);
        page.push(member);
    }
    true
}
