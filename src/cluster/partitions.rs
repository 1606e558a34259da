//! Partitions: for which of them this node may act, and the token that proves it.
//!
//! In: the view, told with every heartbeat, whose ring names this node the home of some
//! partitions. Out: [`Held`], a level that anybody may watch, told after every round. Owner: the
//! [`PartitionsTask`], on the control runtime. A round gives back what the ring has given to
//! others, extends what is held and takes what is missing: at once where nobody has it, otherwise
//! when it was given back or its lease ends. What is held is given up here no later than in Redis,
//! because it counts from before the question. Delivery never asks who holds what: without a
//! lease only the duties of a home wait. Bounds: [`CALLS_IN_FLIGHT_MAX`] calls at once, two fifths
//! of the lease for a round; what was not answered by then is tried in the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use super::membership::asked;
use super::partition_store::{Bid, PartitionError, PartitionStore};
use super::view::View;
use crate::protocol::ids::Owner;
use crate::telemetry::metrics::Metrics;

/// Calls of one round that wait for Redis at the same time: 256 partitions take four times a round
/// trip, not 256 times.
const CALLS_IN_FLIGHT_MAX: usize = 64;

/// A lease as its holder knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lease {
    token: u64,
    /// From when on another may have it; `None`: there is no other.
    until: Option<Instant>,
}

impl Lease {
    fn lasts(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The partitions whose lease this node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(BTreeMap<u32, Lease>);

impl Held {
    /// The token with which this node may act for a partition; `None`: it may not.
    #[must_use]
    pub fn token(&self, partition: u32) -> Option<u64> {
        let lease = self.0.get(&partition)?;
        lease.lasts(Instant::now()).then_some(lease.token)
    }

    /// All partitions for which it may act, ascending.
    #[must_use]
    pub fn partitions(&self) -> BTreeSet<u32> {
        let now = Instant::now();
        let held = self.0.iter().filter(|(_, lease)| lease.lasts(now));
        held.map(|(partition, _)| *partition).collect()
    }
}

/// The handle: what everybody else sees of the leases. Cheap to clone.
///
/// At first there are none; the task of [`Self::lead`] takes them.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    held: Arc<watch::Sender<Held>>,
    stop: Arc<watch::Sender<bool>>,
}

impl Partitions {
    /// The partitions of a node that has no cluster: all of them, for ever.
    #[must_use]
    pub fn alone(partitions_count: u32) -> Self {
        let (token, until) = (0, None);
        let all = (0..partitions_count).map(|partition| (partition, Lease { token, until }));
        let partitions = Self::default();
        partitions.held.send_replace(Held(all.collect()));
        partitions
    }

    /// The task that leads the partitions which the view names this node's. The caller runs it.
    #[must_use]
    pub fn lead(
        &self,
        view: watch::Receiver<Arc<View>>,
        store: Arc<PartitionStore>,
        lease: Duration,
        metrics: Arc<Metrics>,
    ) -> PartitionsTask {
        let me = view.borrow().me.clone();
        PartitionsTask {
            me,
            view,
            store,
            lease,
            metrics,
            leases: BTreeMap::new(),
            retry_at: None,
            held: Arc::clone(&self.held),
            stop: self.stop.subscribe(),
        }
    }

    /// What is held, now and after every round.
    #[must_use]
    pub fn held(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// What is held now.
    #[must_use]
    pub fn now(&self) -> Held {
        self.held.borrow().clone()
    }

    /// Gives every lease back and returns when the task has ended, whether Redis answered or not.
    /// To be called before the node's own lease is given back.
    pub async fn release(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// The task behind [`Partitions`].
#[derive(Debug)]
pub struct PartitionsTask {
    view: watch::Receiver<Arc<View>>,
    store: Arc<PartitionStore>,
    lease: Duration,
    metrics: Arc<Metrics>,
    /// Under whose name the leases are held.
    me: Owner,
    leases: BTreeMap<u32, Lease>,
    /// When the first lease of another ends that should be this node's.
    retry_at: Option<Instant>,
    held: Arc<watch::Sender<Held>>,
    stop: watch::Receiver<bool>,
}

impl PartitionsTask {
    /// Leads until it is stopped or the membership has ended.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            // All three waits are cancel-safe.
            tokio::select! {
                changed = self.view.changed() => if changed.is_err() { break },
                () = at(self.retry_at) => {}
                () = asked(&mut stop) => break,
            }
            self.round().await;
        }
        let all = std::mem::take(&mut self.leases);
        self.tell();
        self.give_back(all).await;
    }

    async fn round(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        self.retry_at = None;
        if view.me != self.me {
            // What an earlier life held may be somebody else's by now.
            self.leases.clear();
            self.me = view.me.clone();
        }
        // A node without a lease of its own takes none. What is held ends by itself.
        if view.has_lease() {
            let mine: BTreeSet<u32> = view.ring.partitions_of(&view.me.node).collect();
            let held = std::mem::take(&mut self.leases).into_iter();
            let (kept, given): (_, BTreeMap<_, _>) =
                held.partition(|(partition, _)| mine.contains(partition));
            self.leases = kept;
            if !given.is_empty() {
                // Nobody acts by a lease that is being given back.
                self.tell();
                self.give_back(given).await;
            }
            self.bid(mine).await;
        }
        self.tell();
    }

    /// Extends what is held and takes what is missing.
    async fn bid(&mut self, mine: BTreeSet<u32>) {
        let deadline = Instant::now() + self.patience();
        let (store, me, lease) = (&self.store, &self.me, self.lease);
        let mut bids = stream::iter(mine)
            .map(|partition| async move {
                let asked_at = Instant::now();
                (partition, asked_at, store.lead(partition, me, lease).await)
            })
            .buffer_unordered(CALLS_IN_FLIGHT_MAX);
        let mut failed = None;
        while let Ok(Some((partition, asked_at, bid))) = timeout_at(deadline, bids.next()).await {
            match bid {
                Ok(Bid::Held { token }) => {
                    let until = Some(asked_at + lease);
                    self.leases.insert(partition, Lease { token, until });
                }
                Ok(Bid::Other { left }) => {
                    self.leases.remove(&partition);
                    let end = asked_at + left;
                    let first = self.retry_at.map_or(end, |first| first.min(end));
                    self.retry_at = Some(first);
                }
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            debug!(%error, "leases of partitions were not extended, they are tried again");
        }
    }

    async fn give_back(&self, leases: BTreeMap<u32, Lease>) {
        let deadline = Instant::now() + self.patience();
        let release = |(partition, lease): (u32, Lease)| self.store.release(partition, lease.token);
        let mut released = stream::iter(leases)
            .map(release)
            .buffer_unordered(CALLS_IN_FLIGHT_MAX);
        let mut failed = None;
        while let Ok(Some(answer)) = timeout_at(deadline, released.next()).await {
            match answer {
                Ok(()) | Err(PartitionError::Refused) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            debug!(%error, "leases of partitions were not given back, they end by themselves");
        }
    }

    /// Two fifths of the lease, so that at least two rounds fit into one.
    fn patience(&self) -> Duration {
        self.lease * 2 / 5
    }

    /// Shows what is held to the watchers, and the operator what changed.
    fn tell(&mut self) {
        let now = Instant::now();
        self.leases.retain(|_, lease| lease.lasts(now));
        let held_count = self.leases.len();
        self.metrics.control.partitions.set(held_count as u64);
        let before = self.held.send_replace(Held(self.leases.clone()));
        let taken = self.leases.keys().filter(|p| !before.0.contains_key(*p));
        let taken_count = taken.count();
        let lost_count = before.0.len() + taken_count - held_count;
        if taken_count + lost_count > 0 {
            info!(
                event = "partitions",
                held_count, taken_count, lost_count, "the partitions of this node changed"
            );
        }
    }
}

/// Waits for an instant, or for ever. Cancel-safe.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Numbers as ranges, for people and for the wire: `0-3,7`.
#[must_use]
pub fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut text = String::new();
    let mut numbers = numbers.iter().copied().peekable();
    while let Some(first) = numbers.next() {
        let mut last = first;
        while let Some(next) = numbers.next_if_eq(&(last + 1)) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_neighbours_and_name_single_numbers() {
        let text = |numbers: &[u32]| ranges(&numbers.iter().copied().collect());
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[5]), "5");
        assert_eq!(text(&[0, 1, 2, 3, 7, 9, 10]), "0-3,7,9-10");
    }

    #[tokio::test]
    async fn a_node_alone_holds_everything_and_has_nothing_to_give_back() {
        let partitions = Partitions::alone(256);
        assert_eq!(ranges(&partitions.now().partitions()), "0-255");
        assert_eq!(partitions.now().token(255), Some(0));
        assert_eq!(partitions.now().token(256), None);
        partitions.release().await;
    }

    #[test]
    fn what_was_not_extended_in_time_is_held_no_more() {
        let held = |until| {
            let lease = Lease { token: 7, until };
            Held(BTreeMap::from([(3, lease)]))
        };
        let now = Instant::now();
        let lasting = held(Some(now + Duration::from_secs(3_600)));
        assert_eq!((lasting.token(3), lasting.token(4)), (Some(7), None));
        let ended = held(Some(now));
        assert_eq!(ended.token(3), None);
        assert!(ended.partitions().is_empty());
    }
}
