//! The reaper: what dead nodes left is removed once, by the home of its partition.
//!
//! In: the partitions that this node holds, and the view, which says who is dead. Out: members of
//! dead owners removed and told as leaves, by one script each time; their occupancy and their
//! entries in the index removed. Which partition is looked through when is decided in [`agenda`]:
//! all when somebody died, those that were taken, a sixtieth of the others each second, and again
//! what could not be done. Order: members, count, index, so that a reaper that dies
//! midway leaves enough for the next to find. The index is read and written under the partition's
//! token; what lies in other slots is compared with the dead owner itself, so that two reapers
//! never remove or tell the same twice. A node that has taken a new incarnation says when all its
//! members stand under it; what stands under its earlier ones waits for that, at most
//! [`SETTLE_MAX`], so that who stayed neither leaves nor joins. What a node left that is gone is
//! removed at once. A topic or a partition that cannot be cleaned holds up no other; that there are
//! any is told once, and when there are none any more.
//! Bounds: parts of some hundred entries,
//! [`PARTITIONS_IN_FLIGHT_MAX`] partitions and [`TOPICS_IN_FLIGHT_MAX`] topics of each at once.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::occupancy_store::{OccupancyError, OccupancyStore, read_entry};
use super::partition_store::{PartitionError, PartitionStore};
use super::tenure::Held;
use super::view::{NodeInfo, View};
use crate::broker::{Broker, BrokerError};
use crate::protocol::ids::{Owner, Topic, TopicKind};
use crate::redis::Keys;
use crate::redis::keyspace::Keyspace;
use crate::telemetry::metrics::Metrics;
use agenda::{Agenda, Outcome};

mod agenda;

/// How often the sweep goes on, and what could not be done has its turn again.
const TICK: Duration = Duration::from_secs(1);
/// Longest wait for a node to have written its members again under a new incarnation.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// Partitions that are looked through at the same time.
const PARTITIONS_IN_FLIGHT_MAX: usize = 8;
/// Topics of one partition that are cleaned at the same time.
const TOPICS_IN_FLIGHT_MAX: usize = 16;

/// Why something is left.
#[derive(Debug, thiserror::Error)]
enum ReapError {
    #[error(transparent)]
    Partition(#[from] PartitionError),
    #[error(transparent)]
    Members(#[from] BrokerError),
    #[error(transparent)]
    Occupancy(#[from] OccupancyError),
}

/// What was found in a partition and removed.
#[derive(Debug, Default)]
struct Reaped {
    topics: u64,
    members: u64,
    /// Something was left, for a node to write it again first.
    waits: bool,
    /// Why something else was left.
    failed: Option<ReapError>,
}

/// What the reaper needs to know.
#[derive(Debug)]
pub struct Settings {
    /// Where members are.
    pub broker: Arc<Broker>,
    /// Where occupancy, indexes and leases are.
    pub keyspace: Keyspace,
    /// Under which names.
    pub keys: Keys,
    /// For which partitions this node may act.
    pub held: watch::Receiver<Held>,
    /// Who lives.
    pub view: watch::Receiver<Arc<View>>,
    /// Where the removed is counted.
    pub metrics: Arc<Metrics>,
}

/// The task. It has no handle: what it does is seen in Redis and in the counters.
#[derive(Debug)]
pub struct ReaperTask {
    partitions: Arc<Partitions>,
    held: watch::Receiver<Held>,
    metrics: Arc<Metrics>,
    agenda: Agenda,
    /// Held partitions in which the last look could not remove all.
    failing: BTreeSet<u32>,
    /// Removed since it was logged last.
    topics: u64,
    members: u64,
}

impl ReaperTask {
    /// The reaper of a node's partitions. The caller runs it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { keyspace, keys, .. } = settings;
        let partitions_count = settings.view.borrow().ring.partitions_count();
        let partitions = Partitions {
            broker: settings.broker,
            store: PartitionStore::new(keyspace.clone(), keys.clone()),
            occupancy: OccupancyStore::new(keyspace, keys, partitions_count),
            held: settings.held.clone(),
            view: settings.view,
            young: Mutex::default(),
        };
        Self {
            partitions: Arc::new(partitions),
            held: settings.held,
            metrics: settings.metrics,
            agenda: Agenda::default(),
            failing: BTreeSet::new(),
            topics: 0,
            members: 0,
        }
    }

    /// Reaps until nobody holds partitions any more.
    pub async fn run(mut self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = FuturesUnordered::new();
        loop {
            // All three waits are cancel-safe.
            tokio::select! {
                changed = self.held.changed() => match changed {
                    Ok(()) => self.note(),
                    Err(_) => break,
                },
                _ = ticks.tick() => self.tick(),
                Some((partition, reaped)) = looks.next() => self.looked(partition, reaped),
            }
            while looks.len() < PARTITIONS_IN_FLIGHT_MAX
                && let Some(partition) = self.agenda.take()
            {
                let partitions = Arc::clone(&self.partitions);
                looks.push(async move { (partition, partitions.look_through(partition).await) });
            }
        }
    }

    /// Takes what is held and who lives now.
    fn note(&mut self) {
        let held = self.held.borrow_and_update().partitions();
        let view = Arc::clone(&self.partitions.view.borrow());
        self.partitions.note_young(&view);
        let live = view.nodes.iter().map(|node| node.owner.clone()).collect();
        let mut failing = self.failing.clone();
        failing.retain(|partition| held.contains(partition));
        self.tell_failing(failing, None);
        self.agenda.note(held, live);
    }

    fn tick(&mut self) {
        self.note();
        self.agenda.tick();
        let (topics_count, members_count) = (
            std::mem::take(&mut self.topics),
            std::mem::take(&mut self.members),
        );
        if topics_count > 0 {
            info!(
                event = "remains_reaped",
                topics_count, members_count, "removed what dead nodes had left"
            );
        }
    }

    /// A partition was looked through. What was removed counts also where something was left.
    fn looked(&mut self, partition: u32, reaped: Reaped) {
        let control = &self.metrics.control;
        control.reaped_topics.add(reaped.topics);
        control.reaped_members.add(reaped.members);
        self.topics += reaped.topics;
        self.members += reaped.members;
        let mut failing = self.failing.clone();
        failing.remove(&partition);
        let outcome = match reaped.failed {
            // Refused: what is left there is its new home's to remove.
            None | Some(ReapError::Partition(PartitionError::Refused)) if reaped.waits => {
                Outcome::Waits
            }
            None | Some(ReapError::Partition(PartitionError::Refused)) => Outcome::Done,
            Some(error) => {
                debug!(
                    event = "partition_not_reaped",
                    partition,
                    error = &error as &(dyn Error + 'static),
                    "something is left, it is tried again"
                );
                failing.insert(partition);
                self.tell_failing(failing, Some(&error));
                self.agenda.looked(partition, Outcome::Failed);
                return;
            }
        };
        self.tell_failing(failing, None);
        self.agenda.looked(partition, outcome);
    }

    /// Counts the partitions that cannot be cleaned, and logs that there are any, or none any more.
    fn tell_failing(&mut self, failing: BTreeSet<u32>, error: Option<&ReapError>) {
        let failing_count = failing.len() as u64;
        let before = std::mem::replace(&mut self.failing, failing);
        self.metrics.control.reaping_failing.set(failing_count);
        if let (true, Some(error)) = (before.is_empty(), error) {
            warn!(
                event = "reaping_failed",
                error = error as &(dyn Error + 'static),
                "what a dead node left cannot be removed, watchers see its members; it is tried again"
            );
        }
        if failing_count == 0 && !before.is_empty() {
            info!(
                event = "reaping_recovered",
                "no partition held here fails to be cleaned any more"
            );
        }
    }
}

/// What is done in partitions, one at a time for each.
#[derive(Debug)]
struct Partitions {
    broker: Arc<Broker>,
    store: PartitionStore,
    occupancy: OccupancyStore,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    /// Lives that have not said yet that all their members stand under them, and since when they
    /// are known here. At most one a live node.
    young: Mutex<BTreeMap<Owner, Instant>>,
}

impl Partitions {
    /// Looks through a partition's index, and cleans up after the dead.
    async fn look_through(&self, partition: u32) -> Reaped {
        let mut reaped = Reaped::default();
        let mut cursor = None;
        loop {
            match self.part(partition, cursor, &mut reaped).await {
                Ok(None) => return reaped,
                Ok(next) => cursor = next,
                Err(error) => {
                    reaped.failed = Some(error);
                    return reaped;
                }
            }
        }
    }

    /// One part of an index; returns where to go on.
    async fn part(
        &self,
        partition: u32,
        cursor: Option<String>,
        reaped: &mut Reaped,
    ) -> Result<Option<String>, ReapError> {
        // Asked for each part: to look through much may outlast a lease.
        let token = self.held.borrow().token(partition);
        let token = token.ok_or(PartitionError::Refused)?;
        let view = Arc::clone(&self.view.borrow());
        let living: Vec<_> = view.nodes.iter().map(|n| n.owner.to_string()).collect();
        let part = self.store.index(partition, token, cursor, &living).await?;
        let dead = part.entries.into_iter().filter_map(|entry| {
            let (owner, topic) = read_entry(&entry)?;
            view.is_dead(&owner).then_some((entry, owner, topic))
        });
        let (dead, waiting): (Vec<_>, Vec<_>) = dead.partition(|(_, owner, _)| {
            let next_life = view.node(&owner.node);
            next_life.is_none_or(|next| self.has_settled(next, Instant::now()))
        });
        reaped.waits |= !waiting.is_empty();
        let mut cleaned = stream::iter(dead)
            .map(|(entry, owner, topic)| async move { (entry, self.clean(&owner, &topic).await) })
            .buffer_unordered(TOPICS_IN_FLIGHT_MAX);
        let mut done = Vec::new();
        while let Some((entry, members)) = cleaned.next().await {
            match members {
                Ok(members) => {
                    reaped.members += members;
                    done.push(entry);
                }
                // It stays in the index; what comes behind it need not wait.
                Err(error) => reaped.failed = Some(error),
            }
        }
        if !done.is_empty() {
            self.store.unindex(partition, token, &done).await?;
            reaped.topics += done.len() as u64;
        }
        Ok(part.next)
    }

    /// From now on it is known of each life how long it has had time to write its members again.
    fn note_young(&self, view: &View) {
        self.young().retain(|owner, _| view.is_live(owner));
        let now = Instant::now();
        for node in &view.nodes {
            self.has_settled(node, now);
        }
    }

    /// Whether all members of a node stand under its present life, as far as one can wait for it.
    fn has_settled(&self, node: &NodeInfo, now: Instant) -> bool {
        if node.details.settled == node.owner.incarnation {
            return true;
        }
        let mut young = self.young();
        let since = *young.entry(node.owner.clone()).or_insert(now);
        now.duration_since(since) >= SETTLE_MAX
    }

    fn young(&self) -> std::sync::MutexGuard<'_, BTreeMap<Owner, Instant>> {
        self.young.lock().expect("no holder of this lock panics")
    }

    /// Removes what a dead owner has in a topic; returns how many members that were.
    async fn clean(&self, owner: &Owner, topic: &Topic) -> Result<u64, ReapError> {
        // Inboxes and everyone have no members.
        let members = match topic.kind() {
            TopicKind::Plain => self.broker.reap(topic, owner).await?,
            TopicKind::Inbox | TopicKind::Everyone | TopicKind::Presence => 0,
        };
        self.occupancy.forget(topic, owner).await?;
        Ok(members)
    }
}
