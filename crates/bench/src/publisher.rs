//! Publishers: each one connection to the HTTP API, kept open, and one publication at a time.
//!
//! In: a wire, destinations, numbers. Out: how long each answer took, and how late a paced
//! publisher was. A publication that the server could not take now is repeated with the same
//! number and key; after [`TRIES_MAX`] tries, or a refusal that a repeat cannot change, the load
//! ends. So every number up to the last was taken, and each is to come to every session.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{self, JoinHandle};

use super::latency;
use super::mark::Mark;
use super::tally::Tally;
use super::target::Target;
use super::wire::{Call, Destination, Wire};

/// Most tries of one publication.
const TRIES_MAX: usize = 50;
/// Wait before the next try.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a publication was not made.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// No connection to the API.
    #[error("cannot reach {api}")]
    Unreachable {
        /// What was dialled.
        api: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection to {api} broke")]
    Broken {
        /// What was dialled.
        api: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("no answer from {api} within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut {
        /// What was dialled.
        api: String,
    },
    /// The request cannot be written.
    #[error("the key or the path has characters that no request can carry")]
    Request(#[source] hyper::http::Error),
    /// The server refused it.
    #[error("{api} answered {status}: {text}")]
    Refused {
        /// What was called.
        api: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
}

/// What publishers have done.
#[derive(Debug)]
pub struct Published {
    /// How many publications were taken.
    pub sent: u64,
    /// How many had to be repeated.
    pub repeated: u64,
    /// From the request to the answer, in microseconds.
    pub answer: Histogram<u64>,
    /// How long after its time a paced publication was sent, in microseconds.
    pub late: Histogram<u64>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            sent: 0,
            repeated: 0,
            answer: latency::histogram(),
            late: latency::histogram(),
        }
    }
}

impl Published {
    /// Takes what another publisher has done.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.repeated += other.repeated;
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.answer.add(&other.answer);
        let _ = self.late.add(&other.late);
    }
}

/// One connection to the API.
pub struct Publisher {
    wire: Rc<dyn Wire>,
    api: String,
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
    /// Its number among the publishers, from 0.
    index: usize,
    /// The newest number that was taken.
    number: u64,
    /// Tells its keys from those of other runs.
    key: String,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// [`PublishError::Unreachable`] and [`PublishError::Broken`].
    pub async fn connect(target: &Target, index: usize) -> Result<Self, PublishError> {
        let (sender, connection) = dial(&target.api).await?;
        Ok(Self {
            wire: Rc::clone(&target.wire),
            api: target.api.clone(),
            sender,
            connection,
            index,
            number: 0,
            key: format!("{}-{index}", target.run),
        })
    }

    /// Publishes the next number until it is taken, and counts it into `published`.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(
        &mut self,
        to: Destination<'_>,
        bytes: usize,
        clock: &Tally,
        published: &mut Published,
    ) -> Result<(), PublishError> {
        let mark = Mark {
            publisher: self.index,
            number: self.number + 1,
            sent_us: clock.now_us(),
        };
        let begin = Instant::now();
        self.until_taken(to, &mark.text(bytes), published).await?;
        self.number = mark.number;
        published.sent += 1;
        let took_us = latency::micros(begin.elapsed());
        published.answer.saturating_record(took_us);
        Ok(())
    }

    async fn until_taken(
        &mut self,
        to: Destination<'_>,
        data: &str,
        published: &mut Published,
    ) -> Result<(), PublishError> {
        let key = format!("{}-{}", self.key, self.number + 1);
        for _ in 1..TRIES_MAX {
            match self.call(to, data, &key).await {
                Err(error) if may_be_repeated(&error) => {
                    published.repeated += 1;
                    tokio::time::sleep(AGAIN_AFTER).await;
                    if !matches!(error, PublishError::Refused { .. }) {
                        self.reconnect().await?;
                    }
                }
                result => return result,
            }
        }
        self.call(to, data, &key).await
    }

    async fn reconnect(&mut self) -> Result<(), PublishError> {
        self.connection.abort();
        (self.sender, self.connection) = dial(&self.api).await?;
        Ok(())
    }

    async fn call(
        &mut self,
        to: Destination<'_>,
        data: &str,
        key: &str,
    ) -> Result<(), PublishError> {
        let call = self.wire.publish(to, data, key);
        let body = self.post(call).await?;
        let refusal = self.wire.refusal(&body);
        // What is answered with 2xx and refused all the same is refused for good.
        refusal.map_or(Ok(()), |text| {
            Err(self.refused(StatusCode::OK.as_u16(), text))
        })
    }

    /// Makes one call, once, and returns the body of an answer that is not a refusal.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn post(&mut self, call: Call) -> Result<Bytes, PublishError> {
        let mut request = Request::post(&call.path)
            .header(HOST, &self.api)
            .header(CONTENT_TYPE, "application/json");
        if let Some((name, value)) = &call.header {
            request = request.header(*name, value);
        }
        let request = request.body(Full::from(call.body));
        let request = request.map_err(PublishError::Request)?;
        let broken = |source| PublishError::Broken {
            api: self.api.clone(),
            source,
        };
        let exchange = async {
            self.sender.ready().await.map_err(broken)?;
            let response = self.sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(broken)?;
            Ok((status, body.to_bytes()))
        };
        let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await else {
            return Err(PublishError::TimedOut {
                api: self.api.clone(),
            });
        };
        let (status, body) = answer?;
        if status.is_success() {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        Err(self.refused(status.as_u16(), text))
    }

    /// The error of an answer that refuses.
    #[must_use]
    pub fn refused(&self, status: u16, text: String) -> PublishError {
        PublishError::Refused {
            api: self.api.clone(),
            status,
            text,
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Whether the server may take later what it did not take now.
fn may_be_repeated(error: &PublishError) -> bool {
    match error {
        PublishError::Refused { status, .. } => matches!(status, 429 | 503),
        PublishError::Broken { .. } | PublishError::TimedOut { .. } => true,
        PublishError::Unreachable { .. } | PublishError::Request(_) => false,
    }
}

async fn dial(api: &str) -> Result<(SendRequest<Full<Bytes>>, JoinHandle<()>), PublishError> {
    let stream = TcpStream::connect(api).await;
    let stream = stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let stream = stream.map_err(|source| PublishError::Unreachable {
        api: api.to_owned(),
        source,
    })?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|source| PublishError::Broken {
        api: api.to_owned(),
        source,
    })?;
    let connection = task::spawn_local(async move {
        // How it ended is told by the request that it ended.
        let _ = connection.await;
    });
    Ok((sender, connection))
}
