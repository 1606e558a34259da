//! Connections of our own to one master, one after the other.
//!
//! In: where it is, by the configuration, and how each connection ended. Out: a connection that takes
//! commands, and how long to wait before the next attempt. Owner of what was read of files for TLS,
//! which are read anew where TLS failed. Bounds: waits grow from [`RECONNECT_MIN`], twice as long each
//! time, up to one to two seconds.

use std::time::Duration;

use fred::error::Error;

use crate::config;
use crate::redis::access::{self, Target};
use crate::redis::wire::Connection;

/// First wait before a new attempt to connect; each is twice the one before.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
/// The longest, drawn for each wait, so that not all nodes come at the same times.
const RECONNECT_MAX_MS: std::ops::RangeInclusive<u64> = 1_000..=2_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Dialer {
    settings: config::Redis,
    /// What Redis calls the connections in CLIENT LIST.
    name: &'static str,
    /// What each command gets on them.
    timeout: Duration,
    target: Option<Target>,
    /// Since one worked.
    attempts: u32,
}

impl Dialer {
    /// Nothing is read or connected yet.
    #[must_use]
    pub(super) fn new(settings: &config::Redis, name: &'static str, timeout: Duration) -> Self {
        Self {
            settings: settings.clone(),
            name,
            timeout,
            target: None,
            attempts: 0,
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none, in the form of fred. Cancel safety: safe.
    pub(super) async fn open<T>(&mut self) -> Result<Connection<T>, Error> {
        let target = match &self.target {
            Some(target) => target,
            None => match Target::new(&self.settings) {
                Ok(read) => self.target.insert(read),
                // A file of the configuration was good at the start and is not now.
                Err(error) => return Err(error.into_reported()),
            },
        };
        Connection::open(target, self.name, self.timeout).await
    }

    /// The last one was of use.
    pub(super) fn worked(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait now that it ended so, or did not come to be.
    pub(super) fn failed(&mut self, error: &Error) -> Duration {
        if access::is_tls(error) {
            self.target = None;
        }
        let longest = Duration::from_millis(rand::random_range(RECONNECT_MAX_MS));
        let wait = RECONNECT_MIN.saturating_mul(1 << self.attempts.min(10));
        self.attempts += 1;
        wait.min(longest)
    }
}
