//! Every Redis master that the node uses, and the function from a key to one of them.
//!
//! In: the deployments of the configuration, and topologies by whoever follows them ([`topology_watcher`]).
//! Out: for each key the [`Master`] that has it now. All forms are the same here: one server and the
//! master behind sentinels have all slots, a cluster deals them, and a ring of shards chooses among
//! several deployments, of which the first has the cluster's own keys. A partition is a slot: with
//! its number, deployment and slot are looked up, and no name is hashed. Owner of the masters: one per
//! master, begun when a topology names it and ended when none does. Bounds: the masters of the
//! deployments, and one place per partition. Locks are held to read or replace one value.
//!
//! [`topology_watcher`]: super::topology_watcher

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;

use super::StartError;
use super::aggregate_health::Part;
use super::master::{Master, MasterContext, MasterSpec};
use super::shards::Shards;
use super::topology::{SLOTS_COUNT, Topology, slot_of, slot_of_partition};
use crate::broker::{BrokerHealth, FeedNumber};
use crate::config::file_shares;
use crate::config::redis_url::{RedisForm, RedisUrl};
use crate::redis::nowhere::{Kind, Nowhere};
use crate::redis::{Keys, RedisError, RedisLink};
use crate::tasks;
use crate::telemetry::fields::List;
use fanfare_protocol::ids::Topic;

mod advice;

/// Where a key is at the moment.
#[derive(Debug, Clone)]
pub struct Placed {
    /// The master that has it.
    pub master: Arc<Master>,
    /// Since which epoch; with another one, subscriptions there are void.
    pub epoch: u64,
}

/// One deployment.
#[derive(Debug)]
pub struct Deployment {
    url: RedisUrl,
    /// Names of its channels, too, which its database is in.
    keys: Keys,
    set: RwLock<Arc<MasterSet>>,
    /// It was compared with what the cluster agreed on, and may be used.
    agrees: AtomicBool,
    /// Why not, while it may not.
    unusable: Mutex<Nowhere>,
    /// Why no master is known, while none is.
    masterless: Mutex<Nowhere>,
    /// Sentinels that do not answer while others do, in words.
    silent: Mutex<Vec<String>>,
    /// Told by its links when an answer says that keys are somewhere else.
    pub misplaced: Arc<Notify>,
}

/// The masters of one deployment as they stand, replaced as a whole.
#[derive(Debug, Default)]
struct MasterSet {
    topology: Topology,
    /// In the order of the topology.
    masters: Vec<Arc<Master>>,
    /// By slot, the index of its master in both.
    owners: Vec<Option<usize>>,
    /// The same by partition.
    owners_of_partitions: Vec<Option<usize>>,
}

impl MasterSet {
    /// These masters, and who of them has the partitions, whose slots these are.
    fn new(topology: Topology, masters: Vec<Arc<Master>>, slots: &[usize]) -> Self {
        let owners = owners(&topology);
        Self {
            owners_of_partitions: slots.iter().map(|slot| owners[*slot]).collect(),
            owners,
            topology,
            masters,
        }
    }

    fn of_slot(&self, slot: usize) -> Option<usize> {
        self.owners.get(slot).copied().flatten()
    }

    fn of_partition(&self, partition: u32) -> Option<usize> {
        let owner = self.owners_of_partitions.get(partition as usize);
        owner.copied().flatten()
    }

    /// How many slots have none, of a topology that has any.
    fn unserved_count(&self) -> usize {
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Masters {
    keys: Keys,
    shards: Shards,
    /// The slot of each partition.
    slots: Vec<usize>,
    deployments: Vec<Deployment>,
    numbers: AtomicU32,
    /// For so many masters files are set apart.
    masters_planned: usize,
    advice_told: advice::Told,
    /// Some keys are somewhere else now.
    pub moved: Notify,
}

impl Deployment {
    /// Where it is, and in which form.
    #[must_use]
    pub fn url(&self) -> &RedisUrl {
        &self.url
    }

    /// The channel of control messages here.
    #[must_use]
    pub fn control(&self) -> String {
        self.keys.control()
    }

    /// Its masters that are used now.
    #[must_use]
    pub fn masters(&self) -> Vec<Arc<Master>> {
        self.set().masters.clone()
    }

    /// The addresses of its masters.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let set = self.set();
        let addresses = set.topology.masters.iter().map(|m| m.address.clone());
        addresses.collect()
    }

    /// Its sentinels that do not answer while others do, in words.
    #[must_use]
    pub fn silent(&self) -> Vec<String> {
        lock(&self.silent).clone()
    }

    /// These do not answer now.
    pub fn set_silent(&self, silent: Vec<String>) {
        *lock(&self.silent) = silent;
    }

    /// Nobody says where its masters are, for this reason.
    pub fn set_masterless(&self, why: Nowhere) {
        *lock(&self.masterless) = why;
    }

    /// That nobody says where its masters are, and why.
    #[must_use]
    pub fn masterless(&self) -> RedisError {
        RedisError::Nowhere(lock(&self.masterless).clone())
    }

    fn set(&self) -> Arc<MasterSet> {
        let set = self.set.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&set)
    }
}

impl Masters {
    /// Deployments of which no master is known yet.
    #[must_use]
    pub fn new(prefix: &str, partitions_count: u32, urls: Vec<RedisUrl>) -> Self {
        let masters_planned = file_shares::masters_planned(&urls);
        let names: Vec<_> = urls.iter().map(|url| url.name.clone()).collect();
        let deployment = |url: RedisUrl| Deployment {
            keys: Keys::of_database(prefix, partitions_count, url.database),
            set: RwLock::default(),
            agrees: AtomicBool::new(false),
            unusable: Mutex::new(Nowhere::new(Kind::Uncompared, &url.name)),
            masterless: Mutex::new(Nowhere::new(Kind::Masterless, &url.name)),
            url,
            silent: Mutex::default(),
            misplaced: Arc::default(),
        };
        Self {
            keys: Keys::new(prefix, partitions_count),
            shards: Shards::new(&names, partitions_count),
            slots: (0..partitions_count).map(slot_of_partition).collect(),
            deployments: urls.into_iter().map(deployment).collect(),
            numbers: AtomicU32::new(0),
            masters_planned,
            advice_told: advice::Told::default(),
            moved: Notify::new(),
        }
    }

    /// Names of keys. Channels are named by [`Self::channel`] and [`Deployment::control`].
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// All deployments; the first has the cluster's own keys.
    #[must_use]
    pub fn deployments(&self) -> &[Deployment] {
        &self.deployments
    }

    /// All masters that are used now.
    #[must_use]
    pub fn masters(&self) -> Vec<Arc<Master>> {
        let deployments = self.deployments.iter();
        deployments.flat_map(Deployment::masters).collect()
    }

    /// Where a key is.
    ///
    /// # Errors
    /// [`RedisError::Nowhere`] while no master has it.
    pub fn find(&self, key: &str) -> Result<Placed, RedisError> {
        match self.keys.partition_of_key(key) {
            Some(partition) => self.find_partition(partition),
            None => {
                self.usable(0)?;
                self.place(0, |set| set.of_slot(slot_of(key)))
            }
        }
    }

    /// The channel of a topic, in the database of its deployment.
    #[must_use]
    pub fn channel(&self, topic: &Topic) -> String {
        let at = self.shards.of(self.keys.partition_of(topic));
        self.deployments[at].keys.channel(topic)
    }

    /// Where everything of a topic is.
    ///
    /// # Errors
    /// [`RedisError::Nowhere`] while no master has it.
    pub fn find_topic(&self, topic: &Topic) -> Result<Placed, RedisError> {
        self.find_partition(self.keys.partition_of(topic))
    }

    /// Where everything of a partition is: its number is the tag of its keys.
    ///
    /// # Errors
    /// [`RedisError::Nowhere`] while no master has it.
    pub fn find_partition(&self, partition: u32) -> Result<Placed, RedisError> {
        let at = self.shards.of(partition);
        self.usable(at)?;
        self.place(at, |set| set.of_partition(partition))
    }

    /// # Errors
    /// [`RedisError::Nowhere`] while a deployment may not be used.
    pub fn usable(&self, at: usize) -> Result<(), RedisError> {
        match self.agrees(at) {
            true => Ok(()),
            false => Err(RedisError::Nowhere(
                lock(&self.deployments[at].unusable).clone(),
            )),
        }
    }

    /// The link to the master of a deployment that has the key, whether it may be used yet or not.
    /// For the comparison alone.
    ///
    /// # Errors
    /// [`RedisError::Nowhere`] while no master has it.
    pub fn reach(&self, at: usize, key: &str) -> Result<Arc<RedisLink>, RedisError> {
        let placed = self.place(at, |set| set.of_slot(slot_of(key)))?;
        Ok(Arc::clone(&placed.master.shared.urgent.link))
    }

    /// Whether a deployment may be used.
    #[must_use]
    pub fn agrees(&self, at: usize) -> bool {
        self.deployments[at].agrees.load(Ordering::Acquire)
    }

    /// A deployment may be used from now on. Returns whether that is news.
    pub fn agree(&self, at: usize) -> bool {
        let is_news = !self.deployments[at].agrees.swap(true, Ordering::AcqRel);
        if is_news {
            self.moved.notify_one();
        }
        is_news
    }

    /// A deployment could not be compared yet, for this reason. Returns whether that is news.
    pub fn postpone(&self, at: usize, why: Nowhere) -> bool {
        let mut unusable = lock(&self.deployments[at].unusable);
        let is_news = *unusable != why;
        *unusable = why;
        is_news
    }

    /// Nothing may be used any more.
    pub fn disagree(&self) {
        for deployment in &self.deployments {
            *lock(&deployment.unusable) = Nowhere::new(Kind::Differing, &deployment.url.name);
            deployment.agrees.store(false, Ordering::Release);
        }
        self.moved.notify_one();
    }

    /// The master of a deployment that `owner` points at, whether it may be used yet or not.
    fn place(
        &self,
        at: usize,
        owner: impl FnOnce(&MasterSet) -> Option<usize>,
    ) -> Result<Placed, RedisError> {
        let deployment = &self.deployments[at];
        let set = deployment.set();
        let nowhere = || match set.masters.is_empty() {
            true => deployment.masterless(),
            false => RedisError::Nowhere(Nowhere::new(Kind::Unserved, &deployment.url.name)),
        };
        let owner = owner(&set).ok_or_else(nowhere)?;
        Ok(Placed {
            master: Arc::clone(&set.masters[owner]),
            epoch: set.topology.masters[owner].epoch,
        })
    }

    /// Takes a deployment's masters: begins masters for new ones, keeps those that stay, ends the
    /// others with what they have queued. Returns whether anything is new. Called by one task a
    /// deployment.
    ///
    /// # Errors
    /// [`StartError`]; nothing is changed then.
    pub fn take(
        &self,
        at: usize,
        topology: Topology,
        context: &MasterContext,
    ) -> Result<bool, StartError> {
        let deployment = &self.deployments[at];
        let before = deployment.set();
        if before.topology.masters == topology.masters {
            return Ok(false);
        }
        let is_sharded = deployment.url.form == RedisForm::Cluster;
        let mut masters = Vec::with_capacity(topology.masters.len());
        for master in &topology.masters {
            let known = before
                .topology
                .masters
                .iter()
                .position(|m| m.address == master.address);
            if let Some(known) = known {
                masters.push(Arc::clone(&before.masters[known]));
                continue;
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let place = MasterSpec {
                number: FeedNumber(number),
                url: deployment.url.server(&master.address),
                database: deployment.url.database,
                slots: is_sharded.then(|| master.slots.clone()),
                hears_control: at == 0,
                misplaced: Arc::clone(&deployment.misplaced),
            };
            match Master::start(context, place) {
                Ok(master) => masters.push(master),
                Err(error) => {
                    retire(&masters, &before.masters);
                    return Err(error);
                }
            }
        }
        for (master, seen) in masters.iter().zip(&topology.masters) {
            if let Some(owned) = &master.shared.owned {
                owned.set(&seen.slots);
            }
        }
        tell_masters(&deployment.url.name, &topology);
        let kept =
            |master: &Arc<Master>| before.masters.iter().any(|old| old.number == master.number);
        let is_lossy = !masters.iter().all(kept);
        let set = Arc::new(MasterSet::new(topology, masters, &self.slots));
        *deployment
            .set
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::clone(&set);
        context.overall.forget(Part::Deployment(at));
        if is_sharded {
            tell_unserved(&deployment.url.name, at, [&before, &set], context);
        }
        self.advise();
        // A master that was not there before may be a replica that took over.
        context.moves.send_modify(|moves| moves.add(is_lossy));
        self.moved.notify_one();
        retire(&before.masters, &set.masters);
        Ok(true)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tell_masters(deployment: &str, topology: &Topology) {
    let addresses = topology.masters.iter().map(|m| &m.address);
    tracing::info!(
        event = "redis_masters_changed",
        deployment,
        masters = List::of(addresses).value(),
        "the masters of Redis, or their slots, are these now"
    );
}

/// Ends those of the masters that are not kept, each in its own time.
fn retire(masters: &[Arc<Master>], kept: &[Arc<Master>]) {
    for master in masters {
        if kept.iter().any(|kept| kept.number == master.number) {
            continue;
        }
        let master = Arc::clone(master);
        tasks::spawn("redis_retired", async move { master.stop().await });
    }
}

/// Tells how many slots have no master: whether any have none once for each change.
fn tell_unserved(name: &str, at: usize, [before, now]: [&MasterSet; 2], context: &MasterContext) {
    let counts = [before, now].map(MasterSet::unserved_count);
    let gauge = &context.metrics.control.slots_unserved;
    gauge.add(counts[1] as u64);
    gauge.sub(counts[0] as u64);
    let reason = format!(
        "{} slots of Redis {name} have no master, and what is in them is refused: see CLUSTER SLOTS",
        counts[1]
    );
    match counts {
        [0, 0] => {}
        [_, 0] => {
            tracing::info!(
                event = "redis_slots_served",
                deployment = name,
                "every slot of Redis has a master again"
            );
        }
        [0, _] => {
            tracing::warn!(
                event = "redis_slots_unserved",
                deployment = name,
                reason,
                "slots of Redis have no master"
            );
        }
        _ => {}
    }
    match counts[1] {
        0 => context.overall.forget(Part::Slots(at)),
        _ => context
            .overall
            .set(Part::Slots(at), BrokerHealth::Partly(reason)),
    }
}

fn owners(topology: &Topology) -> Vec<Option<usize>> {
    let mut owners = vec![None; SLOTS_COUNT];
    for (at, master) in topology.masters.iter().enumerate() {
        for range in &master.slots {
            let range = usize::from(*range.start())..=usize::from(*range.end());
            owners[range].fill(Some(at));
        }
    }
    owners
}
