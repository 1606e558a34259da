//! The client that a program uses: commands by methods, topics by subscriptions.
//!
//! In: calls from any task. Out: requests to the client's own task ([`crate::driver`]), which owns
//! the connection. Copies of a [`Client`] are the same client; it ends when the last copy and the
//! last subscription are dropped, when it is closed, or when the server sends it away. Bounds:
//! [`REQUESTS_MAX`] calls wait for the task; further ones wait for room. Calls are done one after
//! the other, and wait for the connection where it is gone, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use fanfare_protocol::command::{Command, History, Publish, Subscribe};
use fanfare_protocol::data::Data;
use fanfare_protocol::event::{Message, Ok as Answer};
use fanfare_protocol::ids::{Position, Priority};
use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::client_error::ClientError;
use crate::driver::{Driver, Request};
use crate::error::ConnectionError;
use crate::resuming::{CommandError, Options, ResumingConnection};
use crate::status::Status;
use crate::subscription::{Ended, Subscription};

/// Most calls that wait for the client's task.
const REQUESTS_MAX: usize = 64;
/// How often a publication is sent whose answer is lost again and again.
const PUBLISH_TRIES_MAX: u32 = 5;

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
        }))
    }

    /// Publishing twice with the same key publishes once, for five minutes. With it a publication
    /// of a user whose answer is lost is repeated by the client itself.
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

/// A client. See the module and [the crate](crate).
#[derive(Debug, Clone)]
pub struct Client {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<Status>,
    wake: Arc<Notify>,
}

impl Client {
    /// Connects. This first time each address is tried once; from then on the client comes back by
    /// itself.
    ///
    /// # Errors
    /// [`ConnectionError`] of the last address, or of the first that does not want this client.
    pub async fn connect(options: Options) -> Result<Self, ConnectionError> {
        let connection = ResumingConnection::connect(options).await?;
        let (requests, taken) = mpsc::channel(REQUESTS_MAX);
        let wake = Arc::new(Notify::new());
        let (driver, status) = Driver::new(connection, taken, Arc::clone(&wake));
        tokio::spawn(driver.run());
        Ok(Self {
            requests,
            status,
            wake,
        })
    }

    /// Whether the client is connected; to be read, or waited on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Joins a topic: `"orders:7"`, where it is now; or a [`Subscribe`], from a position and with
    /// other options. `"@"` is what is published to everyone.
    ///
    /// # Errors
    /// [`ClientError`]; `already_subscribed` where this client has a subscription of that topic.
    pub async fn subscribe(
        &self,
        topic: impl Into<Subscribe>,
    ) -> Result<Subscription, ClientError> {
        self.join(Some(topic.into())).await
    }

    /// The messages to this client's user, from the acknowledged position on.
    ///
    /// # Errors
    /// [`ClientError`].
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
    /// [`ClientError`]. With [`CommandError::Lost`] it is unknown whether it was published; with an
    /// idempotency key it may be repeated.
    pub async fn publish(&self, publication: Publication) -> Result<Published, ClientError> {
        let mut tries_count = 0;
        loop {
            tries_count += 1;
            let command = Command::Publish(publication.0.clone());
            let has_key = publication.0.idempotency_key.is_some();
            match self.ask(command).await {
                Ok(answer) => {
                    return Ok(Published {
                        position: answer.position,
                        is_duplicate: answer.duplicate,
                    });
                }
                // For an anonymous session a key holds no longer than the session.
                Err(ClientError::Command(CommandError::Lost { has_user: true }))
                    if has_key && tries_count < PUBLISH_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        }
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

    /// Acknowledges the inbox up to a position; gives up to where it is acknowledged now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ack(&self, position: Position) -> Result<Position, ClientError> {
        let answer = self.ask(Command::Ack { position }).await?;
        Ok(answer.position.unwrap_or(position))
    }

    /// Ends the session in order; subscriptions are told.
    pub async fn close(self) {
        let (done, is_done) = oneshot::channel();
        if self.requests.send(Request::Close { done }).await.is_ok() {
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
