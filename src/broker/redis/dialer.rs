//! Connections of our own to one master, one after the other.
//!
//! In: where it is, by the configuration, and how each connection ended. Out: a connection that takes
//! commands. Owner of what was read of files for TLS, which are read anew where TLS failed. Bounds: one
//! attempt at a time; how long to wait for the next says `waits.rs`.

use std::time::Duration;

use fred::error::Error;

use crate::config;
use crate::redis::access::{self, Target};
use crate::redis::wire::Connection;

/// See the module.
#[derive(Debug)]
pub(super) struct Dialer {
    settings: config::Redis,
    /// What Redis calls the connections in CLIENT LIST.
    name: &'static str,
    /// What each command gets on them.
    timeout: Duration,
    target: Option<Target>,
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

    /// It ended so, or did not come to be.
    pub(super) fn failed(&mut self, error: &Error) {
        if access::is_tls(error) {
            self.target = None;
        }
    }
}
