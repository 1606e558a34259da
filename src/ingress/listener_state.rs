//! What the public listener of one worker knows: who may come in, and whether there is room.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;

use crate::broker::BrokerHealth;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::session::shared_reads::SharedReads;
use crate::session::{Scratch, Services};
use crate::telemetry::episode::Episode;
use crate::telemetry::metrics::WorkerCounters;
use crate::worker::Worker;

use super::admission::Admission;

/// A limit of so many of something on the whole node. Shared by all workers.
#[derive(Debug)]
pub struct ConnectionLimit {
    taken: AtomicUsize,
    most: usize,
}

impl ConnectionLimit {
    /// A limit of so many.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            most,
        })
    }

    /// Takes a place, if there is one; it is free again when the place is dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let taken = self.taken.fetch_add(1, Relaxed);
        let place = ConnectionPermit(Arc::clone(self));
        (taken < self.most).then_some(place)
    }

    /// Whether every place is taken; and where that was so, until a twentieth of them is free, so
    /// that what is told by it does not flap.
    #[must_use]
    pub fn is_full(&self, was_full: bool) -> bool {
        let taken = self.taken.load(Relaxed);
        match was_full {
            false => taken >= self.most,
            true => taken > self.most.saturating_sub((self.most / 20).max(1)),
        }
    }
}

/// The place of one session, or of one connection.
#[derive(Debug)]
pub struct ConnectionPermit(Arc<ConnectionLimit>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

/// What the accept loops of all workers share: room for TCP connections, sessions or not, so that
/// those that are none take no file of the API, of Redis, or of a session.
#[derive(Debug)]
pub struct Gate {
    /// The limit of connections.
    pub limit: Arc<ConnectionLimit>,
    /// Connections that found no room, told once.
    pub refused: Episode,
    /// Connections that could not be accepted, told once.
    pub failed: Episode,
}

impl Gate {
    /// A gate for so many connections.
    #[must_use]
    pub fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: ConnectionLimit::new(connections_max),
            refused: Episode::default(),
            failed: Episode::default(),
        })
    }
}

/// See the module.
pub struct PublicState {
    /// The node's parts.
    pub services: Arc<Services>,
    /// The worker behind this state.
    pub worker: Rc<Worker>,
    /// Reads of history that its sessions share.
    pub reads: Rc<SharedReads>,
    /// Memory that its sessions read into first.
    pub scratch: Scratch,
    /// The limit of connections of the node.
    pub gate: Arc<Gate>,
    /// The limit of sessions of the node.
    pub sessions_limit: Arc<ConnectionLimit>,
    /// Whom the node lets in.
    pub admission: Arc<Admission>,
    /// Whether the node is leaving.
    pub lifecycle: LifecycleReceiver,
    /// Why the node is not ready for sessions; empty when it is.
    pub readiness: watch::Receiver<Vec<String>>,
}

impl PublicState {
    /// What the worker counts.
    #[must_use]
    pub fn counters(&self) -> &WorkerCounters {
        &self.worker.metrics().counters
    }

    /// Longest time for one request head.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.services.config.server.handshake_timeout
    }

    /// How long the node goes on accepting after it has said that it leaves.
    #[must_use]
    pub fn drain_delay(&self) -> Duration {
        self.services.config.drain.delay
    }

    /// Whether new sessions are refused because the node leaves.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        *self.lifecycle.borrow() >= Lifecycle::Draining
    }

    /// Whether the broker answers, at least for some topics.
    #[must_use]
    pub fn broker_is_up(&self) -> bool {
        !matches!(
            &*self.services.broker.health().borrow(),
            BrokerHealth::Down(_)
        )
    }
}
