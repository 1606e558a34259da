//! Whether Redis can be used: two halves, commands and feed, told as one.
//!
//! In: the command link's supervisor and the feed, each about its own half. Out: a watch that
//! readiness, sessions and tests read. Owner of the state: this struct, under a lock that is held
//! for one comparison. A change between up, read only and down is logged once, here.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::broker::BrokerHealth;

/// Which half a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The connection for commands.
    Commands,
    /// The connection that hears.
    Feed,
}

/// What is known of both halves.
#[derive(Debug)]
struct State {
    /// Why commands and feed are down; `None` is up.
    down: [Option<String>; 2],
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
    /// Down in both halves, because nothing was reached yet.
    #[must_use]
    pub fn new() -> Self {
        let reason = "Redis is not reached yet".to_owned();
        Self {
            state: Mutex::new(State {
                down: [Some(reason.clone()), Some(reason.clone())],
                read_only: None,
            }),
            told: watch::Sender::new(BrokerHealth::Down(reason)),
        }
    }

    /// This half works.
    pub fn up(&self, half: Half) {
        self.set(|state| state.down[half as usize] = None);
    }

    /// Commands are answered; why none that writes is, if that is so.
    pub fn answers(&self, read_only: Option<String>) {
        self.set(|state| {
            state.down[Half::Commands as usize] = None;
            state.read_only = read_only;
        });
    }

    /// This half does not work, and why, in words.
    pub fn down(&self, half: Half, reason: String) {
        self.set(|state| state.down[half as usize] = Some(reason));
    }

    /// Whether commands are answered and none that writes is.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.lock().read_only.is_some()
    }

    /// Why this half is down.
    #[must_use]
    pub fn reason(&self, half: Half) -> Option<String> {
        self.lock().down[half as usize].clone()
    }

    /// Changes are seen through it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BrokerHealth> {
        self.told.subscribe()
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let now = match (state.down.iter().flatten().next(), &state.read_only) {
            (Some(reason), _) => BrokerHealth::Down(reason.clone()),
            (None, Some(reason)) => BrokerHealth::ReadOnly(reason.clone()),
            (None, None) => BrokerHealth::Up,
        };
        // Told under the lock, so that the last change is also the last one told.
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
        (BrokerHealth::Down(_) | BrokerHealth::ReadOnly(_), BrokerHealth::Up) => {
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
    fn up_needs_both_halves_and_down_says_why() {
        let health = Health::new();
        let told = health.watch();
        health.answers(None);
        assert!(matches!(&*told.borrow(), BrokerHealth::Down(_)));
        health.up(Half::Feed);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
        health.down(Half::Feed, "the feed is deaf".to_owned());
        let expected = BrokerHealth::Down("the feed is deaf".to_owned());
        assert_eq!(*told.borrow(), expected);
        health.answers(Some("it is full".to_owned()));
        assert_eq!(*told.borrow(), expected);
        health.up(Half::Feed);
        let expected = BrokerHealth::ReadOnly("it is full".to_owned());
        assert_eq!((&*told.borrow(), health.is_read_only()), (&expected, true));
        health.answers(None);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
    }
}
