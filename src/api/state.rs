//! What the API needs of the rest of the node, and nothing more.
//!
//! In: the node hands over one [`ApiState`] at start. Out: handlers read it. What only the node
//! can answer (who lives, where a topic is joined, whether it is ready) stands behind
//! [`Directory`], so that the API runs over a real cluster, a node alone, or a test's list.
//! Owner of nothing but the budget of bodies in [`ApiState::bodies`] and the count in
//! [`ApiState::queue_taken`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use serde::Serialize;
use utoipa::ToSchema;

use super::body_budget::BodyBudget;
use super::keys::ApiKeys;
use super::queue::taken::Taken;
use crate::apps::Apps;
use crate::apps::keeper::Keeper;
use crate::broker::{Broker, BrokerError};
use crate::cluster::queue_told::QueueTold;
use crate::config::Config;
use crate::http::bodies::Route;
use crate::lifecycle::Lifecycle;
use crate::revocation::Target;
use crate::telemetry::history::History;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::tracer::Tracer;
use fanfare_protocol::event::Member;
use fanfare_protocol::ids::{App, NodeId, Position, SessionId, Topic, User};

/// Everything that handlers read.
pub struct ApiState {
    /// Where publications go and history comes from.
    pub broker: Arc<Broker>,
    /// The node's configuration.
    pub config: Arc<Config>,
    /// The keys of its callers.
    pub keys: Arc<ApiKeys>,
    /// The node's instruments.
    pub metrics: Arc<Metrics>,
    /// How the node did.
    pub history: Arc<History>,
    /// What is traced.
    pub tracer: Arc<Tracer>,
    /// Which apps there are, and what they set.
    pub apps: Arc<Apps>,
    /// Who sets them.
    pub keeper: Arc<Keeper>,
    /// What only the node can answer.
    pub directory: Arc<dyn Directory>,
    /// How many bytes of request bodies may be held at the same time.
    pub bodies: BodyBudget,
    /// What was put into the durable queue and no figure knows yet.
    pub queue_taken: Taken,
    /// When the node started.
    pub started: Instant,
    /// The commit that this binary was built from.
    pub commit: &'static str,
}

/// An answer that may have to be asked for elsewhere.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, BrokerError>>;

/// What the node knows and the broker does not.
pub trait Directory: Send + Sync {
    /// Where the node stands in its life.
    fn lifecycle(&self) -> Lifecycle;

    /// Why the node is not live, for people; empty when it is.
    fn not_live(&self) -> Vec<String>;

    /// Why the node is not ready, for people; empty when it is.
    fn not_ready(&self) -> Vec<String>;

    /// What is wrong though the node is ready, for people: masters of Redis that are away or take
    /// no writes.
    fn partial(&self) -> Vec<String>;

    /// The parts of the node and how they do: broker, membership, workers, what other nodes keep.
    fn components(&self) -> Vec<Component>;

    /// What the operator should know about the configuration and the broker's.
    fn warnings(&self) -> Vec<String>;

    /// The members of the cluster, sorted by name.
    fn nodes(&self) -> Vec<NodeStatus>;

    /// How the durable queue of the cluster stands.
    fn queue(&self) -> QueueStatus;

    /// How long ago an answer told who they are.
    fn view_age(&self) -> Duration;

    /// How late the feed of the broker is.
    fn feed_lag(&self) -> Duration;

    /// The home of a topic (of a user: of the inbox).
    fn home(&self, topic: &Topic) -> Route;

    /// Topics of an app with sessions on any node, in a fixed order, from the first one after `after`.
    fn topics<'a>(
        &'a self,
        app: &'a App,
        after: Option<&'a Topic>,
        limit: u32,
    ) -> Answer<'a, TopicsPage>;

    /// How many sessions have joined the topic, by node. Nodes without one are left out.
    fn occupancy<'a>(&'a self, topic: &'a Topic) -> Answer<'a, Vec<NodeSessions>>;

    /// Member sessions of the topic in the order of their ids, from the first one after `after`.
    fn members<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Answer<'a, MembersPage>;

    /// Tells every node to end the user's sessions in the app.
    fn disconnect<'a>(&'a self, app: &'a App, user: &'a User) -> Answer<'a, ()>;

    /// Revokes tokens of the app: those of the targets that were issued before this second, by default
    /// the next full one.
    fn revoke<'a>(
        &'a self,
        app: &'a App,
        targets: &'a [Target],
        issued_before: Option<u64>,
    ) -> Answer<'a, Revoked>;

    /// Tells every node that an app was set or removed, so that it reads which.
    fn apps_set(&self) -> Answer<'_, ()>;

    /// Tells a node to leave.
    fn drain<'a>(&'a self, node: &'a NodeId) -> Answer<'a, ()>;
}

/// What came of revoking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// It is stored.
    Stored {
        /// Before which second the tokens were issued.
        issued_before: u64,
        /// Live nodes that have not said that they know.
        waiting: Vec<String>,
    },
    /// Nothing was stored: so many revocations are there.
    Full(u64),
}

/// How the durable queue of the cluster stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// What all nodes said with their last heartbeats, together.
    pub told: QueueTold,
    /// How much of its `maxmemory` the fullest master of Redis uses; `None` where there is none, or
    /// none is known.
    pub redis_memory_percent: Option<u8>,
}

/// How a part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// It does what it should.
    Ok,
    /// It does a part of that, or will soon not do it.
    Degraded,
    /// It does not.
    Down,
}

/// A number of a part, beside what it should not reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Figure {
    /// What it is, with its unit: `sessions`, `memory_bytes`, `heartbeat_age_ms`.
    pub name: &'static str,
    /// How much it is now.
    pub value: u64,
    /// At how much the node does something about it, where there is such a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limit: Option<u64>,
}

/// One part of the node.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Component {
    /// For example `broker`.
    pub name: &'static str,
    /// Which one, where there are several of that name: `worker 0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub part: Option<String>,
    /// Whether it does what it should: its state is `ok`.
    pub healthy: bool,
    /// How it does.
    pub state: PartState,
    /// Why it is not `ok`, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
    /// Since when it is in this state, unix milliseconds: to half a second.
    pub since: u64,
    /// What it says, for people.
    pub detail: String,
    /// Its figures beside their limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub figures: Vec<Figure>,
}

impl Component {
    /// A part that is well.
    #[must_use]
    pub fn new(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            part: None,
            healthy: true,
            state: PartState::Ok,
            reason: None,
            since: 0,
            detail: detail.into(),
            figures: Vec::new(),
        }
    }

    /// Says which one it is.
    #[must_use]
    pub fn part(mut self, part: String) -> Self {
        self.part = Some(part);
        self
    }

    /// Says how it does, and why. Without a reason it is well.
    #[must_use]
    pub fn state(mut self, state: PartState, reason: Option<String>) -> Self {
        self.state = if reason.is_some() {
            state
        } else {
            PartState::Ok
        };
        self.healthy = self.state == PartState::Ok;
        self.reason = reason;
        self
    }

    /// Adds a figure.
    #[must_use]
    pub fn figure(mut self, name: &'static str, value: u64, limit: Option<u64>) -> Self {
        self.figures.push(Figure { name, value, limit });
        self
    }
}

/// One member of the cluster.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Its public address, where it advertises one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
    /// Where it stands in its life, as it said itself.
    pub state: String,
    /// Sessions open on it.
    pub sessions: u64,
    /// There, and true, where it has no public listener and takes no sessions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub api_only: bool,
    /// Sessions that were open when it began to leave; there only while it leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub drain_sessions: Option<u64>,
    /// The part of all partitions whose home it is, from 0 to 1.
    pub share: f64,
    /// For how many partitions it may act, as it said itself: those whose lease it holds. Soon
    /// after a change of nodes these are the ones whose home it is.
    pub partitions: u32,
    /// Which these are, as ranges: `0-3,7`.
    pub partition_ranges: String,
    /// Which life of it this is: microseconds of the broker's clock when it began.
    pub incarnation: u64,
    /// Its release.
    pub version: String,
    /// When its process started, unix milliseconds.
    pub started_ms: u64,
    /// What it does and takes up, as it said itself; absent until it has said so, and where its release
    /// does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub load: Option<NodeLoad>,
    /// How old all of this is: milliseconds since the last answered heartbeat of the node that was
    /// asked, which told it that this one has a lease.
    pub age_ms: u64,
    /// Whether that is less than a lease. Where it is not, because Redis is away or takes no
    /// writes, this node may be dead.
    pub fresh: bool,
}

/// The load of a node: means of ten seconds. What moves little is not said anew.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeLoad {
    /// Processor time, of all cores that the process can use.
    pub cpu_percent: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Requests to the API and commands of sessions.
    pub requests_per_s: u64,
    /// Messages that were pushed to sessions.
    pub deliveries_per_s: u64,
    /// How long requests and commands took.
    pub response_ms: u64,
    /// Errors that callers and sessions were told.
    pub errors_per_s: u64,
    /// The alerts that are raised there.
    pub alerts: Vec<String>,
}

/// Sessions on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeSessions {
    /// The node.
    pub node: String,
    /// Sessions there that have joined.
    pub sessions: u64,
}

/// A topic that is live somewhere.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LiveTopic {
    /// Its name.
    pub topic: Topic,
    /// Sessions that have joined, on all nodes.
    pub sessions: u64,
    /// Nodes with at least one of them.
    pub nodes: u32,
}

/// A page of live topics.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TopicsPage {
    /// In the order of the pages; may be fewer than asked for, and none: only `next` says whether
    /// there is another page.
    pub topics: Vec<LiveTopic>,
    /// Continues the pages as `after`; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next: Option<Topic>,
}

/// A page of a topic's members.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MembersPage {
    /// Member sessions in all.
    pub count: u64,
    /// Those of this page; the last one's `session` continues them as `after`.
    pub members: Vec<Member>,
    /// Where the list stands among the topic's presence changes.
    pub position: Position,
    /// There is another page.
    pub more: bool,
}
