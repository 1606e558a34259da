//! The node's part in the cluster: lease, partitions and their duties, occupancy, and what it says
//! of itself.
//!
//! In: the configuration and the broker. Out: the handles of what was started, in [`Cluster`].
//! Without Redis the same handles answer for a node alone. The tasks end with the membership; at
//! the end of the node they are asked to give back what they hold, partitions before the lease.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, watch};

use crate::apps::Apps;
use crate::broker::Broker;
use crate::broker::redis::RedisBroker;
use crate::cluster::lease_store::LeaseStore;
use crate::cluster::load_told::LoadTold;
use crate::cluster::membership::{Membership, Settings};
use crate::cluster::occupancy::Occupancy;
use crate::cluster::partition_store::PartitionStore;
use crate::cluster::partitions::{Partitions, ranges};
use crate::cluster::reaper::{self, ReaperTask};
use crate::cluster::settled::Settled;
use crate::cluster::texts::Texts;
use crate::cluster::view::{NodeDetails, View};
use crate::config::Config;
use crate::lifecycle::{Lifecycle, LifecycleReceiver, LifecycleSender};
use crate::queue::consumer::Queue;
use crate::queue::figures::SharedFigures;
use crate::revocation::known::Revocations;
use crate::tasks::{self, turns};
use crate::telemetry::alerts;
use crate::telemetry::history::History;
use crate::telemetry::history::measure::Measure;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::tracer::Tracer;

use super::revoking::Revoking;

/// Over which time load is told.
const LOAD_OVER: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    /// Who lives, and this node's state.
    pub membership: Membership,
    /// For which partitions this node may act.
    pub partitions: Partitions,
    /// How many of them cannot be cleaned, and why.
    pub reaping: watch::Receiver<Option<String>>,
    /// Under which incarnation all members of this node stand: for presence to tell.
    pub settled: Settled,
    /// Which topics have sessions where.
    pub occupancy: Arc<Occupancy>,
    /// What waits in the queues of these partitions, and who moves it.
    pub queue: Queue,
    /// Which tokens are revoked.
    pub revoking: Revoking,
}

/// Starts the tasks.
#[must_use]
pub fn start(
    (config, apps, texts): (&Arc<Config>, &Arc<Apps>, &Texts),
    broker: &Arc<Broker>,
    metrics: &Arc<Metrics>,
    tracer: &Arc<Tracer>,
    lifecycle: &LifecycleSender,
    history: &Arc<History>,
) -> Cluster {
    let (settled, queue) = (Settled::default(), Queue::default());
    let revoking = Revoking::start((config, apps), broker, metrics);
    let settings = |partitions: &Partitions| {
        let kept = Kept {
            partitions: partitions.clone(),
            settled: settled.clone(),
            texts: texts.clone(),
            queue: queue.figures.clone(),
            history: Arc::clone(history),
            revoked: revoking.known.clone(),
        };
        let details = details(config, metrics, lifecycle.subscribe(), kept);
        settings(config, metrics, details, (texts, &revoking.hurry))
    };
    let parts = (broker, (config, apps), metrics, tracer);
    let Broker::Redis(redis) = &**broker else {
        let partitions = Partitions::alone(config.redis.partitions);
        let (membership, task) = Membership::new(settings(&partitions), None);
        tasks::spawn("membership", turns::polled("membership", task.run()));
        consume(&queue, parts, &partitions, &membership);
        return Cluster {
            occupancy: Arc::new(Occupancy::alone(membership.view())),
            membership,
            partitions,
            reaping: watch::channel(None).1,
            settled,
            queue,
            revoking,
        };
    };
    let partitions = Partitions::default();
    let store = LeaseStore::new(redis.urgent(), redis.keys());
    let (membership, task) = Membership::new(settings(&partitions), Some(store));
    revoking.follow(&membership, redis);
    tasks::spawn("membership", turns::polled("membership", task.run()));
    let task = texts.share(membership.view(), redis.bulk(), redis.keys());
    tasks::spawn("texts", task.run());
    lead(&partitions, membership.view(), redis, config, metrics);
    let reaping = reap(reaper::Settings {
        broker: Arc::clone(broker),
        keyspace: redis.bulk(),
        keys: redis.keys().clone(),
        held: partitions.held(),
        view: membership.view(),
        metrics: Arc::clone(metrics),
    });
    let (occupancy, task) =
        Occupancy::clustered(membership.view(), redis.bulk(), redis.keys().clone());
    tasks::spawn("occupancy", turns::polled("occupancy", task.run()));
    consume(&queue, parts, &partitions, &membership);
    Cluster {
        membership,
        partitions,
        reaping,
        settled,
        occupancy: Arc::new(occupancy),
        queue,
        revoking,
    }
}

/// Starts what takes and gives back partitions.
fn lead(
    partitions: &Partitions,
    view: watch::Receiver<Arc<View>>,
    redis: &RedisBroker,
    config: &Config,
    metrics: &Arc<Metrics>,
) {
    let store = Arc::new(PartitionStore::new(redis.urgent(), redis.keys().clone()));
    let task = partitions.lead(view, store, config.redis.lease, Arc::clone(metrics));
    tasks::spawn("partitions", turns::polled("partitions", task.run()));
}

/// Starts the reaper. Returns what it cannot clean.
fn reap(settings: reaper::Settings) -> watch::Receiver<Option<String>> {
    let task = ReaperTask::new(settings);
    let reaping = task.failing();
    tasks::spawn("reaper", turns::polled("reaper", task.run()));
    reaping
}

/// Lets publications carry contexts of traces while every node reads them, as far as is known, and while
/// it is known: until this node's lease ends, or the next heartbeat is answered.
pub(super) async fn carry_context(mut view: watch::Receiver<Arc<View>>, broker: Arc<Broker>) {
    loop {
        let until = {
            let view = view.borrow_and_update();
            let begins_at = view.contexts_from.filter(|_| view.fresh);
            let is_due = begins_at.is_some_and(|from| from <= tokio::time::Instant::now());
            view.until.filter(|_| is_due)
        };
        broker.carry_context(until);
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// What the consumer needs of the node: the broker, the configuration with the apps, where it counts, what
/// is traced.
type Parts<'a> = (
    &'a Arc<Broker>,
    (&'a Arc<Config>, &'a Arc<Apps>),
    &'a Arc<Metrics>,
    &'a Arc<Tracer>,
);

/// Starts the consumer of the queues of these partitions.
fn consume(
    queue: &Queue,
    (broker, rules, metrics, tracer): Parts<'_>,
    partitions: &Partitions,
    membership: &Membership,
) {
    let (broker, rules) = (
        Arc::clone(broker),
        (Arc::clone(rules.0), Arc::clone(rules.1)),
    );
    let (metrics, tracer) = (Arc::clone(metrics), Arc::clone(tracer));
    let led = (partitions.held(), membership.view());
    let consumer = queue.consumer(broker, rules, metrics, tracer, led);
    tasks::vital("queue", consumer.run());
}

/// What the details of a node come from, beside its configuration and metrics.
struct Kept {
    partitions: Partitions,
    settled: Settled,
    texts: Texts,
    queue: SharedFigures,
    history: Arc<History>,
    revoked: Revocations,
}

fn settings(
    config: &Config,
    metrics: &Arc<Metrics>,
    details: impl Fn() -> NodeDetails + Send + Sync + 'static,
    (texts, hurry): (&Texts, &Arc<Notify>),
) -> Settings {
    Settings {
        node: config.server.node_id.clone(),
        lease: config.redis.lease,
        partitions_count: config.redis.partitions,
        details: Box::new(details),
        texts: texts.clone(),
        metrics: Arc::clone(metrics),
        hurry: Arc::clone(hurry),
    }
}

/// What this node says of itself with each heartbeat.
fn details(
    config: &Arc<Config>,
    metrics: &Arc<Metrics>,
    lifecycle: LifecycleReceiver,
    kept: Kept,
) -> impl Fn() -> NodeDetails + Send + Sync + use<> {
    let (url, metrics) = (config.server.advertise.clone(), Arc::clone(metrics));
    let api_only = config.server.listen.is_none();
    let sessions_max = config.server.sessions_max().max(1) as u64;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let started_ms = super::millis(since);
    let Kept {
        partitions,
        settled,
        texts,
        queue,
        history,
        revoked,
    } = kept;
    move || {
        let held = partitions.now().partitions();
        NodeDetails {
            url: url.clone(),
            state: format!("{:?}", *lifecycle.borrow()).to_lowercase(),
            sessions: metrics.sessions(),
            sessions_max,
            drain_sessions: (*lifecycle.borrow() >= Lifecycle::Draining)
                .then(|| metrics.control.drain_sessions.get()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms,
            settled: settled.incarnation(),
            partitions: u32::try_from(held.len()).unwrap_or(u32::MAX),
            partition_ranges: ranges(&held),
            keeps: String::new(),
            keeps_digest: texts.digest().to_string(),
            queue: queue.get(),
            load: load(&history, &metrics),
            revoked: revoked.read_to(),
            looks_beside: true,
            reads_context: true,
            api_only,
        }
    }
}

/// What the node did in the last seconds.
fn load(history: &History, metrics: &Metrics) -> Option<LoadTold> {
    let point = history.recent(LOAD_OVER, Instant::now())?;
    let mean = |measure| point.range(measure).mean().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = |value: f64| value.max(0.0).round() as u64;
    let [requests, commands] =
        [Measure::RequestMs, Measure::CommandMs].map(|measure| *point.range(measure));
    let count = requests.weight + commands.weight;
    let response_ms = (requests.sum + commands.sum) / count.max(1.0);
    let alerts = alerts::raised(&metrics.alerts).into_iter();
    Some(LoadTold {
        cpu_percent: whole(mean(Measure::CpuPercent)),
        memory_bytes: whole(mean(Measure::MemoryBytes)),
        requests_per_s: whole(mean(Measure::Requests) + mean(Measure::Commands)),
        deliveries_per_s: whole(mean(Measure::Deliveries)),
        response_ms: whole(response_ms),
        errors_per_s: whole(mean(Measure::Errors)),
        alerts: alerts.map(str::to_owned).collect(),
    })
}
