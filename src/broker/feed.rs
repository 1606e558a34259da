//! The feed: a thread that hears Redis' channels and passes on what the node wants to hear.
//!
//! In: messages `ID PREV BODY` and `a POSITION SESSION` on topics' channels, control messages, own
//! probes, wishes from [`Interest`]. Out: [`FeedEvent`]s by the [`FeedSender`], health of its connection.
//! Owner: one OS thread with a runtime of its own, because a feed that shares its thread with a
//! busy consumer loses most of a flood. Bounds: fred's buffer ([`FEED_BUFFER_MESSAGES`], an overrun
//! is a break) and the dispatcher's queue (see [`FeedSender`]); one SUBSCRIBE is in flight.
//!
//! A SUBSCRIBE is confirmed by an ECHO right behind it: fred reports a subscription when it is
//! written, and gives the error of a forbidden one to the next command, that ECHO. (A PING will not
//! do: Redis refuses it with MISCONF where it cannot save.) After every new connection all topics are
//! subscribed again, and only then the break is told. fred says "reconnected" before anything is
//! subscribed, and never says that a connection was unresponsive.
//!
//! [`FEED_BUFFER_MESSAGES`]: crate::redis::clients::FEED_BUFFER_MESSAGES

use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::config::Server;
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Message};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use tokio::sync::watch;

use super::FeedEvent;
use super::feed_sender::FeedSender;
use super::interest::Interest;
use super::redis::health::Line;
use super::redis::link::{Shared, stopped};
use super::redis::owned::Owned;
use super::redis::reply;
use super::redis::subscriptions::channels::{Hearer, subscribe, subscribe_sharded};
use super::redis::subscriptions::{Chunk, Subscriptions};
use crate::config;
use crate::protocol::ids::Topic;
use crate::redis::refusal::Refusal;
use crate::redis::{access, clients};

/// How often an idle feed asks for a sign of life. fred's detection counts from the last write,
/// so the next one waits for the answer of the one before.
const HEARTBEAT: Duration = Duration::from_millis(300);
/// How soon a refused or unanswered subscription is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How soon topics whose slot is elsewhere are tried again, if they are still wanted here by then.
const REFUSED_RETRY: Duration = Duration::from_millis(100);
/// Messages taken in one turn of the loop before it looks at anything else.
const TURN_MESSAGES_MAX: usize = 256;

/// The answer to what was sent: those whose slot is elsewhere, or that all of it failed.
type Pending = BoxFuture<'static, Result<Vec<Hearer>, Error>>;

/// Everything the thread owns.
pub struct FeedTask {
    /// What the broker's parts share.
    pub shared: Arc<Shared>,
    /// For the clients.
    pub settings: config::Redis,
    /// What the node wants to hear.
    pub interest: Arc<Interest>,
    /// Where events go.
    pub sender: FeedSender,
}

/// One client and the ends of its events.
struct Connection {
    client: Client,
    task: ConnectHandle,
    errors: broadcast::Receiver<(Error, Option<Server>)>,
    connected: broadcast::Receiver<Server>,
    messages: broadcast::Receiver<Message>,
    /// Between fred's "reconnected" and its next error.
    is_connected: bool,
    /// The chunk that waits for its ECHO.
    barrier: Option<(Chunk, Pending)>,
    heartbeat: Option<BoxFuture<'static, Result<(), Error>>>,
    next_heartbeat: Instant,
    next_chunk: Instant,
}

/// Why a connection is given up.
enum End {
    Stop,
    Dead,
}

/// The loop's state across connections.
struct Hearing {
    task: FeedTask,
    subscriptions: Subscriptions,
    /// Where the cluster's control messages come this way.
    control: Option<String>,
    /// Where probes are heard.
    probe: String,
    /// In a cluster: the slots are dealt anew, so that it may be another channel, or the same one
    /// and subscribed no more.
    is_probe_due: bool,
    connections: u64,
    /// Everything that is wanted stands, so that a probe's return means that the feed works.
    is_standing: bool,
    barriers: u64,
}

impl FeedTask {
    /// Hears until `stop` turns true or nobody listens.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Shared {
            keys, owned, heard, ..
        } = &*self.shared;
        let mut hearing = Hearing {
            control: heard.as_ref().map(|_| keys.control()),
            probe: self.shared.probe_channel(),
            is_probe_due: false,
            subscriptions: Subscriptions::new(owned.is_some()),
            task: self,
            connections: 0,
            is_standing: false,
            barriers: 0,
        };
        loop {
            match clients::feed_client(&hearing.task.settings) {
                Ok(client) => {
                    let mut connection = Connection::new(client);
                    let end = hearing.hear(&mut connection, stop.clone()).await;
                    // Dropping a client does not end its task; aborting it closes the socket.
                    connection.task.abort();
                    match end {
                        End::Stop => return hearing.refuses(None),
                        End::Dead => hearing.lost(&mut connection, "it was given up", None),
                    }
                }
                // The command link says why: it is made from the same files.
                Err(_) if *stop.borrow() => return hearing.refuses(None),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl Connection {
    /// Connects; the ends of the events exist before the first event.
    fn new(client: Client) -> Self {
        let now = Instant::now();
        Self {
            errors: client.error_rx(),
            connected: client.reconnect_rx(),
            messages: client.message_rx(),
            task: client.connect(),
            client,
            is_connected: false,
            barrier: None,
            heartbeat: None,
            next_heartbeat: now,
            next_chunk: now,
        }
    }
}

impl Hearing {
    async fn hear(&mut self, connection: &mut Connection, mut stop: watch::Receiver<bool>) -> End {
        let shared = Arc::clone(&self.task.shared);
        let interest = Arc::clone(&self.task.interest);
        loop {
            self.send_due(connection);
            let wake = self.next_wake(connection);
            tokio::select! {
                // Errors before connections, so that an old one does not undo a new connection;
                // messages last, because in a flood they are always ready.
                biased;
                () = stopped(&mut stop) => return End::Stop,
                error = connection.errors.recv() => {
                    if let Ok((error, _)) = error {
                        let refusal = Refusal::of(error.details());
                        self.lost(connection, &access::explain(&error), refusal);
                        if access::is_tls(&error) {
                            return End::Dead;
                        }
                    }
                }
                _ = connection.connected.recv() => self.connected(connection),
                _ = &mut connection.task => return End::Dead,
                () = shared.probes.rebuild.notified() => {
                    tracing::warn!(event = "feed_deafened", "the feed is deaf, its connection is built anew");
                    return End::Dead;
                }
                () = dealt_anew(shared.owned.as_ref()) => self.is_probe_due = true,
                result = answer(connection.barrier.as_mut().map(|(_, pending)| pending)) => {
                    self.barrier_answered(connection, result);
                }
                _ = answer(connection.heartbeat.as_mut()) => {
                    // A lost connection is told by its error event.
                    connection.heartbeat = None;
                    connection.next_heartbeat = Instant::now() + HEARTBEAT;
                }
                wishes = interest.changed() => {
                    let now = Instant::now();
                    let mut standing = Vec::new();
                    for (topic, wish) in wishes {
                        let is_standing = self.subscriptions.wish(topic.clone(), wish, now);
                        match wish {
                            Some(wish) if is_standing => standing.push((topic, wish)),
                            Some(_) => {}
                            None => self.task.sender.forget(&topic),
                        }
                    }
                    self.task.sender.confirm(standing);
                }
                () = self.task.sender.room(), if self.task.sender.owes() => {
                    if self.task.sender.is_closed() {
                        return End::Stop;
                    }
                    self.task.sender.settle();
                }
                () = tokio::time::sleep_until(wake.into()) => {}
                message = connection.messages.recv() => {
                    match message {
                        Ok(message) => self.take_messages(connection, message),
                        Err(RecvError::Lagged(count)) => self.overrun(count),
                        Err(RecvError::Closed) => return End::Dead,
                    }
                    if self.task.sender.is_closed() {
                        return End::Stop;
                    }
                }
            }
        }
    }

    /// When something is due by time.
    fn next_wake(&self, connection: &Connection) -> Instant {
        let chunk = connection
            .barrier
            .is_none()
            .then_some(connection.next_chunk);
        let heartbeat = connection
            .heartbeat
            .is_none()
            .then_some(connection.next_heartbeat);
        let now = Instant::now();
        [chunk, heartbeat, self.subscriptions.next_due()]
            .into_iter()
            .flatten()
            .filter(|due| *due > now)
            .min()
            .unwrap_or(now + HEARTBEAT)
    }

    /// Sends what is due: topics that leave, the next chunk, a heartbeat.
    fn send_due(&mut self, connection: &mut Connection) {
        let now = Instant::now();
        let leaving = self.subscriptions.due(now);
        if !connection.is_connected {
            return;
        }
        if !leaving.is_empty() {
            self.unsubscribe(&connection.client, &leaving);
        }
        if connection.barrier.is_some() {
            return;
        }
        if connection.next_chunk <= now
            && let Some(chunk) = self.next_chunk()
        {
            let pending = self.subscribe(&connection.client, &chunk);
            connection.barrier = Some((chunk, pending));
        } else if connection.heartbeat.is_none() && connection.next_heartbeat <= now {
            let client = connection.client.clone();
            connection.heartbeat = Some(Box::pin(async move { client.ping(None).await }));
        }
    }

    /// Behind everything written before, ahead of any later SUBSCRIBE of the same topics. One poll
    /// puts it into the connection's queue; nobody waits for its answer.
    fn unsubscribe(&self, client: &Client, topics: &[Topic]) {
        let channels = self.channels(topics);
        let Some(owned) = &self.task.shared.owned else {
            let _ = client.unsubscribe(channels).now_or_never();
            return;
        };
        // A master drops the subscriptions of a slot that leaves it, and refuses to hear of them.
        for channel in channels.into_iter().filter(|channel| owned.has(channel)) {
            let _ = client.sunsubscribe(channel).now_or_never();
        }
    }

    /// Topics to be subscribed; none where it is the probe's channel alone.
    fn next_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.subscriptions.next_chunk();
        chunk.or_else(|| self.is_probe_due.then(Chunk::default))
    }

    fn subscribe(&mut self, client: &Client, chunk: &Chunk) -> Pending {
        let mut channels = self.channels(&chunk.topics);
        let mut sharded = Vec::new();
        let is_sharded = self.task.shared.owned.is_some();
        if is_sharded {
            let topics = chunk.topics.iter().cloned().map(Some);
            sharded = topics.zip(std::mem::take(&mut channels)).collect();
        }
        // Redis refuses a SUBSCRIBE of nothing; once more does no harm.
        if chunk.is_first || chunk.topics.is_empty() || self.is_probe_due {
            self.is_probe_due = false;
            self.probe = self.task.shared.probe_channel();
            match is_sharded {
                true => sharded.push((None, self.probe.clone())),
                false => channels.push(self.probe.clone()),
            }
        }
        if chunk.is_first {
            channels.extend(self.control.clone());
        }
        self.barriers += 1;
        let token = self.barriers.to_string();
        let echo = CustomCommand::new_static("ECHO", ClusterHash::Random, false);
        let client = client.clone();
        Box::pin(async move {
            // All are in the client's queue before the first is written, so that they leave in
            // one write: an error that arrived before the ECHO was sent would belong to nobody
            // and be dropped.
            let (subscribed, refused, echo) = tokio::join!(
                biased;
                subscribe(&client, channels),
                subscribe_sharded(&client, sharded),
                client.custom::<String, _>(echo, vec![token.clone()])
            );
            subscribed?;
            let refused = refused?;
            if echo? == token {
                Ok(refused)
            } else {
                // An error took the place of an answer before, so this one belongs elsewhere.
                let kind = fred::error::ErrorKind::Protocol;
                Err(Error::new(kind, "the echo of another one"))
            }
        })
    }

    fn channels(&self, topics: &[Topic]) -> Vec<String> {
        let keys = &self.task.shared.keys;
        topics.iter().map(|topic| keys.channel(topic)).collect()
    }

    fn connected(&mut self, connection: &mut Connection) {
        self.connections += 1;
        if self.connections > 1 {
            self.task.shared.metrics.control.redis_reconnects.add(1);
        }
        self.subscriptions.reset();
        self.is_standing = false;
        connection.is_connected = true;
        connection.barrier = None;
        connection.heartbeat = None;
        connection.next_chunk = Instant::now();
    }

    /// In which word Redis refuses this connection, or what is asked by it.
    fn refuses(&self, refusal: Option<&'static Refusal>) {
        let Shared {
            refusals, metrics, ..
        } = &*self.task.shared;
        refusals.set(Line::Feed, refusal, &metrics.control);
    }

    fn lost(&mut self, connection: &mut Connection, why: &str, refusal: Option<&'static Refusal>) {
        connection.is_connected = false;
        connection.barrier = None;
        connection.heartbeat = None;
        self.is_standing = false;
        self.subscriptions.reset();
        let server = self.task.shared.server();
        let reason = format!("the feed of Redis at {server} has no connection: {why}");
        self.refuses(refusal);
        self.task.shared.health.down(Line::Feed, reason);
    }

    fn barrier_answered(
        &mut self,
        connection: &mut Connection,
        result: Result<Vec<Hearer>, Error>,
    ) {
        let Some((chunk, _)) = connection.barrier.take() else {
            return;
        };
        let refused = match result {
            Ok(refused) => refused,
            Err(error) => {
                let server = self.task.shared.server();
                let why = access::explain(&error);
                let reason = format!("Redis at {server} did not confirm a subscription: {why}");
                self.refuses(Refusal::of(error.details()));
                self.task.shared.health.down(Line::Feed, reason);
                self.is_standing = false;
                self.is_probe_due = true;
                self.subscriptions.put_back(chunk);
                connection.next_chunk = Instant::now() + RETRY;
                return;
            }
        };
        if !refused.is_empty() {
            // Their slot is elsewhere: they leave when the layout says so, or are tried again.
            self.is_probe_due |= refused.contains(&None);
            let topics: Vec<_> = refused.into_iter().flatten().collect();
            self.subscriptions.refuse(&topics);
            connection.next_chunk = Instant::now() + REFUSED_RETRY;
            self.task.shared.urgent.link.misplaced().notify_one();
        }
        let awaited = self.subscriptions.confirm(&chunk);
        if !awaited.is_empty() {
            self.task.sender.confirm(awaited);
        }
        if chunk.is_last && self.connections > 1 {
            self.task.sender.break_off();
        }
        let stood = std::mem::replace(&mut self.is_standing, self.subscriptions.stands());
        self.refuses(None);
        if self.is_standing && (!stood || chunk.topics.is_empty()) {
            self.task.shared.probes.now.notify_one();
        }
    }

    /// Takes a message and what else waits, up to a turn's worth.
    fn take_messages(&mut self, connection: &mut Connection, first: Message) {
        self.take(first);
        for _ in 1..TURN_MESSAGES_MAX {
            match connection.messages.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Lagged(count)) => self.overrun(count),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// Messages were overwritten in fred's buffer. The subscriptions stand all the same.
    fn overrun(&mut self, count: u64) {
        self.task.shared.metrics.control.feed_dropped.add(count);
        self.task.sender.break_off();
    }

    // HOT: one body copied out, no formatting, no lock.
    fn take(&mut self, message: Message) {
        let Shared {
            keys,
            probes,
            heard,
            metrics,
            ..
        } = &*self.task.shared;
        let channel: &str = &message.channel;
        let Ok(payload) = reply::bytes(message.value) else {
            return self.unreadable();
        };
        if let Some(name) = keys.qualified_of(channel) {
            // A topic that nobody wants any more is on its way out.
            if let Some(topic) = self.subscriptions.wanted(name) {
                match reply::event(topic, &payload, metrics) {
                    Some(event) => self.task.sender.push(event),
                    None => self.unreadable(),
                }
            }
        } else if *channel == *self.probe {
            probes.heard(&payload);
            if self.is_standing && probes.age() <= self.task.settings.probe_fresh {
                self.task.shared.health.up(Line::Feed);
            }
        } else if self.control.as_deref() == Some(channel)
            && let Some(message) = heard.as_ref().and_then(|heard| heard.first(&payload))
        {
            self.task.sender.push(FeedEvent::Control(message));
        }
    }

    /// Not even a position could be read, so there is nothing to pass on.
    fn unreadable(&self) {
        self.task.shared.metrics.control.unreadable_damaged.add(1);
    }
}

/// Told when the slots of a cluster are dealt anew.
async fn dealt_anew(owned: Option<&Owned>) {
    match owned {
        Some(owned) => owned.changed().await,
        None => std::future::pending().await,
    }
}

/// The result of what is pending; never, when nothing is.
async fn answer<T>(pending: Option<&mut BoxFuture<'static, T>>) -> T {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}
