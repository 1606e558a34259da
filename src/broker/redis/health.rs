//! Whether a master can be used: the health of its lines as one.
//!
//! In: the supervisors of the links and the feed, each about its own connection. Out: a watch that
//! readiness, sessions and tests read. Without the urgent link, the one for publications, the feed or
//! the bulk link the master is down; without the replicated one, with too few replicas, or where
//! channels are forbidden, it works in part. Owner of the state: this struct, under a lock that is held
//! for one comparison. A change between up, in part, read only and down is logged once, here.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::broker::BrokerHealth;

/// Which line to a master a report is about, in the order in which reasons are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// The link for what nobody may hold up.
    Urgent,
    /// The link for publications.
    Publications,
    /// The connection that hears.
    Feed,
    /// The link for all else.
    Bulk,
    /// The link for publications that wait for replicas.
    Replicated,
    /// The replicas that follow, as that link sees them: as many as some namespace asks for.
    Followers,
    /// The channels of topics, as far as Redis lets this user hear them.
    Channels,
}

/// What is known of all connections.
#[derive(Debug)]
struct State {
    /// Why each is down; `None` is up, or not there at all.
    down: [Option<String>; 7],
    /// Why nothing can be written, while that is so.
    read_only: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub struct Health {
    state: Mutex<State>,
    told: watch::Sender<BrokerHealth>,
}

impl Health {
    /// Down, because nothing was reached yet.
    #[must_use]
    pub fn new() -> Self {
        let reason = "Redis is not reached yet".to_owned();
        let unreached = || Some(reason.clone());
        Self {
            state: Mutex::new(State {
                down: [
                    unreached(),
                    unreached(),
                    unreached(),
                    unreached(),
                    None,
                    None,
                    None,
                ],
                read_only: None,
            }),
            told: watch::Sender::new(BrokerHealth::Down(reason)),
        }
    }

    /// This connection works.
    pub fn up(&self, connection: Line) {
        self.set(|state| state.down[connection as usize] = None);
    }

    /// Commands are answered; why none that writes is, if that is so.
    pub fn answers(&self, read_only: Option<String>) {
        self.set(|state| {
            state.down[Line::Urgent as usize] = None;
            state.read_only = read_only;
        });
    }

    /// This connection does not work, and why, in words.
    pub fn down(&self, connection: Line, reason: String) {
        self.set(|state| state.down[connection as usize] = Some(reason));
    }

    /// Whether commands are answered and none that writes is.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.lock().read_only.is_some()
    }

    /// Why this connection is down.
    #[must_use]
    pub fn reason(&self, connection: Line) -> Option<String> {
        self.lock().down[connection as usize].clone()
    }

    /// Changes are seen through it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BrokerHealth> {
        self.told.subscribe()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let [needed @ .., replicated, followers, channels] = &state.down;
        let needed = needed.iter().flatten().next();
        let partly = [replicated, followers, channels]
            .into_iter()
            .flatten()
            .next();
        let now = match (needed, &state.read_only, partly) {
            (Some(reason), _, _) => BrokerHealth::Down(reason.clone()),
            (None, Some(reason), _) => BrokerHealth::ReadOnly(reason.clone()),
            (None, None, Some(reason)) => BrokerHealth::Partly(reason.clone()),
            (None, None, None) => BrokerHealth::Up,
        };
        // Sent under the lock, so that the last change is also the last one sent.
        self.told.send_if_modified(|told| {
            log(told, &now);
            let is_changed = *told != now;
            *told = now;
            is_changed
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Once for each change; that another reason keeps it down is none.
fn log(before: &BrokerHealth, now: &BrokerHealth) {
    match (before, now) {
        (BrokerHealth::Down(_), BrokerHealth::Down(_)) => {}
        (_, BrokerHealth::Down(reason)) => {
            tracing::warn!(event = "redis_lost", reason, "Redis cannot be used");
        }
        (_, BrokerHealth::ReadOnly(reason)) if before != now => {
            tracing::warn!(
                event = "redis_writes_refused",
                reason,
                "Redis takes no writes"
            );
        }
        (BrokerHealth::Partly(_), BrokerHealth::Partly(_)) => {}
        (_, BrokerHealth::Partly(reason)) => {
            tracing::warn!(
                event = "redis_partly_lost",
                reason,
                "Redis can be used in part"
            );
        }
        (
            BrokerHealth::Down(_) | BrokerHealth::ReadOnly(_) | BrokerHealth::Partly(_),
            BrokerHealth::Up,
        ) => {
            tracing::info!(event = "redis_recovered", "Redis can be used");
        }
        _ => {}
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_needs_all_connections_and_down_says_why() {
        let health = Health::new();
        let told = health.watch();
        health.answers(None);
        assert!(matches!(&*told.borrow(), BrokerHealth::Down(_)));
        health.up(Line::Publications);
        assert!(matches!(&*told.borrow(), BrokerHealth::Down(_)));
        health.up(Line::Feed);
        assert!(matches!(&*told.borrow(), BrokerHealth::Down(_)));
        health.up(Line::Bulk);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
        health.down(Line::Replicated, "no replicas".to_owned());
        let expected = BrokerHealth::Partly("no replicas".to_owned());
        assert_eq!(*told.borrow(), expected);
        health.down(Line::Followers, "too few".to_owned());
        assert_eq!(*told.borrow(), expected);
        health.up(Line::Replicated);
        assert_eq!(*told.borrow(), BrokerHealth::Partly("too few".to_owned()));
        health.up(Line::Followers);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
        health.down(Line::Bulk, "no bulk".to_owned());
        assert_eq!(*told.borrow(), BrokerHealth::Down("no bulk".to_owned()));
        health.up(Line::Bulk);
        health.down(Line::Feed, "the feed is deaf".to_owned());
        let expected = BrokerHealth::Down("the feed is deaf".to_owned());
        assert_eq!(*told.borrow(), expected);
        health.answers(Some("it is full".to_owned()));
        assert_eq!(*told.borrow(), expected);
        health.up(Line::Feed);
        let expected = BrokerHealth::ReadOnly("it is full".to_owned());
        assert_eq!((&*told.borrow(), health.is_read_only()), (&expected, true));
        health.answers(None);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
    }
}
