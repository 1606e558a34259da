//! A running broker under test, and the few words in which the cases speak to it.
//!
//! In: an engine. Out: calls with everything but the point of a case filled in. Every wait has
//! [`PATIENCE`] as its bound and fails the case there.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::memory::{MemoryBroker, clock::Clock};
use fanfare::broker::publication::Publication;
use fanfare::broker::redis::RedisBroker;
use fanfare::broker::{
    Body, Broker, BrokerError, BrokerHealth, Entry, Feed, FeedEvent, HistoryPage, HistoryQuery,
    Page, PublishRequest, Published, SincePage,
};
use fanfare::config::{self, Retention};
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Position, Topic};
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio::time::timeout;

use fanfare_testkit::redis_cluster::RedisCluster;
use fanfare_testkit::redis_server::RedisServer;
use fanfare_testkit::wait::{self, PATIENCE};

/// Keeps more than any case publishes on a topic, unless it says otherwise.
pub(crate) const HISTORY: Retention = Retention {
    entries_max: 10_000,
    age_ms: 3_600_000,
};

/// Keeps nothing.
pub(crate) const NO_HISTORY: Retention = Retention {
    entries_max: 0,
    age_ms: 3_600_000,
};

/// A page that holds everything.
pub(crate) const WHOLE: Page = Page {
    entries_max: 100_000,
    bytes_max: 1 << 30,
};

/// A broker under test. What the engine needs to run lives and ends with it.
pub(crate) struct Rig {
    pub(crate) broker: Arc<Broker>,
    pub(crate) feed: Feed,
    pub(crate) metrics: Arc<Metrics>,
    _engine: Box<dyn Any + Send>,
}

/// A fresh in-process broker on the machine's clock.
pub(crate) async fn start_memory() -> Rig {
    start_memory_at(Clock::System)
}

/// A fresh in-process broker on the given clock.
pub(crate) fn start_memory_at(clock: Clock) -> Rig {
    let metrics = Arc::new(Metrics::new(0));
    let (broker, feed) = MemoryBroker::new(clock, Arc::clone(&metrics));
    let broker = Arc::new(Broker::Memory(broker));
    let mut tasks = JoinSet::new();
    let running = Arc::clone(&broker);
    tasks.spawn(async move {
        if let Broker::Memory(memory) = &*running {
            memory.run().await;
        }
    });
    Rig::new(broker, feed, metrics, tasks)
}

/// A broker over a fresh Redis.
pub(crate) async fn start_redis() -> Rig {
    let server = RedisServer::start().await;
    start_over(server.url(), "ff".to_owned(), server).await
}

/// The same as a user who may do only what docs/redis.md lists.
pub(crate) async fn start_redis_as_user() -> Rig {
    let server = RedisServer::start().await;
    start_over(server.url_of_user(), "ff".to_owned(), server).await
}

/// A broker over a Redis Cluster that all cases share, each under names of its own.
pub(crate) async fn start_cluster() -> Rig {
    static CLUSTER: OnceCell<RedisCluster> = OnceCell::const_new();
    static CASES: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER
        .get_or_init(|| async {
            let cluster = RedisCluster::masters_only().await;
            cluster.ends_with_this_process();
            cluster
        })
        .await;
    let case = CASES.fetch_add(1, Ordering::Relaxed);
    start_over(cluster.url(), format!("ff{case}"), ()).await
}

async fn start_over(url: String, prefix: String, engine: impl Any + Send) -> Rig {
    let config = config::Redis {
        url: Some(config::Secret(url)),
        prefix,
        // No case is about a lost answer.
        command_timeout: PATIENCE,
        lease: 2 * PATIENCE,
        ..config::load::defaults().redis
    };
    let metrics = Arc::new(Metrics::new(0));
    let (broker, feed) =
        RedisBroker::start(&config, Arc::clone(&metrics)).expect("a URL that can be used");
    let mut health = broker.health();
    let up = health.wait_for(|health| *health == BrokerHealth::Up);
    timeout(PATIENCE, up)
        .await
        .expect("up in time")
        .expect("the broker runs");
    Rig::new(Arc::new(Broker::Redis(broker)), feed, metrics, engine)
}

impl Rig {
    /// Whether every node reads contexts of traces from now on.
    pub(crate) fn carry_context(&self, is_read_by_all: bool) {
        let hour = tokio::time::Instant::now() + Duration::from_secs(3_600);
        self.broker.carry_context(is_read_by_all.then_some(hour));
    }

    /// A rig that keeps `engine` until its end.
    pub(crate) fn new(
        broker: Arc<Broker>,
        feed: Feed,
        metrics: Arc<Metrics>,
        engine: impl Any + Send,
    ) -> Self {
        Self {
            broker,
            feed,
            metrics,
            _engine: Box::new(engine),
        }
    }

    /// Publishes a JSON value and returns its position.
    pub(crate) async fn publish(&self, topic: &Topic, keep: Retention, json: &str) -> Position {
        let published = self.submit(request(topic, keep, json)).await;
        assert!(!published.duplicate);
        published.position
    }

    /// Publishes `1`, `2`, … and returns their positions.
    pub(crate) async fn publish_count(
        &self,
        topic: &Topic,
        keep: Retention,
        count: u32,
    ) -> Vec<Position> {
        let mut positions = Vec::new();
        for n in 1..=count {
            positions.push(self.publish(topic, keep, &n.to_string()).await);
        }
        positions
    }

    /// Publishes ten bodies of 1,000 bytes.
    pub(crate) async fn publish_heavy(&self, topic: &Topic) -> Vec<Position> {
        let body = format!("\"{}\"", "x".repeat(998));
        let mut positions = Vec::new();
        for _ in 0..10 {
            positions.push(self.publish(topic, HISTORY, &body).await);
        }
        positions
    }

    /// Publishes as asked. What was surely not done is tried again: on a machine that is very busy
    /// the link is now and then built anew.
    pub(crate) async fn submit(&self, request: PublishRequest) -> Published {
        wait::until("the broker to take it", async || {
            match self.broker.publish(request.clone()).await {
                Err(BrokerError::Unavailable(why)) => Err(why),
                result => Ok(result.expect("its outcome is known")),
            }
        })
        .await
    }

    /// What came after `since`, as one page.
    pub(crate) async fn since(&self, topic: &Topic, since: Position, keep: Retention) -> SincePage {
        self.since_page(topic, since, keep, WHOLE).await
    }

    /// What came after `since`, as much as the page holds.
    pub(crate) async fn since_page(
        &self,
        topic: &Topic,
        since: Position,
        keep: Retention,
        page: Page,
    ) -> SincePage {
        let answer = self.broker.since(topic, since, keep, page).await;
        answer.expect("the broker is up")
    }

    /// All that is retained.
    pub(crate) async fn retained(&self, topic: &Topic, keep: Retention) -> Vec<Entry> {
        self.history(whole_history(topic, keep)).await.entries
    }

    /// A page of history.
    pub(crate) async fn history(&self, query: HistoryQuery) -> HistoryPage {
        self.broker.history(query).await.expect("the broker is up")
    }

    /// The last position of one topic.
    pub(crate) async fn last(&self, topic: &Topic, keep: Retention) -> Option<Position> {
        let answer = self.broker.last(topic, keep, true).await;
        let last = answer.expect("the broker is up");
        // What is known of it changes no answer.
        assert_eq!(self.broker.last(topic, keep, false).await, Ok(last));
        last
    }

    /// Wishes to hear a topic and waits until that is confirmed.
    pub(crate) async fn hear(&mut self, topic: &Topic) {
        let wish = (topic.clone(), self.broker.interest().want(topic.clone()));
        let is_confirmed = |event: &FeedEvent| match event {
            FeedEvent::Subscribed(wishes) => wishes.contains(&wish),
            _ => false,
        };
        while !is_confirmed(&self.next().await) {}
    }

    /// The next event of the feed.
    pub(crate) async fn next(&mut self) -> FeedEvent {
        let event = timeout(PATIENCE, self.feed.recv()).await;
        event
            .expect("an event arrives in time")
            .expect("the feed stays open")
    }

    /// The next event of the feed, which must be a delivery.
    pub(crate) async fn delivery(&mut self) -> (Topic, Entry) {
        match self.next().await {
            FeedEvent::Delivery { topic, entry, .. } => (topic, entry),
            other => panic!("expected a delivery, got {other:?}"),
        }
    }
}

/// A topic of the first app.
pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a valid name")
}

/// A publication with nothing but a body.
pub(crate) fn publication(json: &str) -> Publication {
    let data = Data::Json(Bytes::copy_from_slice(json.as_bytes()));
    Publication::new(data, 1_700_000_000_000)
}

/// A request to publish a JSON value.
pub(crate) fn request(topic: &Topic, keep: Retention, json: &str) -> PublishRequest {
    PublishRequest::new(topic.clone(), publication(json), keep)
}

/// A question for all that is retained, oldest first.
pub(crate) fn whole_history(topic: &Topic, keep: Retention) -> HistoryQuery {
    HistoryQuery {
        topic: topic.clone(),
        retention: keep,
        since: None,
        until: None,
        limit: WHOLE.entries_max,
        bytes_max: WHOLE.bytes_max,
        reverse: false,
    }
}

/// The publication that an entry carries.
pub(crate) fn message(entry: &Entry) -> &Publication {
    match &entry.body {
        Body::Publication(publication) => publication,
        other => panic!("expected a publication, got {other:?}"),
    }
}

/// Where the entries stand.
pub(crate) fn positions(entries: &[Entry]) -> Vec<Position> {
    entries.iter().map(|entry| entry.position).collect()
}

/// Fails unless every entry stands above the one before, links to it, and the first to `start`.
pub(crate) fn assert_linked(start: Position, entries: &[Entry]) {
    let mut before = start;
    for entry in entries {
        assert_eq!(entry.prev, before, "the link of {}", entry.position);
        assert!(entry.position > before);
        before = entry.position;
    }
}
