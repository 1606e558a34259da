//! Whether Redis can be used: two halves, commands and feed, told as one.
//!
//! In: the command link's supervisor and the feed, each about its own half. Out: a watch that
//! readiness, sessions and tests read. Owner of the state: this struct, under a lock that is held
//! for one comparison. A change between up and down is logged once, here.

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

/// See the module.
#[derive(Debug)]
pub struct Health {
    /// Why commands and feed are down; `None` is up.
    down: Mutex<[Option<String>; 2]>,
    told: watch::Sender<BrokerHealth>,
}

impl Health {
    /// Down in both halves, because nothing was reached yet.
    #[must_use]
    pub fn new() -> Self {
        let reason = "Redis is not reached yet".to_owned();
        Self {
            down: Mutex::new([Some(reason.clone()), Some(reason.clone())]),
            told: watch::Sender::new(BrokerHealth::Down(reason)),
        }
    }

    /// This half works.
    pub fn up(&self, half: Half) {
        self.set(half, None);
    }

    /// This half does not work, and why, in words.
    pub fn down(&self, half: Half, reason: String) {
        self.set(half, Some(reason));
    }

    /// Why this half is down.
    #[must_use]
    pub fn reason(&self, half: Half) -> Option<String> {
        self.lock()[half as usize].clone()
    }

    /// Changes are seen through it.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<BrokerHealth> {
        self.told.subscribe()
    }

    fn set(&self, half: Half, reason: Option<String>) {
        let mut down = self.lock();
        down[half as usize] = reason;
        let now = match down.iter().flatten().next() {
            Some(reason) => BrokerHealth::Down(reason.clone()),
            None => BrokerHealth::Up,
        };
        // Told under the lock, so that the last change is also the last one told.
        self.told.send_if_modified(|told| {
            match (&*told, &now) {
                (BrokerHealth::Up, BrokerHealth::Down(reason)) => {
                    tracing::warn!(event = "redis_down", reason, "Redis cannot be used");
                }
                (BrokerHealth::Down(_), BrokerHealth::Up) => {
                    tracing::info!(event = "redis_up", "Redis can be used");
                }
                _ => {}
            }
            let is_changed = *told != now;
            *told = now;
            is_changed
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Option<String>; 2]> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
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
        health.up(Half::Commands);
        assert!(matches!(&*told.borrow(), BrokerHealth::Down(_)));
        health.up(Half::Feed);
        assert_eq!(*told.borrow(), BrokerHealth::Up);
        health.down(Half::Feed, "the feed is deaf".to_owned());
        let expected = BrokerHealth::Down("the feed is deaf".to_owned());
        assert_eq!(*told.borrow(), expected);
        health.up(Half::Commands);
        assert_eq!(*told.borrow(), expected);
    }
}
