//! How the node leaves: what begins it, and its steps up to the lease.
//!
//! In: a signal, the order to drain, or the loss of its place in the cluster. Out: sessions told and
//! closed at the pace of `[drain]`, workers ended, members, occupancy and leases given back. That it
//! leaves is in `fanfare_draining`, how far it is in `fanfare_drain_sessions` and `fanfare_drained_sessions`, and in what the node
//! says of itself. Bounds: each step has its own deadline, after which the next begins.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{End, GIVE_BACK, Parts, millis, stop_time, systemd};
use crate::broker::Broker;
use crate::cluster::membership::Membership;
use crate::cluster::membership_machine::MembershipState;
use crate::lifecycle::Lifecycle;
use crate::session::drain_schedule::DrainSchedule;
use crate::tasks;
use crate::telemetry::logs;

/// How long the sessions of a node have that breaks off.
const BROKEN_OFF: Duration = Duration::from_secs(1);
/// How often a leaving node looks whether its sessions have gone.
const LOOK: Duration = Duration::from_millis(50);

impl Parts {
    /// Sends the sessions away and ends the workers.
    pub(super) async fn send_away(&self, threads: Vec<JoinHandle<()>>) {
        systemd::stopping();
        let config = &self.config;
        let sessions = self.metrics.sessions();
        let counters = &self.metrics.control;
        counters.draining.set(1);
        counters.drain_sessions.set(sessions);
        let departure = DrainSchedule::new(&config.drain, sessions, Instant::now());
        let departure = self.services.departure.get_or_init(|| departure);
        self.lifecycle.send_replace(Lifecycle::Draining);
        tracing::info!(
            event = "drain_started",
            sessions,
            delay_ms = millis(config.drain.delay),
            spread_ms = millis(departure.spread()),
            "leaving; sessions are told to go"
        );
        // The door stays open so long, for whoever the balancer still sends here.
        tokio::time::sleep(config.drain.delay).await;
        let last = stop_time::last_of_session(config);
        let overdue = tokio::time::Instant::from_std(departure.ends() + last);
        let waves = tokio::time::timeout_at(overdue, async {
            while self.metrics.sessions() > 0 {
                let left = self.metrics.sessions();
                counters.drained.set(sessions.saturating_sub(left));
                tokio::time::sleep(LOOK).await;
            }
            counters.drained.set(sessions);
        });
        if waves.await.is_err() {
            tracing::warn!(
                event = "drain_overran",
                "sessions did not end in their waves"
            );
        }
        self.lifecycle.send_replace(Lifecycle::Closing);
        if tokio::time::timeout(last, tasks::joined(threads))
            .await
            .is_err()
        {
            tracing::error!(event = "workers_stuck", "workers did not end in time");
        }
    }

    /// A part is gone: nothing that needs it may be waited for. Sessions are told to go, as far as
    /// that still works, and what this node has in Redis is left to those who clean up after the
    /// dead.
    pub(super) async fn break_off(&self, threads: Vec<JoinHandle<()>>) {
        systemd::stopping();
        self.lifecycle.send_replace(Lifecycle::Closing);
        let _ = tokio::time::timeout(BROKEN_OFF, tasks::joined(threads)).await;
        self.lifecycle.send_replace(Lifecycle::Stopped);
        self.otlp.stop().await;
    }

    /// Takes back what this node has in Redis. What cannot be taken back in time belongs to a
    /// node without a lease and is not shown.
    pub(super) async fn give_back(&self) {
        let have_left = self.services.presence.settle(GIVE_BACK).await;
        let cluster = &self.cluster;
        let _ = tokio::time::timeout(GIVE_BACK, cluster.occupancy.settled()).await;
        let is_bare = have_left && cluster.occupancy.is_bare();
        // What is on its way is moved under the leases of now.
        let _ = tokio::time::timeout(GIVE_BACK, cluster.queue.stop()).await;
        let _ = tokio::time::timeout(GIVE_BACK, cluster.partitions.release()).await;
        let _ = tokio::time::timeout(GIVE_BACK, cluster.membership.leave(is_bare)).await;
    }

    /// Ends the broker's connections, and sends what the collector has not got.
    pub(super) async fn end(&self) {
        match &*self.services.broker {
            Broker::Redis(redis) => {
                let patience = stop_time::end_of_broker(&self.config);
                if tokio::time::timeout(patience, redis.stop()).await.is_err() {
                    tracing::error!(
                        event = "broker_part_stuck",
                        part = "redis",
                        "the connections to Redis do not end"
                    );
                }
            }
            Broker::Memory(memory) => memory.tell_lost(),
        }
        self.lifecycle.send_replace(Lifecycle::Stopped);
        tracing::info!(event = "node_stopped", "stopped");
        self.otlp.stop().await;
    }
}

/// Waits for a signal or the order to drain, until this node has no place in the cluster any more,
/// or until a vital part of it has ended.
pub(super) async fn until_end(broker: &Broker, membership: &Membership, leave: &Notify) -> End {
    let mut standing = membership.standing();
    let no_place = async {
        match standing
            .wait_for(MembershipState::is_final)
            .await
            .as_deref()
        {
            Ok(MembershipState::NameTaken) => End::NameTaken,
            Ok(_) => End::Superseded,
            // The task ended by a panic, which ends the node.
            Err(_) => std::future::pending().await,
        }
    };
    let (end, signals_count) = tokio::select! {
        // What is superseded may lose parts too.
        biased;
        end = no_place => (end, 0),
        () = signal() => (End::Stopped, 1),
        () = leave.notified() => (End::Stopped, 0),
        end = disagrees(broker) => (end, 0),
        failure = tasks::failed() => {
            let tasks::Failure { part, reason, .. } = failure;
            tracing::error!(
                event = "vital_part_ended",
                part = part.as_str(),
                reason,
                exit_code = 70,
                "a part of the node has ended without which it is none; the process ends"
            );
            (End::Failed(part), 0)
        }
    };
    tasks::spawn("second_signal", async move {
        // A node that was told to drain is mostly sent the signal as well, and goes on in order.
        for _ in signals_count..2 {
            signal().await;
        }
        tracing::warn!(
            event = "second_signal_received",
            "a second signal: ending at once"
        );
        logs::flush();
        std::process::exit(130);
    });
    end
}

/// Waits until this node is known to differ from the cluster.
async fn disagrees(broker: &Broker) -> End {
    let Broker::Redis(redis) = broker else {
        return std::future::pending().await;
    };
    let mut told = redis.disagreement();
    let differs = told.wait_for(Option::is_some).await;
    match differs.ok().as_deref() {
        Some(Some(disagreement)) => End::Disagrees(disagreement.to_string()),
        _ => std::future::pending().await,
    }
}

async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!(
            event = "signals_refused",
            "signals cannot be received on this system"
        );
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
