//! One Redis master as a node uses it: connections for commands, a feed, and what keeps them.
//!
//! In: where the server is, publications and questions for the topics that it has, wishes to hear.
//! Out: answers, and events into the one channel of all masters. Owner of one or two publishers, a
//! feed on a thread of its own, and a supervisor for each connection for commands; they begin with
//! the master and end with [`Master::stop`]. Bounds: those of the publishers' queues, the links and the
//! feed. A master does not know the topology: which topics come to it is decided in `masters`.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::types::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::StartError;
use super::aggregate_health::{AggregateHealth, Part};
use super::carrying::Carrying;
use super::control::Heard;
use super::feed::FeedTask;
use super::link::{CommandLink, Shared, stopped};
use super::publications::PublicationsLink;
use super::supervisor::supervise;
use crate::broker::feed_sender::FeedSender;
use crate::broker::interest::Interest;
use crate::broker::queue::bells::Bells;
use crate::broker::redis::publisher::ordered::Ordered;
use crate::broker::redis::publisher::replicated::Replicated;
use crate::broker::redis::publisher::{self, Publisher};
use crate::broker::unavailable::Unavailable;
use crate::broker::{
    BrokerError, BrokerHealth, FeedEvent, FeedNumber, Moves, PublishRequest, Published,
};
use crate::config::{self, Replicas};
use crate::redis::wire::command::Prepared;
use crate::tasks;
use crate::telemetry::metrics::Metrics;

/// What all masters of a node share.
#[derive(Debug, Clone)]
pub struct MasterContext {
    /// The configuration; the URL in it is replaced by the master's own.
    pub settings: config::Redis,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// Where events go.
    pub feed: mpsc::Sender<FeedEvent>,
    /// Control messages heard by any of them.
    pub heard: Arc<Heard>,
    /// Where each tells how it does.
    pub overall: Arc<AggregateHealth>,
    /// Partitions in whose queue something new waits.
    pub bells: Arc<Bells>,
    /// Told whenever topics may have another place.
    pub moves: Arc<watch::Sender<Moves>>,
    /// Until when publications bring contexts of traces.
    pub carrying: Arc<Carrying>,
}

/// What is a master's own.
#[derive(Debug)]
pub struct MasterSpec {
    /// Its number.
    pub number: FeedNumber,
    /// `redis://` and so on, of one server.
    pub url: String,
    /// The database there.
    pub database: u16,
    /// What it has, if it is a master of a cluster.
    pub slots: Option<Vec<RangeInclusive<u16>>>,
    /// The cluster's control messages may come this way.
    pub hears_control: bool,
    /// To be notified when an answer says that keys are somewhere else.
    pub misplaced: Arc<Notify>,
}

/// See the module.
#[derive(Debug)]
pub struct Master {
    /// Which feed its events come from.
    pub number: FeedNumber,
    /// What its parts share: link, health, scripts.
    pub shared: Arc<Shared>,
    /// The way in, in order.
    publisher: Publisher<Prepared>,
    /// The same for publications that wait for replicas.
    replicated: Option<Publisher<Vec<Value>>>,
    /// What is to be heard here.
    pub interest: Arc<Interest>,
    running: Mutex<Option<Running>>,
}

/// What ends with the master.
#[derive(Debug)]
struct Running {
    stop_publisher: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    publishers: Vec<JoinHandle<()>>,
    supervisors: Vec<JoinHandle<()>>,
    feed_ended: oneshot::Receiver<()>,
    /// Longest wait for each of these at the end. Every command has ended by then.
    patience: Duration,
}

impl Master {
    /// Starts everything and returns at once, whether the server answers or not.
    ///
    /// # Errors
    /// [`StartError`]: a URL that cannot be used, or no thread to be had.
    pub fn start(context: &MasterContext, place: MasterSpec) -> Result<Arc<Self>, StartError> {
        let settings = config::Redis {
            url: Some(config::Secret(place.url.clone())),
            ..context.settings.clone()
        };
        let shared = Shared::new(&settings, &place, context)?;
        let shared = Arc::new(shared);
        let (stop_publisher, publisher_stopped) = watch::channel(false);
        let (stop, stopped) = watch::channel(false);
        let interest = Arc::new(Interest::default());
        let feed = FeedTask {
            shared: Arc::clone(&shared),
            settings: settings.clone(),
            interest: Arc::clone(&interest),
            sender: FeedSender::new(
                context.feed.clone(),
                place.number,
                Arc::clone(&shared.metrics),
            ),
        };
        let (publisher, publications) = publisher::channel(&shared, None);
        let link = PublicationsLink::new(&shared, &settings, Ordered::new(publications));
        let publishing = link.run(publisher_stopped.clone());
        let (publishing, feed_ended) = spawn_feed(feed, stopped.clone(), publishing)?;
        let mut publishers = vec![publishing];
        let replicated = shared.replicated.as_ref().map(|command| {
            let (publisher, publications) = publisher::channel(&shared, Some(command));
            let task = Replicated::new(publications, command).run(publisher_stopped);
            publishers.push(tasks::spawn("publisher_replicated", task));
            publisher
        });
        let telling = tell(
            Arc::clone(&context.overall),
            Part::Master(place.number),
            shared.health.watch(),
            stopped.clone(),
        );
        tasks::spawn("redis_health", telling);
        let supervise = |command: &Arc<CommandLink>| {
            let (shared, command) = (Arc::clone(&shared), Arc::clone(command));
            let task = supervise(shared, command, settings.clone(), stopped.clone());
            tasks::spawn("redis_supervisor", task)
        };
        let supervisors = shared.links().map(supervise).collect();
        let running = Running {
            stop_publisher,
            stop,
            publishers,
            supervisors,
            feed_ended,
            patience: settings.commands_end(),
        };
        Ok(Arc::new(Self {
            number: place.number,
            shared,
            publisher,
            replicated,
            interest,
            running: Mutex::new(Some(running)),
        }))
    }

    /// Sends a publication on a topic of this partition by the link that it needs, and waits for the
    /// answer.
    ///
    /// # Errors
    /// [`BrokerError`]. Cancel safety: a publication that is queued is sent all the same.
    pub async fn publish(
        &self,
        request: PublishRequest,
        partition: u32,
    ) -> Result<Published, BrokerError> {
        match (&self.replicated, request.replicas.min) {
            (_, 0) => self.publisher.publish(request, partition).await,
            (Some(replicated), _) => replicated.publish(request, partition).await,
            (None, _) => Err(Unavailable::NotReplicated.into()),
        }
    }

    /// Runs the script that enqueues, by the link that this needs: answered when so many replicas have
    /// what it did.
    ///
    /// # Errors
    /// [`BrokerError`]. Cancel safety: what was sent may be done all the same.
    pub async fn enqueue(
        &self,
        keys: &[String],
        args: Vec<Vec<u8>>,
        replicas: Replicas,
    ) -> Result<Value, BrokerError> {
        let script = &self.shared.scripts.queue_enqueue;
        match (&self.replicated, replicas.min) {
            (_, 0) => Ok(self.shared.bulk.link.eval(script, keys, &args).await?),
            (Some(replicated), _) => replicated.call(script, keys, args, replicas).await,
            (None, _) => Err(Unavailable::NotReplicated.into()),
        }
    }

    /// What became of a call. A refusal out of the middle of a script is counted and logged.
    ///
    /// # Errors
    /// That of the answer.
    pub fn heeding<T>(&self, answer: Result<T, BrokerError>) -> Result<T, BrokerError> {
        if let Err(BrokerError::Broken(refusal)) = &answer {
            let is_news = self.shared.refusals.broke(refusal);
            if is_news {
                let server = self.shared.server();
                tracing::warn!(
                    event = "redis_script_refused",
                    server,
                    reason = refusal.to_string(),
                    "Redis refuses a part of what this node asks: what came before it was done"
                );
            }
        }
        answer
    }

    /// Ends what was started: first the publishers, with all that is queued, then the connections.
    pub async fn stop(&self) {
        let running = self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else { return };
        running.stop_publisher.send_replace(true);
        for publisher in running.publishers {
            end("publisher", running.patience, publisher).await;
        }
        running.stop.send_replace(true);
        for supervisor in running.supervisors {
            end("supervisor", running.patience, supervisor).await;
        }
        end("feed", running.patience, running.feed_ended).await;
    }

    /// Whether commands and feed work, if only to read.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(*self.shared.health.watch().borrow(), BrokerHealth::Down(_))
    }
}

/// Tells how the master does until it ends.
async fn tell(
    overall: Arc<AggregateHealth>,
    part: Part,
    mut health: watch::Receiver<BrokerHealth>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let now = health.borrow_and_update().clone();
        overall.set(part, now);
        tokio::select! {
            () = stopped(&mut stop) => break,
            changed = health.changed() => if changed.is_err() { break },
        }
    }
    overall.forget(part);
}

/// The thread of the feed, on which publications are sent too. The receiver ends with the thread, which
/// outlives both.
fn spawn_feed(
    task: FeedTask,
    stopped: watch::Receiver<bool>,
    publishing: impl Future<Output = ()> + Send + 'static,
) -> Result<(JoinHandle<()>, oneshot::Receiver<()>), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    let (published, publishing_ended) = oneshot::channel();
    // A task of its own, so that neither is polled for what comes to the other.
    let entered = runtime.enter();
    let publishing = tasks::spawn("publisher", async move {
        publishing.await;
        // Nobody may wait for it any more.
        let _ = published.send(());
    });
    drop(entered);
    let (ending, ended) = oneshot::channel();
    let span = tracing::debug_span!("feed", server = task.shared.server());
    let run = move || {
        runtime.block_on(async {
            tasks::planted("feed", task.run(stopped).instrument(span)).await;
            // A panic of the publisher is an end too.
            let _ = publishing_ended.await;
        });
        let _ = ending.send(());
    };
    tasks::thread("fanfare-feed".to_owned(), run).map_err(StartError::Thread)?;
    Ok((publishing, ended))
}

/// Waits for a part to end, and says when it panicked or hangs.
async fn end<T, E: std::error::Error + 'static>(
    part: &str,
    patience: Duration,
    ended: impl Future<Output = Result<T, E>>,
) {
    match tokio::time::timeout(patience, ended).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            tracing::error!(
                event = "broker_part_failed",
                part,
                error = &error as &(dyn std::error::Error + 'static),
                "a part of the broker ended badly"
            )
        }
        Err(_) => tracing::error!(
            event = "broker_part_stuck",
            part,
            "a part of the broker does not end"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_part_is_taken_for_stuck_while_a_command_has_time() {
        for ms in [10, 2_000, 60_000] {
            let (feed, _events) = mpsc::channel(1);
            let context = MasterContext {
                settings: config::Redis {
                    command_timeout: Duration::from_millis(ms),
                    ..config::load::defaults().redis
                },
                metrics: Arc::new(Metrics::new(0)),
                feed,
                heard: Arc::default(),
                overall: Arc::default(),
                bells: Arc::default(),
                moves: Arc::default(),
                carrying: Arc::default(),
            };
            let place = MasterSpec {
                number: FeedNumber::default(),
                url: "redis://127.0.0.1:1".to_owned(),
                database: 0,
                slots: None,
                hears_control: false,
                misplaced: Arc::default(),
            };
            let master = Master::start(&context, place).expect("a thread");
            let patience = master
                .running
                .lock()
                .expect("whole")
                .as_ref()
                .expect("it runs")
                .patience;
            // One command is on its way, and another waits behind it.
            assert!(patience > context.settings.command_timeout * 2, "{ms}");
            master.stop().await;
        }
    }
}
