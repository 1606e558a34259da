//! Brokers over one Redis, as nodes hold them, and a reader that repairs as a node does.
//!
//! In: where Redis is. Out: calls with everything but the point of a case filled in. Every
//! wait has [`PATIENCE`] as its bound and fails the case there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfare::broker::publication::Publication;
use fanfare::broker::redis::RedisBroker;
use fanfare::broker::unavailable::Unavailable;
use fanfare::broker::{
    Body, BrokerError, BrokerHealth, Entry, Feed, FeedEvent, Page, PublishRequest, Published,
};
use fanfare::config::{self, Retention};
use fanfare::telemetry::metrics::Metrics;
use fanfare_protocol::data::Data;
use fanfare_protocol::ids::{App, Position, Topic};
use tokio::time::timeout;

use fanfare_testkit::wait::{self, PATIENCE};

/// Keeps more than any case publishes on a topic.
pub(crate) const HISTORY: Retention = Retention {
    entries_max: 100_000,
    age_ms: 3_600_000,
};

/// What a broker is told to use.
pub(crate) fn settings(url: String, access: config::RedisAccess) -> config::Redis {
    config::Redis {
        url: Some(config::Secret(url)),
        access,
        probe_interval: Duration::from_millis(200),
        probe_fresh: Duration::from_secs(2),
        ..config::load::defaults().redis
    }
}

/// How long replicas are waited for: less than a command may take.
pub(crate) const REPLICAS_PATIENCE: Duration = Duration::from_millis(1_500);

/// One node's broker.
pub(crate) struct Peer {
    pub(crate) broker: Arc<RedisBroker>,
    pub(crate) feed: Feed,
    pub(crate) metrics: Arc<Metrics>,
}

impl Peer {
    /// A broker that has just been told to start.
    pub(crate) fn start(url: String) -> Self {
        Self::over(url, &[])
    }

    /// A broker over several deployments that has just been told to start.
    pub(crate) fn over(url: String, shards: &[String]) -> Self {
        Self::start_with(&config::Redis {
            shards: shards.iter().cloned().map(config::Secret).collect(),
            ..settings(url, config::RedisAccess::default())
        })
    }

    /// The same with these settings.
    pub(crate) fn start_with(settings: &config::Redis) -> Self {
        let metrics = Arc::new(Metrics::new(0));
        let started = RedisBroker::start(settings, Arc::clone(&metrics));
        let (broker, feed) = started.expect("settings that can be used");
        Self {
            broker: Arc::new(broker),
            feed,
            metrics,
        }
    }

    /// A broker that is up.
    pub(crate) async fn up(url: String) -> Self {
        let peer = Self::start(url);
        peer.is_up().await;
        peer
    }

    /// A broker that is up and has a link of its own, also up, at each of so many masters, for
    /// publications that wait for replicas.
    pub(crate) async fn replicated(url: String, masters_count: u64) -> Self {
        let peer = Self::start_with(&config::Redis {
            replicas_min: 1,
            // A probe is replicated too: a WAIT behind it would speak of all that was written
            // before.
            probe_interval: PATIENCE,
            probe_fresh: 2 * PATIENCE,
            ..settings(url, config::RedisAccess::default())
        });
        peer.is_up().await;
        let closed = || peer.metrics.control.circuits_closed.get();
        let is_ready = || closed() == 4 * masters_count;
        wait::until_within(PATIENCE, "all links", async || is_ready().then_some(())).await;
        peer.is_settled(16 * masters_count).await;
        peer
    }

    /// Waits until replicas may confirm at the masters of so many topics. On a connection that is
    /// new they do not. More of them than there are is refused without a word written, and why tells
    /// when that is over.
    pub(crate) async fn is_settled(&self, topics_count: u64) {
        for n in 0..topics_count {
            let topic = topic(&format!("old-enough-{n}"));
            wait::until_within(PATIENCE, "an older connection", async || {
                match self.broker.publish(wanting(&topic, 0, 99)).await {
                    Err(BrokerError::Unavailable(Unavailable::TooFewFollow { .. })) => Some(()),
                    Err(BrokerError::Unavailable(_) | BrokerError::Unknown(_)) => None,
                    other => panic!("expected a refusal, got {other:?}"),
                }
            })
            .await;
        }
    }

    /// Waits until the broker can be used.
    pub(crate) async fn is_up(&self) {
        self.health("up", |health| *health == BrokerHealth::Up)
            .await;
    }

    /// Waits until the broker is down, and returns why.
    pub(crate) async fn is_down(&self) -> String {
        let is_down = |health: &BrokerHealth| matches!(health, BrokerHealth::Down(_));
        match self.health("down", is_down).await {
            BrokerHealth::Down(reason) => reason,
            other => unreachable!("waited for down, got {other:?}"),
        }
    }

    /// Waits until some of Redis is away, and returns which and why.
    pub(crate) async fn is_partly_up(&self) -> String {
        let is_it = |health: &BrokerHealth| matches!(health, BrokerHealth::Partly(_));
        match self.health("up in part", is_it).await {
            BrokerHealth::Partly(reason) => reason,
            other => unreachable!("waited for a part, got {other:?}"),
        }
    }

    /// Waits until a part of the broker is down for a reason of which this is true.
    pub(crate) async fn is_partly_up_where(&self, says: impl Fn(&str) -> bool) {
        let is_it = |health: &BrokerHealth| match health {
            BrokerHealth::Partly(reason) => says(reason),
            BrokerHealth::Up | BrokerHealth::Down(_) | BrokerHealth::ReadOnly(_) => false,
        };
        self.health("up in part", is_it).await;
    }

    /// Waits until the broker is down for a reason that has these words in it.
    pub(crate) async fn is_down_for(&self, words: &str) {
        let is_it = |health: &BrokerHealth| match health {
            BrokerHealth::Down(reason) => reason.contains(words),
            BrokerHealth::Up | BrokerHealth::Partly(_) | BrokerHealth::ReadOnly(_) => false,
        };
        self.health(words, is_it).await;
    }

    async fn health(&self, what: &str, is_it: impl Fn(&BrokerHealth) -> bool) -> BrokerHealth {
        let mut health = self.broker.health();
        let waited = timeout(PATIENCE, health.wait_for(is_it)).await;
        let Ok(found) = waited else {
            panic!(
                "not in time: {what}; now {:?}",
                self.broker.health().borrow()
            );
        };
        found.expect("the broker runs").clone()
    }

    /// Wishes to hear a topic and waits until that is confirmed.
    pub(crate) async fn hear(&mut self, topic: &Topic) {
        let wish = (topic.clone(), self.broker.interest().want(topic.clone()));
        let is_it = |event: &FeedEvent| match event {
            FeedEvent::Subscribed(wishes) => wishes.contains(&wish),
            _ => false,
        };
        while !is_it(&self.next().await) {}
    }

    /// The next event of the feed, beside word that it is down.
    pub(crate) async fn next(&mut self) -> FeedEvent {
        loop {
            let event = timeout(PATIENCE, self.feed.recv()).await;
            let event = event.expect("an event arrives in time");
            match event.expect("the feed stays open") {
                FeedEvent::Down(_) => {}
                event => return event,
            }
        }
    }

    /// Waits until a publication is refused at once, because its master is known to be away.
    pub(crate) async fn is_refused(&self, topic: &Topic, n: u64) {
        wait::until_within(PATIENCE, "a refusal", async || {
            match self.publish(topic, n).await {
                Err(BrokerError::Unavailable(_) | BrokerError::Refused(_)) => Some(()),
                // It was sent before the connection was seen to be lost.
                Err(BrokerError::Unknown(_)) => None,
                other => panic!("expected a refusal, got {other:?}"),
            }
        })
        .await;
    }

    /// Publishes a number.
    pub(crate) async fn publish(&self, topic: &Topic, n: u64) -> Result<Published, BrokerError> {
        self.broker.publish(request(topic, n)).await
    }

    /// All that is retained, by pages.
    pub(crate) async fn retained(&self, topic: &Topic) -> Vec<(Position, u64)> {
        let mut reader = Reader::new(topic);
        reader.catch_up(self).await;
        reader.read
    }
}

/// Follows a topic as a node does: by the links, and from the stream where they do not fit.
pub(crate) struct Reader {
    topic: Topic,
    last: Position,
    /// What was read, in order.
    pub(crate) read: Vec<(Position, u64)>,
    /// How many breaks were told.
    pub(crate) breaks: u32,
    /// How many entries came from the stream.
    pub(crate) repaired: usize,
}

impl Reader {
    /// A reader of everything.
    pub(crate) fn new(topic: &Topic) -> Self {
        Self {
            topic: topic.clone(),
            last: Position::ZERO,
            read: Vec::new(),
            breaks: 0,
            repaired: 0,
        }
    }

    /// Takes an event of the feed.
    pub(crate) async fn take(&mut self, peer: &Peer, event: FeedEvent) {
        match event {
            FeedEvent::Delivery { topic, entry, .. } => {
                assert_eq!(topic, self.topic);
                if entry.prev == self.last {
                    self.push(&entry);
                } else if entry.position > self.last {
                    self.catch_up(peer).await;
                }
            }
            FeedEvent::Break(_) | FeedEvent::Doubt(_) => {
                self.breaks += 1;
                self.catch_up(peer).await;
            }
            // It is heard somewhere else now.
            FeedEvent::Subscribed(_) => self.catch_up(peer).await,
            other => panic!("expected a delivery or word of a loss, got {other:?}"),
        }
    }

    /// Reads from the stream what is missing; nothing may be gone.
    pub(crate) async fn catch_up(&mut self, peer: &Peer) {
        const PAGE: Page = Page {
            entries_max: 500,
            bytes_max: 1 << 20,
        };
        loop {
            // What has just been moved to another master may not be answered yet.
            let page = wait::until_within(PATIENCE, "what is missing", async || {
                let page = peer.broker.since(&self.topic, self.last, HISTORY, PAGE);
                page.await.ok()
            })
            .await;
            assert_eq!(page.gap, None);
            assert_eq!(page.start, self.last);
            for entry in &page.entries {
                self.push(entry);
                self.repaired += 1;
            }
            if page.entries.is_empty() || self.last >= page.last {
                return;
            }
        }
    }

    /// The last number read.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.read.last().map(|(_, n)| *n)
    }

    fn push(&mut self, entry: &Entry) {
        assert_eq!(entry.prev, self.last);
        assert!(entry.position > self.last);
        self.last = entry.position;
        self.read.push((entry.position, number(entry)));
    }
}

/// A topic of the first app.
pub(crate) fn topic(name: &str) -> Topic {
    Topic::new(&App::default_app(), name).expect("a valid name")
}

/// A request to publish a number.
pub(crate) fn request(topic: &Topic, n: u64) -> PublishRequest {
    let data = Data::Json(Bytes::from(n.to_string()));
    let publication = Publication::new(data, 1_700_000_000_000);
    PublishRequest::new(topic.clone(), publication, HISTORY)
}

/// The same, answered when so many replicas have it.
pub(crate) fn wanting(topic: &Topic, n: u64, min: u32) -> PublishRequest {
    PublishRequest {
        replicas: config::Replicas {
            min,
            timeout: REPLICAS_PATIENCE,
        },
        ..request(topic, n)
    }
}

/// The number that an entry carries.
pub(crate) fn number(entry: &Entry) -> u64 {
    match &entry.body {
        Body::Publication(publication) => match &publication.data {
            Data::Json(bytes) => std::str::from_utf8(bytes)
                .expect("text")
                .parse()
                .expect("a number"),
            other => panic!("expected JSON, got {other:?}"),
        },
        other => panic!("expected a publication, got {other:?}"),
    }
}
