//! The feed: hears Redis' channels and passes on what the node wants to hear.
//!
//! In: messages `ID PREV BODY` and `a POSITION SESSION` on topics' channels, rings on those of bells,
//! control messages, own probes, wishes from [`Interest`]. Out: [`FeedEvent`]s by the [`FeedSender`],
//! rings to the node's bells, health of its connection.
//! Owner: a thread with a runtime of its own, which it shares with the link for publications. Bounds:
//! what one read brings, and the dispatcher's queue (see [`FeedSender`]); one chunk of channels is with
//! Redis at a time, and one question whether it is there.
//!
//! Redis tells each channel that it has subscribed, so a chunk stands when it has told all of them.
//! After every new connection all topics are subscribed again, and only then the break is told. A
//! connection is given up when a command is not answered in its time and nothing else has come either.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fred::error::Error;
use fred::types::Value;
use rustc_hash::FxHashMap;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::dialer::Dialer;
use super::health::Line;
use super::link::{Shared, stopped};
use super::owned_slots::Owned;
use super::reply;
use super::subscriptions::{Chunk, Subscriptions};
use super::waits::Waits;
use crate::broker::FeedEvent;
use crate::broker::feed_sender::FeedSender;
use crate::broker::interest::{Interest, WishNumber};
use crate::broker::queue::bells::Ring;
use crate::config;
use crate::redis::refusal::Refusal;
use crate::redis::wire::{Connection, Event};
use crate::redis::{RedisError, access};
use crate::tasks::turns::{self, Stamp};
use fanfare_protocol::ids::Topic;

mod channels;

use channels::{Sent, Underway};

/// What Redis calls the connection in CLIENT LIST.
const NAME: &str = "fanfare-feed";
/// A feed that does not answer for as long as a command may take is connected anew, but not sooner than
/// this.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
/// How often an idle feed asks for a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How soon topics whose slot is elsewhere are tried again, if they are still wanted here by then.
const REFUSED_RETRY: Duration = Duration::from_millis(100);

/// Everything the feed owns at its start.
pub struct FeedTask {
    /// What the broker's parts share.
    pub shared: Arc<Shared>,
    /// For the connection.
    pub settings: config::Redis,
    /// What the node wants to hear.
    pub interest: Arc<Interest>,
    /// Where events go.
    pub sender: FeedSender,
}

/// Why a connection is given up.
enum End {
    Stop,
    /// It broke, or did not come to be.
    Lost(Error),
    /// It stands, and hears nothing.
    Deaf,
}

/// The loop's state across connections.
struct Hearing {
    task: FeedTask,
    /// Of each turn, with a connection or without.
    stamp: Stamp,
    subscriptions: Subscriptions,
    /// Where the cluster's control messages come this way.
    control: Option<String>,
    /// Where probes are heard.
    probe: String,
    /// In a cluster: the slots are dealt anew, so that it may be another channel, or the same one
    /// and subscribed no more.
    is_probe_due: bool,
    connections: u64,
    /// There was a connection since it was told last that there is none.
    has_heard: bool,
    /// Everything that is wanted stands, so that a probe's return means that the feed works.
    is_standing: bool,
    /// The chunk that is with Redis.
    underway: Option<Underway>,
    /// The topic that is told to be forbidden, and in which word.
    forbidden: Option<(Topic, &'static Refusal)>,
    next_chunk: Instant,
    /// Before the next connection, and before a refused or unanswered subscription is tried again.
    waits: Waits,
    /// How many bytes had come when the open question was asked; `None`: there is none.
    asked: Option<u64>,
    next_question: Instant,
}

impl FeedTask {
    /// Hears until `stop` turns true or nobody listens.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let patience = patience(&self.settings);
        let mut dialer = Dialer::new(&self.settings, NAME, patience);
        let mut hearing = Hearing::new(self);
        while let Some(opened) = hearing.meanwhile(dialer.open(), &mut stop).await {
            let end = match opened {
                Ok(mut connection) => hearing.hear(&mut connection, &mut stop).await,
                Err(error) => End::Lost(error),
            };
            match end {
                End::Stop => break,
                End::Deaf => hearing.lost("it was given up", None),
                End::Lost(error) => {
                    hearing.lost(&access::explain(&error), Refusal::of(error.details()));
                    dialer.failed(&error);
                }
            }
            let rest = tokio::time::sleep(hearing.waits.next());
            if hearing.meanwhile(rest, &mut stop).await.is_none() {
                break;
            }
        }
        hearing.refuses(None);
    }
}

impl Hearing {
    fn new(task: FeedTask) -> Self {
        let Shared {
            keys, owned, heard, ..
        } = &*task.shared;
        Self {
            control: heard.as_ref().map(|_| keys.control()),
            probe: task.shared.probe_channel(),
            is_probe_due: false,
            subscriptions: Subscriptions::new(owned.is_some()),
            connections: 0,
            has_heard: false,
            is_standing: false,
            underway: None,
            forbidden: None,
            next_chunk: Instant::now(),
            waits: Waits::default(),
            asked: None,
            next_question: Instant::now(),
            stamp: turns::stamp(format!("the feed of Redis at {}", task.shared.server())),
            task,
        }
    }

    /// Waits for this, and takes wishes meanwhile. `None`: the feed ends.
    async fn meanwhile<F: Future>(
        &mut self,
        future: F,
        stop: &mut watch::Receiver<bool>,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let interest = Arc::clone(&self.task.interest);
        loop {
            self.stamp.turned();
            tokio::select! {
                biased;
                () = stopped(stop) => return None,
                wishes = interest.changed() => {
                    self.wished(wishes);
                    // They are subscribed nowhere.
                    let _ = self.subscriptions.due(Instant::now());
                }
                () = self.task.sender.room(), if self.task.sender.owes() => {
                    if self.task.sender.is_closed() {
                        return None;
                    }
                    self.task.sender.settle();
                }
                output = &mut future => return Some(output),
                () = tokio::time::sleep(turns::IDLE_TURN) => {}
            }
        }
    }

    /// Hears by this connection until it ends.
    async fn hear(
        &mut self,
        connection: &mut Connection<Sent>,
        stop: &mut watch::Receiver<bool>,
    ) -> End {
        self.connected();
        let shared = Arc::clone(&self.task.shared);
        let interest = Arc::clone(&self.task.interest);
        let mut events = Vec::new();
        let mut timer = pin!(tokio::time::sleep(HEARTBEAT));
        // What has come is not answered, and nothing is due: it turns all the same.
        let mut idle = tokio::time::interval(turns::IDLE_TURN);
        idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.stamp.turned();
            self.send_due(connection);
            let wake = self.next_wake();
            if let Some(wake) = wake
                && timer.deadline() != wake.into()
            {
                timer.as_mut().reset(wake.into());
            }
            tokio::select! {
                // Messages last, because in a flood they are always there.
                biased;
                () = stopped(stop) => return End::Stop,
                () = shared.probes.rebuild.notified() => {
                    tracing::warn!(event = "feed_deafened", "the feed is deaf, its connection is built anew");
                    return End::Deaf;
                }
                () = dealt_anew(shared.owned.as_ref()) => self.is_probe_due = true,
                wishes = interest.changed() => self.wished(wishes),
                () = self.task.sender.room(), if self.task.sender.owes() => {
                    if self.task.sender.is_closed() {
                        return End::Stop;
                    }
                    self.task.sender.settle();
                }
                () = &mut timer, if wake.is_some() => {}
                _ = idle.tick() => {}
                turned = connection.turn(&mut events) => {
                    if let Err(error) = turned {
                        return End::Lost(error);
                    }
                    for event in events.drain(..) {
                        if let Some(error) = self.take(connection, event) {
                            return End::Lost(error);
                        }
                    }
                    if self.task.sender.is_closed() {
                        return End::Stop;
                    }
                }
            }
        }
    }

    fn wished(&mut self, wishes: FxHashMap<Topic, Option<WishNumber>>) {
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
        self.ring(standing.iter().map(|(topic, _)| topic));
        self.confirm(standing);
    }

    /// When something is due by time.
    fn next_wake(&self) -> Option<Instant> {
        let has_chunk = self.subscriptions.has_chunk() || self.is_probe_due;
        let chunk = match has_chunk {
            true => Some(self.next_chunk),
            false => self.subscriptions.next_retry(),
        };
        let chunk = chunk
            .filter(|_| self.underway.is_none())
            .map(|due| due.max(self.next_chunk));
        let question = self.asked.is_none().then_some(self.next_question);
        [chunk, question, self.subscriptions.next_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends what is due: topics that leave, the next chunk, a question.
    fn send_due(&mut self, connection: &mut Connection<Sent>) {
        let now = Instant::now();
        let leaving = self.subscriptions.due(now);
        if !leaving.is_empty() {
            self.leave(connection, &leaving);
            // The chunk that is with Redis is judged when it is answered.
            if self.underway.is_none() {
                self.judge_forbidden();
            }
        }
        if self.underway.is_none()
            && self.next_chunk <= now
            && let Some(chunk) = self.due_chunk(now)
        {
            self.subscribe(connection, chunk);
        }
        if self.asked.is_none() && self.next_question <= now {
            let sent = connection.send(Sent::Question, 1, |command| {
                command.bytes(b"PING");
            });
            // Where there is no room for it, much is on its way, which is answered or not.
            match sent {
                Ok(()) => self.asked = Some(connection.read_count()),
                Err(_) => self.next_question = now + HEARTBEAT,
            }
        }
    }

    /// Topics to be subscribed; none where it is the probe's channel alone. Where one SUBSCRIBE has
    /// all channels, that is not refused for a topic's.
    fn due_chunk(&mut self, now: Instant) -> Option<Chunk> {
        let is_classic = self.task.shared.owned.is_none();
        if is_classic && self.is_probe_due && !self.subscriptions.is_first_due() {
            return Some(Chunk::default());
        }
        let chunk = self.subscriptions.next_chunk(now);
        chunk.or_else(|| self.is_probe_due.then(Chunk::default))
    }

    fn connected(&mut self) {
        self.connections += 1;
        self.has_heard = true;
        if self.connections > 1 {
            self.task.shared.metrics.control.redis_reconnects.add(1);
        }
        self.subscriptions.reset();
        self.is_standing = false;
        (self.underway, self.asked) = (None, None);
        (self.next_chunk, self.next_question) = (Instant::now(), Instant::now() + HEARTBEAT);
    }

    fn lost(&mut self, why: &str, refusal: Option<&'static Refusal>) {
        self.is_standing = false;
        (self.underway, self.forbidden) = (None, None);
        self.subscriptions.reset();
        if std::mem::take(&mut self.has_heard) {
            self.task.sender.down();
        }
        let server = self.task.shared.server();
        let reason = format!("the feed of Redis at {server} has no connection: {why}");
        self.refuses(refusal);
        self.task.shared.health.down(Line::Feed, reason);
        self.task.shared.health.up(Line::Channels);
    }

    /// In which word Redis refuses this connection, or what is asked by it.
    fn refuses(&self, refusal: Option<&'static Refusal>) {
        let Shared {
            refusals, metrics, ..
        } = &*self.task.shared;
        refusals.set(Line::Feed, refusal, &metrics.control);
    }

    /// Takes what a turn brought. Returns why the connection is to be given up, if so.
    fn take(&mut self, connection: &Connection<Sent>, event: Event<Sent>) -> Option<Error> {
        match event {
            Event::Pushed(parts) => self.pushed(parts),
            Event::Answered(Sent::Question, answer) => {
                let before = self.asked.take();
                self.next_question = Instant::now() + HEARTBEAT;
                // What has come is a sign of life too: the answer may stand behind much else.
                let is_silent = before == Some(connection.read_count());
                return answer
                    .err()
                    .filter(|error| error.is_timeout() && is_silent)
                    .map(RedisError::into_reported);
            }
            Event::Answered(Sent::Leaving, answer) => {
                if answer.is_err_and(|error| error.is_misplaced()) {
                    self.task.shared.urgent.link.misplaced().notify_one();
                }
            }
            Event::Answered(Sent::Channel(hearer), answer) => {
                self.channels_answered(hearer, answer.map(drop));
            }
        }
        None
    }

    // HOT: one body copied out, no formatting, no lock.
    fn pushed(&mut self, parts: Vec<Value>) {
        let Ok([kind, channel, payload]) = <[Value; 3]>::try_from(parts) else {
            return;
        };
        let kind = kind.as_bytes();
        if !matches!(kind, Some(b"message" | b"smessage" | b"sunsubscribe")) {
            return;
        }
        let channel = channel
            .as_bytes()
            .and_then(|name| str::from_utf8(name).ok());
        if kind == Some(b"sunsubscribe") {
            return self.slot_left(channel);
        }
        let (Some(channel), Some(payload)) = (channel, payload.as_bytes()) else {
            return self.unreadable();
        };
        let Shared {
            keys,
            probes,
            heard,
            metrics,
            bells,
            ..
        } = &*self.task.shared;
        if let Some(name) = keys.qualified_of(channel) {
            // A topic that nobody wants any more is on its way out.
            if let Some(topic) = self.subscriptions.wanted(name) {
                if let Some(partition) = topic.bell_of() {
                    return bells.ring(partition, Ring::read(payload));
                }
                match reply::event(topic, payload, metrics) {
                    Some(event) => self.task.sender.push(event),
                    None => self.unreadable(),
                }
            }
        } else if *channel == *self.probe {
            if let Some(trip) = probes.heard(payload) {
                metrics.probe_seconds.count(trip);
            }
            if self.is_standing && probes.age() <= self.task.settings.probe_fresh {
                self.task.shared.health.up(Line::Feed);
            }
        } else if self.control.as_deref() == Some(channel)
            && let Some(message) = heard.as_ref().and_then(|heard| heard.first(payload))
        {
            self.task.sender.push(FeedEvent::Control(message));
        }
    }

    /// Redis hears for nobody any more what comes by this channel. Its slot has left this master, and
    /// may be back before anybody has looked: it is subscribed again, here, until the layout says that it
    /// is elsewhere.
    fn slot_left(&mut self, channel: Option<&str>) {
        self.task.shared.urgent.link.misplaced().notify_one();
        let Some(channel) = channel else { return };
        if *channel == *self.probe {
            self.is_probe_due = true;
        } else if let Some(name) = self.task.shared.keys.qualified_of(channel) {
            self.subscriptions.ended(name);
        }
    }

    /// Not even a position could be read, so there is nothing to pass on.
    fn unreadable(&self) {
        self.task.shared.metrics.control.unreadable_damaged.add(1);
    }
}

/// How long a feed may not answer: no longer than its probes may be late.
fn patience(settings: &config::Redis) -> Duration {
    let patience = settings.command_timeout.min(settings.probe_fresh);
    patience.max(PATIENCE_MIN)
}

/// Told when the slots of a cluster are dealt anew.
async fn dealt_anew(owned: Option<&Owned>) {
    match owned {
        Some(owned) => owned.changed().await,
        None => std::future::pending().await,
    }
}
