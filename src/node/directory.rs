//! What the API asks of the node: who lives, where a topic is joined, whether all is well.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior};

use crate::api::state::{
    Answer, Component, Directory, LiveTopic, MembersPage, NodeLoad, NodeSessions, NodeStatus,
    QueueStatus, Revoked, TopicsPage,
};
use crate::apps::keeper::Keeper;
use crate::broker::unavailable::Unavailable;
use crate::broker::{Broker, BrokerError, Page};
use crate::cluster::control::{self, ControlMessage, Request};
use crate::cluster::load_told::LoadTold;
use crate::cluster::membership::Membership;
use crate::cluster::occupancy::Occupancy;
use crate::cluster::occupancy_store::OccupancyError;
use crate::cluster::partitions::Partitions;
use crate::http::bodies::Route;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::revocation::Target;
use crate::session::Services;
use crate::tasks::{self, turns};
use crate::telemetry::metrics::Metrics;
use fanfare_protocol::close::CloseReason;
use fanfare_protocol::ids::{App, NodeId, SessionId, Topic, User};

use super::millis;
use super::parts::{self, Since};
use super::readiness::{self, Readiness};
use super::revoking::{self, Revoking};
use super::stored_apps;

/// See the module.
pub struct NodeDirectory {
    /// The node's parts.
    pub services: Arc<Services>,
    /// Its place in the cluster.
    pub membership: Membership,
    /// For which partitions it may act.
    pub partitions: Partitions,
    /// How many of them cannot be cleaned, and why.
    pub reaping: watch::Receiver<Option<String>>,
    /// Which tokens are revoked.
    pub revoking: Revoking,
    /// Which apps there are.
    pub keeper: Arc<Keeper>,
    /// Where topics are joined.
    pub occupancy: Arc<Occupancy>,
    /// The state of its life.
    pub lifecycle: LifecycleReceiver,
    /// Why it is not ready.
    pub readiness: Readiness,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// Told when the API asks this very node to leave.
    pub leave: Arc<Notify>,
    /// What the configuration's checks had to say.
    pub warnings: Vec<String>,
    /// Since when its parts are as they are.
    pub since: Since,
}

/// How often it is looked at how the parts do.
const PARTS_LOOK_EVERY: Duration = Duration::from_millis(500);

/// Looks at how the parts do, so that it is known since when, though nobody asks.
pub(super) fn watch_parts(directory: &Arc<NodeDirectory>) {
    let directory = Arc::clone(directory);
    tasks::vital("parts", async move {
        let mut looks = tokio::time::interval(PARTS_LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let _ = directory.components();
        }
    });
}

impl Directory for NodeDirectory {
    fn lifecycle(&self) -> Lifecycle {
        *self.lifecycle.borrow()
    }

    fn not_live(&self) -> Vec<String> {
        turns::lost()
    }

    fn not_ready(&self) -> Vec<String> {
        self.readiness.not_ready()
    }

    fn partial(&self) -> Vec<String> {
        let mut partial = readiness::partial(&self.services.broker);
        partial.extend(self.readiness.shut.borrow().reasons());
        partial.extend(self.services.checks.troubles());
        partial.extend(self.services.authorizers.troubles());
        partial
    }

    fn components(&self) -> Vec<Component> {
        let (broker, config) = (&self.services.broker, &self.services.config);
        let shut = *self.readiness.shut.borrow();
        let is_redis = matches!(&**broker, Broker::Redis(_));
        let mut components = vec![
            parts::broker(broker),
            match is_redis {
                true => parts::membership_with_age(&self.membership, config),
                false => parts::membership(&self.membership),
            },
        ];
        let takes_sessions = config.server.listen.is_some();
        components.extend(takes_sessions.then(|| parts::workers(&self.metrics)));
        if is_redis {
            components.push(parts::settings(&self.membership));
            components.push(parts::partitions(&self.membership, &self.partitions));
            components.push(parts::reaping(self.reaping.borrow().as_deref()));
        }
        components.extend(parts::circuits(broker));
        components.extend(parts::turning());
        let sessions = || parts::sessions(config, &self.metrics, shut.full());
        components.extend(takes_sessions.then(sessions));
        components.extend(parts::memory(config, shut.short()));
        components.push(parts::queue(config, self.queue()));
        components.push(revoking::part(&self.revoking.known));
        components.extend(parts::authorizers(&self.services.authorizers));
        components.push(stored_apps::part(&self.keeper));
        components.push(parts::alerts(config, &self.metrics));
        self.since.note(&mut components);
        components
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        if let Broker::Redis(redis) = &*self.services.broker {
            warnings.extend(redis.warnings());
        }
        warnings
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        let (view, now) = (self.membership.now(), Instant::now());
        let age_ms = millis(view.age_at(now));
        let fresh = view.is_recent_at(now, self.services.config.redis.lease);
        let status = |node: &crate::cluster::view::NodeInfo| NodeStatus {
            node: node.owner.node.as_str().to_owned(),
            url: node.details.url.clone(),
            state: node.details.state.clone(),
            sessions: node.details.sessions,
            api_only: node.details.api_only,
            drain_sessions: node.details.drain_sessions,
            share: view.ring.share(&node.owner.node),
            partitions: node.details.partitions,
            partition_ranges: node.details.partition_ranges.clone(),
            incarnation: node.owner.incarnation,
            version: node.details.version.clone(),
            started_ms: node.details.started_ms,
            load: node.details.load.clone().map(load),
            age_ms,
            fresh,
        };
        view.nodes.iter().map(status).collect()
    }

    fn queue(&self) -> QueueStatus {
        QueueStatus {
            told: self.membership.now().queue(),
            redis_memory_percent: match &*self.services.broker {
                Broker::Redis(redis) => redis.memory_percent(),
                Broker::Memory(_) => None,
            },
        }
    }

    fn feed_lag(&self) -> Duration {
        feed_lag(&self.services.broker)
    }

    fn view_age(&self) -> Duration {
        self.membership.now().age_at(Instant::now())
    }

    fn home(&self, topic: &Topic) -> Route {
        let view = self.membership.now();
        let home = view.home(topic);
        Route {
            node: home.node,
            url: home.url,
            partition: topic.partition(view.ring.partitions_count()),
        }
    }

    fn topics<'a>(
        &'a self,
        app: &'a App,
        after: Option<&'a Topic>,
        limit: u32,
    ) -> Answer<'a, TopicsPage> {
        Box::pin(async move {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let page = self
                .occupancy
                .topics(app, after, limit)
                .await
                .map_err(broker_error)?;
            let live = |t: crate::cluster::occupancy::Occupied| LiveTopic {
                topic: t.topic,
                sessions: t.sessions,
                nodes: u32::try_from(t.nodes_count).unwrap_or(u32::MAX),
            };
            Ok(TopicsPage {
                topics: page.topics.into_iter().map(live).collect(),
                next: page.next,
            })
        })
    }

    fn occupancy<'a>(&'a self, topic: &'a Topic) -> Answer<'a, Vec<NodeSessions>> {
        Box::pin(async move {
            let counts = self.occupancy.topic(topic).await.map_err(broker_error)?;
            let one = |(owner, sessions): (fanfare_protocol::ids::Owner, u64)| NodeSessions {
                node: owner.node.as_str().to_owned(),
                sessions,
            };
            Ok(counts.into_iter().map(one).collect())
        })
    }

    fn members<'a>(
        &'a self,
        topic: &'a Topic,
        after: Option<SessionId>,
        limit: u32,
    ) -> Answer<'a, MembersPage> {
        Box::pin(async move {
            let size = Page {
                entries_max: limit,
                bytes_max: self.services.config.session.page_bytes_max,
            };
            let page = self.services.presence.page(topic, after, size).await?;
            Ok(MembersPage {
                count: page.count,
                members: page.members,
                position: page.position,
                more: page.more,
            })
        })
    }

    fn disconnect<'a>(&'a self, app: &'a App, user: &'a User) -> Answer<'a, ()> {
        let request = Request::Disconnect {
            app: app.clone(),
            user: user.clone(),
            session: None,
            reason: CloseReason::Disconnected,
        };
        self.tell_nodes(request)
    }

    fn revoke<'a>(
        &'a self,
        app: &'a App,
        targets: &'a [Target],
        issued_before: Option<u64>,
    ) -> Answer<'a, Revoked> {
        Box::pin(async move {
            let added = self.revoking.add(app, targets, issued_before).await;
            let stored = match added.map_err(revoking::broker_error)? {
                Ok(stored) => stored,
                Err(count) => return Ok(Revoked::Full(count)),
            };
            // A doorbell that is lost costs half a second.
            let _ = self.tell_nodes(Request::Revoked).await;
            let waiting = self.revoking.waiting(&self.membership, &stored).await;
            Ok(Revoked::Stored {
                issued_before: stored.issued_before,
                waiting,
            })
        })
    }

    fn apps_set(&self) -> Answer<'_, ()> {
        self.tell_nodes(Request::AppsSet)
    }

    fn drain<'a>(&'a self, node: &'a NodeId) -> Answer<'a, ()> {
        if *node == self.membership.now().me.node {
            // This node can leave whether the broker is there or not.
            self.leave.notify_one();
            return Box::pin(std::future::ready(Ok(())));
        }
        self.tell_nodes(Request::Drain { node: node.clone() })
    }
}

impl NodeDirectory {
    /// Sends a control message to every node, this one included.
    fn tell_nodes(&self, request: Request) -> Answer<'_, ()> {
        let from = self.membership.now().me.clone();
        let message = control::encode(&ControlMessage { from, request });
        Box::pin(self.services.broker.control(message))
    }
}

fn load(told: LoadTold) -> NodeLoad {
    let LoadTold {
        cpu_percent,
        memory_bytes,
        requests_per_s,
        deliveries_per_s,
        response_ms,
        errors_per_s,
        alerts,
    } = told;
    NodeLoad {
        cpu_percent,
        memory_bytes,
        requests_per_s,
        deliveries_per_s,
        response_ms,
        errors_per_s,
        alerts,
    }
}

fn broker_error(error: OccupancyError) -> BrokerError {
    match error {
        OccupancyError::Redis(error) => error.into(),
        OccupancyError::Unexpected => BrokerError::Unexpected(error.to_string()),
        OccupancyError::Late => Unavailable::OccupancyLate.into(),
    }
}

/// How late the feed is; never, inside the process.
pub(super) fn feed_lag(broker: &Broker) -> Duration {
    match broker {
        Broker::Redis(redis) => redis.feed_lag(),
        Broker::Memory(_) => Duration::ZERO,
    }
}
