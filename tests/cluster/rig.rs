//! Nodes reduced to their part in the cluster, over a real Redis of the test's own.

use std::sync::Arc;
use std::time::Duration;

use fanfare::cluster::lease_store::LeaseStore;
use fanfare::cluster::membership::{Membership, Settings};
use fanfare::cluster::membership_machine::MembershipState;
use fanfare::cluster::occupancy::Occupancy;
use fanfare::cluster::partition_store::{LeaseAnswer, PartitionError, PartitionStore};
use fanfare::cluster::partitions::Partitions;
use fanfare::cluster::texts::Texts;
use fanfare::cluster::view::{NodeDetails, View};
use fanfare::config;
use fanfare::redis::{Keys, RedisLink};
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{App, NodeId, Owner, Topic};
use fanfare_testkit::wait::{PATIENCE, until_equal};
use fred::interfaces::ClientLike;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const LEASE: Duration = Duration::from_secs(1);
pub(crate) const PARTITIONS: u32 = 256;

pub(crate) fn config(port: u16) -> config::Redis {
    config::Redis {
        url: Some(config::Secret(format!("redis://127.0.0.1:{port}"))),
        lease: LEASE,
        partitions: PARTITIONS,
        ..config::load::defaults().redis
    }
}

pub(crate) fn link(port: u16) -> Arc<RedisLink> {
    link_by(&config(port))
}

/// A link with these settings.
pub(crate) fn link_by(config: &config::Redis) -> Arc<RedisLink> {
    let link = RedisLink::new(config, Arc::new(Metrics::new(0))).unwrap();
    link.renew().unwrap().connect();
    // No supervisor watches this link.
    link.circuit().close();
    Arc::new(link)
}

pub(crate) fn settings(name: &str, partitions_count: u32) -> Settings {
    let url = format!("wss://{name}.example");
    Settings {
        node: NodeId::new(name).unwrap(),
        lease: LEASE,
        partitions_count,
        details: Box::new(move || NodeDetails {
            url: Some(url.clone()),
            state: "ready".into(),
            ..NodeDetails::default()
        }),
        texts: Texts::default(),
        metrics: Arc::new(Metrics::new(1)),
        hurry: Arc::default(),
    }
}

/// Asks for the lease of one partition.
pub(crate) async fn lead(
    store: &PartitionStore,
    partition: u32,
    owner: &Owner,
    lease: Duration,
) -> Result<LeaseAnswer, PartitionError> {
    store.lead(&[partition], owner, lease).await.remove(0)
}

/// A node's membership, partitions and occupancy without the rest of the node.
pub(crate) struct Node {
    pub(crate) membership: Membership,
    pub(crate) partitions: Partitions,
    pub(crate) occupancy: Occupancy,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    pub(crate) fn start(port: u16, name: &str) -> Self {
        let link = link(port);
        let keys = Keys::new("ff", PARTITIONS);
        let store = LeaseStore::new(Arc::clone(&link), &keys);
        let settings = settings(name, PARTITIONS);
        let (membership, task) = Membership::new(settings, Some(store));
        let partitions = Partitions::default();
        let store = Arc::new(PartitionStore::new(Arc::clone(&link), keys.clone()));
        let metrics = Arc::new(Metrics::new(1));
        let leads = partitions.lead(membership.view(), store, LEASE, metrics);
        let (occupancy, writer) = Occupancy::clustered(membership.view(), link, keys);
        let tasks = vec![
            tokio::spawn(task.run()),
            tokio::spawn(leads.run()),
            tokio::spawn(writer.run()),
        ];
        Self {
            membership,
            partitions,
            occupancy,
            tasks,
        }
    }

    /// A member whose view is fresh.
    pub(crate) async fn joined(port: u16, name: &str) -> Self {
        let node = Self::start(port, name);
        node.sees("itself", |view| view.fresh).await;
        node
    }

    pub(crate) async fn sees(&self, what: &str, test: impl FnMut(&View) -> bool) -> Arc<View> {
        let (mut view, mut test) = (self.membership.view(), test);
        let seen = timeout(PATIENCE, view.wait_for(|view| test(view))).await;
        Arc::clone(&seen.unwrap_or_else(|_| panic!("never saw {what}")).unwrap())
    }

    pub(crate) async fn stands(
        &self,
        test: impl FnMut(&MembershipState) -> bool,
    ) -> MembershipState {
        let mut standing = self.membership.standing();
        let reached = timeout(PATIENCE, standing.wait_for(test)).await;
        reached.expect("the standing is reached").unwrap().clone()
    }

    pub(crate) fn me(&self) -> Owner {
        self.membership.now().me.clone()
    }

    /// Leaves as a node does that was asked to.
    pub(crate) async fn leave(&self) {
        let leave = async {
            self.partitions.release().await;
            self.membership.leave(true).await;
        };
        timeout(PATIENCE, leave).await.expect("it leaves");
    }

    /// Ends as a killed process does: nothing is given back.
    pub(crate) fn kill(&self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn names(view: &View) -> Vec<String> {
    view.nodes
        .iter()
        .map(|node| node.owner.node.to_string())
        .collect()
}

pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).unwrap()
}

/// Waits until all that these nodes know stands in Redis.
pub(crate) async fn settled(nodes: &[&Node]) {
    for node in nodes {
        timeout(PATIENCE, node.occupancy.settled()).await.unwrap();
    }
}

/// Waits until a node sees a topic occupied like that.
pub(crate) async fn occupied_by(node: &Node, name: &str, expected: &[(Owner, u64)]) {
    until_equal(expected.to_vec(), || async {
        node.occupancy.topic(&topic(name)).await.unwrap()
    })
    .await;
}
