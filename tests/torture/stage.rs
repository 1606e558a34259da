//! What a run happens on: nodes as processes, Redis, and the links between everything.
//!
//! In: how many nodes, which Redis. Out: addresses, and nodes that can be killed, stopped and
//! started again under their names. Clients reach a node through its door, a link that stays where
//! it is when the node comes back on another port. With one Redis each node has a link of its own
//! to it; Sentinel and Cluster tell nodes the servers' own addresses, so there it has none.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;

use super::app::App;
use super::figure::Nodes;
use super::link::Link;
use super::queue::NAMESPACE as QUEUE_NAMESPACE;
use super::queue_redis::Doors;
use super::redis_form::{Form, Redis};
use super::swallow::Swallow;
use fanfare_testkit::http;
use fanfare_testkit::node::{self, Node, Plan};

/// The namespace of the run's topics.
pub(crate) const NAMESPACE: &str = "torture";

/// The namespace of topics that have only members.
pub(crate) const MEMBERS_NAMESPACE: &str = "members";

/// A node's place: it outlives the node.
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) node: Mutex<Option<Node>>,
    public: Cell<SocketAddr>,
    api: Cell<SocketAddr>,
    /// Between clients and the node.
    pub(crate) door: Link,
    /// Between the node and Redis.
    pub(crate) redis_link: Option<Link>,
}

/// Until a node that is being started is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

impl Seat {
    /// Samples of its node, `None` while it has none. The seat is free meanwhile: what holds the
    /// node may have to come back to it before the node can answer.
    async fn metrics<const COUNT: usize>(&self, names: [&str; COUNT]) -> Option<[u64; COUNT]> {
        loop {
            self.node.lock().await.as_ref()?;
            if let Some(answer) = http::try_get(self.api.get(), "/metrics").await {
                let text = answer.text();
                let found = |name| node::sample(&text, name).unwrap_or_default();
                return Some(names.map(found));
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

/// See the module.
pub(crate) struct Stage {
    pub(crate) redis: Mutex<Redis>,
    pub(crate) form: Form,
    /// Where Redis is for those who are no nodes, whatever is being done to it.
    pub(crate) redis_doors: Doors,
    pub(crate) seats: Vec<Seat>,
    url: String,
    shards: Option<String>,
    directory: tempfile::TempDir,
    /// Of nodes that have ended.
    old_logs: RefCell<Vec<(String, String)>>,
}

/// What a node asked its broker, a question for each topic that was asked about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Questions {
    pub(crate) topics: u64,
    pub(crate) asked: u64,
}

/// How a stage is to be built.
pub(crate) struct Plans<'a> {
    pub(crate) nodes: usize,
    /// Replicas that must have a publication before it is answered.
    pub(crate) replicas_min: u32,
    /// For the first node's link to Redis.
    pub(crate) swallow: Option<&'a Swallow>,
}

impl Stage {
    /// Starts the nodes and waits until all are ready.
    pub(crate) async fn start(redis: Redis, plans: Plans<'_>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = configuration(plans.replicas_min);
        std::fs::write(directory.path().join("fanfare.toml"), text)
            .expect("the directory can be written");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut seats = Vec::new();
        for number in 0..plans.nodes {
            let redis_link = match (redis.form, plans.swallow) {
                (Form::Single, Some(swallow)) if number == 0 => {
                    Some(Link::swallowing(local(redis.port(0)), swallow.clone()).await)
                }
                (Form::Single, _) => Some(Link::to(local(redis.port(0))).await),
                _ => None,
            };
            seats.push(Seat {
                name: format!("node-{number}"),
                node: Mutex::new(None),
                public: Cell::new(nowhere),
                api: Cell::new(nowhere),
                door: Link::to(nowhere).await,
                redis_link,
            });
        }
        let stage = Self {
            form: redis.form,
            redis_doors: redis.doors(),
            url: redis.url(),
            shards: redis.shards(),
            redis: Mutex::new(redis),
            seats,
            directory,
            old_logs: RefCell::default(),
        };
        let starts = (0..plans.nodes).map(|node| stage.start_node(node));
        futures_util::future::join_all(starts).await;
        stage.are_ready().await;
        stage
    }

    /// How many there are, running or not.
    pub(crate) fn nodes_count(&self) -> usize {
        self.seats.len()
    }

    /// Where clients connect; straight to the node or through its door.
    pub(crate) fn door(&self, node: usize, is_straight: bool) -> SocketAddr {
        let seat = &self.seats[node];
        if is_straight {
            seat.public.get()
        } else {
            seat.door.address()
        }
    }

    /// Where backends connect.
    pub(crate) fn api(&self, node: usize) -> SocketAddr {
        self.seats[node].api.get()
    }

    /// Starts a node under its name; it need not become ready.
    pub(crate) async fn start_node(&self, node: usize) {
        self.start_node_with(node, &[]).await;
    }

    /// The same with more in its environment.
    pub(crate) async fn start_node_with(&self, node: usize, environment: &[(&str, &str)]) {
        let seat = &self.seats[node];
        let url = match &seat.redis_link {
            Some(link) => format!("redis://{}", link.address()),
            None => self.url.clone(),
        };
        let path = self.directory.path().join("fanfare.toml");
        let mut plan = Plan::clustered(&seat.name, &url)
            .flag(&format!("--config={}", path.display()))
            .env("FANFARE_LOG__FORMAT", "json");
        if let Some(shards) = &self.shards {
            plan = plan.env("FANFARE_REDIS__SHARDS", shards);
        }
        for (name, value) in environment {
            plan = plan.env(name, value);
        }
        let started = plan.start_unready().await;
        seat.public.set(started.public);
        seat.api.set(started.api);
        seat.door.lead_to(started.public);
        *seat.node.lock().await = Some(started);
    }

    /// Waits until every node is ready.
    ///
    /// # Panics
    /// When one is not, within the patience of `fanfare_testkit::node`.
    pub(crate) async fn are_ready(&self) {
        for seat in &self.seats {
            if let Some(node) = &*seat.node.lock().await {
                node.until_ready().await;
            }
        }
    }

    /// Leads every node's link to another server.
    pub(crate) fn lead_to_redis(&self, port: u16) {
        for link in self
            .seats
            .iter()
            .filter_map(|seat| seat.redis_link.as_ref())
        {
            link.lead_to(local(port));
            link.reset();
        }
    }

    /// Keeps what a node said that has ended.
    pub(crate) fn keep_log(&self, name: &str, node: &Node) {
        let mut logs = self.old_logs.borrow_mut();
        let name = format!("{name}-ended-{}", logs.len());
        logs.push((name, node.log_text()));
    }

    /// The logs of all nodes, for a run that failed.
    pub(crate) async fn logs(&self) -> Vec<(String, String)> {
        let mut logs = self.old_logs.borrow().clone();
        for seat in &self.seats {
            if let Some(node) = &*seat.node.lock().await {
                logs.push((seat.name.clone(), node.log_text()));
            }
        }
        logs
    }

    /// How many sessions each node has ended as silent, 0 for one that does not run.
    pub(crate) async fn silent_ends(&self) -> Vec<u64> {
        let mut all = Vec::new();
        for seat in &self.seats {
            let name = "fanfare_sessions_closed_total{reason=\"ping_timeout\"}";
            all.push(seat.metrics([name]).await.map_or(0, |[ends]| ends));
        }
        all
    }

    /// What each node that runs has asked its broker for topics, by node.
    pub(crate) async fn questions(&self) -> Vec<Questions> {
        let mut all = Vec::new();
        for seat in &self.seats {
            let names = ["fanfare_topics", "fanfare_questions_total"];
            let found = seat.metrics(names).await;
            let [topics, asked] = found.unwrap_or_default();
            all.push(Questions { topics, asked });
        }
        all
    }

    /// What the nodes that run count.
    pub(crate) async fn figures(&self) -> Nodes {
        let mut figures = Nodes::default();
        for seat in &self.seats {
            if let Some(node) = &*seat.node.lock().await {
                let resident = node.resident_bytes();
                figures.resident_bytes_max = figures.resident_bytes_max.max(resident);
            }
            let names = ["fanfare_repairs_total", "fanfare_push_to_pull_total"];
            let found = seat.metrics(names).await;
            let [repairs, taken_back] = found.unwrap_or_default();
            figures.repairs += repairs;
            figures.taken_back += taken_back;
        }
        figures
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Everything is retained, so that the topics at the end say what was published. Outboxes are
/// small, so that slow clients are caught up from history; silence is judged early; drains are
/// quick.
fn configuration(replicas_min: u32) -> String {
    let mut retained = "history_entries_max = 1000000\nhistory_age_s = 86400\n".to_owned();
    if replicas_min > 0 {
        retained.push_str(&format!("replicas_min = {replicas_min}\n"));
    }
    let of_an_app = |prefix: &str| {
        format!(
            "[{prefix}inbox]\n{retained}\
             [{prefix}everyone]\n{retained}\
             [{prefix}namespaces.{NAMESPACE}]\n{retained}presence = true\n\
             subscribe = \"anyone\"\npublish = \"anyone\"\nhistory = \"anyone\"\n\
             presence_allow = \"anyone\"\n\
             [{prefix}namespaces.{QUEUE_NAMESPACE}]\n{retained}"
        )
    };
    let (first, other) = (of_an_app(""), format!("apps.{}.", App::Other.word()));
    let other = of_an_app(&other);
    format!(
        "[session]\noutbox_messages_max = 64\nping_ms = 2000\npong_ms = 10000\n\
         [drain]\nwindow_ms = 2000\n\
         {first}\
         [namespaces.{MEMBERS_NAMESPACE}]\nhistory_entries_max = 0\npresence = true\n\
         subscribe = \"anyone\"\npresence_allow = \"anyone\"\n\
         {other}"
    )
}
