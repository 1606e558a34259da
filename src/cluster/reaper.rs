//! The reaper: what dead nodes left is removed once, by the home of its partition.
//!
//! In: the partitions that this node holds, told after every round of leases, and the view, which
//! says who is dead. Out: members of dead owners removed and told as leaves, by one script each
//! time; their occupancy and their entries in the index removed. Owner of the list of partitions
//! to look through: all when somebody died, those that were taken, and a sixtieth of the others
//! each time, for what nobody saw die. Order: members, count, index, so that a reaper that dies
//! midway leaves enough for the next to find. The index is read and written under the partition's
//! token; what lies in other slots is compared with the dead owner itself, so that two reapers
//! never remove or tell the same twice. A node that lost its lease and is back, as all are when
//! Redis was away, first has time to write its members again, which then neither leave nor join.
//! Bounds: parts of some hundred entries,
//! [`PARTITIONS_IN_FLIGHT_MAX`] partitions and [`TOPICS_IN_FLIGHT_MAX`] topics of each at once. What
//! fails is tried again in the next round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tracing::{debug, info};

use super::occupancy_store::{OccupancyError, OccupancyStore, read_entry};
use super::partition_store::{PartitionError, PartitionStore};
use super::tenure::Held;
use super::view::View;
use crate::broker::{Broker, BrokerError};
use crate::protocol::ids::{Owner, Topic, TopicKind};
use crate::redis::Keys;
use crate::redis::keyspace::Keyspace;
use crate::telemetry::metrics::Metrics;

/// In so many rounds every partition is looked through once, whatever happens.
const SWEEP_ROUNDS: u32 = 60;
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

/// What was found and removed.
#[derive(Debug, Clone, Copy, Default)]
struct Reaped {
    topics: u64,
    members: u64,
    /// Something was left, for a node to write it again first.
    waits: bool,
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
    /// How long a node's lease lasts. Two fifths of it are the time in which a node that is back
    /// writes its members again.
    pub lease: Duration,
    /// Where the removed is counted.
    pub metrics: Arc<Metrics>,
}

/// The task. It has no handle: what it does is seen in Redis and in the counters.
#[derive(Debug)]
pub struct ReaperTask {
    broker: Arc<Broker>,
    store: PartitionStore,
    occupancy: OccupancyStore,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    settle: Duration,
    metrics: Arc<Metrics>,
    agenda: Agenda,
}

impl ReaperTask {
    /// The reaper of a node's partitions. The caller runs it.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { keyspace, keys, .. } = settings;
        let partitions_count = settings.view.borrow().ring.partitions_count();
        Self {
            broker: settings.broker,
            store: PartitionStore::new(keyspace.clone(), keys.clone()),
            occupancy: OccupancyStore::new(keyspace, keys, partitions_count),
            held: settings.held,
            view: settings.view,
            settle: settings.lease * 2 / 5,
            metrics: settings.metrics,
            agenda: Agenda::default(),
        }
    }

    /// Reaps until nobody holds partitions any more.
    pub async fn run(mut self) {
        while self.held.changed().await.is_ok() {
            let held = self.held.borrow_and_update().partitions();
            let view = Arc::clone(&self.view.borrow());
            let live = view.nodes.iter().map(|node| node.owner.clone()).collect();
            self.agenda.note(held, live);
            // Whoever lost the lease together with this node may be about to come back.
            if self.has_settled(&view, &view.me) {
                self.pass(&view).await;
            }
        }
    }

    async fn pass(&mut self, view: &View) {
        let todo: Vec<u32> = self.agenda.todo.iter().copied().collect();
        let this = &*self;
        let looked = stream::iter(todo)
            .map(|partition| async move { (partition, this.look_through(partition, view).await) })
            .buffer_unordered(PARTITIONS_IN_FLIGHT_MAX)
            .collect::<Vec<_>>();
        let mut sum = Reaped::default();
        for (partition, (reaped, end)) in looked.await {
            sum.topics += reaped.topics;
            sum.members += reaped.members;
            match end {
                Ok(()) if reaped.waits => {}
                // Refused: what is left there is its new home's to remove.
                Ok(()) | Err(ReapError::Partition(PartitionError::Refused)) => {
                    self.agenda.todo.remove(&partition);
                }
                Err(error) => {
                    debug!(event = "reaping_failed", partition, %error, "something of dead nodes is left, it is tried again");
                }
            }
        }
        let control = &self.metrics.control;
        control.reaped_topics.add(sum.topics);
        control.reaped_members.add(sum.members);
        if sum.topics > 0 {
            info!(
                event = "remains_reaped",
                topics_count = sum.topics,
                members_count = sum.members,
                "removed what dead nodes had left"
            );
        }
    }

    /// Looks through a partition's index. What was removed counts also where the end was an error.
    async fn look_through(&self, partition: u32, view: &View) -> (Reaped, Result<(), ReapError>) {
        let mut reaped = Reaped::default();
        let living: Vec<_> = view.nodes.iter().map(|n| n.owner.to_string()).collect();
        let mut cursor = None;
        loop {
            let part = self.part(partition, cursor, &living, view, &mut reaped);
            match part.await {
                Ok(None) => return (reaped, Ok(())),
                Ok(next) => cursor = next,
                Err(error) => return (reaped, Err(error)),
            }
        }
    }

    /// One part of an index; returns where to go on.
    async fn part(
        &self,
        partition: u32,
        cursor: Option<String>,
        living: &[String],
        view: &View,
        reaped: &mut Reaped,
    ) -> Result<Option<String>, ReapError> {
        // Asked for each part: a pass over much may outlast a lease.
        let token = self.held.borrow().token(partition);
        let token = token.ok_or(PartitionError::Refused)?;
        let part = self.store.index(partition, token, cursor, living).await?;
        let dead = part.entries.into_iter().filter_map(|entry| {
            let (owner, topic) = read_entry(&entry)?;
            view.is_dead(&owner).then_some((entry, owner, topic))
        });
        let (dead, waiting): (Vec<_>, Vec<_>) = dead.partition(|(_, owner, _)| {
            let next_life = view.node(&owner.node);
            next_life.is_none_or(|next| self.has_settled(view, &next.owner))
        });
        reaped.waits |= !waiting.is_empty();
        let mut cleaned = stream::iter(dead)
            .map(|(entry, owner, topic)| async move { (entry, self.clean(&owner, &topic).await) })
            .buffer_unordered(TOPICS_IN_FLIGHT_MAX);
        let (mut done, mut failed) = (Vec::new(), None);
        while let Some((entry, members)) = cleaned.next().await {
            match members {
                Ok(members) => {
                    reaped.members += members;
                    done.push(entry);
                }
                Err(error) => failed = Some(error),
            }
        }
        if !done.is_empty() {
            self.store.unindex(partition, token, &done).await?;
            reaped.topics += done.len() as u64;
        }
        failed.map_or(Ok(part.next), Err)
    }

    /// Whether a life is old enough to have written everything of its node.
    fn has_settled(&self, view: &View, owner: &Owner) -> bool {
        let age_us = view.time_us.saturating_sub(owner.incarnation);
        Duration::from_micros(age_us) > self.settle
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

/// Which partitions are to be looked through.
#[derive(Debug, Default)]
struct Agenda {
    todo: BTreeSet<u32>,
    held: BTreeSet<u32>,
    live: BTreeSet<Owner>,
    round: u32,
}

impl Agenda {
    /// Takes what is held and who lives now.
    fn note(&mut self, held: BTreeSet<u32>, live: BTreeSet<Owner>) {
        let somebody_died = self.live.iter().any(|owner| !live.contains(owner));
        self.round = (self.round + 1) % SWEEP_ROUNDS;
        let due = |partition: &&u32| {
            somebody_died
                || !self.held.contains(partition)
                || **partition % SWEEP_ROUNDS == self.round
        };
        let due: Vec<_> = held.iter().filter(due).copied().collect();
        self.todo.extend(due);
        self.todo.retain(|partition| held.contains(partition));
        (self.held, self.live) = (held, live);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(agenda: &mut Agenda, held: &[u32], live: &[&str]) -> Vec<u32> {
        let live = live.iter().map(|owner| owner.parse().unwrap()).collect();
        agenda.note(held.iter().copied().collect(), live);
        std::mem::take(&mut agenda.todo).into_iter().collect()
    }

    #[test]
    fn what_was_taken_is_looked_through_and_all_when_somebody_died() {
        let mut agenda = Agenda::default();
        assert_eq!(noted(&mut agenda, &[47, 48], &["a~1", "b~1"]), [47, 48]);
        assert_eq!(noted(&mut agenda, &[47, 48, 49], &["a~1", "b~1"]), [49]);
        assert_eq!(
            noted(&mut agenda, &[47, 49], &["a~1", "b~1", "c~1"]),
            [0; 0]
        );
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~1"]), [47, 49]);
        // A new life of a node is the death of the one before.
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~2"]), [47, 49]);
        assert_eq!(noted(&mut agenda, &[47, 49], &["a~1", "c~2"]), [0; 0]);
    }

    #[test]
    fn what_is_not_done_stays_while_it_is_held() {
        let mut agenda = Agenda::default();
        agenda.note([100, 101].into(), BTreeSet::new());
        agenda.note([101].into(), BTreeSet::new());
        assert_eq!(agenda.todo, [101].into());
    }

    #[test]
    fn every_partition_has_its_turn_in_a_sweep() {
        let mut agenda = Agenda::default();
        let all: Vec<u32> = (0..256).collect();
        noted(&mut agenda, &all, &[]);
        let mut seen = BTreeSet::new();
        for _ in 0..SWEEP_ROUNDS {
            let due = noted(&mut agenda, &all, &[]);
            assert!(due.len() <= 5, "{due:?}");
            seen.extend(due);
        }
        assert_eq!(seen.len(), 256);
    }
}
