//! The health of all masters of Redis as one.
//!
//! In: reports of each master, and of each deployment of which no master is known yet, that is not
//! compared yet with what the cluster agreed on, or that has slots without a master. Out: a watch
//! that readiness, the handshake and tests read: up, down, in part, or read only, with the reasons of those that are not up. Owner of
//! the reports, under a lock that is held for one comparison. Bound: one
//! entry per master and deployment.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::broker::{BrokerHealth, FeedNumber};

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A deployment, by its place in the list, while none of its masters is known.
    Deployment(usize),
    /// The same, until its fingerprint was compared.
    Agreement(usize),
    /// The same, while slots of it have no master. Without slots nothing is up, so this is no part of
    /// its own that could be.
    Slots(usize),
    /// One master.
    Master(FeedNumber),
}

/// See the module.
#[derive(Debug)]
pub struct AggregateHealth {
    parts: Mutex<BTreeMap<Part, BrokerHealth>>,
    told: watch::Sender<BrokerHealth>,
}

impl Default for AggregateHealth {
    /// Down, because nothing was reached yet.
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            told: watch::Sender::new(BrokerHealth::Down("Redis is not reached yet".to_owned())),
        }
    }
}

impl AggregateHealth {
    /// This part does so now.
    pub fn set(&self, part: Part, health: BrokerHealth) {
        self.change(|parts| {
            parts.insert(part, health);
        });
    }

    /// Why this part is not up, while it is not.
    #[must_use]
    pub fn reason(&self, part: Part) -> Option<String> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        match parts.get(&part)? {
            BrokerHealth::Up => None,
            BrokerHealth::Partly(reason)
            | BrokerHealth::ReadOnly(reason)
            | BrokerHealth::Down(reason) => Some(reason.clone()),
        }
    }

    /// There is no such part any more.
    pub fn forget(&self, part: Part) {
        self.change(|parts| {
            parts.remove(&part);
        });
    }

    /// Changes are seen through it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BrokerHealth> {
        self.told.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Part, BrokerHealth>)) {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        let Some(now) = sum(&parts) else { return };
        // Sent under the lock, so that the last change is also the last one sent.
        self.told.send_if_modified(|told| {
            let is_changed = *told != now;
            *told = now;
            is_changed
        });
    }
}

/// `None`: there are no parts, so there is nothing new to say.
fn sum(parts: &BTreeMap<Part, BrokerHealth>) -> Option<BrokerHealth> {
    let reasons: Vec<_> = parts
        .values()
        .filter_map(|health| match health {
            BrokerHealth::Up => None,
            BrokerHealth::Partly(reason)
            | BrokerHealth::ReadOnly(reason)
            | BrokerHealth::Down(reason) => Some(reason.as_str()),
        })
        .collect();
    let why = reasons.join("; ");
    let is_away = |health: &&BrokerHealth| matches!(health, BrokerHealth::Down(_));
    let is_partly = |health: &BrokerHealth| matches!(health, BrokerHealth::Partly(_));
    let used = parts.keys().filter(|part| !matches!(part, Part::Slots(_)));
    let used_count = used.count();
    match parts.values().filter(is_away).count() {
        _ if parts.is_empty() => None,
        0 if reasons.is_empty() => Some(BrokerHealth::Up),
        0 if parts.values().any(is_partly) => Some(BrokerHealth::Partly(why)),
        0 => Some(BrokerHealth::ReadOnly(why)),
        away if away == used_count => Some(BrokerHealth::Down(why)),
        _ => Some(BrokerHealth::Partly(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(reason: &str) -> BrokerHealth {
        BrokerHealth::Down(reason.to_owned())
    }

    #[test]
    fn one_that_is_away_is_named_and_does_not_take_the_others_with_it() {
        let (a, b) = (Part::Master(FeedNumber(1)), Part::Master(FeedNumber(2)));
        let overall = AggregateHealth::default();
        let told = overall.watch();
        let now = || told.borrow().clone();
        assert!(matches!(now(), BrokerHealth::Down(_)));
        overall.set(Part::Deployment(0), down("no topology"));
        assert_eq!(now(), down("no topology"));
        overall.set(a, down("a is away"));
        overall.forget(Part::Deployment(0));
        overall.set(b, BrokerHealth::Up);
        assert_eq!(now(), BrokerHealth::Partly("a is away".to_owned()));
        overall.set(a, BrokerHealth::Up);
        assert_eq!(now(), BrokerHealth::Up);
        overall.set(a, down("a is away"));
        overall.set(b, down("b too"));
        assert_eq!(now(), down("a is away; b too"));
        overall.set(a, BrokerHealth::ReadOnly("a is full".to_owned()));
        assert_eq!(now(), BrokerHealth::Partly("a is full; b too".to_owned()));
        overall.set(b, BrokerHealth::Up);
        assert_eq!(now(), BrokerHealth::ReadOnly("a is full".to_owned()));
        overall.set(b, BrokerHealth::Partly("b has no replicas".to_owned()));
        let both = "a is full; b has no replicas".to_owned();
        assert_eq!(now(), BrokerHealth::Partly(both));
        // Slots without a master make nothing that is down a part of something.
        overall.set(Part::Slots(0), BrokerHealth::Partly("7 slots".to_owned()));
        let both = "7 slots; a is full; b has no replicas".to_owned();
        assert_eq!(now(), BrokerHealth::Partly(both));
        overall.set(a, down("a is away"));
        overall.set(b, down("b too"));
        assert_eq!(now(), down("7 slots; a is away; b too"));
        overall.forget(Part::Slots(0));
        // A master that has no slots any more is no part of the whole.
        overall.forget(b);
        overall.set(a, BrokerHealth::Up);
        assert_eq!(now(), BrokerHealth::Up);
    }
}
