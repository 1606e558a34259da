//! Partitions: for which of them this node may act, and the token that proves it.
//!
//! In: the view, sent with every heartbeat, whose ring names this node the home of some
//! partitions. Out: [`Held`], a level that anybody may watch, sent after every round and when
//! something is lost. Owner: the [`PartitionsTask`], on the control runtime; what is asked for, and
//! what an answer means, is decided in `partition_leases`. A round gives back what the ring has given to
//! others, and at the same time takes what is missing: at once where nobody has it, otherwise when it
//! was given back or its lease ends. What is held is extended once in a third of a lease, all of it
//! together: a few calls a master. Delivery never asks who holds what: without a lease only the
//! duties of a home wait. Bounds: [`CALLS_PER_MASTER_MAX`] calls of each master at once, so that one
//! that hangs holds up its own partitions only; [`RELEASES_IN_FLIGHT_MAX`] that give back; two fifths
//! of the lease for a round. What was not answered by then is tried in the next. A partition that
//! could not be had together with others is asked for alone until it can be had.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, info};

use super::membership::asked;
use super::partition_leases::{Held, PartitionLeases};
use super::partition_store::{PartitionError, PartitionStore};
use super::unanswered_leases::UnansweredLeases;
use super::view::View;
use crate::telemetry::metrics::Metrics;

/// Calls for leases of one master that wait at the same time: a millisecond of its time.
const CALLS_PER_MASTER_MAX: usize = 8;

/// Leases that are given back at the same time: 256 take four times a round trip, not 256 times.
const RELEASES_IN_FLIGHT_MAX: usize = 64;

/// The handle: what everybody else sees of the leases. Cheap to clone.
///
/// At first there are none; the task of [`Self::lead`] takes them.
#[derive(Debug, Clone, Default)]
pub struct Partitions {
    held: Arc<watch::Sender<Held>>,
    stop: Arc<watch::Sender<bool>>,
    unanswered: Arc<watch::Sender<Option<String>>>,
}

impl Partitions {
    /// The partitions of a node that has no cluster: all of them, for ever.
    #[must_use]
    pub fn alone(partitions_count: u32) -> Self {
        let partitions = Self::default();
        partitions.held.send_replace(Held::all(partitions_count));
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
            leases: PartitionLeases::new(me, lease),
            view,
            store,
            lease,
            metrics,
            alone: BTreeSet::new(),
            bids: UnansweredLeases::new(lease, Arc::clone(&self.unanswered)),
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

    /// How many partitions Redis has not answered for in a lease, and why; `None`: there are none.
    #[must_use]
    pub fn unanswered(&self) -> Option<String> {
        self.unanswered.borrow().clone()
    }

    /// Gives every lease back and returns when the task has ended, whether Redis answered or not.
    /// To be called before the node's own lease is given back.
    pub async fn release(&self) {
        self.stop.send_replace(true);
        self.stop.closed().await;
    }
}

/// The task of [`Partitions`].
#[derive(Debug)]
pub struct PartitionsTask {
    view: watch::Receiver<Arc<View>>,
    store: Arc<PartitionStore>,
    lease: Duration,
    metrics: Arc<Metrics>,
    leases: PartitionLeases,
    /// What could not be had together with others, or has failed alone since.
    alone: BTreeSet<u32>,
    bids: UnansweredLeases,
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
                () = at(self.leases.next_at()) => {}
                () = asked(&mut stop) => break,
            }
            self.round().await;
        }
        let before = self.held.borrow().clone();
        let all = self.leases.end();
        self.tell();
        self.log(&before);
        give_back(&self.store, all, self.patience()).await;
    }

    async fn round(&mut self) {
        let view = Arc::clone(&self.view.borrow_and_update());
        let before = self.held.borrow().clone();
        let mine: BTreeSet<_> = view.ring.partitions_of(&view.me.node).collect();
        let now = Instant::now();
        let round = self.leases.begin(&view, mine.clone(), now);
        self.bids.begin(&mine, &round.wanted, now);
        if round.is_less {
            // Nobody acts by a lease that is being given back, or by one of an earlier life.
            self.tell();
        }
        let (store, patience) = (Arc::clone(&self.store), self.patience());
        let given = give_back(&store, round.given, patience);
        tokio::join!(given, self.bid(round.wanted));
        self.tell();
        self.log(&before);
    }

    /// Takes what is missing, and extends what is held where that is due.
    async fn bid(&mut self, wanted: BTreeSet<u32>) {
        let deadline = Instant::now() + self.patience();
        let (store, lease) = (Arc::clone(&self.store), self.lease);
        let me = self.leases.me.clone();
        let (store, me) = (&store, &me);
        let ask = |partitions: Vec<u32>| async move {
            let asked_at = Instant::now();
            let bids = store.lead(&partitions, me, lease).await;
            (asked_at, partitions, bids)
        };
        let masters = store.calls(&wanted, &self.alone).into_iter().map(|calls| {
            let asked = stream::iter(calls).map(ask);
            Box::pin(asked.buffer_unordered(CALLS_PER_MASTER_MAX))
        });
        let mut answers = stream::select_all(masters);
        let mut failed = None;
        while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
            let (asked_at, partitions, bids) = answer;
            let (mut is_less, before_count) = (false, self.leases.held_count());
            for (partition, bid) in partitions.into_iter().zip(bids) {
                match bid {
                    Ok(bid) => {
                        self.alone.remove(&partition);
                        self.bids.answered(partition);
                        is_less |= self.leases.answered(partition, asked_at, bid);
                    }
                    Err(error) => {
                        if error.is_of_many() {
                            self.alone.insert(partition);
                        }
                        failed = Some(error);
                    }
                }
            }
            if is_less || self.leases.held_count() > before_count {
                // Nobody goes on acting by what is lost, and what is taken has its home at once, however
                // long the round takes: a master that hangs holds up its own partitions only.
                self.tell();
            }
        }
        self.bids.end(failed.as_ref(), Instant::now());
        if let Some(error) = failed {
            debug!(
                event = "partitions_not_extended",
                error = &error as &(dyn std::error::Error + 'static),
                "leases of partitions were not extended, they are tried again"
            );
        }
    }

    /// Two fifths of the lease, as long as a command may take: where an extension is in vain, there
    /// is time for another.
    fn patience(&self) -> Duration {
        self.lease * 2 / 5
    }

    /// Shows what is held to the watchers.
    fn tell(&mut self) {
        let held = self.leases.held(Instant::now());
        self.metrics.control.partitions.set(held.count() as u64);
        self.held.send_replace(held);
    }

    /// Shows the operator what changed since then.
    fn log(&self, before: &Held) {
        let held = self.held.borrow();
        let held_count = held.count();
        let taken_count = held.count_beyond(before);
        let lost_count = before.count_beyond(&held);
        if taken_count + lost_count > 0 {
            info!(
                event = "partitions_changed",
                held_count, taken_count, lost_count, "the partitions of this node changed"
            );
        }
    }
}

/// Gives leases back, as far as Redis answers within `patience`.
async fn give_back(store: &PartitionStore, given: Vec<(u32, u64)>, patience: Duration) {
    let deadline = Instant::now() + patience;
    let release = |(partition, token)| store.release(partition, token);
    let mut released = stream::iter(given)
        .map(release)
        .buffer_unordered(RELEASES_IN_FLIGHT_MAX);
    let mut failed = None;
    while let Ok(Some(answer)) = timeout_at(deadline, released.next()).await {
        match answer {
            Ok(()) | Err(PartitionError::Refused) => {}
            Err(error) => failed = Some(error),
        }
    }
    if let Some(error) = failed {
        debug!(
            event = "partitions_not_returned",
            error = &error as &(dyn std::error::Error + 'static),
            "leases of partitions were not given back, they end by themselves"
        );
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
}
