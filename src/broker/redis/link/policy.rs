//! What a master of Redis does when its memory is full, as it says itself.
//!
//! In: a link that answers: at every new connection, which may lead to another server, and every
//! [`LOOK_EVERY`], because somebody may change the setting. Out: the policy for health, and a line in
//! the log for each change to one that evicts, or back. A server that refuses to tell is left alone.
//! One a master; looked at by the supervisor of its urgent link alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fred::types::Value;

use crate::redis::RedisLink;

/// How often it is read on one connection.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The one that loses nothing.
pub const SAFE: &str = "noeviction";

/// See the module.
#[derive(Debug, Default)]
pub struct Policy(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<String>,
    looked_at: Option<Instant>,
}

impl Policy {
    /// What is known of it; `None`: nothing yet, or the server does not tell.
    #[must_use]
    pub fn known(&self) -> Option<String> {
        self.lock().known.clone()
    }

    /// Reads it where it is time to. `is_new`: nothing was asked of this connection yet.
    pub async fn look(&self, link: &RedisLink, is_new: bool) {
        if !self.is_due(is_new, Instant::now()) {
            return;
        }
        let name = b"maxmemory-policy".to_vec();
        let answer = link.command("CONFIG", "GET", &[name]).await;
        let policy = match answer {
            Ok(Value::Map(map)) => map.iter().next().and_then(|(_, value)| value.as_string()),
            Ok(Value::Array(pair)) => pair.get(1).and_then(Value::as_string),
            _ => None,
        };
        self.is(policy, is_new);
    }

    fn is_due(&self, is_new: bool, now: Instant) -> bool {
        let mut state = self.lock();
        let is_over = |at: Instant| now.saturating_duration_since(at) >= LOOK_EVERY;
        let is_due = is_new || state.looked_at.is_none_or(is_over);
        if is_due {
            state.looked_at = Some(now);
        }
        is_due
    }

    fn is(&self, policy: Option<String>, is_new: bool) {
        if policy.is_none() && !is_new {
            return;
        }
        let evicts = |policy: &Option<String>| policy.as_ref().is_some_and(|p| p != SAFE);
        let mut state = self.lock();
        match (evicts(&state.known), evicts(&policy)) {
            (_, true) if state.known != policy => tracing::warn!(
                event = "redis_eviction_allowed",
                policy,
                "Redis may evict keys: set maxmemory-policy to noeviction, or accepted messages \
                 can vanish"
            ),
            (true, false) => tracing::info!(
                event = "redis_eviction_ended",
                policy,
                "Redis evicts no keys any more, as far as it tells"
            ),
            _ => {}
        }
        state.known = policy;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_by_every_connection_and_every_minute() {
        let policy = Policy::default();
        let now = Instant::now();
        assert!(policy.is_due(false, now));
        assert!(!policy.is_due(false, now + LOOK_EVERY / 2));
        assert!(policy.is_due(true, now + LOOK_EVERY / 2));
        assert!(!policy.is_due(false, now + LOOK_EVERY));
        assert!(policy.is_due(false, now + LOOK_EVERY * 3 / 2));
    }

    #[test]
    fn what_one_server_said_is_not_taken_for_the_next_ones() {
        let policy = Policy::default();
        policy.is(Some("allkeys-lru".to_owned()), true);
        policy.is(None, false);
        assert_eq!(policy.known().as_deref(), Some("allkeys-lru"));
        policy.is(None, true);
        assert_eq!(policy.known(), None);
    }
}
