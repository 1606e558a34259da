//! What is asked of Redis to clean up after the dead.
//!
//! In: a partition, or what was found in its index. Out: parts of the index, what is removed. Owner
//! of what is known of lives that have just begun: what is under the earlier lives of their
//! nodes waits until they have written their members again, at most [`SETTLE_MAX`]. Bound: one entry
//! a live node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::lanes::Remains;
use super::{ReapError, Settings};
use crate::broker::Broker;
use crate::cluster::due::Lane;
use crate::cluster::occupancy_store::{OccupancyStore, read_entry};
use crate::cluster::partition_leases::Held;
use crate::cluster::partition_store::{PartitionError, PartitionStore};
use crate::cluster::view::{NodeInfo, View};
use crate::redis::Keys;
use crate::redis::keyspace::{Keyspace, ServerId};
use fanfare_protocol::ids::{Owner, Topic, TopicKind};

/// Longest wait for a node to have written its members again under a new incarnation.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// A part of an index.
#[derive(Debug)]
pub(super) struct Part {
    /// What the dead have left, and may be removed.
    pub(super) remains: Vec<Remains>,
    /// Lives that may have to write again what else is there, and is not to be removed before.
    pub(super) waits_for: BTreeSet<Owner>,
    /// Where to go on; `None`: this was the last part.
    pub(super) next: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Calls {
    broker: Arc<Broker>,
    keyspace: Keyspace,
    keys: Keys,
    store: PartitionStore,
    occupancy: OccupancyStore,
    held: watch::Receiver<Held>,
    view: watch::Receiver<Arc<View>>,
    /// Lives that have not said yet that all their members are under them, and since when they
    /// are known here. At most one a live node.
    young: Mutex<BTreeMap<Owner, Instant>>,
}

impl Calls {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { keyspace, keys, .. } = settings;
        let partitions_count = settings.view.borrow().ring.partitions_count();
        Self {
            broker: settings.broker,
            store: PartitionStore::new(keyspace.clone(), keys.clone()),
            occupancy: OccupancyStore::new(keyspace.clone(), keys.clone(), partitions_count),
            keyspace,
            keys,
            held: settings.held,
            view: settings.view,
            young: Mutex::default(),
        }
    }

    /// Where the index of a partition is.
    pub(super) fn index_server(&self, partition: u32) -> Option<ServerId> {
        self.keyspace.server_of(&self.keys.topics_index(partition))
    }

    /// Where that is, for people.
    pub(super) fn index_server_name(&self, partition: u32) -> String {
        let key = self.keys.topics_index(partition);
        self.keyspace.server_name_of(&key)
    }

    /// Where the members of a topic are, for people.
    pub(super) fn members_server_name(&self, topic: &Topic) -> String {
        let key = self.keys.hash(&topic.presence());
        self.keyspace.server_name_of(&key)
    }

    /// Where the members of a topic are, and its occupancy.
    pub(super) fn lane_of(&self, topic: &Topic) -> Lane {
        self.keyspace.server_of(&self.keys.occupancy(topic))
    }

    /// One part of an index.
    pub(super) async fn read(&self, partition: u32, cursor: &str) -> Result<Part, ReapError> {
        // Asked for each part: to read much may outlast a lease.
        let token = self.token(partition)?;
        let view = Arc::clone(&self.view.borrow());
        let living: Vec<_> = view.nodes.iter().map(|n| n.owner.to_string()).collect();
        let cursor = Some(cursor.to_owned());
        let part = self.store.index(partition, token, cursor, &living).await?;
        let dead = part.entries.into_iter().filter_map(|entry| {
            let (owner, topic) = read_entry(&entry)?;
            view.is_dead(&owner).then_some(Remains {
                partition,
                entry,
                owner,
                topic,
            })
        });
        let mut waits_for = BTreeSet::new();
        let remains = dead.filter(|Remains { owner, .. }| {
            let next_life = view.node(&owner.node);
            let young = next_life.filter(|next| !self.has_settled(next, Instant::now()));
            waits_for.extend(young.map(|next| next.owner.clone()));
            young.is_none()
        });
        Ok(Part {
            remains: remains.collect(),
            waits_for,
            next: part.next,
        })
    }

    /// Removes what a dead owner has in a topic; returns how many members that were.
    pub(super) async fn clean(&self, remains: &Remains) -> Result<u64, ReapError> {
        let Remains { owner, topic, .. } = remains;
        // Inboxes and everyone have no members.
        let members = match topic.kind() {
            TopicKind::Plain => self.broker.reap(topic, owner).await?,
            TopicKind::Inbox | TopicKind::Everyone | TopicKind::Presence => 0,
        };
        self.occupancy.forget(topic, owner).await?;
        Ok(members)
    }

    /// Takes entries out of an index, of which nothing else is left.
    pub(super) async fn unindex(
        &self,
        partition: u32,
        entries: &[String],
    ) -> Result<(), ReapError> {
        let token = self.token(partition)?;
        self.store.unindex(partition, token, entries).await?;
        Ok(())
    }

    fn token(&self, partition: u32) -> Result<u64, PartitionError> {
        let token = self.held.borrow().token(partition);
        token.ok_or(PartitionError::Refused)
    }

    /// From now on it is known of each life how long it has had time to write its members again.
    /// Returns the lives for which that is still waited for.
    pub(super) fn note_young(&self, view: &View) -> BTreeSet<Owner> {
        self.young().retain(|owner, _| view.is_live(owner));
        let now = Instant::now();
        let young = view.nodes.iter().filter(|n| !self.has_settled(n, now));
        young.map(|node| node.owner.clone()).collect()
    }

    /// Whether all members of a node are under its present life, as far as one can wait for it.
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
}
