//! The client that a program uses: commands by methods, topics by subscriptions.
//!
//! In: calls from any task. Out: requests to the client's own task ([`crate::driver`]), which owns
//! the connection. Copies of a [`Client`] are the same client; it ends when the last copy and the
//! last subscription are dropped, when it is closed, or when the server sends it away. Bounds:
//! 256 calls or 8 MiB wait for the server; further ones wait for room. Calls are sent in their order
//! and do not wait for each other's answers; where the connection is gone they wait for it, for as
//! long as it takes. A call that is dropped before it was sent is not sent.

use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::command::{Command, History, Publish, Subscribe};
use fanfare_protocol::data::Data;
use fanfare_protocol::event::{Member, Message, Ok as Answer};
use fanfare_protocol::ids::{Position, Priority, SessionId};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::client_error::ClientError;
use crate::driver::{Driver, Ends, Request};
use crate::error::ConnectionError;
use crate::resuming::{Options, ResumingConnection};
use crate::status::Status;
use crate::subscription::{Ended, Subscription};

/// Most calls on their way to the client's task.
const REQUESTS_MAX: usize = 64;

/// What to publish. Made by [`Publication::to`], refined by the other methods.
#[derive(Debug, Clone)]
pub struct Publication(Publish);

impl Publication {
    /// A message to a topic.
    ///
    /// # Errors
    /// [`ClientError::Data`] where `data` is nothing that can be published.
    pub fn to(topic: &str, data: &impl Serialize) -> Result<Self, ClientError> {
        Ok(Self(Publish {
            topic: Some(topic.to_owned()),
            user: None,
            data: Data::of(data).map_err(ClientError::Data)?,
            priority: None,
            idempotency_key: None,
            key: None,
            conflate: None,
            ttl_ms: None,
            echo: false,
            traceparent: None,
        }))
    }

    /// Publishing twice with the same key publishes once, for as long as the nodes remember it (5
    /// minutes by default). With it a publication of a user whose answer is lost is repeated by the
    /// client itself, within [`Options::repeat_within`] of the first time.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.0.idempotency_key = Some(key.into());
        self
    }

    /// What the message is about.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = Some(key.into());
        self
    }

    /// How urgent it is.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.0.priority = Some(priority);
        self
    }

    /// After so long nobody is shown it any more. Counted in milliseconds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl_ms = Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// The client itself gets it too, where it has subscribed to the topic.
    #[must_use]
    pub fn echo(mut self) -> Self {
        self.0.echo = true;
        self
    }
}

/// A publication that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Where it stands in its topic.
    pub position: Option<Position>,
    /// It was published before, with the same idempotency key.
    pub is_duplicate: bool,
}

/// A page of what a topic retains.
#[derive(Debug, Clone)]
pub struct Page {
    /// Oldest first, unless `reverse` was asked for.
    pub messages: Vec<Message>,
    /// There is another page behind the last message.
    pub has_more: bool,
}

/// A page of a topic's members.
#[derive(Debug, Clone)]
pub struct Members {
    /// By session.
    pub members: Vec<Member>,
    /// How many there are in all.
    pub count: u64,
    /// To which change the page belongs: [`Presence`](crate::Presence) items above it are its
    /// changes.
    pub position: Option<Position>,
    /// There is another page behind the last session.
    pub has_more: bool,
}

/// A client. See the module and [the crate](crate).
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    closing: mpsc::Sender<oneshot::Sender<()>>,
    status: watch::Receiver<Status>,
    wake: Arc<Notify>,
}

impl Client {
    /// Connects. This first time each address is tried once; from then on the client comes back by
    /// itself.
    ///
    /// # Errors
    /// [`ConnectionError`] of the last address, or of the first that does not want this client.
    pub async fn connect(mut options: Options) -> Result<Self, ConnectionError> {
        let repeat_within = options.repeat_within;
        let all = std::mem::take(&mut options.positions);
        let (by_itself, positions) = all.into_iter().partition(|(name, _)| name.starts_with('@'));
        options.positions = by_itself;
        let connection = ResumingConnection::connect(options).await?;
        let (requests, taken) = mpsc::channel(REQUESTS_MAX);
        let (closing, close) = mpsc::channel(1);
        let wake = Arc::new(Notify::new());
        let ends = Ends {
            requests: taken,
            closing: close,
            wake: Arc::clone(&wake),
        };
        let (driver, status) = Driver::new(connection, ends, positions, repeat_within);
        tokio::spawn(driver.run());
        Ok(Self {
            requests,
            closing,
            status,
            wake,
        })
    }

    /// Whether the client is connected; to be read, or waited on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Joins a topic: `"orders:7"`, where it is now, or where [`Options::positions`] says; or a [`Subscribe`], from a position and with
    /// other options. `"@"` is what is published to everyone.
    ///
    /// # Errors
    /// [`ClientError`]; `already_subscribed` where this client has a subscription of that topic.
    ///
    /// # Cancel safety
    /// Safe: a topic that was joined for nobody is left again.
    pub async fn subscribe(
        &self,
        topic: impl Into<Subscribe>,
    ) -> Result<Subscription, ClientError> {
        self.join(Some(topic.into())).await
    }

    /// The messages to this client's user: the first time from the acknowledged position on (or from
    /// that in [`Options::positions`]), later behind the last one that was read.
    ///
    /// # Errors
    /// [`ClientError`].
    ///
    /// # Cancel safety
    /// Safe: nothing counts as read.
    pub async fn inbox(&self) -> Result<Subscription, ClientError> {
        self.join(None).await
    }

    async fn join(&self, what: Option<Subscribe>) -> Result<Subscription, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Join { what, answer }).await?;
        let joined = match answered.await {
            Ok(joined) => joined?,
            Err(_dropped) => return Err(self.ended().await),
        };
        Ok(Subscription {
            topic: joined.topic,
            queue: joined.queue,
            shared: joined.shared,
            wake: Arc::clone(&self.wake),
            is_over: false,
            _client: Box::new(self.clone()),
        })
    }

    /// Publishes, and waits until the broker has it.
    ///
    /// # Errors
    /// [`ClientError`]. With [`CommandError::Lost`](crate::resuming::CommandError::Lost) it is
    /// unknown whether it was published; with an idempotency key it may be repeated, as long as the
    /// nodes remember the key.
    ///
    /// # Cancel safety
    /// Not safe: dropped after it was sent, it is unknown whether it was published.
    pub async fn publish(&self, publication: Publication) -> Result<Published, ClientError> {
        let answer = self.ask(Command::Publish(publication.0)).await?;
        Ok(Published {
            position: answer.position,
            is_duplicate: answer.duplicate,
        })
    }

    /// Reads what a topic retains.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(&self, history: History) -> Result<Page, ClientError> {
        let answer = self.ask(Command::History(history)).await?;
        Ok(Page {
            messages: answer.publications.unwrap_or_default(),
            has_more: answer.more.unwrap_or(false),
        })
    }

    /// A page of a topic's members; after a session, which is the last one of the page before. To be
    /// asked for when a subscription with `presence` begins, and again after each gap of
    /// `presence`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn members(
        &self,
        topic: &str,
        after: Option<SessionId>,
    ) -> Result<Members, ClientError> {
        let command = Command::Presence {
            topic: topic.to_owned(),
            after: after.map(|session| session.to_string()),
            limit: None,
        };
        let answer = self.ask(command).await?;
        Ok(Members {
            members: answer.members.unwrap_or_default(),
            count: answer.count.unwrap_or(0),
            position: answer.position,
            has_more: answer.more.unwrap_or(false),
        })
    }

    /// Acknowledges the inbox up to a position; gives up to where it is acknowledged now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ack(&self, position: Position) -> Result<Position, ClientError> {
        let answer = self.ask(Command::Ack { position }).await?;
        Ok(answer.position.unwrap_or(position))
    }

    /// Ends the session in order, within about a second; subscriptions are told, and calls that
    /// still wait end with [`Ended::Closed`].
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        if self.closing.send(done).await.is_ok() {
            // Dropped without an answer: it has ended meanwhile.
            let _ = is_done.await;
        }
    }

    async fn ask(&self, command: Command) -> Result<Answer, ClientError> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Command { command, answer }).await?;
        match answered.await {
            Ok(answer) => serde_json::from_str(&answer?).map_err(ClientError::Answer),
            Err(_dropped) => Err(self.ended().await),
        }
    }

    async fn request(&self, request: Request) -> Result<(), ClientError> {
        match self.requests.send(request).await {
            Ok(()) => Ok(()),
            Err(_ended) => Err(self.ended().await),
        }
    }

    /// Why there is nobody who takes requests.
    async fn ended(&self) -> ClientError {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| matches!(status, Status::Ended(_)));
        match ended.await.as_deref() {
            Ok(Status::Ended(ended)) => ended.clone().into(),
            _ => Ended::Closed.into(),
        }
    }
}
