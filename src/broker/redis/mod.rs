//! The broker over one Redis or Valkey: scripts for what must be atomic, pub/sub for the feed.
//!
//! In: calls from any thread of the node. Out: answers of the scripts, and the [`Feed`]. This file
//! is the engine's face: it names keys and arguments and reads answers. What runs behind it:
//! [`link`] keeps the command link, `broker::publisher` sends publications in order,
//! `broker::feed` hears on a thread of its own. Bounds: those of the publisher's queue, the
//! command link and the feed; every call ends within some command timeouts. While Redis is away
//! calls are answered `Unavailable` at once, and everything comes back by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fred::types::Value;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::feed::FeedTask;
use super::interest::Interest;
use super::publication;
use super::publisher::{self, Publisher};
use super::{
    Acked, BrokerError, BrokerHealth, Entry, FEED_EVENTS_MAX, Feed, HistoryPage, HistoryQuery,
    InboxSummary, Page, PublishRequest, Published, SincePage,
};
use crate::config::{self, Retention};
use crate::protocol::ids::{Position, SessionId, Topic};
use crate::redis::circuit::Phase;
use crate::redis::{Keys, RedisError, RedisLink, Script};
use crate::shutdown;
use crate::telemetry::metrics::Metrics;

pub mod health;
pub mod link;
pub mod outlet;
mod presence;
pub mod reply;
pub mod scripts;
pub mod subscriptions;

use link::Shared;
use outlet::Outlet;
use reply::RawEntry;

/// Most pending messages that `welcome` tells.
const PENDING_MAX: u32 = 1_000;
/// Topics whose last position is asked for at the same time.
const LAST_IN_FLIGHT_MAX: usize = 256;
/// Longest wait for each part at the end. Every command has ended by then.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

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
    shared: Arc<Shared>,
    publisher: Publisher,
    interest: Arc<Interest>,
    running: Mutex<Option<Running>>,
}

/// What ends with the broker.
#[derive(Debug)]
struct Running {
    stop_publisher: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    publisher: JoinHandle<()>,
    supervisor: JoinHandle<()>,
    feed_ended: oneshot::Receiver<()>,
}

impl From<RedisError> for BrokerError {
    fn from(error: RedisError) -> Self {
        match &error {
            RedisError::Failed(_) => Self::Unexpected(error.to_string()),
            _ if error.is_not_done() => Self::Unavailable(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl RedisBroker {
    /// Starts everything and returns at once, whether Redis answers or not: until it does, health
    /// is down and says why. Must be called on the control runtime, where two tasks go on; the
    /// feed gets a thread of its own.
    ///
    /// # Errors
    /// [`StartError`]: a URL that cannot be used, or no thread to be had.
    pub fn start(
        config: &config::Redis,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Feed), StartError> {
        let shared = Arc::new(Shared::new(config, &metrics)?);
        let (stop_publisher, publisher_stopped) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let (sender, feed) = mpsc::channel(FEED_EVENTS_MAX);
        let interest = Arc::new(Interest::default());
        let feed_ended = spawn_feed(
            FeedTask {
                shared: Arc::clone(&shared),
                settings: config.clone(),
                interest: Arc::clone(&interest),
                outlet: Outlet::new(sender, metrics),
            },
            stopped.clone(),
        )?;
        let (publisher, publisher_task) = publisher::channel(&shared);
        let supervisor = link::supervise(Arc::clone(&shared), config.clone(), stopped);
        let running = Running {
            stop_publisher,
            stop,
            publisher: shutdown::spawn("publisher", publisher_task.run(publisher_stopped)),
            supervisor: shutdown::spawn("redis_supervisor", supervisor),
            feed_ended,
        };
        let broker = Self {
            shared,
            publisher,
            interest,
            running: Mutex::new(Some(running)),
        };
        Ok((broker, feed))
    }

    /// Ends what was started: first the publisher, with all that is queued, then the connections.
    pub async fn stop(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else { return };
        running.stop_publisher.send_replace(true);
        end("publisher", running.publisher).await;
        running.stop.send_replace(true);
        end("supervisor", running.supervisor).await;
        end("feed", running.feed_ended).await;
    }

    /// The command link, for scripts that are not the broker's (membership).
    #[must_use]
    pub fn client(&self) -> Arc<RedisLink> {
        Arc::clone(&self.shared.link)
    }

    /// Names of keys and channels.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.shared.keys
    }

    /// What Redis does when its memory is full; `None` while it is not known or not told.
    #[must_use]
    pub fn maxmemory_policy(&self) -> Option<String> {
        self.shared.maxmemory_policy.get().cloned()
    }

    /// The links to Redis: which server, and where its circuit stands.
    #[must_use]
    pub fn circuits(&self) -> Vec<(String, Phase)> {
        let beside = self.shared.replicated.iter();
        let links = std::iter::once(&self.shared).chain(beside);
        links
            .map(|shared| (shared.link.server(), shared.link.circuit().phase()))
            .collect()
    }

    /// As [`super::Broker::check`].
    ///
    /// # Errors
    /// [`BrokerError::Unavailable`].
    pub fn check(&self, _topic: &Topic) -> Result<(), BrokerError> {
        match &*self.health().borrow() {
            BrokerHealth::Up => Ok(()),
            BrokerHealth::Down(reason) => Err(BrokerError::Unavailable(reason.clone())),
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// As [`super::Broker::publish`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn publish(&self, request: PublishRequest) -> Result<Published, BrokerError> {
        self.publisher.publish(request).await
    }

    /// As [`super::Broker::since`]. Entries that cannot be read are left out and counted, and the
    /// link leads over them.
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
        let mut hole = None;
        let (mut answer, mut end) = self
            .since_once(topic, since, retention, page, &mut hole)
            .await?;
        // A page of which nothing can be read is not the end: what follows it may be readable.
        while let Some(asked) = end
            && answer.entries.is_empty()
            && asked < answer.last
        {
            let (next, next_end) = self
                .since_once(topic, asked, retention, page, &mut hole)
                .await?;
            answer = SincePage {
                gap: answer.gap.or(next.gap),
                start: answer.start,
                ..next
            };
            end = next_end;
        }
        Ok(answer)
    }

    /// One page, and the position of its last entry, readable or not.
    async fn since_once(
        &self,
        topic: &Topic,
        since: Position,
        retention: Retention,
        page: Page,
        hole: &mut Option<Position>,
    ) -> Result<(SincePage, Option<Position>), BrokerError> {
        let keys = [self.keys().stream(topic), self.keys().last(topic)];
        let args = [
            text(since),
            text(retention.age_ms),
            text(retention.last_life_ms()),
            text(page.entries_max),
            text(page.bytes_max),
        ];
        let answer = self.eval(&self.shared.scripts.since, &keys, &args).await?;
        let raw = reply::since(answer)?;
        let end = raw.entries.last().map(|entry| entry.position);
        let page = SincePage {
            gap: raw.gap,
            start: raw.start,
            last: raw.last,
            entries: self.readable(raw.entries, hole),
        };
        Ok((page, end))
    }

    /// As [`super::Broker::last`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn last(
        &self,
        topics: &[(Topic, Retention)],
    ) -> Result<Vec<Option<Position>>, BrokerError> {
        let ask = |(topic, retention): &(Topic, Retention)| {
            let keys = self.shared.keys.clone();
            let keys = [keys.stream(topic), keys.last(topic), keys.cursor(topic)];
            let args = [text(retention.last_life_ms())];
            async move {
                let answer = self.eval(&self.shared.scripts.last, &keys, &args).await?;
                reply::optional_position(&answer)
            }
        };
        let asked: Vec<BoxFuture<'_, _>> = topics.iter().map(|t| Box::pin(ask(t)) as _).collect();
        stream::iter(asked)
            .buffered(LAST_IN_FLIGHT_MAX)
            .try_collect()
            .await
    }

    /// As [`super::Broker::history`]. Entries that cannot be read are left out and counted.
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
            .eval(&self.shared.scripts.history, &keys, &args)
            .await?;
        let [more, entries] = reply::parts(answer)?;
        Ok(HistoryPage {
            entries: self.readable(reply::entries(entries)?, &mut None),
            more: reply::is_one(&more),
        })
    }

    /// As [`super::Broker::inbox`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn inbox(
        &self,
        inbox: &Topic,
        retention: Retention,
    ) -> Result<InboxSummary, BrokerError> {
        let keys = [
            self.keys().stream(inbox),
            self.keys().last(inbox),
            self.keys().cursor(inbox),
        ];
        let args = [text(retention.age_ms), text(PENDING_MAX)];
        let answer = self.eval(&self.shared.scripts.inbox, &keys, &args).await?;
        let [cursor, last, pending] = reply::parts(answer)?;
        Ok(InboxSummary {
            cursor: reply::optional_position(&cursor)?,
            last: reply::position(&last)?,
            pending: reply::number(&pending)?,
        })
    }

    /// As [`super::Broker::ack`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn ack(
        &self,
        inbox: &Topic,
        position: Position,
        session: SessionId,
        retention: Retention,
    ) -> Result<Acked, BrokerError> {
        let keys = [
            self.keys().channel(inbox),
            self.keys().stream(inbox),
            self.keys().last(inbox),
            self.keys().cursor(inbox),
        ];
        let args = [
            text(position),
            text(session),
            text(retention.last_life_ms()),
        ];
        let answer = self.eval(&self.shared.scripts.ack, &keys, &args).await?;
        let [outcome, cursor] = reply::parts(answer)?;
        match outcome.as_bytes() {
            Some(b"above") => Ok(Acked::AboveNewest),
            Some(b"cursor") => Ok(Acked::Cursor(reply::position(&cursor)?)),
            _ => Err(reply::unexpected("outcome", &outcome)),
        }
    }

    /// As [`super::Broker::control`].
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn control(&self, message: Bytes) -> Result<(), BrokerError> {
        let args = vec![self.keys().control().into(), Value::Bytes(message)];
        self.shared.link.submit("PUBLISH", args).await?;
        Ok(())
    }

    /// As [`super::Broker::interest`].
    #[must_use]
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// As [`super::Broker::health`].
    #[must_use]
    pub fn health(&self) -> watch::Receiver<BrokerHealth> {
        self.shared.health.watch()
    }

    async fn eval(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Vec<u8>],
    ) -> Result<Value, BrokerError> {
        Ok(self.shared.link.eval(script, keys, args).await?)
    }

    /// Reads bodies. `hole` is the predecessor of entries left out just before, if any.
    fn readable(&self, raw: Vec<RawEntry>, hole: &mut Option<Position>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(raw.len());
        for RawEntry {
            position,
            prev,
            body,
        } in raw
        {
            match publication::decode(&body) {
                Ok(body) => entries.push(Entry {
                    position,
                    prev: hole.take().unwrap_or(prev),
                    body,
                }),
                Err(error) => {
                    tracing::debug!(event = "body_unreadable", %position, %error, "a retained body cannot be read");
                    self.shared.metrics.control.unreadable.add(1);
                    hole.get_or_insert(prev);
                }
            }
        }
        entries
    }
}

/// The feed's thread. The receiver ends with it.
fn spawn_feed(
    task: FeedTask,
    stopped: watch::Receiver<bool>,
) -> Result<oneshot::Receiver<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let (ending, ended) = oneshot::channel();
    let run = move || {
        runtime.block_on(task.run(stopped));
        // Nobody may wait for it any more.
        let _ = ending.send(());
    };
    shutdown::thread("fanfare-feed".to_owned(), run).map_err(StartError::Thread)?;
    Ok(ended)
}

/// Waits for a part to end, and says when it panicked or hangs.
async fn end<T, E: std::fmt::Display>(part: &str, ended: impl Future<Output = Result<T, E>>) {
    match tokio::time::timeout(STOP_TIMEOUT, ended).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::error!(event = "broker_part_failed", part, %error, "a part of the broker ended badly")
        }
        Err(_) => tracing::error!(
            event = "broker_part_stuck",
            part,
            "a part of the broker does not end"
        ),
    }
}

fn text(value: impl std::fmt::Display) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn flag(value: bool) -> Vec<u8> {
    text(u8::from(value))
}
