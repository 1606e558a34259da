//! Publications that wait for replicas: batch by batch over a link of fred.
//!
//! In: publications of namespaces with `replicas_min`, and entries of the queue for them, from the queue
//! of [`publisher`]. Out: a batch of
//! scripts, one WAIT, and the answers when it has counted enough replicas. WAIT
//! speaks of its own connection alone, and a client may connect anew between two commands: so
//! the connection is given a name when it is looked at first, and each batch ends by asking for it.
//! Whose confirmation counts is judged in `redis/confirmation.rs`. Owner: one task on the control
//! runtime. Bounds: those of the queue.
//!
//! [`publisher`]: super

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use fred::types::Value;
use futures_util::future::{OptionFuture, join, join_all};
use tokio::sync::watch;

use super::{IN_FLIGHT_MAX, Job, Publications};
use crate::broker::BrokerError;
use crate::broker::redis::confirmation::{Answers, BATCH_NAME, Followers, Look, enough};
use crate::broker::redis::health::Line;
use crate::broker::redis::link::{CommandLink, stopped};
use crate::broker::unavailable::Unavailable;
use crate::config::Replicas;
use crate::redis::RedisError;

/// How often it is asked who the replicas are while nothing is published.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A publication as it is sent here.
type Sent = Job<Vec<Value>>;

/// A publication and what Redis said of it.
struct Flight {
    job: Sent,
    result: Result<Value, RedisError>,
}

/// See the module.
#[derive(Debug)]
pub struct Replicated {
    publications: Publications<Vec<Value>>,
    command: Arc<CommandLink>,
    /// How many replicas follow, as the gauge has it.
    told_count: u64,
}

impl Replicated {
    /// Over this link.
    #[must_use]
    pub fn new(publications: Publications<Vec<Value>>, command: &Arc<CommandLink>) -> Self {
        Self {
            publications,
            command: Arc::clone(command),
            told_count: 0,
        }
    }

    /// Sends until `stop` turns true; what is queued by then is still sent and answered. Many at a
    /// time, then one WAIT for all of them.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (mut batch, mut followers) = (Vec::new(), Followers::default());
        loop {
            tokio::select! {
                count = self.publications.queue.recv_many(&mut batch, IN_FLIGHT_MAX) => match count {
                    0 => return self.tell(&Followers::default()),
                    _ => while !batch.is_empty() {
                        batch = self.confirm(batch, &mut followers).await;
                    },
                },
                () = stopped(&mut stop), if !self.publications.queue.is_closed() => self.publications.queue.close(),
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
        let (count, min) = (followers.count(), self.publications.shared.replicas_min);
        let gauge = &self.publications.shared.metrics.control.followers;
        gauge.add(count);
        gauge.sub(self.told_count);
        self.told_count = count;
        let health = &self.publications.shared.health;
        if !followers.are_known() {
            return;
        }
        if count < u64::from(min) {
            let why = Unavailable::TooFewFollow { count, min };
            let server = self.publications.shared.server();
            health.down(Line::Followers, format!("Redis at {server}: {why}"));
        } else {
            health.up(Line::Followers);
        }
    }

    /// Refuses what cannot be confirmed whatever happens: it would be published and told as unknown,
    /// and a WAIT for more replicas than there are holds up all others for its whole time.
    async fn promising(&mut self, batch: Vec<Sent>, followers: &mut Followers) -> Vec<Sent> {
        let can = |job: &Sent, followers: &Followers| {
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
                    self.publications.answer(job, Err(why.into()));
                }
            }
        }
        promising
    }

    /// Sends a batch and answers it when the replicas had their time. Returns what is to be sent
    /// again, because Redis did not know the script.
    async fn confirm(&mut self, batch: Vec<Sent>, followers: &mut Followers) -> Vec<Sent> {
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
        for flight in flights {
            self.land(flight, &confirmed);
        }
        std::mem::take(&mut self.publications.again)
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

    /// Writes publications in their order, and before them the script where one was sent in vain.
    async fn send_all(
        &self,
        jobs: Vec<Sent>,
    ) -> (
        OptionFuture<impl Future<Output: Send> + use<>>,
        Vec<impl Future<Output = Flight> + Send + use<>>,
    ) {
        let mut load = None;
        if jobs.iter().any(|job| job.sends_count > 0) {
            tracing::debug!(
                event = "script_lost",
                count = jobs.len(),
                "Redis does not know the script, what was not done is sent again behind it"
            );
            // Which of them was missed is no matter.
            let scripts = &self.publications.shared.scripts;
            let queue = self
                .begin("SCRIPT", scripts.queue_enqueue.load_args())
                .await;
            let own = self.begin("SCRIPT", self.publications.script.load_args());
            load = Some(join(queue, own.await));
        }
        let mut flights = Vec::with_capacity(jobs.len());
        for job in jobs {
            flights.push(self.send(job).await);
        }
        (load.into(), flights)
    }

    /// Writes one publication. The first poll puts the command into the connection's queue, so
    /// that the order of this method's calls is the order on the wire.
    async fn send(&self, mut job: Sent) -> impl Future<Output = Flight> + Send + use<> {
        job.sends_count += 1;
        let mut arguments = job.command.clone();
        let context = self.publications.context(&job);
        arguments.extend(context.map(|context| Value::Bytes(context.to_vec().into())));
        let command = self.begin("EVALSHA", arguments).await;
        async move {
            let result = command.await;
            Flight { job, result }
        }
    }

    /// Answers the caller, in the order of sending, or keeps what is to be sent again. `confirmed`: how
    /// many replicas have it, or why that is not known.
    fn land(&mut self, Flight { job, result }: Flight, confirmed: &Result<u64, String>) {
        if self.publications.is_to_be_repeated(&job, &result) {
            self.publications.again.push(job);
            return;
        }
        let shared = &self.publications.shared;
        match &result {
            Err(RedisError::NotMaster(_)) => self.command.suspect.notify_one(),
            Err(RedisError::ReadOnly(_)) if !shared.health.is_read_only() => {
                shared.urgent.suspect.notify_one();
            }
            _ => {}
        }
        self.publications.overtake(job.topic.as_ref(), &result);
        let mut outcome = result.map_err(BrokerError::from);
        if outcome.is_ok()
            && let Err(why) = enough(job.replicas, confirmed)
        {
            let control = &self.publications.shared.metrics.control;
            control
                .publish_unconfirmed
                .add(u64::from(job.topic.is_some()));
            outcome = Err(BrokerError::Unconfirmed(why));
        }
        self.publications.answer(job, outcome);
    }
}

async fn poll_once<T>(mut future: Pin<&mut (dyn Future<Output = T> + Send)>) -> Option<T> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
