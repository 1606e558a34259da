//! Whether the node is ready, decided in one place and watched by everyone who asks.
//!
//! In: the lifecycle, the broker's health, the node's standing in the cluster, and whether the door
//! lets anybody in (looked at every [`LOOK_EVERY`]). Out: the reasons
//! why the node is not ready (none: it is), for probes, for the gauge `fanfare_ready` and, once per
//! change, for the log. A node that only lets nobody in is not ready for those who come to its public
//! listener, and ready for the API, whose callers would else have nobody to publish by while all
//! nodes are full.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::api::state::Component;
use crate::broker::{Broker, BrokerHealth};
use crate::cluster::membership::Membership;
use crate::cluster::membership_machine::MembershipState;
use crate::cluster::partitions::Partitions;
use crate::ingress::admission::Admission;
use crate::ingress::listener_state::ConnectionLimit;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::redis::circuit::Phase;
use crate::tasks;
use crate::telemetry::logs;
use crate::telemetry::metrics::Metrics;

/// How often it is looked whether the door lets anybody in.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What the door asks before it lets somebody in.
#[derive(Debug, Clone)]
pub struct Entrance {
    /// ConnectionLimit for sessions.
    pub room: Arc<ConnectionLimit>,
    /// Whom the node lets in.
    pub admission: Arc<Admission>,
}

impl Entrance {
    /// Why nobody is let in, whoever asks. A balancer of sessions should send them to another node,
    /// where there may be a place.
    fn refusals(&self, was_full: &mut bool) -> Vec<String> {
        *was_full = self.room.is_full(*was_full);
        let full = was_full.then_some("sessions: the node is full (server.connections_max)");
        let short = self.admission.memory_is_short();
        let short = short.then_some("memory: it is short (admission.memory_bytes_max)");
        [full, short]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect()
    }
}

/// Why a node is not ready, for each of its listeners.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Why it cannot serve: for the API.
    pub node: watch::Receiver<Vec<String>>,
    /// The same, and why it lets nobody in: for the public listener.
    pub door: watch::Receiver<Vec<String>>,
}

impl Readiness {
    /// Why nobody is let in, of a node that is ready otherwise.
    #[must_use]
    pub fn shut(&self) -> Vec<String> {
        let mut reasons = self.door.borrow().clone();
        reasons.retain(|reason| !self.node.borrow().contains(reason));
        reasons
    }
}

/// Starts the task that decides.
pub fn watch(
    broker: Arc<Broker>,
    membership: Membership,
    entrance: Entrance,
    mut lifecycle: LifecycleReceiver,
    metrics: Arc<Metrics>,
) -> Readiness {
    let first = reasons(&broker, &membership, *lifecycle.borrow());
    let (node_sender, node) = watch::channel(first.clone());
    let (sender, door) = watch::channel(first);
    tasks::vital("readiness", async move {
        let mut health = broker.health();
        let mut view = membership.view();
        let mut standing = membership.standing();
        let mut trouble = membership.trouble();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_full = false;
        loop {
            let mut reasons = reasons(&broker, &membership, *lifecycle.borrow());
            let ready = reasons.is_empty();
            metrics.control.ready.set(u64::from(ready));
            node_sender.send_if_modified(|told| {
                let changed = *told != reasons;
                told.clone_from(&reasons);
                changed
            });
            reasons.extend(entrance.refusals(&mut is_full));
            sender.send_if_modified(|told| {
                let changed = *told != reasons;
                if changed {
                    tracing::info!(
                        event = "readiness_changed",
                        ready,
                        reasons = %logs::list(&reasons),
                        "readiness changed"
                    );
                    told.clone_from(&reasons);
                }
                changed
            });
            let changed = tokio::select! {
                changed = health.changed() => changed,
                changed = view.changed() => changed,
                changed = standing.changed() => changed,
                changed = trouble.changed() => changed,
                changed = lifecycle.changed() => changed,
                _ = looks.tick() => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    });
    Readiness { node, door }
}

fn reasons(broker: &Broker, membership: &Membership, lifecycle: Lifecycle) -> Vec<String> {
    let mut reasons = Vec::new();
    if lifecycle != Lifecycle::Ready {
        reasons.push(format!("the node is {lifecycle:?}").to_lowercase());
    }
    // What the cluster's own keys need is reported by the membership.
    reasons.extend(lease_holder_away(broker));
    let broker = Some(self::broker(broker)).filter(|_| !serves_in_part(broker));
    for component in broker.into_iter().chain([self::membership(membership)]) {
        if !component.healthy {
            reasons.push(format!("{}: {}", component.name, component.detail));
        }
    }
    reasons
}

/// Whether the node is ready though the broker is not whole: some masters are away, or take no
/// writes. It would be the same on any other node, and what can be done there is done.
fn serves_in_part(broker: &Broker) -> bool {
    matches!(
        &*broker.health().borrow(),
        BrokerHealth::Partly(_) | BrokerHealth::ReadOnly(_)
    )
}

/// Why the node is not ready though other masters serve: what it asks of the one that holds the
/// leases of nodes is refused.
fn lease_holder_away(broker: &Broker) -> Option<String> {
    match broker {
        Broker::Redis(redis) if serves_in_part(broker) => {
            let reason = redis.lease_holder_away();
            reason.map(|reason| format!("leases of nodes: {reason}"))
        }
        Broker::Redis(_) | Broker::Memory(_) => None,
    }
}

/// What is wrong though it keeps the node from nothing else.
#[must_use]
pub fn partial(broker: &Broker) -> Vec<String> {
    let component = Some(self::broker(broker)).filter(|_| serves_in_part(broker));
    let reason = |component: Component| format!("{}: {}", component.name, component.detail);
    component.map(reason).into_iter().collect()
}

/// What people call the broker's engine.
#[must_use]
pub fn broker_name(broker: &Broker) -> &'static str {
    match broker {
        Broker::Memory(_) => "in-process broker",
        Broker::Redis(_) => "redis",
    }
}

/// How the broker does.
#[must_use]
pub fn broker(broker: &Broker) -> Component {
    let name = broker_name(broker);
    let health = broker.health().borrow().clone();
    let (healthy, state) = match health {
        BrokerHealth::Up => (true, "up".to_owned()),
        BrokerHealth::Partly(why) => (false, format!("in part: {why}")),
        BrokerHealth::ReadOnly(why) => (false, format!("read only: {why}")),
        BrokerHealth::Down(why) => (false, why),
    };
    Component {
        name: "broker",
        healthy,
        detail: format!("{name}: {state}"),
    }
}

/// The links to Redis, each with its circuit.
#[must_use]
pub fn circuits(broker: &Broker) -> Vec<Component> {
    let Broker::Redis(redis) = broker else {
        return Vec::new();
    };
    let component = |(server, phase, why): (String, Phase, Option<Arc<str>>)| Component {
        name: "circuit",
        healthy: phase == Phase::Closed,
        detail: match why {
            Some(why) => format!("redis at {server}: {}, {why}", phase.name()),
            None => format!("redis at {server}: {}", phase.name()),
        },
    };
    redis.circuits().into_iter().map(component).collect()
}

/// Whether the other nodes have the settings that all should have alike as this one has them. Where
/// they do not, the node is ready all the same: settings are rolled out node by node.
#[must_use]
pub fn settings(membership: &Membership) -> Component {
    let comparison = membership.comparison();
    Component {
        name: "settings",
        healthy: comparison.differing_count == 0,
        detail: comparison.to_string(),
    }
}

/// Whether Redis says which partitions the node may act for. Where it does not, the node is ready all
/// the same: only what dead nodes left stays.
#[must_use]
pub fn partitions(membership: &Membership, partitions: &Partitions) -> Component {
    let view = membership.now();
    let mine_count = view.ring.partitions_of(&view.me.node).count();
    let held_count = partitions.now().partitions().len();
    let held = format!("{held_count} of {mine_count} held");
    let unanswered = partitions.unanswered();
    Component {
        name: "partitions",
        healthy: unanswered.is_none(),
        detail: match unanswered {
            Some(unanswered) => format!("{held}, {unanswered}"),
            None => held,
        },
    }
}

/// Whether what dead nodes left can be read and removed; `failing`: how often not, and why.
#[must_use]
pub fn reaping(failing: Option<&str>) -> Component {
    let detail = failing.unwrap_or("no partition fails");
    Component {
        name: "reaping",
        healthy: failing.is_none(),
        detail: detail.to_owned(),
    }
}

/// The state of the node in the cluster.
#[must_use]
pub fn membership(membership: &Membership) -> Component {
    let standing = membership.standing().borrow().clone();
    let fresh = membership.now().fresh;
    let trouble = membership.trouble().borrow().clone();
    let (healthy, detail) = match standing {
        MembershipState::Member(me) => {
            let unanswered = (!fresh).then(|| "not answered".to_owned());
            let detail = match trouble.or(unanswered) {
                Some(reason) => format!("member as {me}, heartbeats are {reason}"),
                None => format!("member as {me}"),
            };
            (fresh, detail)
        }
        MembershipState::Joining => {
            let detail = match trouble {
                Some(reason) => format!("the first heartbeat is {reason}"),
                None => "no heartbeat was answered yet".to_owned(),
            };
            (false, detail)
        }
        MembershipState::Superseded { .. } => {
            (false, "another process has this node's name".into())
        }
        MembershipState::NameTaken => (false, "a running process has this node's name".into()),
        MembershipState::Left => (false, "left".into()),
    };
    Component {
        name: "membership",
        healthy,
        detail,
    }
}
