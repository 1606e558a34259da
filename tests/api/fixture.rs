//! One node's API over the in-process broker, called without a socket.
//!
//! In: requests of the tests. Out: the API's answers. The directory is a list that the test
//! fills; everything else is what a node runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;

use fanfare::api::body_budget::BodyBudget;
use fanfare::api::keys::ApiKeys;
use fanfare::api::queue::taken::Taken;
use fanfare::api::state::{
    Answer, ApiState, Component, Directory, LiveTopic, MembersPage, NodeSessions, NodeStatus,
    QueueStatus, Revoked, TopicsPage,
};
use fanfare::apps::Apps;
use fanfare::apps::keeper::Keeper;
use fanfare::apps::store::Store;
use fanfare::apps::stored::Filed;
use fanfare::auth::keys::try_key;
use fanfare::broker::memory::MemoryBroker;
use fanfare::broker::memory::clock::Clock;
use fanfare::broker::{Broker, BrokerError, Page};
use fanfare::config::api_clients::{ApiClient, Scopes, hash_of};
use fanfare::config::inputs::TryKey;
use fanfare::config::load::defaults;
use fanfare::config::{Allow, Api, Config, Memory, Namespace, Secret, Server, Session};
use fanfare::http::bodies::Route;
use fanfare::lifecycle::Lifecycle;
use fanfare::revocation::Target;
use fanfare::telemetry::metrics::Metrics;
use fanfare::telemetry::trace::tracer::Tracer;
use fanfare_protocol::ids::{App, NodeId, SessionId, Topic, User};
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::recorded::history;

/// The key that the node knows.
pub(crate) const KEY: &str = "secret-key";
/// The key of a client that may do nothing.
pub(crate) const BARE_KEY: &str = "bare-key";
/// The longest body that the node takes. Small, so that tests meet the limits.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1_024;
/// The longest `data` that the node takes.
pub(crate) const DATA_BYTES_MAX: usize = 16 * 1_024;

/// How the directory answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// As a node that is well.
    Well,
    /// As a node whose broker has not answered yet.
    Starting,
    /// Ready, but with an answer of the broker lost on every question.
    Lost,
    /// As one of which a part hangs.
    Hangs,
    /// Nobody answers how many sessions there are.
    Uncounted,
    /// By a panic.
    Panics,
}

/// A directory that is a list.
pub(crate) struct Listed {
    pub(crate) mood: Mutex<Mood>,
    pub(crate) occupancy: Mutex<BTreeMap<Topic, Vec<NodeSessions>>>,
    pub(crate) disconnected: Mutex<Vec<String>>,
    pub(crate) drained: Mutex<Vec<String>>,
    /// How often nodes were told of apps.
    pub(crate) apps_set: Mutex<u32>,
    pub(crate) revoked: Mutex<Vec<(Vec<Target>, Option<u64>)>>,
    /// What revoking is answered.
    pub(crate) revoked_as: Mutex<Revoked>,
    pub(crate) queue: Mutex<QueueStatus>,
    broker: Arc<Broker>,
}

impl Listed {
    fn answer<'a, T: Send + 'a>(
        &'a self,
        good: impl Future<Output = Result<T, BrokerError>> + Send + 'a,
    ) -> Answer<'a, T> {
        let lost = *self.mood.lock().unwrap() == Mood::Lost;
        Box::pin(async move {
            match lost {
                true => Err(BrokerError::Unknown("reset by peer".into())),
                false => good.await,
            }
        })
    }
}

impl Directory for Listed {
    fn lifecycle(&self) -> Lifecycle {
        // Copied first: a panic under the lock would poison it for the rest of the test.
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well | Mood::Lost | Mood::Hangs | Mood::Uncounted => Lifecycle::Ready,
            Mood::Starting => Lifecycle::Starting,
            Mood::Panics => panic!("the directory is out of order"),
        }
    }

    fn not_live(&self) -> Vec<String> {
        match *self.mood.lock().unwrap() {
            Mood::Hangs => vec!["worker 0 has not turned for 31 s".into()],
            _ => vec![],
        }
    }

    fn partial(&self) -> Vec<String> {
        Vec::new()
    }

    fn not_ready(&self) -> Vec<String> {
        match *self.mood.lock().unwrap() {
            Mood::Starting => vec!["the broker has not answered yet".into()],
            Mood::Hangs => vec!["worker 0 has not turned for 31 s".into()],
            _ => vec![],
        }
    }

    fn components(&self) -> Vec<Component> {
        vec![Component::new("broker", "in this process")]
    }

    fn warnings(&self) -> Vec<String> {
        vec!["maxmemory_policy is not noeviction".into()]
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        vec![NodeStatus {
            node: "node-a".into(),
            url: Some("wss://a.example".into()),
            state: "ready".into(),
            sessions: 3,
            drain_sessions: None,
            share: 1.0,
            partitions: 4,
            partition_ranges: "0-2,7".into(),
            api_only: false,
            incarnation: 7,
            version: "0.1.0".into(),
            started_ms: 5,
            load: None,
            age_ms: 40,
            fresh: true,
        }]
    }

    fn queue(&self) -> QueueStatus {
        *self.queue.lock().unwrap()
    }

    fn feed_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn view_age(&self) -> Duration {
        Duration::from_millis(40)
    }

    fn home(&self, topic: &Topic) -> Route {
        Route {
            node: "node-a".into(),
            url: None,
            partition: topic.partition(256),
        }
    }

    fn topics<'a>(
        &'a self,
        app: &'a App,
        after: Option<&'a Topic>,
        limit: u32,
    ) -> Answer<'a, TopicsPage> {
        self.answer(async move {
            let all = self.occupancy.lock().unwrap();
            let of_app = |topic: &Topic| topic.app() == app.as_str() && Some(topic) > after;
            let mut rest = all.iter().filter(|(topic, _)| of_app(topic));
            let page = rest.by_ref().take(limit as usize);
            let page = page.map(|(topic, nodes)| LiveTopic {
                topic: topic.clone(),
                sessions: nodes.iter().map(|node| node.sessions).sum(),
                nodes: u32::try_from(nodes.len()).unwrap(),
            });
            let topics: Vec<_> = page.collect();
            let last = topics.last().map(|last| last.topic.clone());
            Ok(TopicsPage {
                topics,
                next: last.filter(|_| rest.next().is_some()),
            })
        })
    }

    fn occupancy<'a>(&'a self, topic: &'a Topic) -> Answer<'a, Vec<NodeSessions>> {
        self.answer(async move {
            if *self.mood.lock().unwrap() == Mood::Uncounted {
                std::future::pending::<()>().await;
            }
            let all = self.occupancy.lock().unwrap();
            Ok(all.get(topic).cloned().unwrap_or_default())
        })
    }

    fn members<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Answer<'a, MembersPage> {
        self.answer(async move {
            let size = Page {
                entries_max: limit,
                bytes_max: 1 << 20,
            };
            let page = self.broker.members(topic, after, size).await?;
            Ok(MembersPage {
                count: page.counts.iter().map(|(_, count)| count).sum(),
                members: page.entries.into_iter().map(|e| e.member).collect(),
                position: page.position,
                more: page.next.is_some(),
            })
        })
    }

    fn disconnect<'a>(&'a self, app: &'a App, user: &'a User) -> Answer<'a, ()> {
        self.answer(async move {
            let name = match *app == App::default_app() {
                true => user.to_string(),
                false => format!("{app}/{user}"),
            };
            self.disconnected.lock().unwrap().push(name);
            Ok(())
        })
    }

    fn revoke<'a>(
        &'a self,
        _app: &'a App,
        targets: &'a [Target],
        issued_before: Option<u64>,
    ) -> Answer<'a, Revoked> {
        self.answer(async move {
            self.revoked
                .lock()
                .unwrap()
                .push((targets.to_vec(), issued_before));
            Ok(self.revoked_as.lock().unwrap().clone())
        })
    }

    fn apps_set(&self) -> Answer<'_, ()> {
        self.answer(async move {
            *self.apps_set.lock().unwrap() += 1;
            Ok(())
        })
    }

    fn drain<'a>(&'a self, node: &'a NodeId) -> Answer<'a, ()> {
        self.answer(async move {
            self.drained.lock().unwrap().push(node.to_string());
            Ok(())
        })
    }
}

/// The API and what stands behind it.
pub(crate) struct Node {
    pub(crate) api: fanfare::api::Api,
    pub(crate) directory: Arc<Listed>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) metrics: Arc<Metrics>,
    apps: Arc<Apps>,
}

/// What the node answered.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Answered {
    /// The body, in whichever form it is.
    pub(crate) fn value(&self) -> Value {
        match self.headers["content-type"].to_str().unwrap() {
            "application/json" => serde_json::from_slice(&self.bytes).unwrap(),
            "application/msgpack" => rmp_serde::from_slice(&self.bytes).unwrap(),
            other => panic!("content type {other}"),
        }
    }

    /// Status and `error.code`, after a look at what every error has.
    pub(crate) fn error(&self) -> (u16, String) {
        let value = self.value();
        let error = &value["error"];
        assert!(!error["message"].as_str().unwrap().is_empty(), "{value}");
        let status = self.status.as_u16();
        let repeats = matches!(status, 429 | 503);
        assert_eq!(
            self.headers.contains_key("retry-after"),
            repeats,
            "{self:?}"
        );
        (status, error["code"].as_str().unwrap().to_owned())
    }
}

impl Node {
    pub(crate) fn start() -> Self {
        Self::of(state())
    }

    /// One whose configuration is changed.
    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let (mut state, directory) = state();
        let mut config = config();
        change(&mut config);
        state.keys = Arc::new(ApiKeys::new(&config.api));
        (state.apps, state.keeper) = apps(&config, &state.metrics);
        state.config = Arc::new(config);
        Self::of((state, directory))
    }

    pub(crate) fn of((state, directory): (ApiState, Arc<Listed>)) -> Self {
        Self {
            broker: Arc::clone(&state.broker),
            metrics: Arc::clone(&state.metrics),
            apps: Arc::clone(&state.apps),
            api: fanfare::api::Api::new(state),
            directory,
        }
    }

    /// The apps that it knows.
    pub(crate) fn apps(&self) -> &Apps {
        &self.apps
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.directory.mood.lock().unwrap() = mood;
    }

    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answered {
        let host = HeaderValue::from_static("fanfare.test");
        request.headers_mut().entry("host").or_insert(host);
        let response = self.api.answer(request).await;
        let (parts, body) = response.into_parts();
        Answered {
            status: parts.status,
            headers: parts.headers,
            bytes: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.send(request(Method::GET, path, Body::empty())).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answered {
        self.send(request(Method::POST, path, Body::from(body.to_string())))
            .await
    }

    /// Posts text that may be no JSON at all.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<Body>) -> Answered {
        self.send(request(Method::POST, path, body.into())).await
    }

    pub(crate) async fn post_msgpack(&self, path: &str, body: Vec<u8>) -> Answered {
        let mut request = request(Method::POST, path, Body::from(body));
        let headers = request.headers_mut();
        headers.insert("content-type", "application/msgpack".parse().unwrap());
        self.send(request).await
    }
}

/// A request with the right key and, when it posts, the type of JSON.
pub(crate) fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder()
        .uri(path)
        .header("authorization", format!("Bearer {KEY}"));
    match method {
        Method::POST | Method::PUT => builder.header("content-type", "application/json"),
        _ => builder,
    }
    .method(method)
    .body(body)
    .unwrap()
}

/// What a node would hand to its API.
pub(crate) fn state() -> (ApiState, Arc<Listed>) {
    // Nobody listens to the feed: no topic has interest, so nothing is put on it.
    let metrics = Arc::new(Metrics::new(1));
    let (broker, _feed) = MemoryBroker::new(Clock::System, Arc::clone(&metrics));
    let broker = Arc::new(Broker::Memory(broker));
    let directory = Arc::new(Listed {
        mood: Mutex::new(Mood::Well),
        occupancy: Mutex::default(),
        disconnected: Mutex::default(),
        revoked: Mutex::default(),
        revoked_as: Mutex::new(Revoked::Stored {
            issued_before: 1_732_190_001,
            waiting: Vec::new(),
        }),
        drained: Mutex::default(),
        apps_set: Mutex::default(),
        queue: Mutex::default(),
        broker: Arc::clone(&broker),
    });
    let config = Arc::new(config());
    let (apps, keeper) = apps(&config, &metrics);
    let state = ApiState {
        broker,
        keys: Arc::new(ApiKeys::new(&config.api)),
        config,
        tracer: Arc::new(Tracer::without_exporter(Arc::clone(&metrics.trace))),
        metrics,
        history: history(),
        apps,
        keeper,
        directory: Arc::clone(&directory) as Arc<dyn Directory>,
        bodies: BodyBudget::new(BODY_BYTES_MAX),
        queue_taken: Taken::told_by(Duration::from_secs(1)),
        started: Instant::now(),
        commit: "0123abc",
    };
    (state, directory)
}

/// The apps of a configuration, and what is to be stored of others.
fn apps(config: &Config, metrics: &Metrics) -> (Arc<Apps>, Arc<Keeper>) {
    let apps = Arc::new(Apps::new(Filed::of(config).settings));
    let judge: TryKey = |key| try_key(key).map_err(|fault| fault.to_string());
    let reads = (Arc::clone(&config.inherited), judge);
    let counts = Arc::clone(&metrics.apps);
    let keeper = Keeper::new(Arc::clone(&apps), Store::memory(), reads, counts);
    (apps, Arc::new(keeper))
}

/// Anybody may join, nobody do more.
fn namespace(history_entries_max: u32) -> Namespace {
    Namespace {
        history_entries_max,
        history_age: Duration::from_secs(3_600),
        presence: history_entries_max > 0,
        subscribe: Allow::Anyone,
        publish: Allow::Nobody,
        history: Allow::Nobody,
        presence_allow: Allow::Nobody,
        ..defaults().everyone
    }
}

fn config() -> Config {
    let defaults = defaults();
    Config {
        memory: Memory { bytes_max: 1 << 28 },
        server: Server {
            node_id: NodeId::new("node-a").unwrap(),
            ..defaults.server
        },
        api: Api {
            keys: vec![Secret("other-key".into()), Secret(KEY.into())],
            clients: vec![ApiClient {
                name: "nobody".into(),
                hashes: vec![hash_of(BARE_KEY.as_bytes())],
                scopes: Scopes::default(),
                ..ApiClient::with_key("")
            }],
            body_bytes_max: BODY_BYTES_MAX,
            ..defaults.api
        },
        session: Session {
            message_bytes_max: DATA_BYTES_MAX,
            ..defaults.session
        },
        namespaces: BTreeMap::from([
            ("default".into(), namespace(100)),
            ("live".into(), namespace(0)),
        ]),
        inbox: namespace(100),
        everyone: namespace(0),
        ..defaults
    }
}
