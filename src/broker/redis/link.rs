//! Keeps the command link alive, and asks end to end whether the feed hears.
//!
//! In: events of the link's connection, a clock. Out: a connection with all scripts loaded,
//! [`Health`], probes that the feed must hear, and the order to build the feed anew when it does
//! not. One task on the control runtime; owner of the link's client. Bounds: one check at a time,
//! each within a few command timeouts; attempts to connect wait 50 to 500 ms between each other.
//!
//! ```text
//!  connecting ── scripts loaded ──▶ prepared ── probe answered ──▶ up ──┐
//!      ▲                                │                              │ every probe interval
//!      └──── connection error ──────────┴──── probe failed: down ◀─────┘
//!  two time-outs in a row, or a server that is no master: reconnect; if that hangs, or the
//!  client's task ended: a new client.
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use fred::types::{ConnectHandle, Value};
use tokio::sync::{Notify, broadcast, watch};

use super::control::Heard;
use super::health::{Half, Health};
use super::owned::Owned;
use super::scripts::Scripts;
use crate::config;
use crate::protocol::ids::SessionId;
use crate::redis::{Keys, RedisError, RedisLink};
use crate::telemetry::metrics::Metrics;

/// How soon a connection that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// Least time between two forced reconnections: a server that is no master refuses every
/// publication, and the name may lead to another one only after a while.
const RECONNECT_PACE: Duration = Duration::from_millis(500);
/// fred tells of a connection shortly before it takes commands.
const SETTLE: Duration = Duration::from_millis(5);
/// Time-outs in a row after which the connection is given up.
const TIMEOUTS_MAX: u32 = 2;
/// fred's forced reconnection hangs behind a full socket; then the client is replaced.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What supervisor and feed tell each other of the probes.
#[derive(Debug)]
pub struct Probes {
    started: Instant,
    /// When the youngest probe that came back was sent, in milliseconds since the start.
    heard_ms: AtomicU64,
    /// The feed is to be built anew.
    pub rebuild: Notify,
    /// A probe is wanted now: the feed stands again.
    pub now: Notify,
}

impl Probes {
    /// Nothing heard yet; time counts from now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            heard_ms: AtomicU64::new(0),
            rebuild: Notify::new(),
            now: Notify::new(),
        }
    }

    /// What the next probe carries: when it is sent.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A probe came back. What it says that is no stamp is not ours.
    pub fn heard(&self, payload: &[u8]) {
        let stamp = std::str::from_utf8(payload)
            .ok()
            .and_then(|s| s.parse().ok());
        if let Some(stamp) = stamp {
            self.heard_ms.fetch_max(stamp, Ordering::Relaxed);
        }
    }

    /// How old the youngest probe is that came back (the start, before the first).
    #[must_use]
    pub fn age(&self) -> Duration {
        let heard_ms = self.heard_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.stamp().saturating_sub(heard_ms))
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self::new()
    }
}

/// What the supervisor shares with the broker.
#[derive(Debug)]
pub struct Shared {
    /// The link.
    pub link: Arc<RedisLink>,
    /// Names of keys.
    pub keys: Keys,
    /// The scripts.
    pub scripts: Scripts,
    /// Up or down.
    pub health: Health,
    /// Probes.
    pub probes: Probes,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// This process, as the probe channel names it.
    pub process: SessionId,
    /// The connection has the scripts: publications may be sent.
    pub is_prepared: AtomicBool,
    /// The server may be no master any more: it is to be asked now.
    pub suspect: Notify,
    /// What Redis does when its memory is full, once known.
    pub maxmemory_policy: OnceLock<String>,
    /// The slots that are here, on a master of a cluster.
    pub owned: Option<Owned>,
    /// The cluster's control messages, where they may come this way.
    pub heard: Option<Arc<Heard>>,
}

/// One client and the ends of its events.
struct Connection {
    client: Client,
    task: ConnectHandle,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
    connected: broadcast::Receiver<Server>,
}

/// Why a client is given up.
enum End {
    Stop,
    Dead,
}

/// The supervisor. Ends when `stop` turns true or its sender is gone.
pub async fn supervise(shared: Arc<Shared>, settings: config::Redis, stop: watch::Receiver<bool>) {
    let mut supervisor = Supervisor {
        shared,
        settings,
        timeouts_in_a_row: 0,
        unheard_since: None,
        connections: 0,
        is_useless: false,
        next_reconnect: Instant::now(),
    };
    loop {
        // The URL was read when the link was made, so this does not fail.
        let Ok(client) = supervisor.shared.link.renew() else {
            return;
        };
        let mut connection = Connection {
            errors: client.error_rx(),
            connected: client.reconnect_rx(),
            task: client.connect(),
            client,
        };
        let end = supervisor.watch(&mut connection, stop.clone()).await;
        // Dropping a client does not end its task; aborting it closes the socket.
        connection.task.abort();
        supervisor.lost("the connection was given up");
        match end {
            End::Stop => return,
            End::Dead => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Waits until `stop` turns true or its sender is gone.
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stop.wait_for(|is_stopped| *is_stopped).await;
}

struct Supervisor {
    shared: Arc<Shared>,
    settings: config::Redis,
    timeouts_in_a_row: u32,
    /// Since when Redis takes probes that the feed does not hear.
    unheard_since: Option<Instant>,
    connections: u64,
    /// The last check found a connection that is of no use.
    is_useless: bool,
    next_reconnect: Instant,
}

impl Supervisor {
    async fn watch(&mut self, connection: &mut Connection, mut stop: watch::Receiver<bool>) -> End {
        let mut wait = Duration::ZERO;
        loop {
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                // Errors first: one that is older than the connection must not undo it.
                biased;
                () = stopped(&mut stop) => return End::Stop,
                _ = &mut connection.task => return End::Dead,
                error = connection.errors.recv() => {
                    if let Ok((error, _)) = error {
                        self.lost(error.details());
                    }
                    wait = RETRY;
                }
                _ = connection.connected.recv() => {
                    self.connected_anew();
                    wait = SETTLE;
                }
                // A suspicion may be older than the promotion that answers it: ask first.
                () = shared.suspect.notified() => wait = self.check(connection).await,
                () = shared.probes.now.notified() => wait = self.check(connection).await,
                () = tokio::time::sleep(wait) => wait = self.check(connection).await,
            }
            if std::mem::take(&mut self.is_useless) {
                self.unprepared("connecting anew");
                tokio::time::sleep_until(self.next_reconnect.into()).await;
                self.next_reconnect = Instant::now() + RECONNECT_PACE;
                if !reconnect(&connection.client).await {
                    return End::Dead;
                }
                wait = SETTLE;
            }
        }
    }

    /// Loads what is missing, sends a probe, judges the feed. Returns when to do so again.
    async fn check(&mut self, connection: &mut Connection) -> Duration {
        match self.ask().await {
            // Some of it may have been asked of the connection before.
            Ok(()) if connection.connected.try_recv().is_ok() => {
                self.connected_anew();
                SETTLE
            }
            Ok(()) => {
                self.timeouts_in_a_row = 0;
                self.shared.health.up(Half::Commands);
                self.judge_feed();
                self.settings.probe_interval
            }
            Err(error) => {
                if error.is_timeout() {
                    self.timeouts_in_a_row += 1;
                } else {
                    self.timeouts_in_a_row = 0;
                }
                // While there is no connection, why it was lost says more than that it is.
                let is_known = self.shared.health.reason(Half::Commands).is_some();
                if !is_known || !is_unconnected(&error) {
                    self.down(&error.to_string());
                }
                self.unheard_since = None;
                if self.timeouts_in_a_row >= TIMEOUTS_MAX {
                    self.timeouts_in_a_row = 0;
                    self.is_useless = true;
                }
                self.is_useless |= matches!(error, RedisError::NotMaster(_));
                RETRY
            }
        }
    }

    async fn ask(&mut self) -> Result<(), RedisError> {
        let Shared {
            link,
            keys,
            scripts,
            ..
        } = &*self.shared;
        if !self.shared.is_prepared.load(Ordering::Acquire) {
            for script in scripts.all() {
                link.load(script).await?;
            }
            self.read_policy().await;
            self.shared.is_prepared.store(true, Ordering::Release);
        }
        let stamp = self.shared.probes.stamp().to_string();
        let channel = keys.probe(self.shared.process);
        let args = [channel.into_bytes(), stamp.into_bytes()];
        link.eval(&scripts.probe, &[], &args).await?;
        self.unheard_since.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// A feed that does not hear what Redis takes is built anew, though its socket looks well.
    fn judge_feed(&mut self) {
        let fresh = self.settings.probe_fresh;
        if self.shared.probes.age() <= fresh {
            self.unheard_since = None;
            return;
        }
        let is_known = self.shared.health.reason(Half::Feed).is_some();
        if !is_known {
            let server = self.shared.link.server();
            let reason =
                format!("the feed is deaf: no probe of Redis at {server} came back for {fresh:?}");
            self.shared.health.down(Half::Feed, reason);
        }
        if self
            .unheard_since
            .is_some_and(|since| since.elapsed() > fresh)
        {
            self.unheard_since = None;
            self.shared.probes.rebuild.notify_one();
        }
    }

    /// Reads it once; a server that refuses to tell is left alone.
    async fn read_policy(&self) {
        if self.shared.maxmemory_policy.get().is_some() {
            return;
        }
        let name = b"maxmemory-policy".to_vec();
        let answer = self.shared.link.command("CONFIG", "GET", &[name]).await;
        let policy = match answer {
            Ok(Value::Map(map)) => map.iter().next().and_then(|(_, value)| value.as_string()),
            Ok(Value::Array(pair)) => pair.get(1).and_then(Value::as_string),
            _ => None,
        };
        let Some(policy) = policy else { return };
        if policy != "noeviction" {
            tracing::warn!(
                event = "redis_may_evict",
                policy,
                "Redis may evict keys: set maxmemory-policy to noeviction, or accepted messages \
                 can vanish"
            );
        }
        // Only this task sets it.
        let _ = self.shared.maxmemory_policy.set(policy);
    }

    fn connected_anew(&mut self) {
        self.connections += 1;
        if self.connections > 1 {
            self.shared.metrics.control.redis_reconnects.add(1);
        }
        self.unprepared("connected anew");
    }

    /// Nothing is sent until the scripts are loaded; why it was lost, if known, stays told.
    fn unprepared(&self, reason: &str) {
        self.shared.is_prepared.store(false, Ordering::Release);
        if self.shared.health.reason(Half::Commands).is_none() {
            self.down(reason);
        }
    }

    fn lost(&mut self, reason: &str) {
        self.shared.is_prepared.store(false, Ordering::Release);
        self.unheard_since = None;
        self.down(reason);
    }

    fn down(&self, reason: &str) {
        let server = self.shared.link.server();
        let reason = format!("Redis at {server} cannot be used: {reason}");
        self.shared.health.down(Half::Commands, reason);
    }
}

/// Whether a command was not even tried, for want of a connection.
fn is_unconnected(error: &RedisError) -> bool {
    matches!(error, RedisError::NotDone(cause) if cause.is_canceled())
}

/// Whether the client took up the order to connect anew.
async fn reconnect(client: &Client) -> bool {
    let order = tokio::time::timeout(RECONNECT_TIMEOUT, client.force_reconnection());
    matches!(order.await, Ok(Ok(())))
}
