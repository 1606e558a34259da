//! The node's part in revocation: who reads, who is told, and the answer to a call.
//!
//! In: the configuration, the broker, what the API revokes. Out: the task that reads, the one that
//! tells workers ten times a second what is new, and for each call which nodes have read it. Bounds:
//! a call waits for [`PATIENCE`]; what is new waits, as hashes, for a worker whose queue is full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, timeout_at};

use crate::api::state::{Component, PartState};
use crate::apps::Apps;
use crate::broker::{Broker, BrokerError};
use crate::cluster::membership::Membership;
use crate::config::Config;
use crate::revocation::adding::{Added, Adding, Asked};
use crate::revocation::known::Revocations;
use crate::revocation::news::News;
use crate::revocation::runner::{self, Runner};
use crate::revocation::store::{Store, StoreError};
use crate::revocation::{ENTRIES_MAX, Target, name_of};
use crate::tasks::{self, turns};
use crate::telemetry::metrics::Metrics;
use crate::worker::handle::{Inbound, WorkerHandle};
use fanfare_protocol::ids::App;

/// How long a call waits for the nodes to read.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often workers are told what is new.
const SCAN_EVERY: Duration = Duration::from_millis(100);
/// How often a call that waits asks for the other nodes' heartbeats.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Clone)]
pub struct Revoking {
    /// What this node knows.
    pub known: Revocations,
    /// Asks for a heartbeat, which says how far this node has read.
    pub hurry: Arc<Notify>,
    store: Store,
    apps: Arc<Apps>,
}

impl Revoking {
    /// Starts the task that reads.
    #[must_use]
    pub fn start(
        (config, apps): (&Config, &Arc<Apps>),
        broker: &Broker,
        metrics: &Metrics,
    ) -> Self {
        let hurry = Arc::<Notify>::default();
        let counts = Arc::clone(&metrics.revocations);
        let (known, store) = match broker {
            Broker::Redis(redis) => (
                Revocations::clustered(config.redis.lease),
                Store::redis(redis.urgent(), redis.keys()),
            ),
            Broker::Memory(_) => (Revocations::default(), Store::memory()),
        };
        let known = known.counting(counts);
        let runner = Runner {
            known: known.clone(),
            store: store.clone(),
            token_life_max: config.auth.token_life_max,
            progress: Arc::clone(&hurry),
        };
        tasks::vital("revocations", turns::polled("revocations", runner.run()));
        Self {
            known,
            store,
            hurry,
            apps: Arc::clone(apps),
        }
    }

    /// Tells the workers what is new, for as long as the node runs.
    pub fn tell(&self, workers: Vec<WorkerHandle>) {
        let known = self.known.clone();
        tasks::vital("revocation_news", async move {
            let mut scans = tokio::time::interval(SCAN_EVERY);
            scans.set_missed_tick_behavior(MissedTickBehavior::Delay);
            // What each worker is still to be told.
            let mut owed = vec![News::default(); workers.len()];
            loop {
                scans.tick().await;
                let news = known.take_news();
                for (worker, owed) in workers.iter().zip(&mut owed) {
                    owed.merge(news.clone());
                    if owed.is_empty() {
                        continue;
                    }
                    let message = Inbound::Revoked(std::mem::take(owed).into());
                    if let Err(Inbound::Revoked(back)) = worker.send(message) {
                        *owed = News::clone(&back);
                    }
                }
            }
        });
    }

    /// Adds entries of an app. `issued_before` as [`Asked::issued_before`].
    ///
    /// # Errors
    /// [`StoreError`]: they may have been added.
    pub async fn add(
        &self,
        app: &App,
        targets: &[Target],
        issued_before: Option<u64>,
    ) -> Result<(Added, Vec<Box<str>>), StoreError> {
        let names: BTreeSet<_> = targets.iter().map(|target| name_of(app, target)).collect();
        let names: Vec<_> = names.into_iter().collect();
        let asked = names.iter().map(|name| Asked {
            name: name.clone(),
            issued_before,
            until_ms: None,
        });
        let adding = Adding {
            asked: asked.collect(),
            // As long as tokens of this app may live.
            kept_ms: runner::kept_ms(self.apps.or_nobody(app).auth.token_life_max),
            above: self.known.read_to(),
            most: ENTRIES_MAX,
        };
        let added = self.store.add(&adding).await?;
        self.known.ring();
        Ok((added, names))
    }

    /// The live nodes that have not said yet that they have read these entries, sorted; empty as soon
    /// as there is none, or what is left when the time is over.
    pub async fn waiting(
        &self,
        membership: &Membership,
        names: &[Box<str>],
        issued_before: u64,
    ) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut readings = self.known.readings();
        let mut view = membership.view();
        loop {
            let waiting = self.not_read(membership, names, issued_before);
            if waiting.is_empty() || Instant::now() >= until {
                return waiting;
            }
            self.hurry.notify_one();
            let look_at = until.min(Instant::now() + LOOK_EVERY);
            // All waits are cancel-safe, and whatever ends them, it is looked again.
            let change = async {
                tokio::select! {
                    _ = readings.changed() => {}
                    _ = view.changed() => {}
                }
            };
            let _ = timeout_at(look_at, change).await;
        }
    }

    fn not_read(
        &self,
        membership: &Membership,
        names: &[Box<str>],
        issued_before: u64,
    ) -> Vec<String> {
        let view = membership.now();
        let others = view
            .nodes
            .iter()
            .filter(|node| node.owner.node != view.me.node);
        let told = others.map(|node| (&node.owner.node, node.details.revoked));
        let all = told.chain([(&view.me.node, self.known.read_to())]);
        let mut waiting: Vec<_> = all
            .filter(|(_, read_to)| !self.known.covers(*read_to, names, issued_before))
            .map(|(node, _)| node.to_string())
            .collect();
        waiting.sort_unstable();
        waiting
    }
}

/// Why a call could not be carried out.
pub(super) fn broker_error(error: StoreError) -> BrokerError {
    match error {
        StoreError::Redis(error) => error.into(),
        StoreError::Unexpected => BrokerError::Unexpected(error.to_string()),
    }
}

/// Whether this node takes tokens.
#[must_use]
pub fn part(known: &Revocations) -> Component {
    let (count, bytes) = known.size();
    let age_ms = known.age().map_or(0, super::millis);
    let unread = known.unread().map(str::to_owned);
    let detail = unread
        .clone()
        .unwrap_or_else(|| format!("revocations known: {count}"));
    Component::new("revocations", detail)
        .state(PartState::Degraded, unread)
        .figure("entries", count as u64, Some(ENTRIES_MAX as u64))
        .figure("memory_bytes", bytes as u64, None)
        .figure("read_age_ms", age_ms, None)
}
