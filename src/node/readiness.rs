//! Whether the node is ready, decided in one place and watched by everyone who asks.
//!
//! In: the lifecycle, the broker's health, the node's standing in the cluster, and, looked at every
//! [`LOOK_EVERY`], whether the door lets anybody in and whether every part turns. Out: the reasons
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
use crate::ingress::admission::Admission;
use crate::ingress::listener_state::ConnectionLimit;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::revocation::known::Revocations;
use crate::tasks::{self, turns};
use crate::telemetry::fields::List;
use crate::telemetry::metrics::Metrics;
use crate::verification::Checks;

use super::parts;

/// How often it is looked at what tells nobody that it has changed.
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
    fn look(&self, before: Shut) -> Shut {
        Shut {
            is_full: self.room.is_full(before.is_full),
            is_short: self.admission.memory_is_short(),
        }
    }
}

/// Why nobody is let in, whoever asks. A balancer of sessions should send them to another node, where
/// there may be a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shut {
    is_full: bool,
    is_short: bool,
}

impl Shut {
    /// Why there is no place for another session.
    #[must_use]
    pub fn full(self) -> Option<&'static str> {
        let why = "the node is full (server.connections_max)";
        self.is_full.then_some(why)
    }

    /// Why there is no memory for another session.
    #[must_use]
    pub fn short(self) -> Option<&'static str> {
        let why = "it is short (admission.memory_bytes_max)";
        self.is_short.then_some(why)
    }

    /// All of it, for people.
    #[must_use]
    pub fn reasons(self) -> Vec<String> {
        let full = self.full().map(|why| format!("sessions: {why}"));
        let short = self.short().map(|why| format!("memory: {why}"));
        full.into_iter().chain(short).collect()
    }
}

/// What is read before the node is ready, each for some seconds at the most: the same on other nodes may
/// be read already, and a rolling deployment must not replace those by some that know nothing.
pub struct FirstReadings {
    /// Which tokens are revoked.
    pub revocations: Revocations,
    /// What fetches the keys that issuers publish.
    pub checks: Arc<Checks>,
    /// Whether the apps that the API has set are still to be read.
    pub apps: watch::Receiver<bool>,
}

/// Why a node is not ready, for each of its listeners.
#[derive(Debug, Clone)]
pub struct Readiness {
    /// Why it cannot serve, apart from parts that do not turn: those are told by [`turns::missed`] to
    /// whoever asks, because what tells these may be among them.
    node: watch::Receiver<Vec<String>>,
    /// The same, and why it lets nobody in: for the public listener.
    pub door: watch::Receiver<Vec<String>>,
    /// Why it lets nobody in.
    pub shut: watch::Receiver<Shut>,
}

impl Readiness {
    /// Why the node cannot serve: for the API.
    #[must_use]
    pub fn not_ready(&self) -> Vec<String> {
        let mut reasons = self.node.borrow().clone();
        reasons.extend(turns::missed());
        reasons
    }
}

/// What is told, and to whom.
struct Telling {
    node: watch::Sender<Vec<String>>,
    door: watch::Sender<Vec<String>>,
    shut: watch::Sender<Shut>,
    /// What the log was told of last: reasons, and parts that do not turn.
    logged: (Vec<String>, Vec<String>),
    metrics: Arc<Metrics>,
}

impl Telling {
    fn tell(&mut self, mut reasons: Vec<String>, entrance: &Entrance) {
        let missed: Vec<_> = turns::silences()
            .into_iter()
            .filter(turns::Silence::is_missed)
            .collect();
        let ready = reasons.is_empty() && missed.is_empty();
        self.metrics.control.ready.set(u64::from(ready));
        set(&self.node, &reasons);
        let shut = entrance.look(*self.shut.borrow());
        set(&self.shut, &shut);
        reasons.extend(shut.reasons());
        set(&self.door, &reasons);
        let parts = missed.iter().map(|silence| silence.part.clone()).collect();
        let news = (reasons, parts);
        if self.logged != news {
            let mut reasons = news.0.clone();
            reasons.extend(missed.iter().map(turns::Silence::text));
            tracing::info!(
                event = "readiness_changed",
                ready,
                reasons = List::of(&reasons).value(),
                "readiness changed"
            );
            self.logged = news;
        }
    }
}

fn set<T: Clone + PartialEq>(told: &watch::Sender<T>, news: &T) {
    told.send_if_modified(|told| {
        let changed = told != news;
        if changed {
            told.clone_from(news);
        }
        changed
    });
}

/// Starts the task that decides.
pub fn watch(
    broker: Arc<Broker>,
    membership: Membership,
    entrance: Entrance,
    mut lifecycle: LifecycleReceiver,
    metrics: Arc<Metrics>,
    first_readings: FirstReadings,
) -> Readiness {
    let first = reasons(&broker, &membership, &first_readings, *lifecycle.borrow());
    let (node_sender, node) = watch::channel(first.clone());
    let (door_sender, door) = watch::channel(first.clone());
    let (shut_sender, shut) = watch::channel(Shut::default());
    let mut telling = Telling {
        node: node_sender,
        door: door_sender,
        shut: shut_sender,
        logged: (first, Vec::new()),
        metrics,
    };
    let deciding = async move {
        let mut health = broker.health();
        let mut view = membership.view();
        let mut standing = membership.standing();
        let mut trouble = membership.trouble();
        let FirstReadings {
            revocations,
            checks,
            apps,
        } = &first_readings;
        let mut apps = apps.clone();
        let mut readings = revocations.readings();
        let mut fetches = checks.readings();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let awaits_apps = *apps.borrow_and_update();
            let reasons = reasons(&broker, &membership, &first_readings, *lifecycle.borrow());
            telling.tell(reasons, &entrance);
            let changed = tokio::select! {
                changed = health.changed() => changed,
                changed = view.changed() => changed,
                changed = standing.changed() => changed,
                changed = trouble.changed() => changed,
                changed = lifecycle.changed() => changed,
                changed = readings.changed(), if revocations.is_new() => changed,
                changed = fetches.changed(), if checks.unread().is_some() => changed,
                changed = apps.changed(), if awaits_apps => changed,
                _ = looks.tick() => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    };
    tasks::vital("readiness", turns::polled("readiness", deciding));
    Readiness { node, door, shut }
}

fn reasons(
    broker: &Broker,
    membership: &Membership,
    FirstReadings {
        revocations,
        checks,
        apps,
    }: &FirstReadings,
    lifecycle: Lifecycle,
) -> Vec<String> {
    let mut reasons = Vec::new();
    if lifecycle != Lifecycle::Ready {
        reasons.push(format!("the node is {lifecycle:?}").to_lowercase());
    }
    // Later an outage is told by the broker, and does not send sessions away.
    if revocations.is_new() {
        let why = revocations.unread();
        let why = why.unwrap_or("they are read once more when the node is a member");
        reasons.push(format!("revocations: {why}"));
    }
    reasons.extend(checks.unread());
    if *apps.borrow() {
        reasons.push("apps: what is stored was not read yet".to_owned());
    }
    // What the cluster's own keys need is reported by the membership.
    reasons.extend(lease_holder_away(broker));
    let broker = Some(parts::broker(broker)).filter(|_| !serves_in_part(broker));
    for component in broker.into_iter().chain([parts::membership(membership)]) {
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
    let component = Some(parts::broker(broker)).filter(|_| serves_in_part(broker));
    let reason = |component: Component| format!("{}: {}", component.name, component.detail);
    component.map(reason).into_iter().collect()
}
