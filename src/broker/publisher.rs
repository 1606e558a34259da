//! The ordered way into Redis: one connection, one queue, the publication script.
//!
//! In: publications of all tasks of the node. Out: EVALSHA commands on the urgent link, written
//! in the order of the queue with many in flight, and one answer to each caller. Owner of the
//! order: one task on the control runtime. Bounds: [`QUEUE_MAX`] publications and
//! [`QUEUE_BYTES_MAX`] bytes wait; at the bound a publication is refused as `Unavailable` and
//! counted. [`IN_FLIGHT_MAX`] are with Redis. Nothing is ever sent twice: where Redis does not
//! know the script (NOSCRIPT), what was sent behind it may have met a script loaded meanwhile by
//! somebody else, so sending again would reorder; the caller gets `Unavailable` instead.
//!
//! Publications of namespaces with `replicas_min` go the same way over a link of their own, batch by
//! batch, and are answered only when the WAIT behind their batch has counted enough replicas. WAIT
//! speaks of its own connection alone, and a client may connect anew between two commands: so
//! the connection is given a name when it is looked at first, and each batch ends by asking for it.
//! Whose confirmation counts is judged in `redis/confirmation.rs`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use fred::types::Value;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::publication;
use super::redis::confirmation::{Answers, BATCH_NAME, Followers, Look, enough};
use super::redis::link::{CommandLink, Shared, stopped};
use super::redis::reply;
use super::{BrokerError, PublishRequest, Published};
use crate::config::Replicas;
use crate::protocol::ids::TopicKind;
use crate::redis::RedisError;

/// Publications that wait for the connection.
pub const QUEUE_MAX: usize = 8_192;
/// Bytes of bodies that wait or are in flight.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Publications that wait for Redis' answer. Measured: beyond 256 the rate grows no more.
pub const IN_FLIGHT_MAX: usize = 256;

const TOO_MANY: &str = "too many publications wait for Redis";
const STOPPED: &str = "the broker was stopped";
/// How often it is asked who the replicas are while nothing is published.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Answer = Result<Published, BrokerError>;

/// One publication on its way.
struct Job {
    /// The arguments of EVALSHA.
    args: Vec<Value>,
    bytes: usize,
    replicas: Replicas,
    answer: oneshot::Sender<Answer>,
}

/// A publication whose answer is awaited.
struct Flight {
    bytes: usize,
    replicas: Replicas,
    answer: oneshot::Sender<Answer>,
    result: Result<Value, RedisError>,
}

/// The handle: it fills the queue.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
}

/// The task's side.
#[derive(Debug)]
pub struct PublisherTask {
    queue: mpsc::Receiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
}

/// A queue for this link and both its ends.
#[must_use]
pub fn channel(shared: &Arc<Shared>, command: &Arc<CommandLink>) -> (Publisher, PublisherTask) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let publisher = Publisher {
        queue: sender,
        waiting_bytes: Arc::clone(&waiting_bytes),
        shared: Arc::clone(shared),
        command: Arc::clone(command),
    };
    let task = PublisherTask {
        queue: receiver,
        waiting_bytes,
        shared: Arc::clone(shared),
        command: Arc::clone(command),
    };
    (publisher, task)
}

impl Publisher {
    /// Queues a publication at its first poll and waits for the answer.
    ///
    /// # Errors
    /// [`BrokerError`]. Cancel safety: a publication that is queued is sent all the same.
    pub async fn publish(&self, request: PublishRequest) -> Answer {
        let control = &self.shared.metrics.control;
        if let Err(refused) = self.command.link.circuit().pass() {
            control.publish_errors.add(1);
            return Err(refused.into());
        }
        let body = publication::encode_publication(&request.publication);
        let bytes = body.len();
        let (answer, answered) = oneshot::channel();
        let job = Job {
            args: self.arguments(&request, body),
            bytes,
            replicas: request.replicas,
            answer,
        };
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refusal = if before > QUEUE_BYTES_MAX {
            Some((&control.publish_refused, TOO_MANY))
        } else {
            match self.queue.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => Some((&control.publish_refused, TOO_MANY)),
                Err(TrySendError::Closed(_)) => Some((&control.publish_errors, STOPPED)),
            }
        };
        if let Some((counter, reason)) = refusal {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counter.add(1);
            return Err(BrokerError::Unavailable(reason.to_owned()));
        }
        let stopped = || BrokerError::Unknown(STOPPED.to_owned());
        let answer = answered.await.unwrap_or_else(|_| Err(stopped()));
        match &answer {
            Ok(Published {
                duplicate: true, ..
            }) => control.publish_duplicates.add(1),
            Ok(_) => control.published.add(1),
            Err(_) => control.publish_errors.add(1),
        }
        answer
    }

    /// As `scripts/publish.lua` lists them.
    fn arguments(&self, request: &PublishRequest, body: Vec<u8>) -> Vec<Value> {
        let Shared { keys, scripts, .. } = &*self.shared;
        let topic = &request.topic;
        let (idempotency_key, idempotency_ms) = match &request.idempotency {
            Some((key, life_ms)) => (key.as_str(), *life_ms),
            None => ("", 0),
        };
        let is_inbox = topic.kind() == TopicKind::Inbox;
        let retention = request.retention;
        vec![
            scripts.publish.sha().into(),
            "5".into(),
            keys.channel(topic).into(),
            keys.stream(topic).into(),
            keys.last(topic).into(),
            keys.idempotency(topic, idempotency_key).into(),
            keys.cursor(topic).into(),
            Value::Bytes(body.into()),
            rand::random::<u32>().to_string().into(),
            retention.entries_max.to_string().into(),
            retention.age_ms.to_string().into(),
            retention.last_life_ms().to_string().into(),
            idempotency_ms.to_string().into(),
            if is_inbox { "1" } else { "0" }.into(),
        ]
    }
}

impl PublisherTask {
    /// As [`Self::run`], for publications that wait for replicas: many, then one WAIT for all of
    /// them.
    pub async fn run_by_batches(mut self, mut stop: watch::Receiver<bool>) {
        let (mut batch, mut followers) = (Vec::new(), Followers::default());
        loop {
            tokio::select! {
                count = self.queue.recv_many(&mut batch, IN_FLIGHT_MAX) => match count {
                    0 => return,
                    _ => self.confirm(std::mem::take(&mut batch), &mut followers).await,
                },
                () = stopped(&mut stop), if !self.queue.is_closed() => self.queue.close(),
                () = tokio::time::sleep(LOOK_EVERY) => self.look(&mut followers).await,
            }
        }
    }

    /// Asks who the replicas are, and whether the connection is still the same.
    async fn look(&self, followers: &mut Followers) {
        let name = self.begin("CLIENT", vec!["GETNAME".into()]).await;
        let named = self
            .begin("CLIENT", vec!["SETNAME".into(), BATCH_NAME.into()])
            .await;
        let role = self.begin("ROLE", Vec::new()).await;
        let (name, named, role) = tokio::join!(name, named, role);
        followers.look(Look { name, named, role }, Instant::now());
    }

    /// Refuses what cannot be confirmed whatever happens: it would be published and told as unknown,
    /// and a WAIT for more replicas than there are holds up all others for its whole time.
    async fn promising(&self, batch: Vec<Job>, followers: &mut Followers) -> Vec<Job> {
        let can = |job: &Job, followers: &Followers| {
            followers.can_confirm(job.replicas.min, Instant::now())
        };
        if batch.iter().any(|job| can(job, followers).is_err()) {
            // It may have become true since the last look.
            self.look(followers).await;
        }
        let mut promising = Vec::with_capacity(batch.len());
        for job in batch {
            match can(&job, followers) {
                Ok(()) => promising.push(job),
                Err(why) => {
                    let refused = Err(BrokerError::Unavailable(why));
                    self.answer(job.bytes, job.answer, refused);
                }
            }
        }
        promising
    }

    /// Sends a batch and answers it when the replicas had their time.
    async fn confirm(&self, batch: Vec<Job>, followers: &mut Followers) {
        let batch = self.promising(batch, followers).await;
        if batch.is_empty() {
            return;
        }
        let most = |of: fn(&Replicas) -> u128| batch.iter().map(|job| of(&job.replicas)).max();
        let min = most(|replicas| replicas.min.into()).unwrap_or_default();
        let timeout_ms = most(|replicas| replicas.timeout.as_millis()).unwrap_or_default();
        let mut flights = Vec::with_capacity(batch.len());
        for job in batch {
            flights.push(self.send(job).await);
        }
        let count = self
            .begin(
                "WAIT",
                vec![min.to_string().into(), timeout_ms.to_string().into()],
            )
            .await;
        let role = self.begin("ROLE", Vec::new()).await;
        let name = self.begin("CLIENT", vec!["GETNAME".into()]).await;
        let flights = join_all(flights).await;
        let (count, role, name) = tokio::join!(count, role, name);
        let confirmed = followers.judge(Answers { count, role, name }, Instant::now());
        let mut is_unknown_script = false;
        for flight in flights {
            is_unknown_script |= self.land(flight, Some(&confirmed));
        }
        if is_unknown_script {
            // The batch was refused; should this fail too, so is the next one.
            let _ = self
                .command
                .link
                .submit_load(&self.shared.scripts.publish)
                .await;
        }
    }

    /// Writes a command to the connection, behind all that was written before.
    async fn begin(
        &self,
        name: &'static str,
        args: Vec<Value>,
    ) -> impl Future<Output = Result<Value, RedisError>> + use<> {
        let mut command = self.command.link.submit(name, args);
        let early = poll_once(command.as_mut()).await;
        async move {
            match early {
                Some(result) => result,
                None => command.await,
            }
        }
    }

    /// Sends until `stop` turns true; what is queued by then is still sent and answered.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut flights = FuturesUnordered::new();
        let mut loading: Option<BoxFuture<'static, Result<(), RedisError>>> = None;
        let mut is_open = true;
        while is_open || !flights.is_empty() {
            tokio::select! {
                Some(flight) = flights.next(), if !flights.is_empty() => {
                    if self.land(flight, None) && loading.is_none() {
                        // What is sent after the LOAD on the same connection finds the script.
                        let mut load = self.command.link.submit_load(&self.shared.scripts.publish);
                        if poll_once(load.as_mut()).await.is_none() {
                            loading = Some(load);
                        }
                    }
                }
                job = self.queue.recv(), if is_open && flights.len() < IN_FLIGHT_MAX => match job {
                    Some(job) => {
                        let flight = self.send(job).await;
                        flights.push(flight);
                    }
                    None => is_open = false,
                },
                _ = async { loading.as_mut().expect("asked only while loading").await },
                    if loading.is_some() => loading = None,
                () = stopped(&mut stop), if is_open && !self.queue.is_closed() => {
                    self.queue.close();
                }
            }
        }
    }

    /// Writes one publication. The first poll puts the command into the connection's queue, so
    /// that the order of this method's calls is the order on the wire.
    async fn send(&self, job: Job) -> impl Future<Output = Flight> + Send + use<> {
        let Job {
            args,
            bytes,
            replicas,
            answer,
        } = job;
        let command = self.begin("EVALSHA", args).await;
        async move {
            Flight {
                bytes,
                replicas,
                answer,
                result: command.await,
            }
        }
    }

    /// Answers the caller. `confirmed`: how many replicas have it, or why that is not known.
    /// `true`: the script must be loaded.
    fn land(&self, flight: Flight, confirmed: Option<&Result<u64, String>>) -> bool {
        let Flight {
            bytes,
            replicas,
            answer,
            result,
        } = flight;
        let is_unknown_script = matches!(result, Err(RedisError::NoScript(_)));
        match &result {
            Err(RedisError::NotMaster(_)) => self.command.suspect.notify_one(),
            Err(RedisError::ReadOnly(_)) if !self.shared.health.is_read_only() => {
                self.shared.urgent.suspect.notify_one();
            }
            _ => {}
        }
        let mut outcome = read(result);
        if let (Ok(_), Some(confirmed)) = (&outcome, confirmed)
            && let Err(why) = enough(replicas, confirmed)
        {
            self.shared.metrics.control.publish_unconfirmed.add(1);
            outcome = Err(BrokerError::Unknown(why));
        }
        self.answer(bytes, answer, outcome);
        is_unknown_script
    }

    fn answer(&self, bytes: usize, to: oneshot::Sender<Answer>, answer: Answer) {
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        // A caller that went away needs no answer.
        let _ = to.send(answer);
    }
}

async fn poll_once<T>(mut future: Pin<&mut (dyn Future<Output = T> + Send)>) -> Option<T> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn read(result: Result<Value, RedisError>) -> Answer {
    let [outcome, position] = reply::parts(result?)?;
    let duplicate = match outcome.as_bytes() {
        Some(b"ok") => false,
        Some(b"duplicate") => true,
        _ => return Err(reply::unexpected("outcome", &outcome)),
    };
    Ok(Published {
        position: reply::position(&position)?,
        duplicate,
    })
}
