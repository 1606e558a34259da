//! The ordered way into Redis: one connection, one queue, the publication script.
//!
//! In: publications of all tasks of the node. Out: EVALSHA commands on a connection of the publisher's
//! own, written in the order of the queue with many in flight, and one answer to each caller. Owner
//! of the order: one task a connection, [`ordered`] on the thread of the master's feed, [`replicated`]
//! on the control runtime. Bounds: [`QUEUE_MAX`] publications and
//! [`QUEUE_BYTES_MAX`] bytes wait; at the bound a publication is refused as `Unavailable` and
//! counted. [`IN_FLIGHT_MAX`] are with Redis.
//!
//! Where Redis does not know the script (NOSCRIPT: somebody flushed it, or another server took
//! over), nothing was done. Sending pauses until all answers are there, then the script is loaded
//! and the same publications are sent again in their order, at most [`SENDS_MAX`] times. Only a
//! publisher loads its script, which has a variant of its own ([`Scripts::publish`]), and only while
//! it has none in flight, so that all
//! that was sent behind the first failed as well. Should another node have the same variant and
//! load it in between, what was overtaken on its topic is refused as `Unavailable`. Nothing else
//! is ever sent twice.
//!
//! [`Scripts::publish`]: super::scripts::Scripts::publish

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fred::types::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::link::{CommandLink, Shared};
use super::reply;
use crate::broker::channel_context::{self, CONTEXT_BYTES_MAX};
use crate::broker::publication;
use crate::broker::unavailable::Unavailable;
use crate::broker::{BrokerError, PublishRequest, Published};
use crate::config::Replicas;
use crate::redis::circuit::Circuit;
use crate::redis::publication_keys::{KeyParts, PublicationKeys};
use crate::redis::wire::command::Prepared;
use crate::redis::{Keys, RedisError, Script};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::ids::Topic;

pub mod ordered;
pub mod replicated;

/// Publications that wait for the connection.
pub const QUEUE_MAX: usize = 8_192;
/// Bytes of bodies that wait or are in flight.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Publications that wait for Redis' answer. Measured: beyond 256 the rate grows no more.
pub const IN_FLIGHT_MAX: usize = 256;
/// So often a publication is sent before it is refused, where Redis does not know the script.
pub const SENDS_MAX: u32 = 16;

/// What stands before the body on the channel. It is the last argument, and left out where not every
/// node reads it when the publication is sent, which may be long after it was queued.
type Context = Option<[u8; CONTEXT_BYTES_MAX]>;

/// What a publisher is told.
pub type Answer = Result<Published, BrokerError>;

/// One publication on its way, or entries of the queue.
#[derive(Debug)]
pub struct Job<C> {
    /// What it must not be overtaken on; `None`: nothing.
    topic: Option<Topic>,
    /// The arguments of EVALSHA.
    command: C,
    context: Context,
    bytes: usize,
    replicas: Replicas,
    sends_count: u32,
    answer: oneshot::Sender<Result<Value, BrokerError>>,
}

/// What EVALSHA is given, as `scripts/publish.lua` lists it.
#[derive(Debug)]
pub struct Call<'a> {
    sha: &'a str,
    keys: &'a [KeyParts<'a>],
    body: Vec<u8>,
    numbers: &'a [u64],
}

/// A form in which a publisher sends these.
pub trait Form: Sized {
    /// The same in that form.
    fn of(call: Call<'_>) -> Self;
}

impl Form for Prepared {
    fn of(call: Call<'_>) -> Self {
        let keys = call.keys.iter().flatten();
        let keys_bytes: usize = keys.map(|part| part.len()).sum();
        Self::with(256 + keys_bytes + call.body.len(), |command| {
            command.bytes(b"EVALSHA").bytes(call.sha.as_bytes());
            command.number(call.keys.len() as u64);
            for key in call.keys {
                command.joined(&key.map(str::as_bytes));
            }
            command.bytes(&call.body);
            for number in call.numbers {
                command.number(*number);
            }
        })
    }
}

impl Form for Vec<Value> {
    fn of(call: Call<'_>) -> Self {
        let mut values: Self = vec![call.sha.into(), call.keys.len().to_string().into()];
        values.extend(call.keys.iter().map(|key| Value::from(key.concat())));
        values.push(Value::Bytes(call.body.into()));
        values.extend(call.numbers.iter().map(|number| number.to_string().into()));
        values
    }
}

/// The arguments of EVALSHA for one publication with this body, on a topic of this partition, up to its
/// context.
#[must_use]
pub fn arguments<C: Form>(
    script: &Script,
    keys: &Keys,
    request: &PublishRequest,
    partition: u32,
    body: Vec<u8>,
) -> C {
    let topic = &request.topic;
    let key = request
        .idempotency
        .as_ref()
        .filter(|(_, life_ms)| *life_ms > 0);
    let used = PublicationKeys::new(keys, topic, partition, key.map(|(key, _)| &**key));
    let retention = request.retention;
    let numbers = [
        rand::random::<u32>().into(),
        retention.entries_max.into(),
        retention.age_ms,
        retention.last_life_ms(),
        key.map_or(0, |(_, life_ms)| *life_ms),
    ];
    let has_last = key.is_some() || request.trace.is_some();
    C::of(Call {
        sha: script.sha(),
        keys: used.as_slice(),
        body,
        numbers: &numbers[..4 + usize::from(has_last)],
    })
}

/// The handle: it fills the queue.
#[derive(Debug)]
pub struct Publisher<C> {
    queue: mpsc::Sender<Job<C>>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    /// By which link of fred it goes, if by one.
    command: Option<Arc<CommandLink>>,
    script: Script,
}

/// The task's side of the queue, and what it has in hand.
#[derive(Debug)]
pub struct Publications<C> {
    queue: mpsc::Receiver<Job<C>>,
    waiting_bytes: Arc<AtomicUsize>,
    shared: Arc<Shared>,
    script: Script,
    /// What Redis did not do for want of the script, to be sent again in this order.
    again: Vec<Job<C>>,
}

/// The queue of a publisher that sends its script over this link of fred, or over its own connection.
#[must_use]
pub fn channel<C: Form>(
    shared: &Arc<Shared>,
    command: Option<&Arc<CommandLink>>,
) -> (Publisher<C>, Publications<C>) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let script = match command {
        Some(_) => &shared.scripts.publish_replicated,
        None => &shared.scripts.publish,
    };
    let publisher = Publisher {
        queue: sender,
        waiting_bytes: Arc::clone(&waiting_bytes),
        shared: Arc::clone(shared),
        command: command.map(Arc::clone),
        script: script.clone(),
    };
    let publications = Publications {
        queue: receiver,
        waiting_bytes,
        shared: Arc::clone(shared),
        script: script.clone(),
        again: Vec::new(),
    };
    (publisher, publications)
}

/// A caller that waits for the answer to a publication. One that goes away is counted, with the time
/// that it waited: else a broker that is slow would look the better the less patience callers have.
struct Waited<'a> {
    metrics: &'a Metrics,
    begun_at: Instant,
    is_answered: bool,
}

impl<'a> Waited<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            begun_at: Instant::now(),
            is_answered: false,
        }
    }
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.metrics.control.publish_unawaited.add(1);
            let seconds = &self.metrics.publish_seconds;
            seconds.count(self.begun_at.elapsed(), None);
        }
    }
}

impl<C: Form> Publisher<C> {
    /// Queues a publication on a topic of this partition at its first poll and waits for the answer.
    ///
    /// # Errors
    /// [`BrokerError`]. Cancel safety: a publication that is queued is sent all the same.
    pub async fn publish(&self, request: PublishRequest, partition: u32) -> Answer {
        let control = &self.shared.metrics.control;
        if let Err(refused) = self.circuit().pass() {
            control.publish_errors.add(1);
            return Err(refused.into());
        }
        let body = publication::encode_publication(&request.publication);
        let bytes = body.len();
        let command = arguments(&self.script, &self.shared.keys, &request, partition, body);
        let context = request.trace.as_ref().map(channel_context::encode);
        let mut waited = Waited::begin(&self.shared.metrics);
        let answer = self
            .submit(
                Some(request.topic),
                (command, context),
                bytes,
                request.replicas,
            )
            .await
            .and_then(read);
        waited.is_answered = true;
        match &answer {
            Ok(Published {
                duplicate: true, ..
            }) => control.publish_duplicates.add(1),
            Ok(_) => control.published.add(1),
            Err(BrokerError::Unavailable(Unavailable::QueueFull)) => control.publish_refused.add(1),
            Err(_) => control.publish_errors.add(1),
        }
        if answer.is_ok() {
            let seconds = &self.shared.metrics.publish_seconds;
            seconds.count(waited.begun_at.elapsed(), request.trace);
        }
        answer
    }

    /// Queues a command at its first poll and waits for what Redis says.
    async fn submit(
        &self,
        topic: Option<Topic>,
        (command, context): (C, Context),
        bytes: usize,
        replicas: Replicas,
    ) -> Result<Value, BrokerError> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            topic,
            command,
            context,
            bytes,
            replicas,
            sends_count: 0,
            answer,
        };
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let refusal = if before > QUEUE_BYTES_MAX {
            Some(Unavailable::QueueFull)
        } else {
            match self.queue.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(_)) => Some(Unavailable::QueueFull),
                Err(TrySendError::Closed(_)) => Some(Unavailable::Stopping),
            }
        };
        if let Some(reason) = refusal {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(reason.into());
        }
        let stopped = || BrokerError::Unknown("the broker was stopped".to_owned());
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }

    fn circuit(&self) -> &Circuit {
        match &self.command {
            Some(command) => command.link.circuit(),
            None => &self.shared.publications,
        }
    }
}

impl Publisher<Vec<Value>> {
    /// Runs another script in the same way: it is answered when so many replicas have what it did.
    /// Redis is given it together with the script of publications, where it does not know it.
    ///
    /// # Errors
    /// [`BrokerError`]. Cancel safety: what is queued is sent all the same.
    pub async fn call(
        &self,
        script: &Script,
        keys: &[String],
        args: Vec<Vec<u8>>,
        replicas: Replicas,
    ) -> Result<Value, BrokerError> {
        self.circuit().pass()?;
        let bytes = args.iter().map(Vec::len).sum();
        let command = script.call_args(keys, args);
        self.submit(None, (command, None), bytes, replicas).await
    }
}

impl<C> Publications<C> {
    /// The context of what is sent now, if it has one and every node reads it.
    fn context(&self, job: &Job<C>) -> Context {
        job.context.filter(|_| self.shared.carrying.is_on())
    }

    /// Whether a publication was not done for want of the script and can be sent again.
    fn is_to_be_repeated(&self, job: &Job<C>, result: &Result<Value, RedisError>) -> bool {
        // While it stops, nothing is sent twice.
        matches!(result, Err(RedisError::NoScript(_)))
            && job.sends_count < SENDS_MAX
            && !self.queue.is_closed()
    }

    /// Refuses what this one has overtaken, if it was done: it would now come behind it.
    fn overtake(&mut self, topic: Option<&Topic>, result: &Result<Value, RedisError>) {
        if self.again.is_empty() || result.as_ref().is_err_and(RedisError::is_not_done) {
            return;
        }
        let is_overtaken = |other: &mut Job<C>| topic.is_some() && other.topic.as_ref() == topic;
        let overtaken: Vec<_> = self.again.extract_if(.., is_overtaken).collect();
        for job in overtaken {
            self.answer(job, Err(Unavailable::Overtaken.into()));
        }
    }

    fn answer(&self, job: Job<C>, answer: Result<Value, BrokerError>) {
        self.waiting_bytes.fetch_sub(job.bytes, Ordering::Relaxed);
        // A caller that went away needs no answer.
        let _ = job.answer.send(answer);
    }
}

/// What Redis' answer to the script says.
fn read(answer: Value) -> Answer {
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
