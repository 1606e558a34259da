//! Occupancy: which topics have sessions, and on which nodes, without asking all nodes.
//!
//! In: counts of local sessions, as a level per topic, and the topics in which this node may have
//! members. Out: pages of live topics and the nodes of one topic or user, for the API; and that a
//! topic is in the index, before anything of this node is written that others would have to
//! remove. The first session of a topic and the leave of
//! its last are written to Redis at once, other counts once a second; a page is therefore up to a
//! second and a round trip behind on other nodes' counts, and exact on this node's. Owner of the
//! local level: one lock, held for map operations only. Bounds: one entry per topic with local
//! sessions; one batch of [`CHANGES_PER_BATCH_MAX`] changes in flight for each lane, so that a master
//! that hangs holds up its own topics alone. While Redis is away the
//! changes collapse into the latest level and are tried again once a second. Which topics a page has
//! is read by `occupancy_pages`. What a dead node left is left out of answers; `reaper` removes it.
//! Without a store (the in-process broker) the same answers come from the local level alone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tracing::{info, warn};

use super::due::{Lane, LaneOf};
pub use super::occupancy_buffer::Failure;
use super::occupancy_buffer::{Change, OccupancyBuffer};
use super::occupancy_pages;
use super::occupancy_store::{OccupancyError, OccupancyStore, WriteFailures};
use super::view::View;
use crate::redis::Keys;
use crate::redis::keyspace::Keyspace;
use fanfare_protocol::ids::{App, Owner, Topic, TopicKind};

/// Changes in one batch. It bounds how long the lock is held and how late a tick can be.
const CHANGES_PER_BATCH_MAX: usize = 256;
/// How often counts that only changed are written, and failed writes tried again.
const TICK: Duration = Duration::from_secs(1);
/// Topics whose counts are read at the same time for a page.
const TOPICS_IN_FLIGHT_MAX: usize = 64;
/// A topic that is not counted within so long is left out of a page.
const COUNTS_TIME_MAX: Duration = Duration::from_secs(5);

/// One topic that has sessions somewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupied {
    /// Which.
    pub topic: Topic,
    /// Sessions on all live nodes.
    pub sessions: u64,
    /// Live nodes that have some.
    pub nodes_count: usize,
}

/// A page of occupied topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OccupiedPage {
    /// In a stable order: by partition, then by name. May be fewer than asked for, because what
    /// emptied while it was read is left out, and what cannot be counted at the moment; and because
    /// no more was read, and for no longer, than a page may cost.
    pub topics: Vec<Occupied>,
    /// After which topic to go on; `None`: this was the last page.
    pub next: Option<Topic>,
}

#[derive(Debug)]
struct Shared {
    levels: Mutex<OccupancyBuffer>,
    /// Something may be due.
    changed: Notify,
    /// Nothing waits to be written any more.
    settled: Notify,
    /// How many batches were written or refused.
    written: watch::Sender<u64>,
}

impl Shared {
    fn levels(&self) -> MutexGuard<'_, OccupancyBuffer> {
        self.levels.lock().expect("no holder of this lock panics")
    }
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Occupancy {
    shared: Arc<Shared>,
    store: Option<Arc<OccupancyStore>>,
    view: watch::Receiver<Arc<View>>,
}

impl Occupancy {
    /// Occupancy of a cluster. The caller runs the task.
    #[must_use]
    pub fn clustered(
        view: watch::Receiver<Arc<View>>,
        keyspace: impl Into<Keyspace>,
        keys: Keys,
    ) -> (Self, OccupancyTask) {
        let partitions_count = view.borrow().ring.partitions_count();
        let store = OccupancyStore::new(keyspace.into(), keys, partitions_count);
        let store = Arc::new(store);
        let occupancy = Self::new(view, Some(Arc::clone(&store)));
        let task = OccupancyTask {
            shared: Arc::clone(&occupancy.shared),
            store,
            view: occupancy.view.clone(),
            writes: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            away: BTreeSet::new(),
        };
        (occupancy, task)
    }

    /// Occupancy of a node with the in-process broker.
    #[must_use]
    pub fn alone(view: watch::Receiver<Arc<View>>) -> Self {
        Self::new(view, None)
    }

    fn new(view: watch::Receiver<Arc<View>>, store: Option<Arc<OccupancyStore>>) -> Self {
        let partitions_count = view.borrow().ring.partitions_count();
        let mut levels = OccupancyBuffer::new(partitions_count, store.is_some());
        if let Some(store) = store.clone() {
            levels = levels.in_lanes(LaneOf::new(move |topic| store.lane_of(topic)));
        }
        Self {
            shared: Arc::new(Shared {
                levels: Mutex::new(levels),
                changed: Notify::new(),
                settled: Notify::new(),
                written: watch::Sender::new(0),
            }),
            store,
            view,
        }
    }

    /// The latest number of local sessions of a topic. Presence topics are ignored: they are in
    /// no client's vocabulary, and whoever joined one joined its topic.
    pub fn set(&self, topic: Topic, sessions: u64) {
        if topic.kind() == TopicKind::Presence {
            return;
        }
        self.change(|levels| levels.set(topic, sessions));
    }

    /// A member of the topic may be in Redis from now on: the topic stays in the index until
    /// [`Self::let_go`] was called as often.
    pub fn pin(&self, topic: Topic) {
        self.change(|levels| levels.pin(topic));
    }

    /// A member that was held is surely gone.
    pub fn unpin(&self, topic: Topic) {
        self.change(|levels| levels.unpin(topic));
    }

    /// Whether a topic that is held is in the index under this name, so that whatever is
    /// written next is found when its owner dies. Without Redis nothing has to.
    #[must_use]
    pub fn is_indexed(&self, topic: &Topic, owner: &Owner) -> bool {
        self.shared.levels().is_indexed(topic, owner)
    }

    /// Why the last write of a topic failed, if it did. It is tried again within a second.
    #[must_use]
    pub fn failure(&self, topic: &Topic) -> Option<Failure> {
        self.shared.levels().failure(topic).cloned()
    }

    /// Changes with each batch that was written, and with each that failed. It is a count and no
    /// event: whoever looks at something else first still sees that it has changed.
    #[must_use]
    pub fn written(&self) -> watch::Receiver<u64> {
        self.shared.written.subscribe()
    }

    /// Redis was away and may have lost what stood there: everything is written again.
    pub fn write_again(&self) {
        self.change(OccupancyBuffer::write_again);
    }

    fn change(&self, change: impl FnOnce(&mut OccupancyBuffer)) {
        let (due, settled) = {
            let mut levels = self.shared.levels();
            change(&mut levels);
            (levels.is_due(), levels.is_settled())
        };
        if due {
            self.shared.changed.notify_one();
        }
        if settled {
            self.shared.settled.notify_waiters();
        }
    }

    /// Waits until everything is in Redis as it should be, or nothing is written any more because
    /// the membership ended; at once without Redis. For the end of a node, before its lease is
    /// given back and after all sessions are gone, under the caller's deadline. Cancel-safe.
    pub async fn settled(&self) {
        loop {
            let settled = self.shared.settled.notified();
            if self.shared.levels().is_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Whether nothing of this node is in Redis, or may come there: no session, and no member,
    /// of which an index would tell.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        self.shared.levels().is_bare()
    }

    /// Where a topic (or an inbox) has sessions: live owners and their counts, sorted.
    ///
    /// # Errors
    /// [`OccupancyError`].
    pub async fn topic(&self, topic: &Topic) -> Result<Vec<(Owner, u64)>, OccupancyError> {
        let view = Arc::clone(&self.view.borrow());
        let mut counts = match &self.store {
            Some(store) => store.counted(topic).await?,
            None => Vec::new(),
        };
        counts.retain(|(owner, _)| view.may_live(owner) && *owner != view.me);
        let mine = self.shared.levels().sessions(topic);
        counts.push((view.me.clone(), mine));
        counts.retain(|(_, sessions)| *sessions > 0);
        counts.sort_unstable();
        Ok(counts)
    }

    /// Occupied topics of all apps after `after` (excluded), at most `limit`. A topic that cannot
    /// be counted takes no other with it.
    ///
    /// # Errors
    /// [`OccupancyError`]: an index cannot be read, or no topic can be counted.
    pub async fn topics(
        &self,
        app: &App,
        after: Option<&Topic>,
        limit: usize,
    ) -> Result<OccupiedPage, OccupancyError> {
        let (candidates, next) = match &self.store {
            Some(store) => {
                let view = Arc::clone(&self.view.borrow());
                occupancy_pages::candidates(store, &view, (app, after), limit).await?
            }
            None => {
                let levels = self.shared.levels();
                let topics = levels.after(after).map(|(topic, _)| topic);
                let mut topics = topics.filter(|topic| topic.app() == app.as_str()).cloned();
                let candidates: Vec<_> = topics.by_ref().take(limit).collect();
                let more = topics.next().is_some();
                let next = candidates.last().cloned().filter(|_| more);
                (candidates, next)
            }
        };
        let end_at = Instant::now() + COUNTS_TIME_MAX;
        let mut counted = stream::iter(candidates)
            .map(|topic| async move {
                let counts = timeout_at(end_at, self.topic(&topic)).await;
                (counts.unwrap_or(Err(OccupancyError::Late)), topic)
            })
            .buffered(TOPICS_IN_FLIGHT_MAX);
        let (mut topics, mut failed, mut is_any_known) = (Vec::new(), None, false);
        while let Some((counts, topic)) = counted.next().await {
            match counts {
                Ok(counts) => {
                    is_any_known = true;
                    topics.push(Occupied {
                        topic,
                        sessions: counts.iter().map(|(_, sessions)| sessions).sum(),
                        nodes_count: counts.len(),
                    });
                }
                Err(error) => failed = Some(error),
            }
        }
        topics.retain(|occupied| occupied.sessions > 0);
        match failed {
            Some(error) if !is_any_known => Err(error),
            _ => Ok(OccupiedPage { topics, next }),
        }
    }
}

/// A batch that was written, under whose name, and what of it was not.
type Write = (Owner, Lane, Vec<Change>, Option<WriteFailures>);

/// The task that writes: in each lane one batch at a time.
pub struct OccupancyTask {
    shared: Arc<Shared>,
    store: Arc<OccupancyStore>,
    view: watch::Receiver<Arc<View>>,
    writes: FuturesUnordered<BoxFuture<'static, Write>>,
    /// The lanes of `writes`.
    busy: BTreeSet<Lane>,
    /// Lanes whose last batch failed; so that it is logged once.
    away: BTreeSet<Lane>,
}

impl std::fmt::Debug for OccupancyTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OccupancyTask").finish_non_exhaustive()
    }
}

impl OccupancyTask {
    /// Writes changes until the membership has ended.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            self.begin();
            // All four waits are cancel-safe.
            tokio::select! {
                () = shared.changed.notified() => {}
                _ = ticks.tick() => shared.levels().tick(),
                changed = self.view.changed() => if changed.is_err() { break },
                Some(write) = self.writes.next(), if !self.writes.is_empty() => self.wrote(write),
            }
        }
        shared.levels().stop();
        shared.settled.notify_waiters();
        shared.written.send_modify(|count| *count += 1);
    }

    /// Begins to write what is due, a batch in each lane that has none on its way. Without a lease
    /// nothing is written: the node has no incarnation yet, or will probably get a new one.
    fn begin(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        if !view.has_lease() {
            return;
        }
        let owner = view.me.clone();
        let mut levels = self.shared.levels();
        if !levels.is_written_as(&owner) {
            levels.start_over(owner.clone());
        }
        for lane in levels.due() {
            if self.busy.contains(&lane) {
                continue;
            }
            let changes = levels.take(&lane, CHANGES_PER_BATCH_MAX);
            if !changes.is_empty() {
                self.busy.insert(lane);
                let (store, owner) = (Arc::clone(&self.store), owner.clone());
                let write = async move {
                    let failures = store.write(&owner, &changes).await.err();
                    (owner, lane, changes, failures)
                };
                self.writes.push(write.boxed());
            }
        }
        let is_settled = levels.is_settled();
        drop(levels);
        if is_settled {
            self.shared.settled.notify_waiters();
            // Also of lanes whose topics have moved.
            self.away.clear();
        }
    }

    /// Takes what became of a batch.
    fn wrote(&mut self, (owner, lane, changes, failures): Write) {
        self.busy.remove(&lane);
        let was_away = !self.away.is_empty();
        match &failures {
            Some(failures) => {
                self.away.insert(lane);
                if let (false, Some(error)) = (was_away, &failures.cause) {
                    warn!(
                        event = "occupancy_not_written",
                        error = error as &(dyn std::error::Error + 'static),
                        "occupancy could not be written, it is tried again"
                    );
                }
            }
            None => {
                self.away.remove(&lane);
                if was_away && self.away.is_empty() {
                    info!(event = "occupancy_written", "occupancy is written again");
                }
            }
        }
        let mut failed = failures.map(|failures| failures.topics).unwrap_or_default();
        let mut levels = self.shared.levels();
        if !levels.is_written_as(&owner) {
            // Of an earlier life, of which the homes remove what stands.
            return;
        }
        for change in changes {
            match failed.remove(&change.topic) {
                Some(why) => levels.failed(change.topic, Some(why)),
                None => levels.wrote(change),
            }
        }
        drop(levels);
        self.shared.written.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::view::NodeDetails;

    /// With an event instead of a count, members waited for the index for as long as nothing else
    /// was written: 30 s and more, in the fault harness.
    #[tokio::test]
    async fn a_batch_that_comes_beside_something_else_is_not_missed() {
        let me: Owner = "a~1".parse().expect("an owner");
        let view = View::alone(me, NodeDetails::default(), 256);
        let view = watch::Sender::new(Arc::new(view));
        let occupancy = Occupancy::alone(view.subscribe());
        let mut written = occupancy.written();
        occupancy.shared.written.send_modify(|count| *count += 1);
        tokio::select! {
            biased;
            () = std::future::ready(()) => {}
            _ = written.changed() => unreachable!("the other is first"),
        }
        let seen = written.changed().now_or_never();
        assert!(matches!(seen, Some(Ok(()))), "{seen:?}");
    }
}
