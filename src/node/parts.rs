//! How each part of the node does: its state, why, since when, and its figures beside their limits.
//!
//! In: what the parts say of themselves, and the stamps of their turns. Out: [`Component`]s for
//! `/health/detailed`, and for `readiness`, which decides by some of them. Owner of [`Since`]: when
//! each part came into its state. Bound: one entry for each part that is there. Asks nothing of Redis
//! and of the workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::api::queue::bound::CAPACITY_PERCENT;
use crate::api::state::{Component, PartState, QueueStatus};
use crate::authorizer::{Authorizers, WAITING_MAX};
use crate::broker::{Broker, BrokerHealth};
use crate::cluster::membership::Membership;
use crate::cluster::membership_machine::MembershipState;
use crate::cluster::partitions::Partitions;
use crate::config::Config;
use crate::redis::circuit::Phase;
use crate::tasks::turns;
use crate::telemetry::alerts::{Alert, Thresholds};
use crate::telemetry::family::Label as _;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::process;
use crate::worker::handle::INBOUND_MAX;

use super::millis;

/// Which part: its name, and which one of that name.
type Key = (&'static str, Option<String>);

/// When each part came into its state, as far as it was looked at.
#[derive(Debug, Default)]
pub struct Since(Mutex<BTreeMap<Key, (PartState, u64)>>);

impl Since {
    /// Notes the states that are new, and says of each part since when it has its own. What is not
    /// among these is forgotten.
    pub fn note(&self, components: &mut [Component]) {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        self.note_at(components, since_1970.map_or(0, millis));
    }

    fn note_at(&self, components: &mut [Component], now_ms: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *known);
        for component in components {
            let key = (component.name, component.part.clone());
            component.since = match before.get(&key) {
                Some((state, since)) if *state == component.state => *since,
                _ => now_ms,
            };
            known.insert(key, (component.state, component.since));
        }
    }
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
    let (state, said) = match health {
        BrokerHealth::Up => (PartState::Ok, "up".to_owned()),
        BrokerHealth::Partly(why) => (PartState::Degraded, format!("in part: {why}")),
        BrokerHealth::ReadOnly(why) => (PartState::Degraded, format!("read only: {why}")),
        BrokerHealth::Down(why) => (PartState::Down, why),
    };
    let reason = (state != PartState::Ok).then(|| said.clone());
    Component::new("broker", format!("{name}: {said}")).state(state, reason)
}

/// The links to Redis, each with its circuit.
#[must_use]
pub fn circuits(broker: &Broker) -> Vec<Component> {
    let Broker::Redis(redis) = broker else {
        return Vec::new();
    };
    let component = |(server, phase, why): (String, Phase, Option<Arc<str>>)| {
        let part = format!("redis at {server}");
        let said = match why {
            Some(why) => format!("{}, {why}", phase.name()),
            None => phase.name().to_owned(),
        };
        let state = match phase {
            Phase::Closed => PartState::Ok,
            Phase::HalfOpen => PartState::Degraded,
            Phase::Open => PartState::Down,
        };
        let reason = (state != PartState::Ok).then(|| said.clone());
        Component::new("circuit", format!("{part}: {said}"))
            .state(state, reason)
            .part(part)
    };
    redis.circuits().into_iter().map(component).collect()
}

/// Whether the other nodes have the settings that all should have alike as this one has them. Where
/// they do not, the node is ready all the same: settings are rolled out node by node.
#[must_use]
pub fn settings(membership: &Membership) -> Component {
    let comparison = membership.comparison();
    let reason = (comparison.differing_count > 0).then(|| comparison.to_string());
    Component::new("settings", comparison.to_string())
        .state(PartState::Degraded, reason)
        .figure("nodes_differing", comparison.differing_count as u64, None)
}

/// Whether all authorizers are asked; `None` where there is none.
#[must_use]
pub fn authorizers(all: &Authorizers) -> Option<Component> {
    let count = all.count();
    if count == 0 {
        return None;
    }
    let troubles = all.troubles();
    let reason = (!troubles.is_empty()).then(|| troubles.join("; "));
    let said = reason.clone();
    let detail = said.unwrap_or_else(|| format!("authorizers asked: {count}"));
    let waiting_max = count * WAITING_MAX;
    let part = Component::new("authorizers", detail)
        .state(PartState::Degraded, reason)
        .figure("waiting", all.waiting() as u64, Some(waiting_max as u64));
    Some(part)
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
    let detail = match &unanswered {
        Some(unanswered) => format!("{held}, {unanswered}"),
        None => held,
    };
    Component::new("partitions", detail)
        .state(PartState::Degraded, unanswered)
        .figure("held", held_count as u64, None)
        .figure("home", mine_count as u64, None)
}

/// Whether what dead nodes left can be read and removed; `failing`: how often not, and why.
#[must_use]
pub fn reaping(failing: Option<&str>) -> Component {
    let detail = failing.unwrap_or("no partition fails");
    Component::new("reaping", detail).state(PartState::Degraded, failing.map(str::to_owned))
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
    let reason = (!healthy).then(|| detail.clone());
    Component::new("membership", detail).state(PartState::Down, reason)
}

/// The same with the age of the last answered heartbeat beside the lease, where nodes have one.
#[must_use]
pub fn membership_with_age(member: &Membership, config: &Config) -> Component {
    let (view, now, lease) = (member.now(), Instant::now(), config.redis.lease);
    let age = view.age_at(now);
    let mut component = membership(member);
    if component.healthy && !view.is_recent_at(now, lease) {
        // Nobody said that one was missed: none was sent, or Redis takes no writes.
        let text = "no heartbeat was answered for longer than a lease";
        component = component.state(PartState::Degraded, Some(text.to_owned()));
    }
    component.figure("heartbeat_age_ms", millis(age), Some(millis(lease)))
}

/// Whether each part that everything waits for takes turns.
pub fn turning() -> impl Iterator<Item = Component> {
    turns::silences().into_iter().map(|silence| {
        let limit = Some(millis(turns::MISSED_AFTER));
        let reason = silence.is_missed().then(|| silence.text());
        let detail = reason.clone();
        Component::new(
            "turns",
            detail.unwrap_or_else(|| format!("{} turns", silence.part)),
        )
        .state(PartState::Down, reason)
        .figure("silent_ms", millis(silence.lasts), limit)
        .part(silence.part)
    })
}

/// How far the workers are behind.
#[must_use]
pub fn workers(metrics: &Metrics) -> Component {
    let owed = metrics.control.owed.get();
    let queued = metrics
        .workers
        .iter()
        .map(|worker| worker.counters.queued.get());
    let detail = format!(
        "workers: {}; topics that wait for room in their queues: {owed}",
        metrics.workers.len()
    );
    let reason =
        (owed > 0).then(|| format!("{owed} topics wait for room in the queues of workers"));
    Component::new("workers", detail)
        .state(PartState::Degraded, reason)
        .figure("owed_topics", owed, None)
        .figure(
            "backlog_max",
            queued.max().unwrap_or(0),
            Some(INBOUND_MAX as u64),
        )
}

/// Whether there is room for more sessions; `full`: why nobody gets a place.
#[must_use]
pub fn sessions(config: &Config, metrics: &Metrics, full: Option<&str>) -> Component {
    let (count, limit) = (metrics.sessions(), config.server.connections_max as u64);
    Component::new("sessions", format!("sessions: {count} of {limit}"))
        .state(PartState::Degraded, full.map(str::to_owned))
        .figure("sessions", count, Some(limit))
}

/// Whether there is memory; `short`: why nobody is let in. `None` where the system does not tell it.
#[must_use]
pub fn memory(config: &Config, short: Option<&str>) -> Option<Component> {
    let bytes = process::resident_bytes()?;
    let limit = config.admission.memory_bytes_max;
    let component = Component::new("memory", format!("resident memory: {bytes} bytes"))
        .state(PartState::Degraded, short.map(str::to_owned))
        .figure("memory_bytes", bytes, limit);
    Some(component)
}

/// How full the queue of the whole cluster is.
#[must_use]
pub fn queue(config: &Config, status: QueueStatus) -> Component {
    let QueueStatus {
        told,
        redis_memory_percent,
    } = status;
    let capacity = config.queue.capacity;
    let waiting = told.depth().saturating_add(told.later);
    let oldest_ms = told.oldest_ms.into_iter().max().unwrap_or(0);
    let percent = CAPACITY_PERCENT.into_iter().min().unwrap_or(100);
    let is_short = u128::from(waiting) * 100 >= u128::from(capacity) * u128::from(percent);
    let reason = is_short.then(|| {
        format!(
            "the queue has {waiting} of {capacity} entries, so the lower priorities are refused"
        )
    });
    let component = Component::new(
        "queue",
        format!("entries that wait: {waiting} of {capacity}"),
    )
    .state(PartState::Degraded, reason)
    .figure("entries", waiting, Some(capacity))
    .figure("dead_letters", told.dead, None)
    .figure("oldest_ms", oldest_ms, None);
    match redis_memory_percent {
        Some(used) => component.figure("redis_memory_percent", used.into(), Some(100)),
        None => component,
    }
}

/// What the node calls wrong by itself. None of it keeps it from being ready.
#[must_use]
pub fn alerts(config: &Config, metrics: &Metrics) -> Component {
    let thresholds = Thresholds::of(&config.alerts);
    let mut component = Component::new("alerts", "no alert is raised");
    let mut raised = Vec::new();
    for alert in Alert::ALL {
        let Some(threshold) = thresholds.get(*alert) else {
            continue;
        };
        let (cell, word, unit) = (metrics.alerts.of(*alert), alert.word(), alert.unit());
        if cell.is_raised() {
            let value = cell.value();
            raised.push(format!(
                "{word}: {value:.1} {unit}, the limit is {threshold} {unit}"
            ));
        }
        component = component.figure(word, whole(cell.value()), Some(whole(threshold)));
    }
    if !raised.is_empty() {
        component.detail = raised.join("; ");
    }
    let reason = (!raised.is_empty()).then(|| component.detail.clone());
    component.state(PartState::Degraded, reason)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(part: &str, is_well: bool) -> Component {
        let reason = (!is_well).then(|| "away".to_owned());
        Component::new("circuit", "a link")
            .part(part.to_owned())
            .state(PartState::Down, reason)
    }

    #[test]
    fn raised_alerts_degrade_the_part_that_tells_them() {
        let (config, metrics) = (crate::config::load::defaults(), Metrics::new(1));
        let part = alerts(&config, &metrics);
        assert_eq!((part.state, part.figures.len()), (PartState::Ok, 8));
        metrics.alerts.of(Alert::CpuHigh).set(true, 93.44);
        let part = alerts(&config, &metrics);
        assert_eq!(part.state, PartState::Degraded);
        let reason = part.reason.expect("it is raised");
        assert_eq!(reason, "cpu_high: 93.4 %, the limit is 80 %");
    }

    #[test]
    fn a_state_is_told_from_when_it_began_and_of_each_part_apart() {
        let since = Since::default();
        let look = |parts: &[(&str, bool)], now_ms| {
            let parts = parts.iter();
            let mut components: Vec<_> = parts.map(|(part, well)| component(part, *well)).collect();
            since.note_at(&mut components, now_ms);
            components.iter().map(|part| part.since).collect::<Vec<_>>()
        };
        assert_eq!(look(&[("a", true), ("b", true)], 10), [10, 10]);
        assert_eq!(look(&[("a", true), ("b", false)], 20), [10, 20]);
        assert_eq!(look(&[("a", true), ("b", false)], 30), [10, 20]);
        assert_eq!(look(&[("a", true), ("b", true)], 40), [10, 40]);
        // What was gone begins anew, and nothing is kept of it.
        assert_eq!(look(&[("b", true)], 50), [40]);
        assert_eq!(look(&[("a", true), ("b", true)], 60), [60, 40]);
    }
}
