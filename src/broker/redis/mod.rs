//! The broker over Redis or Valkey: scripts for what must be atomic, pub/sub for the feed.
//!
//! In: calls from any thread of the node. Out: answers of the scripts, and the [`Feed`]. This file
//! is the engine's face: it names keys and arguments, finds the master that has them, and reads
//! answers. It runs: [`masters`] knows every master and [`topology_watcher`] keeps up with them;
//! [`master`] is one master, where [`supervisor`] keeps each of its links for commands ([`link`]), and
//! [`publications`] are sent and [`feed`] hears on one thread; [`subscription_router`] brings wishes to the
//! feed that can fulfil them. Bounds: those of a master, once per master; every call ends within some
//! command timeouts. While a master is away calls for what it has are `Unavailable` at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::interest::Interest;
use super::memory::clock::Clock;
use super::queue::bells::Bells;
use super::{
    BrokerError, BrokerHealth, Entry, FEED_EVENTS_MAX, Feed, FeedNumber, HistoryPage, HistoryQuery,
    Moves, Page, PublishRequest, Published, SincePage,
};
use crate::config::redis_url::{RedisForm, RedisUrl};
use crate::config::{self, RENEWAL_MORE_MS, Retention, Secret};
use crate::redis::keyspace::Keyspace;
use crate::redis::script::text;
use crate::redis::{Keys, RedisError, Script};
use crate::tasks;
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::{Position, Topic, TopicKind};

pub mod adoption;
pub mod aggregate_health;
pub mod agreement;
mod audit;
pub mod carrying;
pub mod confirmation;
pub mod continuity;
pub mod control;
mod dialer;
pub mod feed;
pub mod fingerprint;
mod guide;
pub mod health;
mod inbox;
pub mod link;
pub mod master;
pub mod masters;
pub mod owned_slots;
#[cfg(test)]
mod placement_tests;
mod presence;
pub mod publications;
pub mod publisher;
mod queue;
mod refusals;
pub mod reply;
pub mod scripts;
mod sentinels;
pub mod shards;
pub mod status;
pub mod subscription_router;
pub mod subscriptions;
pub mod supervisor;
pub mod topology;
pub mod topology_watcher;
mod waits;

use aggregate_health::{AggregateHealth, Part};
use agreement::{Agreement, Disagreement};
use carrying::Carrying;
use fingerprint::Fingerprint;
use master::MasterContext;
use masters::Masters;
use reply::RawEntry;
use scripts::{Reading, Scripts};
use subscription_router::SubscriptionRouter;
use topology::Topology;

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The URL.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The feed's thread or its runtime.
    #[error("the feed's thread cannot be started: {0}")]
    Thread(#[source] std::io::Error),
}

/// See the module.
#[derive(Debug)]
pub struct RedisBroker {
    masters: Arc<Masters>,
    interest: Arc<Interest>,
    overall: Arc<AggregateHealth>,
    bells: Arc<Bells>,
    queue_seen: queue::Seen,
    moves: watch::Receiver<Moves>,
    metrics: Arc<Metrics>,
    disagreement: watch::Sender<Option<Arc<Disagreement>>>,
    running: Mutex<Option<Running>>,
    /// Until when every node reads what stands before bodies on channels.
    carrying: Arc<Carrying>,
}

/// What ends with the broker, beside the masters.
#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl RedisBroker {
    /// Starts everything and returns at once, whether Redis answers or not: until it does, health
    /// is down and says why. Nothing is asked of a deployment before it is known that this node
    /// agrees with the cluster ([`agreement`]). Must be called on the control runtime, where some
    /// tasks go on; each feed gets a thread of its own.
    ///
    /// # Errors
    /// [`StartError`]: a URL that cannot be used, or no thread to be had.
    pub fn start(
        config: &config::Redis,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Feed), StartError> {
        let (broker, feed) = Self::connect(config, metrics)?;
        if let Some(running) = &mut *broker.lock() {
            let (told, stopped) = (broker.disagreement.clone(), running.stop.subscribe());
            let agreeing = broker.agreement(config).run(told, stopped);
            running
                .tasks
                .push(tasks::spawn("redis_agreement", agreeing));
        }
        Ok((broker, feed))
    }

    /// The same without the comparison: connections whose deployments stay unused.
    fn connect(config: &config::Redis, metrics: Arc<Metrics>) -> Result<(Self, Feed), StartError> {
        let (sender, feed) = mpsc::channel(FEED_EVENTS_MAX);
        let context = MasterContext {
            settings: config.clone(),
            metrics: Arc::clone(&metrics),
            feed: sender,
            heard: Arc::default(),
            overall: Arc::default(),
            bells: Arc::default(),
            moves: Arc::default(),
            carrying: Arc::default(),
        };
        let masters = Masters::new(&config.prefix, config.partitions, urls(config)?);
        let broker = Self {
            masters: Arc::new(masters),
            interest: Arc::default(),
            overall: Arc::clone(&context.overall),
            bells: Arc::clone(&context.bells),
            queue_seen: queue::Seen::default(),
            moves: context.moves.subscribe(),
            metrics,
            disagreement: watch::Sender::new(None),
            running: Mutex::new(None),
            carrying: Arc::clone(&context.carrying),
        };
        let (stop, stopped) = watch::channel(false);
        let tasks = broker.follow(context, &stopped)?;
        *broker.lock() = Some(Running { stop, tasks });
        Ok((broker, feed))
    }

    /// Where this node and the cluster differ, once that is known. Such a node must end.
    #[must_use]
    pub fn disagreement(&self) -> watch::Receiver<Option<Arc<Disagreement>>> {
        self.disagreement.subscribe()
    }

    fn agreement(&self, config: &config::Redis) -> Agreement {
        let deployments = self.masters.deployments();
        let urls: Vec<_> = deployments.iter().map(masters::Deployment::url).collect();
        let print = |here| Fingerprint::new(&config.prefix, config.partitions, &urls, here);
        Agreement {
            masters: Arc::clone(&self.masters),
            overall: Arc::clone(&self.overall),
            prints: (0..urls.len()).map(print).collect(),
        }
    }

    /// Begins with each deployment what its form needs.
    fn follow(
        &self,
        context: MasterContext,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Vec<JoinHandle<()>>, StartError> {
        let router = SubscriptionRouter {
            masters: Arc::clone(&self.masters),
            interest: Arc::clone(&self.interest),
            metrics: Arc::clone(&self.metrics),
        };
        let mut tasks = vec![tasks::spawn(
            "subscription_router",
            router.run(stopped.clone()),
        )];
        for (at, deployment) in self.masters.deployments().iter().enumerate() {
            let url = deployment.url();
            if url.form == RedisForm::Single {
                let topology = Topology::of_one(url.hosts[0].clone());
                self.masters.take(at, topology, &context)?;
            } else {
                let reason = format!("the masters of Redis {} are not known yet", url.name);
                let down = BrokerHealth::Down(reason);
                self.overall.set(Part::Deployment(at), down);
                let masters = Arc::clone(&self.masters);
                let watching =
                    topology_watcher::follow(masters, at, context.clone(), stopped.clone());
                tasks.push(tasks::spawn("redis_topology", watching));
            }
        }
        Ok(tasks)
    }

    /// Ends what was started: first what could begin anything new, then each master's publisher,
    /// with all that is queued, and its connections.
    pub async fn stop(&self) {
        let Some(Running { stop, tasks }) = self.lock().take() else {
            return;
        };
        stop.send_replace(true);
        for task in tasks {
            // A panic was reported by the task itself.
            let _ = task.await;
        }
        let masters = self.masters.masters();
        futures_util::future::join_all(masters.iter().map(|master| master.stop())).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands by their key, for scripts that are not the broker's and that nobody may hold up
    /// (leases).
    #[must_use]
    pub fn urgent(&self) -> Keyspace {
        let masters = Arc::clone(&self.masters);
        Keyspace::new(move |key| Ok(Arc::clone(&masters.find(key)?.master.shared.urgent.link)))
    }

    /// The same for all else (occupancy, what reapers do).
    #[must_use]
    pub fn bulk(&self) -> Keyspace {
        let masters = Arc::clone(&self.masters);
        Keyspace::new(move |key| Ok(Arc::clone(&masters.find(key)?.master.shared.bulk.link)))
    }

    /// Names of keys. Channels have the database of their deployment in their name.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        self.masters.keys()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// As [`crate::broker::Broker::carry_context`].
    pub fn carry_context(&self, until: Option<Instant>) {
        self.carrying.set(until);
    }

    /// As [`super::Broker::publish`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        let partition = self.keys().partition_of(&request.topic);
        match self.masters.find_partition(partition) {
            Ok(at) => {
                let answer = at.master.publish(request, partition).await;
                at.master.heeding(answer)
            }
            Err(error) => {
                self.metrics.control.publish_errors.add(1);
                Err(error.into())
            }
        }
    }

    /// As [`super::Broker::since`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn since(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
    ) -> Result<SincePage, BrokerError> {
        let keys = [self.keys().stream(topic), self.keys().last(topic)];
        let args = [
            text(since),
            text(retention.age_ms),
            text(retention.last_life_ms()),
            text(page.entries_max),
            text(page.bytes_max),
            text(super::OVERLAP_MS),
        ];
        let raw = reply::since(
            self.ask(topic, |scripts| &scripts.since, &keys, &args)
                .await?,
        )?;
        Ok(SincePage {
            gap: raw.gap,
            start: raw.start,
            last: raw.last,
            entries: self.read(topic, raw.entries),
        })
    }

    /// As [`super::Broker::last`]. GETEX costs Redis a quarter of what the script does, which is
    /// needed where there is no last id (the stream may stand for it), a cursor beside it, or an id so
    /// far ahead of the clock that a life from now on is too short for it.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn last(
        &self,
        topic: &Topic,
        retention: Retention,
        was_there: bool,
    ) -> Result<Option<Position>, BrokerError> {
        let keys = self.keys();
        let life = text(retention.renewal_ms());
        if was_there && topic.kind() != TopicKind::Inbox {
            let args = [b"PX".to_vec(), life.clone()];
            let link = &self.masters.find_topic(topic)?.master.shared.bulk.link;
            match link.command("GETEX", &keys.last(topic), &args).await {
                // Nothing may be written: the script reads it without renewing.
                Err(error) if error.is_read_only() => {}
                answer => {
                    let soon_ms = Clock::System.now_ms().saturating_add(RENEWAL_MORE_MS);
                    let last = reply::optional_position(&answer?)?;
                    if last.is_some_and(|last| last.ms <= soon_ms) {
                        return Ok(last);
                    }
                }
            }
        }
        let keys = [keys.stream(topic), keys.last(topic), keys.cursor(topic)];
        let answer = self
            .ask(topic, |scripts| &scripts.last, &keys, &[life])
            .await?;
        reply::optional_position(&answer)
    }

    /// As [`super::Broker::takes_questions`].
    #[must_use]
    pub fn takes_questions(&self, feed: FeedNumber) -> Option<bool> {
        let masters = self.masters.masters();
        let master = masters.iter().find(|master| master.number == feed)?;
        Some(master.is_up() && master.shared.bulk.link.circuit().pass().is_ok())
    }

    /// As [`super::Broker::history`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, BrokerError> {
        const HIGHEST: Position = Position {
            ms: u64::MAX,
            seq: u64::MAX,
        };
        let is_empty = query.retention.entries_max == 0
            || query.since == Some(HIGHEST)
            || query.until == Some(Position::ZERO);
        if is_empty {
            // Redis refuses bounds beyond which no id can be.
            return Ok(HistoryPage {
                entries: Vec::new(),
                more: false,
            });
        }
        let bound = |position: Option<Position>| position.map_or_else(Vec::new, text);
        let args = [
            bound(query.since),
            bound(query.until),
            text(query.retention.age_ms),
            text(query.limit),
            text(query.bytes_max),
            flag(query.reverse),
        ];
        let keys = [self.keys().stream(&query.topic)];
        let answer = self
            .ask(&query.topic, |scripts| &scripts.history, &keys, &args)
            .await?;
        let [more, entries] = reply::parts(answer)?;
        Ok(HistoryPage {
            entries: self.read(&query.topic, reply::entries(entries)?),
            more: reply::is_one(&more),
        })
    }

    /// As [`super::Broker::control`]. In a cluster any master repeats it to all.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn control(&self, message: Bytes) -> Result<(), BrokerError> {
        self.masters.usable(0)?;
        let first = &self.masters.deployments()[0];
        let (channel, masters) = (first.control(), first.masters());
        let up = masters.iter().find(|master| master.is_up());
        let master = up.or(masters.first()).ok_or_else(|| first.masterless())?;
        let args = vec![channel.into(), Value::Bytes(control::numbered(&message))];
        master.shared.urgent.link.submit("PUBLISH", args).await?;
        Ok(())
    }

    /// As [`super::Broker::interest`].
    #[must_use]
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// How late the feeds are: what was published to a master longer ago than this was heard. At rest
    /// it goes from 0 to the pace of probes; by one clock.
    #[must_use]
    pub fn feed_lag(&self) -> Duration {
        let masters = self.masters.masters();
        let ages = masters.iter().map(|master| master.shared.probes.age());
        ages.max().unwrap_or_default()
    }

    /// As [`super::Broker::health`].
    #[must_use]
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.overall.watch()
    }

    /// Runs a script over keys of the topic. By the bulk link: what comes this way is a question,
    /// or may be one of very many.
    async fn eval(
        &self,
        topic: &Topic,
        script: fn(&Scripts) -> &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, BrokerError> {
        let master = self.masters.find_topic(topic)?.master;
        let script = script(&master.shared.scripts);
        let answer = master.shared.bulk.link.eval(script, keys, args).await;
        master.heeding(answer.map_err(BrokerError::from))
    }

    /// Runs a script that reads, also where the master takes no writes.
    async fn ask(
        &self,
        topic: &Topic,
        reading: fn(&Scripts) -> &Reading,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, BrokerError> {
        let master = self.masters.find_topic(topic)?.master;
        let (link, reading) = (&master.shared.bulk.link, reading(&master.shared.scripts));
        let mut answer = link.eval(&reading.usual, keys, args).await;
        if answer.as_ref().is_err_and(RedisError::is_read_only) {
            answer = link.eval(&reading.frozen, keys, args).await;
        }
        master.heeding(answer.map_err(BrokerError::from))
    }

    fn read(&self, topic: &Topic, raw: Vec<RawEntry>) -> Vec<Entry> {
        let read = |raw: RawEntry| Entry {
            position: raw.position,
            prev: raw.prev,
            body: reply::body(&raw.body, topic, raw.position, &self.metrics),
        };
        raw.into_iter().map(read).collect()
    }
}

/// The deployments, the first of which has the cluster's own keys.
fn urls(config: &config::Redis) -> Result<Vec<RedisUrl>, RedisError> {
    let first = config.url.as_ref().ok_or(RedisError::NoUrl)?;
    let all = std::iter::once(first).chain(&config.shards);
    all.map(|Secret(url)| RedisUrl::parse(url).map_err(|_| RedisError::Scheme))
        .collect()
}

fn flag(value: bool) -> Vec<u8> {
    text(u8::from(value))
}
