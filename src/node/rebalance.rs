//! Sends sessions away while this node has more than its share of them.
//!
//! In: the cluster's view and this node's counts, once a second. Out: an order to each worker, for
//! its part; `fanfare_rebalance_excess_sessions` says how many are too much. What is decided is
//! decided in [`crate::cluster::rebalance`]. A worker whose queue is full gets no order in that
//! second: it has other things to do, and the next second decides anew. With each order goes the list of
//! its batch, in which workers write who was told and who came back. That it did not help is told by
//! `fanfare_rebalance_futile_total` and the log.

use std::sync::Arc;
use std::time::Instant;

use crate::cluster::membership::Membership;
use crate::cluster::rebalance::{ASK_EVERY, Batch, Futile, Here, Plan, Rebalancer};
use crate::cluster::view::View;
use crate::config::Rebalance;
use crate::lifecycle::{Lifecycle, LifecycleReceiver};
use crate::tasks;
use crate::telemetry::metrics::Metrics;
use crate::worker::batch_told::BatchTold;
use crate::worker::handle::{Inbound, ShedOrder, WorkerHandle};

/// Starts the task, unless it is turned off. It ends when the node leaves.
pub(super) fn start(
    config: &Rebalance,
    membership: Membership,
    lifecycle: LifecycleReceiver,
    metrics: Arc<Metrics>,
    workers: Vec<WorkerHandle>,
) {
    // Without workers there are no sessions: a node for the API only.
    if !config.enabled || workers.is_empty() {
        return;
    }
    let mut rebalancer = Rebalancer::new(config.clone());
    tasks::spawn("rebalance", async move {
        let mut seconds = tokio::time::interval(ASK_EVERY);
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut was_shedding = false;
        let mut batch = Arc::new(BatchTold::default());
        while *lifecycle.borrow() <= Lifecycle::Ready {
            seconds.tick().await;
            let view = membership.now();
            let here = Here {
                sessions: metrics.sessions(),
                told: metrics.sum(|counters| &counters.rebalancing),
                batch: Batch {
                    told: batch.all(),
                    known: batch.known(),
                    returned: batch.returned(),
                },
            };
            let plan = rebalancer.plan(&view, here, Instant::now());
            metrics.control.rebalance_excess.set(plan.excess);
            if (plan.excess > 0) != was_shedding {
                was_shedding = plan.excess > 0;
                let Plan { excess, .. } = plan;
                let sessions = here.sessions;
                tracing::info!(
                    event = "rebalance_changed",
                    sessions,
                    excess,
                    "sessions above the share are sent away, until none is"
                );
            }
            if let Some(futile) = &plan.futile {
                metrics.control.rebalance_futile.add(1);
                tell_futile(here.sessions, futile);
            }
            if plan.begins {
                batch = Arc::default();
            }
            if plan.tell > 0 {
                order(&metrics, &workers, &view, (plan.tell, &batch));
            }
        }
        metrics.control.rebalance_excess.set(0);
    });
}

fn tell_futile(sessions: u64, futile: &Futile) {
    let Batch {
        told,
        known,
        returned,
    } = futile.batch;
    let pause_s = Plan::pause().as_secs();
    if let Some(fell) = futile.fell {
        tracing::warn!(
            event = "rebalance_futile",
            sessions,
            told,
            fell,
            pause_s,
            "sessions were told to go, and this node has not got a smaller part of all sessions: its \
             balancer seems to send them back, and rebalancing pauses; set rebalance.enabled = false, or \
             let the balancer bound its nodes"
        );
        return;
    }
    tracing::warn!(
        event = "rebalance_futile",
        sessions,
        told,
        known,
        returned,
        pause_s,
        "users whose sessions were told to go came back to this node: its balancer seems to deal by a \
         hash, and rebalancing pauses; set rebalance.enabled = false, or let the balancer bound its nodes"
    );
}

/// Gives each worker its part, by its sessions.
fn order(
    metrics: &Metrics,
    workers: &[WorkerHandle],
    view: &View,
    (tell, batch): (u64, &Arc<BatchTold>),
) {
    let partitions = 0..view.ring.partitions_count();
    let is_here = |partition| view.ring.home_of_partition(partition) == Some(&view.me.node);
    let at_home: Arc<[bool]> = partitions.map(is_here).collect();
    let all = metrics.sessions().max(1);
    let (mut passed, mut given) = (0, 0);
    for (handle, counted) in workers.iter().zip(&metrics.workers) {
        passed += counted.counters.sessions.get();
        let count = (tell * passed / all).saturating_sub(given);
        given += count;
        let order = Inbound::Shed(ShedOrder {
            count: usize::try_from(count).unwrap_or(usize::MAX),
            at_home: Arc::clone(&at_home),
            batch: Arc::clone(batch),
        });
        // Given back by a full queue; see the module.
        let _ = handle.send(order);
    }
}
