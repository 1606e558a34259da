//! Keeps one link for commands alive.
//!
//! In: events of the link's connection, a clock. Out: a connection with all scripts loaded, and the
//! link's circuit and line of [`Health`](super::health::Health); of the urgent link also whether the
//! master takes writes. One task a link on the control runtime; owner of the link's client and circuit. Bounds: one check at a time, each within a few
//! command timeouts; attempts to connect wait as `redis::clients` says, checks that failed and new
//! clients as `waits.rs` does.
//!
//! ```text
//!  open ── connected, or a rest is over ──▶ half-open ── a master, scripts loaded, probe answered ──▶ closed
//!    ▲                                        │                                              │ every
//!    └── connection lost ─────────────────────┴── no answer to the probe, or no master ──────┘ interval
//!  two time-outs in a row, or a server that is no master: reconnect; if that hangs, if the
//!  client's task ended, if TLS failed (its files are read anew), or if the first address of a name
//!  says nothing: a new client.
//! ```
//!
//! The probe of the urgent link is a script that does nothing, and that is refused where those are that
//! write. Where only writes are refused the circuit is closed all the same: what can be
//! read is read, and every write gets Redis' own word. The other links are asked for their ROLE,
//! which writes nothing and is reported to nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface};
use fred::types::config::Server;
use fred::types::{ConnectHandle, Value};
use tokio::sync::{broadcast, watch};

use super::health::Line;
use super::link::{CommandLink, Purpose, Shared, stopped};
use super::publications::LOSSES_MAX;
use super::waits::Waits;
use crate::config;
use crate::redis::circuit::Phase;
use crate::redis::refusal::Refusal;
use crate::redis::{RedisError, RedisLink, access, detour};

/// How soon it is looked again whether there is a connection, while there is none.
const LOOK: Duration = Duration::from_millis(100);
/// fred tells of a connection shortly before it takes commands.
const SETTLE: Duration = Duration::from_millis(5);
/// Time-outs in a row after which the connection is given up.
const TIMEOUTS_MAX: u32 = 2;
/// fred's forced reconnection hangs behind a full socket; then the client is replaced.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a link but the urgent one may be away untold, and a master that is back waits for bulk.
const LINK_PATIENCE: Duration = Duration::from_secs(2);
/// How often it looks meanwhile.
const BULK_LOOK: Duration = Duration::from_millis(20);

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

/// Keeps this link of a master alive. Ends when `stop` turns true or its sender is gone.
pub async fn supervise(
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
    settings: config::Redis,
    stop: watch::Receiver<bool>,
) {
    let mut supervisor = Supervisor {
        shared,
        command,
        settings,
        timeouts_in_a_row: 0,
        connections: 0,
        is_prepared: false,
        is_useless: false,
        losses_in_a_row: 0,
        around: None,
        is_around: false,
        waits: Waits::default(),
        works_since: None,
        away: Some((Instant::now(), "Redis is not reached yet".to_owned())),
        refusal: None,
    };
    let gauge = supervisor.command.purpose.gauge();
    gauge(&supervisor.shared.metrics.control).add(1);
    loop {
        let client = match supervisor.renew() {
            Ok(client) => client,
            Err(error) => {
                // A file of the configuration was good at the start and is not now.
                supervisor.down(&error.to_string(), None);
                if supervisor.is_stopped_first(&stop).await {
                    return;
                }
                continue;
            }
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
        if matches!(end, End::Stop) {
            // It is not reported as trouble.
            supervisor.refuses(None);
            if supervisor.away.is_some() {
                gauge(&supervisor.shared.metrics.control).sub(1);
            }
            let circuit = supervisor.command.link.circuit();
            circuit.open("this link was ended", None);
            return;
        }
        supervisor.unprepared("the connection was given up");
        // A new client is made where certificates do not fit, too, and reads them anew.
        supervisor.is_stopped_first(&stop).await;
    }
}

struct Supervisor {
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
    settings: config::Redis,
    timeouts_in_a_row: u32,
    connections: u64,
    /// The connection has the scripts.
    is_prepared: bool,
    /// The last check found a connection that is of no use.
    is_useless: bool,
    /// How often in a row a script was not there though it was loaded.
    losses_in_a_row: u32,
    /// Where the next client is to connect, and whether this one was led around: see `redis::detour`.
    around: Option<SocketAddr>,
    is_around: bool,
    /// Before the next client, and the next check after one that failed.
    waits: Waits,
    /// Since when probes of the urgent link are answered.
    works_since: Option<Instant>,
    /// Since when the link is away, and why.
    away: Option<(Instant, String)>,
    /// In which word the master refuses commands, or those that write.
    refusal: Option<&'static Refusal>,
}

impl Supervisor {
    fn renew(&mut self) -> Result<Client, RedisError> {
        let around = self.around.take();
        self.is_around = around.is_some();
        self.command.link.renew_around(around)
    }

    /// Whether the client is to be given up, now that its connection ended so.
    async fn is_dead_by(&mut self, error: &Error) -> bool {
        if *error.kind() == ErrorKind::Timeout && !self.is_around {
            self.around = detour::find(&self.settings).await;
        }
        self.around.is_some() || self.is_around || access::is_tls(error)
    }

    /// Waits before a new client. Whether it is stopped by then.
    async fn is_stopped_first(&mut self, stop: &watch::Receiver<bool>) -> bool {
        let mut stop = stop.clone();
        let wait = self.waits.next();
        let stopped = tokio::time::timeout(wait, stopped(&mut stop));
        stopped.await.is_ok()
    }

    async fn watch(&mut self, connection: &mut Connection, mut stop: watch::Receiver<bool>) -> End {
        let mut wait = Duration::ZERO;
        loop {
            let command = Arc::clone(&self.command);
            tokio::select! {
                // Errors first: one that is older than the connection must not undo it.
                biased;
                () = stopped(&mut stop) => return End::Stop,
                _ = &mut connection.task => return End::Dead,
                error = connection.errors.recv() => {
                    if let Ok((error, _)) = error {
                        self.lost(&error);
                        if self.is_dead_by(&error).await {
                            return End::Dead;
                        }
                    }
                    wait = LOOK;
                }
                _ = connection.connected.recv() => {
                    self.connected_anew();
                    wait = SETTLE;
                }
                // A suspicion may be older than the promotion that answers it: ask first.
                () = command.suspect.notified() => wait = self.check(connection).await,
                () = tokio::time::sleep(wait) => wait = self.check(connection).await,
            }
            if std::mem::take(&mut self.is_useless) {
                self.unprepared("connecting anew");
                // A server that is no master refuses every publication, and the name may lead to
                // another one only after a while.
                tokio::select! {
                    () = stopped(&mut stop) => return End::Stop,
                    () = tokio::time::sleep(wait) => {}
                }
                if !reconnect(&connection.client).await {
                    return End::Dead;
                }
                wait = SETTLE;
            }
        }
    }

    /// Loads what is missing, and sends a probe. Returns when to do so again.
    async fn check(&mut self, connection: &mut Connection) -> Duration {
        let circuit = self.command.link.circuit();
        if circuit.phase() == Phase::Open && connection.client.is_connected() {
            circuit.half_open();
        }
        let is_new = !self.is_prepared;
        match self.ask().await {
            // Some of it may have been asked of the connection before.
            Ok(()) if connection.connected.try_recv().is_ok() => {
                self.connected_anew();
                SETTLE
            }
            Ok(()) => {
                (self.timeouts_in_a_row, self.losses_in_a_row) = (0, 0);
                self.waits.over();
                if is_new && self.command.purpose == Purpose::Bulk {
                    self.read_identity().await;
                }
                self.command.link.circuit().close();
                self.works();
                if self.command.purpose != Purpose::Urgent {
                    return self.settings.probe_interval;
                }
                let (shared, link) = (&self.shared, &self.command.link);
                shared.maxmemory_policy.look(link, is_new).await;
                shared.fullness.look(link, is_new).await;
                self.tell_up()
            }
            Err(RedisError::NoScript(_)) if self.losses_in_a_row < LOSSES_MAX => {
                // It answers; somebody took the scripts away, so all of them are loaded again.
                self.losses_in_a_row += 1;
                self.is_prepared = false;
                SETTLE
            }
            Err(error) => {
                self.is_prepared &= !matches!(error, RedisError::NoScript(_));
                if error.is_timeout() {
                    self.timeouts_in_a_row += 1;
                } else {
                    self.timeouts_in_a_row = 0;
                }
                // While there is no connection, why it was lost says more than that it is.
                let circuit = self.command.link.circuit();
                if circuit.phase() != Phase::Closed && is_unconnected(&error) {
                    circuit.reopen();
                } else {
                    self.down(&error.to_string(), error.refusal());
                }
                if self.timeouts_in_a_row >= TIMEOUTS_MAX {
                    self.timeouts_in_a_row = 0;
                    self.is_useless = true;
                }
                self.is_useless |= matches!(error, RedisError::NotMaster(_));
                self.tell_away();
                match is_unconnected(&error) {
                    true => LOOK,
                    false => self.waits.next(),
                }
            }
        }
    }

    async fn ask(&mut self) -> Result<(), RedisError> {
        let command = Arc::clone(&self.command);
        // One that refuses to be a master is given nothing.
        if !self.is_prepared {
            is_master(&command.link).await?;
            // Nor is one that takes every script away, until it has kept one.
            if self.losses_in_a_row >= LOSSES_MAX {
                self.probe(&command.link).await?;
            }
            for script in self.shared.scripts.all() {
                command.link.submit_load(script).await?;
            }
        }
        match command.purpose {
            Purpose::Urgent => {
                let refusal = self.probe(&command.link).await?;
                self.refuses(refusal);
            }
            Purpose::Bulk | Purpose::Replicated | Purpose::Publications => {
                if self.is_prepared {
                    is_master(&command.link).await?;
                }
                self.refuses(None);
            }
        }
        self.is_prepared = true;
        Ok(())
    }

    /// Goes through the gate that every write passes. Where that is shut the word is returned.
    async fn probe(&mut self, link: &RedisLink) -> Result<Option<&'static Refusal>, RedisError> {
        let shared = &self.shared;
        let refusal = match link.probe(&shared.scripts.gate, &[], &[]).await {
            Ok(_) => None,
            Err(error) if error.is_read_only() => {
                is_master(link).await?;
                error.refusal()
            }
            Err(error) => return Err(error),
        };
        if shared.owned.is_some() {
            is_whole(link).await?;
        }
        Ok(refusal)
    }

    /// Shows in which word the master refuses now.
    fn refuses(&mut self, refusal: Option<&'static Refusal>) {
        self.refusal = refusal;
        let (shared, purpose) = (&self.shared, self.command.purpose);
        shared
            .refusals
            .set(purpose.line(), refusal, &shared.metrics.control);
    }

    /// The link takes commands. Of the urgent one more has to be checked before that is reported.
    fn works(&mut self) {
        if self.away.take().is_none() {
            return;
        }
        let purpose = self.command.purpose;
        (purpose.gauge())(&self.shared.metrics.control).sub(1);
        if purpose != Purpose::Urgent {
            self.shared.health.up(purpose.line());
        }
    }

    /// Reports that a link is away, where it is so for too long. Of the urgent one it was reported at
    /// once.
    fn tell_away(&self) {
        let purpose = self.command.purpose;
        if let Some((since, reason)) = &self.away
            && purpose != Purpose::Urgent
            && since.elapsed() >= LINK_PATIENCE
        {
            let health = &self.shared.health;
            health.down(purpose.line(), reason.clone());
        }
    }

    /// Before anything is let through to the server, because it may be another one.
    async fn read_identity(&self) {
        let sections = ["server", "replication"].map(Value::from_static_str);
        let answer = self.command.link.ask("INFO", sections.to_vec()).await;
        let info = answer.ok().and_then(|info| info.as_string());
        self.shared.continuity.connected(info.as_deref());
    }

    /// The master is up. One that has just come back is told so when its bulk link, too, had time to
    /// come back: whoever is told begins to read. Returns when to look again.
    fn tell_up(&mut self) -> Duration {
        let Shared { bulk, health, .. } = &*self.shared;
        let since = *self.works_since.get_or_insert_with(Instant::now);
        let is_alone = bulk.link.circuit().phase() != Phase::Closed;
        let is_told = health.reason(Line::Urgent).is_none();
        if !is_told && is_alone && since.elapsed() < LINK_PATIENCE {
            return BULK_LOOK;
        }
        let server = self.command.link.server();
        health.answers(self.refusal.map(|refusal| format!("{server}: {refusal}")));
        self.settings.probe_interval
    }

    fn connected_anew(&mut self) {
        self.connections += 1;
        if self.connections > 1 {
            self.shared.metrics.control.redis_reconnects.add(1);
        }
        self.unprepared("connected anew");
    }

    /// Nothing is sent until the scripts are loaded; why it was lost, if known, stays reported.
    fn unprepared(&mut self, reason: &str) {
        self.is_prepared = false;
        match self.command.link.circuit().phase() {
            Phase::Closed => self.down(reason, None),
            Phase::HalfOpen | Phase::Open => {}
        }
    }

    fn lost(&mut self, error: &Error) {
        self.is_prepared = false;
        self.down(&access::explain(error), Refusal::of(error.details()));
    }

    /// Redis cannot be used, and why; `refusal`: that is its own word.
    fn down(&mut self, reason: &str, refusal: Option<&'static Refusal>) {
        self.works_since = None;
        self.refuses(refusal);
        let link = &self.command.link;
        let by_which = self.command.purpose.by_which();
        let server = link.server();
        let reason = format!("Redis at {server} cannot be used{by_which}: {reason}");
        link.circuit().open(&reason, refusal);
        if self.away.is_none() {
            let gauge = self.command.purpose.gauge();
            gauge(&self.shared.metrics.control).add(1);
        }
        let since = self.away.as_ref().map_or_else(Instant::now, |away| away.0);
        self.away = Some((since, reason.clone()));
        if self.command.purpose == Purpose::Urgent {
            self.shared.health.down(Line::Urgent, reason);
        }
        self.tell_away();
    }
}

/// Asks a server whether it is a master, whatever the circuit says.
async fn is_master(link: &RedisLink) -> Result<(), RedisError> {
    is_master_by(&link.ask("ROLE", Vec::new()).await?)
}

/// Whether a server is one by its ROLE.
///
/// # Errors
/// [`RedisError::NotMaster`], in the word in which it would refuse to write.
pub(super) fn is_master_by(role: &Value) -> Result<(), RedisError> {
    let is_master = match role {
        Value::Array(parts) => parts.first().and_then(Value::as_str).as_deref() == Some("master"),
        _ => false,
    };
    if is_master {
        Ok(())
    } else {
        Err(RedisError::NotMaster(answered(
            "READONLY by its ROLE it is a replica",
        )))
    }
}

/// Asks a node of a cluster whether it serves its slots: the probe declares no key, and so passes
/// though every key is refused. A server that refuses to tell is left alone.
async fn is_whole(link: &RedisLink) -> Result<(), RedisError> {
    let info = link.ask("CLUSTER", vec!["INFO".into()]).await;
    info.map_or(Ok(()), |info| is_whole_by(&info))
}

/// Whether it does by its CLUSTER INFO.
///
/// # Errors
/// [`RedisError::NotDone`], in the word in which it would refuse a key.
pub(super) fn is_whole_by(info: &Value) -> Result<(), RedisError> {
    match info.as_string() {
        Some(text) if text.contains("cluster_state:fail") => Err(RedisError::NotDone(answered(
            "CLUSTERDOWN by its CLUSTER INFO the cluster is down",
        ))),
        _ => Ok(()),
    }
}

/// Whether the slot of the probe has gone, as the script or the server itself says it.
pub(super) fn is_elsewhere(error: &RedisError) -> bool {
    match error {
        RedisError::Moved(_) => true,
        RedisError::Failed(error) => error.details().contains("non local key"),
        _ => false,
    }
}

/// What the server would have answered, had it been asked otherwise.
fn answered(details: &'static str) -> Error {
    Error::new(ErrorKind::Unknown, details)
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
