//! What a master of Redis does when its memory is full, and how much of it a stream takes up at
//! once, as it says itself.
//!
//! In: a link that answers: at every new connection, which may lead to another server, and every
//! [`LOOK_EVERY`], because somebody may change the settings. Out: the policy for health; a line in
//! the log for each change to one that evicts, or back, and one, once, where streams take up much.
//! A server that refuses to tell is left alone. One a master; looked at by the supervisor of its
//! urgent link alone.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fred::types::Value;

use crate::redis::RedisLink;

/// How often it is read on one connection.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The one that loses nothing.
pub const SAFE: &str = "noeviction";
/// Redis takes up so many bytes for the first entry of each stream (0: as many as by default, 4,096).
/// Where it is no more than this, it is not reported.
const STREAM_NODE_BYTES: u64 = 1_024;

/// See the module.
#[derive(Debug, Default)]
pub struct Policy(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<String>,
    looked_at: Option<Instant>,
    /// It was reported that streams take up much.
    is_told: bool,
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
        let names = ["maxmemory-policy", "stream-node-max-bytes"];
        let args = names.map(|name| name.as_bytes().to_vec());
        let answer = link
            .command("CONFIG", "GET", &args)
            .await
            .unwrap_or(Value::Null);
        let [policy, bytes] = names.map(|name| setting(&answer, name));
        self.is(policy, is_new);
        if let Some(bytes) = bytes.filter(|bytes| self.is_to_be_told(bytes)) {
            tracing::info!(
                event = "redis_streams_preallocated",
                server = link.server(),
                bytes,
                "each topic with history takes up a block of this size in Redis, however little is \
                 in it (0: 4,096 bytes): with many such topics or inboxes set stream-node-max-bytes \
                 to 512"
            );
        }
    }

    /// Once, whatever the server says later.
    fn is_to_be_told(&self, bytes: &str) -> bool {
        let is_much = |bytes: u64| bytes == 0 || bytes > STREAM_NODE_BYTES;
        let mut state = self.lock();
        let is_first = !state.is_told && bytes.parse().is_ok_and(is_much);
        state.is_told |= is_first;
        is_first
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

/// One of the settings that CONFIG GET gave.
fn setting(answer: &Value, name: &str) -> Option<String> {
    match answer {
        Value::Map(map) => {
            let found = map.iter().find(|(key, _)| key.as_str() == Some(name));
            found.and_then(|(_, value)| value.as_string())
        }
        Value::Array(flat) => {
            let mut masters = flat.chunks_exact(2);
            let found = masters.find(|pair| pair[0].as_str().as_deref() == Some(name));
            found.and_then(|pair| pair[1].as_string())
        }
        _ => None,
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
    fn a_setting_is_found_by_its_name_wherever_it_stands() {
        let texts = ["b", "2", "a", "1"].map(Value::from_static_str);
        let answer = Value::Array(texts.to_vec());
        assert_eq!(setting(&answer, "a").as_deref(), Some("1"));
        assert_eq!(setting(&answer, "2"), None);
        assert_eq!(setting(&Value::Null, "a"), None);
    }

    #[test]
    fn that_streams_take_up_much_is_told_once() {
        for (bytes, is_told) in [("0", true), ("4096", true), ("1024", false), ("?", false)] {
            let policy = Policy::default();
            assert_eq!(policy.is_to_be_told(bytes), is_told, "{bytes}");
            policy.is_to_be_told("4096");
            assert!(!policy.is_to_be_told("4096"));
        }
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
