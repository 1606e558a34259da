//! The node: every part built, started and stopped in a stated order.
//!
//! Start: 1. public listeners bound (a taken port ends the start) 2. API listener bound 3. broker
//! and feed 4. membership, partitions and occupancy, what is sent to a collector 5. presence 6. workers, each on a thread of its own 7.
//! dispatcher 8. API. Nothing waits for the broker: a node whose Redis is away starts, says why it
//! is not ready, and becomes ready when Redis appears.
//!
//! Stop, on SIGTERM, SIGINT or the order to drain: 1. `Draining`: not ready, handshakes refused,
//! sessions told and closed in waves over `drain.window_ms` 2. `Closing`: what is left is closed,
//! workers end 3. members, occupancy, the leases of partitions and the node's own are given back
//! 4. the API answers its last requests, the broker's connections end 5. `Stopped`, and what the
//! collector has not got is sent. Each step has its own deadline. A second signal ends
//! the process at once with 130. Where a vital part has ended (`tasks`), the node is not ready
//! any more, closes what still can be closed for a moment, gives nothing back, and ends with 70.
//!
//! The way of a message, hot functions marked in their files: `broker::redis::feed` →
//! `dispatcher::Dispatcher::run` → `dispatcher::worker_queues::WorkerQueues::deliver` → `worker::turn` →
//! `worker::outbox::Outbox::write`.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::api;
use crate::api::body_budget::BodyBudget;
use crate::api::keys::ApiKeys;
use crate::api::queue::taken::Taken;
use crate::api::state::ApiState;
use crate::apps::keeper::Keeper;
use crate::apps::{Apps, settings_of};
use crate::auth::error::KeyError;
use crate::auth::verifier::Verifier;
use crate::authorizer::Authorizers;
use crate::broker::Feed;
use crate::cluster::keeping;
use crate::cluster::membership::BEATS_PER_LEASE;
use crate::cluster::texts::Texts;
use crate::config::Config;
use crate::config::file_shares::FileShares;
use crate::dispatcher::Dispatcher;
use crate::ingress::admission::Admission;
use crate::ingress::listener_state::{ConnectionLimit, Gate};
use crate::lifecycle::{Lifecycle, LifecycleSender};
use crate::presence::Presence;
use crate::session::Services;
use crate::session::registry::Registry;
use crate::tasks::{self, turns};
use crate::telemetry::history::History;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp::Otlp;
use crate::verification::Checks;
use crate::worker::WorkerInterest;
use crate::worker::handle::WorkerHandle;

pub use end::End;

mod apps;
mod broker;
pub mod cluster;
pub mod directory;
mod emf;
mod end;
mod facts;
mod leaving;
mod listeners;
mod memory;
mod observing;
pub mod parts;
mod performance;
mod planted;
pub mod read_told;
pub mod readiness;
mod rebalance;
pub mod reload;
pub mod revoking;
pub mod stop_time;
mod stored_apps;
mod systemd;
pub mod worker_thread;

use apps::{Followers, TokenRules};
use cluster::Cluster;
use directory::NodeDirectory;
use listeners::{ApiTask, Listeners, serve_api, until_ended};
use parts::Since;
use readiness::{Entrance, Readiness};
use reload::{Reload, Replaced};
use worker_thread::WorkerSetup;

/// Two, so that a long call of the API does not hold up the dispatcher. With one alone, one client's
/// bodies of 8 MB held up all deliveries for 100 ms, and with 8 publishers over Redis a publication
/// cost the same (docs/performance.md).
const CONTROL_THREADS: usize = 2;
/// How long presence, occupancy and the leases may take to be given back, each.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// Why the node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A token key is no key.
    #[error("the token keys cannot be used")]
    Keys(#[from] KeyError),
    /// The broker over Redis cannot begin.
    #[error("the broker over Redis cannot be set up")]
    Broker(#[from] crate::broker::redis::StartError),
    /// No thread or runtime to be had.
    #[error("the operating system gives no thread or poller")]
    System(#[source] io::Error),
}

/// Where the node listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The public listener; `None` on a node for the API only.
    pub public: Option<SocketAddr>,
    /// The API's.
    pub api: SocketAddr,
    /// That for metrics and health, where it has an address of its own.
    pub metrics: Option<SocketAddr>,
}

/// Runs a node until it is told to stop. `started` is called once, when both listeners are open.
///
/// # Errors
/// [`StartError`]; afterwards nothing runs.
pub fn run(
    config: Config,
    warnings: Vec<String>,
    commit: &'static str,
    reload: Reload,
    started: impl FnOnce(Addresses),
) -> Result<End, StartError> {
    tasks::log_panics();
    if config.server.dev {
        planted::plant();
    }
    let config = Arc::new(config);
    let listeners = Listeners::bind(&config)?;
    let apps = Arc::new(Apps::of(&config));
    let verifier = apps::verifier(&apps.all(), config.session.info_bytes_max)?;
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::System)?;
    turns::start(config.health.stuck, control.handle().clone()).map_err(StartError::System)?;
    let result = control.block_on(async {
        let (parts, feed) = Parts::build(config, (apps, verifier), warnings, commit)?;
        parts.serve(feed, listeners, reload, started).await
    });
    control.shutdown_timeout(GIVE_BACK);
    result
}

/// Everything that is not a worker.
struct Parts {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    services: Arc<Services>,
    cluster: Cluster,
    texts: Texts,
    keeper: Arc<Keeper>,
    /// The configuration as it was read last.
    read: watch::Sender<Arc<Config>>,
    otlp: Otlp,
    lifecycle: LifecycleSender,
    /// Told when the node is asked to leave by other means than a signal.
    leave: Arc<Notify>,
    warnings: Vec<String>,
    commit: &'static str,
    history: Arc<History>,
    started: Instant,
}

impl Parts {
    fn build(
        config: Arc<Config>,
        (apps, verifier): (Arc<Apps>, Verifier),
        warnings: Vec<String>,
        commit: &'static str,
    ) -> Result<(Self, Feed), StartError> {
        let metrics = Metrics::new(config.server.workers);
        let metrics = Arc::new(metrics.with_facts(facts::here(&config, commit)));
        let (lifecycle, _) = watch::channel(Lifecycle::Starting);
        let (broker, feed) = broker::start(&config, &metrics)?;
        let keeper = stored_apps::start(&apps, &config, &broker, &metrics);
        let tracer = observing::tracer(&config, &metrics);
        let (history, recorder) = History::begin(Instant::now());
        performance::start(&config, &metrics, &history, recorder).map_err(StartError::System)?;
        let texts = Texts::new(&keeping::said(&config, &config, keeper.of_file().iter()));
        let of_node = (&config, &apps, &texts);
        let cluster = cluster::start(of_node, &broker, &metrics, &tracer, &lifecycle, &history);
        let otlp = observing::start_otlp(&config, &metrics, cluster.membership.clone(), &broker)?;
        tracer.send_to(otlp.spans.clone());
        let view = cluster.membership.view();
        let carries = cluster::carry_context(view.clone(), Arc::clone(&broker));
        tasks::spawn("trace_context", carries);
        let occupancy = Arc::clone(&cluster.occupancy);
        let counts = Arc::clone(&metrics);
        let presence = Presence::new(Arc::clone(&broker), view.clone(), occupancy, counts);
        let presence = Arc::new(presence);
        let (runs, settled) = (Arc::clone(&presence), cluster.settled.clone());
        tasks::vital("presence", async move { runs.run(&settled).await });
        let verifier = verifier.counting(Arc::clone(&metrics.tokens));
        let verifier = verifier.unread_while(apps.unread());
        let verifier = Arc::new(verifier.revoking(cluster.revoking.known.clone()));
        let checks = Checks::new(Arc::clone(&verifier), Arc::clone(&metrics.checks));
        checks.follow();
        let rules = TokenRules::new(&verifier, &checks, config.session.info_bytes_max);
        apps.taken_by(move |settings| rules.take(settings));
        let services = Arc::new(Services {
            config: Arc::clone(&config),
            apps,
            broker,
            verifier,
            checks,
            authorizers: Authorizers::new(&config, &metrics.authorizers),
            view,
            presence,
            registry: Registry::new(Arc::clone(&cluster.occupancy)),
            tracer,
            departure: OnceLock::new(),
        });
        let read = Arc::clone(&config);
        let parts = Self {
            config,
            metrics,
            services,
            cluster,
            texts,
            read: watch::Sender::new(read),
            keeper,
            otlp,
            lifecycle,
            leave: Arc::default(),
            warnings,
            commit,
            history,
            started: Instant::now(),
        };
        Ok((parts, feed))
    }

    async fn serve(
        self,
        feed: Feed,
        listeners: Listeners,
        reload: Reload,
        started: impl FnOnce(Addresses),
    ) -> Result<End, StartError> {
        let addresses = listeners.addresses().map_err(StartError::System)?;
        let entrance = Entrance {
            room: ConnectionLimit::new(self.config.server.connections_max),
            admission: Admission::new(&self.config.admission, Instant::now()),
        };
        let readiness = self.watch_readiness(entrance.clone());
        let interest = Arc::new(WorkerInterest::default());
        let (handles, threads) =
            self.start_workers(listeners.public, &interest, &entrance, &readiness)?;
        rebalance::start(
            &self.config.rebalance,
            self.cluster.membership.clone(),
            self.lifecycle.subscribe(),
            Arc::clone(&self.metrics),
            handles.clone(),
        );
        self.cluster.revoking.tell(handles.clone());
        let followers = Followers {
            apps: Arc::clone(&self.services.apps),
            keeper: Arc::clone(&self.keeper),
            config: Arc::clone(&self.config),
            texts: self.texts.clone(),
            read: self.read.subscribe(),
            workers: handles.clone(),
        };
        followers.follow(settings_of(&self.config));
        let dispatcher = self.dispatcher(interest, handles);
        tasks::vital("dispatcher", dispatcher.run(feed));
        let keys = Arc::new(ApiKeys::new(&self.config.api));
        let replaced = Replaced {
            keys: Arc::clone(&keys),
            authorizers: Arc::clone(&self.services.authorizers),
            keeper: Arc::clone(&self.keeper),
            read: self.read.clone(),
            config: Arc::clone(&self.config),
            metrics: Arc::clone(&self.metrics),
        };
        reload::watch(reload, replaced);
        let (apis, stop_api) = self.start_api(listeners.api, listeners.metrics, keys, readiness)?;
        emf::start(&self.config, &self.metrics).map_err(StartError::System)?;
        systemd::feed_watchdog().map_err(StartError::System)?;
        self.lifecycle.send_replace(Lifecycle::Ready);
        self.tell_started(addresses);
        started(addresses);
        let end =
            leaving::until_end(&self.services.broker, &self.cluster.membership, &self.leave).await;
        if let Some(text) = end.last_word() {
            logs::send_last_word(&text);
        }
        if matches!(end, End::Failed(_)) {
            self.break_off(threads).await;
            return Ok(end);
        }
        self.send_away(threads).await;
        self.give_back().await;
        stop_api.send_replace(true);
        until_ended(apis).await;
        self.end().await;
        Ok(end)
    }

    fn tell_started(&self, addresses: Addresses) {
        tracing::info!(
            event = "node_started",
            public = addresses.public.map(tracing::field::display),
            api = %addresses.api,
            metrics = addresses.metrics.map(tracing::field::display),
            broker = parts::broker_name(&self.services.broker),
            "listening"
        );
        systemd::ready();
    }

    fn dispatcher(&self, interest: Arc<WorkerInterest>, workers: Vec<WorkerHandle>) -> Dispatcher {
        let dispatcher = Dispatcher::new(
            Arc::clone(&self.services.broker),
            Arc::clone(&self.config),
            Arc::clone(&self.metrics),
            interest,
            workers,
            Arc::clone(&self.leave),
        );
        let dispatcher = dispatcher.of_apps(Arc::clone(&self.services.apps));
        let dispatcher = dispatcher.ringing(self.cluster.revoking.known.clone());
        dispatcher.traced_by(Arc::clone(&self.services.tracer))
    }

    fn file_shares(&self) -> FileShares {
        FileShares::here(&self.config.server, &self.config.redis)
    }

    fn watch_readiness(&self, entrance: Entrance) -> Readiness {
        readiness::watch(
            Arc::clone(&self.services.broker),
            self.cluster.membership.clone(),
            entrance,
            self.lifecycle.subscribe(),
            Arc::clone(&self.metrics),
            readiness::FirstReadings {
                revocations: self.cluster.revoking.known.clone(),
                checks: Arc::clone(&self.services.checks),
                apps: self.keeper.awaited(),
            },
        )
    }

    fn start_api(
        &self,
        listener: StdListener,
        metrics: Option<StdListener>,
        keys: Arc<ApiKeys>,
        readiness: Readiness,
    ) -> Result<(Vec<ApiTask>, watch::Sender<bool>), StartError> {
        let directory = NodeDirectory {
            services: Arc::clone(&self.services),
            membership: self.cluster.membership.clone(),
            partitions: self.cluster.partitions.clone(),
            reaping: self.cluster.reaping.clone(),
            revoking: self.cluster.revoking.clone(),
            keeper: Arc::clone(&self.keeper),
            occupancy: Arc::clone(&self.cluster.occupancy),
            lifecycle: self.lifecycle.subscribe(),
            readiness,
            metrics: Arc::clone(&self.metrics),
            leave: Arc::clone(&self.leave),
            warnings: self.warnings.clone(),
            since: Since::default(),
        };
        let directory = Arc::new(directory);
        directory::watch_parts(&directory);
        let state = ApiState {
            broker: Arc::clone(&self.services.broker),
            config: Arc::clone(&self.config),
            keys,
            metrics: Arc::clone(&self.metrics),
            history: Arc::clone(&self.history),
            tracer: Arc::clone(&self.services.tracer),
            apps: Arc::clone(&self.services.apps),
            keeper: Arc::clone(&self.keeper),
            directory,
            bodies: BodyBudget::new(self.config.api.body_bytes_max),
            queue_taken: Taken::told_by(self.config.redis.lease / BEATS_PER_LEASE),
            started: self.started,
            commit: self.commit,
        };
        let api = api::Api::new(state);
        let stop = watch::Sender::new(false);
        let mut tasks = Vec::new();
        let shares = self.file_shares();
        let mut most = shares.api;
        if let Some(listener) = metrics {
            let of_probes;
            (most, of_probes) = shares.with_probes();
            let served = (listener, of_probes, api.probes());
            tasks.push(serve_api("metrics", served, &stop)?);
        }
        tasks.push(serve_api("api", (listener, most, api), &stop)?);
        Ok((tasks, stop))
    }

    fn start_workers(
        &self,
        public: Vec<StdListener>,
        interest: &Arc<WorkerInterest>,
        entrance: &Entrance,
        readiness: &Readiness,
    ) -> Result<(Vec<WorkerHandle>, Vec<JoinHandle<()>>), StartError> {
        let Entrance { room, admission } = entrance;
        if let Some(bytes_max) = self.config.admission.memory_bytes_max {
            memory::watch(Arc::clone(admission), bytes_max);
        }
        // Each worker keeps a window of its own; together they hold what is configured.
        let recent_bytes_max = self.config.cache.memory_bytes / public.len().max(1) as u64;
        let recent_bytes_max = usize::try_from(recent_bytes_max).unwrap_or(usize::MAX);
        let gate = Gate::new(self.file_shares().public);
        let mut handles = Vec::with_capacity(public.len());
        let mut threads = Vec::with_capacity(public.len());
        for (index, listener) in public.into_iter().enumerate() {
            let (handle, inbound) = WorkerHandle::new(Arc::clone(&self.metrics.workers[index]));
            let setup = WorkerSetup {
                index,
                listener,
                recent_bytes_max,
                inbound,
                services: Arc::clone(&self.services),
                interest: Arc::clone(interest),
                metrics: Arc::clone(&self.metrics.workers[index]),
                gate: Arc::clone(&gate),
                room: Arc::clone(room),
                admission: Arc::clone(admission),
                readiness: readiness.door.clone(),
                lifecycle: self.lifecycle.subscribe(),
            };
            let name = format!("worker-{index}");
            let thread = tasks::vital_thread(name, move || setup.run());
            let thread = thread.map_err(StartError::System)?;
            handles.push(handle);
            threads.push(thread);
        }
        Ok((handles, threads))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
