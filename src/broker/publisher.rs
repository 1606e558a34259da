//! The ordered way into Redis: one connection, one queue, the publication script.
//!
//! In: publications of all tasks of the node. Out: EVALSHA commands on the urgent link, written
//! in the order of the queue with many in flight, and one answer to each caller. Owner of the
//! order: one task on the control runtime. Bounds: [`QUEUE_MAX`] publications and
//! [`QUEUE_BYTES_MAX`] bytes wait; at the bound a publication is refused as `Unavailable` and
//! counted. [`IN_FLIGHT_MAX`] are with Redis.
//!
//! Where Redis does not know the script (NOSCRIPT: somebody flushed it, or another server took
//! over), nothing was done. Sending pauses until all answers are there, then the script is loaded
//! and the same publications are sent again in their order, at most [`SENDS_MAX`] times. Only a
//! publisher loads its script, which has a variant of its own ([`Scripts::publish`]), so that all
//! that was sent behind the first failed as well. Should another node have the same variant and
//! load it in between, what was overtaken on its topic is refused as `Unavailable`. Nothing else
//! is ever sent twice.
//!
//! [`Scripts::publish`]: super::redis::scripts::Scripts::publish
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
use futures_util::future::{OptionFuture, join_all};
use futures_util::stream::FuturesOrdered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::publication;
use super::redis::confirmation::{Answers, BATCH_NAME, Followers, Look, enough};
use super::redis::health::Line;
use super::redis::link::{CommandLink, Purpose, Shared, stopped};
use super::redis::reply;
use super::unavailable::Unavailable;
use super::{BrokerError, PublishRequest, Published};
use crate::config::Replicas;
use crate::protocol::ids::{Topic, TopicKind};
use crate::redis::{Keys, RedisError, Script};

/// Publications that wait for the connection.
pub const QUEUE_MAX: usize = 8_192;
/// Bytes of bodies that wait or are in flight.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Publications that wait for Redis' answer. Measured: beyond 256 the rate grows no more.
pub const IN_FLIGHT_MAX: usize = 256;
/// So often a publication is sent before it is refused, where Redis does not know the script.
pub const SENDS_MAX: u32 = 16;

/// How often it is asked who the replicas are while nothing is published.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Answer = Result<Published, BrokerError>;

/// One publication on its way.
#[derive(Debug)]
struct Job {
    topic: Topic,
    /// The arguments of EVALSHA.
    args: Vec<Value>,
    bytes: usize,
    replicas: Replicas,
    sends_count: u32,
    answer: oneshot::Sender<Answer>,
}

/// A publication and what Redis said of it.
struct Flight {
    job: Job,
    result: Result<Value, RedisError>,
}

/// The handle: it fills the queue.
#[derive(Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
    script: Script,
}

/// The task's side.
#[derive(Debug)]
pub struct PublisherTask {
    queue: mpsc::Receiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    command: Arc<CommandLink>,
    script: Script,
    /// How many replicas follow, as the gauge has it.
    told_count: u64,
}

/// A queue for this link and both its ends.
#[must_use]
pub fn channel(shared: &Arc<Shared>, command: &Arc<CommandLink>) -> (Publisher, PublisherTask) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let script = match command.purpose {
        Purpose::Replicated => &shared.scripts.publish_replicated,
        Purpose::Urgent | Purpose::Bulk => &shared.scripts.publish,
    };
    let publisher = Publisher {
        queue: sender,
        waiting_bytes: Arc::clone(&waiting_bytes),
        shared: Arc::clone(shared),
        command: Arc::clone(command),
        script: script.clone(),
    };
    let task = PublisherTask {
        queue: receiver,
        waiting_bytes,
        shared: Arc::clone(shared),
        command: Arc::clone(command),
        script: script.clone(),
        told_count: 0,
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
            args: arguments(&self.script, &self.shared.keys, &request, body),
            topic: request.topic,
            bytes,
            replicas: request.replicas,
            sends_count: 0,
            answer,
        };
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refusal = if before > QUEUE_BYTES_MAX {
            Some((&control.publish_refused, Unavailable::QueueFull))
        } else {
            match self.queue.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => {
                    Some((&control.publish_refused, Unavailable::QueueFull))
                }
                Err(TrySendError::Closed(_)) => {
                    Some((&control.publish_errors, Unavailable::Stopping))
                }
            }
        };
        if let Some((counter, reason)) = refusal {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            counter.add(1);
            return Err(reason.into());
        }
        let stopped = || BrokerError::Unknown("the broker was stopped".to_owned());
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
}

/// The arguments of EVALSHA, as `scripts/publish.lua` lists them.
#[must_use]
pub fn arguments(
    script: &Script,
    keys: &Keys,
    request: &PublishRequest,
    body: Vec<u8>,
) -> Vec<Value> {
    let topic = &request.topic;
    let key = request
        .idempotency
        .as_ref()
        .filter(|(_, life_ms)| *life_ms > 0);
    let mut used = vec![keys.channel(topic), keys.stream(topic), keys.last(topic)];
    used.extend((topic.kind() == TopicKind::Inbox).then(|| keys.cursor(topic)));
    used.extend(key.map(|(key, _)| keys.idempotency(topic, key)));
    let mut values = Vec::with_capacity(8 + used.len());
    values.extend([script.sha().into(), used.len().to_string().into()]);
    values.extend(used.into_iter().map(Value::from));
    values.push(Value::Bytes(body.into()));
    values.push(rand::random::<u32>().to_string().into());
    let retention = request.retention;
    values.push(retention.entries_max.to_string().into());
    values.push(retention.age_ms.to_string().into());
    values.push(retention.last_life_ms().to_string().into());
    values.extend(key.map(|(_, life_ms)| life_ms.to_string().into()));
    values
}

impl PublisherTask {
    /// As [`Self::run`], for publications that wait for replicas: many, then one WAIT for all of
    /// them.
    pub async fn run_by_batches(mut self, mut stop: watch::Receiver<bool>) {
        let (mut batch, mut followers) = (Vec::new(), Followers::default());
        loop {
            tokio::select! {
                count = self.queue.recv_many(&mut batch, IN_FLIGHT_MAX) => match count {
                    0 => return self.tell(&Followers::default()),
                    _ => while !batch.is_empty() {
                        batch = self.confirm(batch, &mut followers).await;
                    },
                },
                () = stopped(&mut stop), if !self.queue.is_closed() => self.queue.close(),
                () = tokio::time::sleep(LOOK_EVERY) => self.look(&mut followers).await,
            }
        }
    }

    /// Asks who the replicas are, and whether the connection is still the same.
    async fn look(&mut self, followers: &mut Followers) {
        let name = self.begin("CLIENT", vec!["GETNAME".into()]).await;
        let named = self
            .begin("CLIENT", vec!["SETNAME".into(), BATCH_NAME.into()])
            .await;
        let role = self.begin("ROLE", Vec::new()).await;
        let (name, named, role) = tokio::join!(name, named, role);
        followers.look(Look { name, named, role }, Instant::now());
        self.tell(followers);
    }

    /// Tells how many replicas follow: by the gauge, and by health where they are too few for some
    /// namespace. Of a connection that was lost nothing is known.
    fn tell(&mut self, followers: &Followers) {
        let (count, min) = (followers.count(), self.shared.replicas_min);
        let gauge = &self.shared.metrics.control.followers;
        gauge.add(count);
        gauge.sub(self.told_count);
        self.told_count = count;
        let health = &self.shared.health;
        if !followers.are_known() {
            return;
        }
        if count < u64::from(min) {
            let why = Unavailable::TooFewFollow { count, min };
            let server = self.shared.server();
            health.down(Line::Followers, format!("Redis at {server}: {why}"));
        } else {
            health.up(Line::Followers);
        }
    }

    /// Refuses what cannot be confirmed whatever happens: it would be published and told as unknown,
    /// and a WAIT for more replicas than there are holds up all others for its whole time.
    async fn promising(&mut self, batch: Vec<Job>, followers: &mut Followers) -> Vec<Job> {
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
                    self.answer(job, Err(why.into()));
                }
            }
        }
        promising
    }

    /// Sends a batch and answers it when the replicas had their time. Returns what is to be sent
    /// again, because Redis did not know the script.
    async fn confirm(&mut self, batch: Vec<Job>, followers: &mut Followers) -> Vec<Job> {
        let batch = self.promising(batch, followers).await;
        if batch.is_empty() {
            return batch;
        }
        let most = |of: fn(&Replicas) -> u128| batch.iter().map(|job| of(&job.replicas)).max();
        let min = most(|replicas| replicas.min.into()).unwrap_or_default();
        let timeout_ms = most(|replicas| replicas.timeout.as_millis()).unwrap_or_default();
        let (load, flights) = self.send_all(batch).await;
        let count = self
            .begin(
                "WAIT",
                vec![min.to_string().into(), timeout_ms.to_string().into()],
            )
            .await;
        let role = self.begin("ROLE", Vec::new()).await;
        let name = self.begin("CLIENT", vec!["GETNAME".into()]).await;
        let (_, flights) = tokio::join!(load, join_all(flights));
        let (count, role, name) = tokio::join!(count, role, name);
        let confirmed = followers.judge(Answers { count, role, name }, Instant::now());
        self.tell(followers);
        let mut again = Vec::new();
        for flight in flights {
            self.land(flight, Some(&confirmed), &mut again);
        }
        again
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
        let mut flights = FuturesOrdered::new();
        let mut again = Vec::new();
        let mut is_open = true;
        while is_open || !flights.is_empty() {
            tokio::select! {
                Some(flight) = flights.next(), if !flights.is_empty() => {
                    self.land(flight, None, &mut again);
                    while flights.is_empty() && !again.is_empty() {
                        again = self.send_again(again).await;
                    }
                }
                job = self.queue.recv(),
                    if is_open && again.is_empty() && flights.len() < IN_FLIGHT_MAX => match job {
                    Some(job) => {
                        let flight = self.send(job).await;
                        flights.push_back(flight);
                    }
                    None => is_open = false,
                },
                () = stopped(&mut stop), if is_open && !self.queue.is_closed() => {
                    self.queue.close();
                }
            }
        }
    }

    /// Sends these again, and nothing beside them. Returns those for which Redis still did not know
    /// the script.
    async fn send_again(&self, jobs: Vec<Job>) -> Vec<Job> {
        let (load, flights) = self.send_all(jobs).await;
        let (_, flights) = tokio::join!(load, join_all(flights));
        let mut again = Vec::new();
        for flight in flights {
            self.land(flight, None, &mut again);
        }
        again
    }

    /// Writes publications in their order, and before them the script where one was sent in vain.
    async fn send_all(
        &self,
        jobs: Vec<Job>,
    ) -> (
        OptionFuture<impl Future<Output = Result<Value, RedisError>> + use<>>,
        Vec<impl Future<Output = Flight> + Send + use<>>,
    ) {
        let mut load = None;
        if jobs.iter().any(|job| job.sends_count > 0) {
            tracing::debug!(
                event = "script_lost",
                count = jobs.len(),
                "Redis does not know the script, what was not done is sent again behind it"
            );
            load = Some(self.begin("SCRIPT", self.script.load_args()).await);
        }
        let mut flights = Vec::with_capacity(jobs.len());
        for job in jobs {
            flights.push(self.send(job).await);
        }
        (load.into(), flights)
    }

    /// Writes one publication. The first poll puts the command into the connection's queue, so
    /// that the order of this method's calls is the order on the wire.
    async fn send(&self, mut job: Job) -> impl Future<Output = Flight> + Send + use<> {
        job.sends_count += 1;
        let command = self.begin("EVALSHA", job.args.clone()).await;
        async move {
            let result = command.await;
            Flight { job, result }
        }
    }

    /// Answers the caller, in the order of sending. `confirmed`: how many replicas have it, or why
    /// that is not known. `again`: publications that were not done and are to be sent again.
    fn land(
        &self,
        Flight { job, result }: Flight,
        confirmed: Option<&Result<u64, String>>,
        again: &mut Vec<Job>,
    ) {
        match &result {
            // While it stops, nothing is sent twice.
            Err(RedisError::NoScript(_))
                if job.sends_count < SENDS_MAX && !self.queue.is_closed() =>
            {
                again.push(job);
                return;
            }
            Err(RedisError::NotMaster(_)) => self.command.suspect.notify_one(),
            Err(RedisError::ReadOnly(_)) if !self.shared.health.is_read_only() => {
                self.shared.urgent.suspect.notify_one();
            }
            _ => {}
        }
        if !result.as_ref().is_err_and(RedisError::is_not_done) {
            // What it overtook would now come behind it.
            for overtaken in again.extract_if(.., |other| other.topic == job.topic) {
                self.answer(overtaken, Err(Unavailable::Overtaken.into()));
            }
        }
        let mut outcome = read(result);
        if let (Ok(_), Some(confirmed)) = (&outcome, confirmed)
            && let Err(why) = enough(job.replicas, confirmed)
        {
            self.shared.metrics.control.publish_unconfirmed.add(1);
            outcome = Err(BrokerError::Unconfirmed(why));
        }
        self.answer(job, outcome);
    }

    fn answer(&self, job: Job, answer: Answer) {
        self.waiting_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
        // A caller that went away needs no answer.
        let _ = job.answer.send(answer);
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
    let answer = result?;
    if !matches!(answer, Value::Array(_)) {
        return Ok(Published {
            position: reply::position(&answer)?,
            duplicate: false,
        });
    }
    let [outcome, position] = reply::parts(answer)?;
    if outcome.as_bytes() != Some(b"duplicate") {
        return Err(reply::unexpected("outcome", &outcome));
    }
    Ok(Published {
        position: reply::position(&position)?,
        duplicate: true,
    })
}
