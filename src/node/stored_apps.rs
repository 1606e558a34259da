//! The node's part in apps that the API sets: who reads and sets them, and how that does.
//!
//! In: the apps of the file, the broker. Out: the task that reads what is stored, the handle by which the
//! API sets apps, and a part of the health. Owns nothing.

use std::sync::Arc;

use tokio::sync::watch;

use crate::api::state::{Component, PartState};
use crate::apps::Apps;
use crate::apps::keeper::Keeper;
use crate::apps::runner;
use crate::apps::store::Store;
use crate::auth::keys::try_key;
use crate::broker::{Broker, BrokerHealth};
use crate::config::Config;
use crate::config::app_reader::APPS_MAX;
use crate::config::inputs::TryKey;
use crate::tasks::{self, turns};
use crate::telemetry::metrics::Metrics;

/// Starts the task that reads what is stored.
#[must_use]
pub(super) fn start(
    apps: &Arc<Apps>,
    config: &Config,
    broker: &Broker,
    metrics: &Metrics,
) -> Arc<Keeper> {
    let store = match broker {
        Broker::Redis(redis) => Store::redis(redis.bulk(), redis.keys()),
        Broker::Memory(_) => Store::memory(),
    };
    let judge: TryKey = |key| try_key(key).map_err(|fault| fault.to_string());
    let reads = (Arc::clone(&config.inherited), judge);
    let keeper = Keeper::new(Arc::clone(apps), store, reads, Arc::clone(&metrics.apps));
    let keeper = Arc::new(keeper);
    let reads = runner::run(Arc::clone(&keeper));
    tasks::vital("stored_apps", turns::polled("stored_apps", reads));
    tasks::spawn("stored_apps_link", ring(broker.health(), Arc::clone(apps)));
    keeper
}

/// Asks for a reading whenever Redis is back, until nothing tells of it any more.
async fn ring(mut health: watch::Receiver<BrokerHealth>, apps: Arc<Apps>) {
    let is_up = |health: &BrokerHealth| !matches!(health, BrokerHealth::Down(_));
    let mut was_up = is_up(&health.borrow_and_update());
    while health.changed().await.is_ok() {
        let now = is_up(&health.borrow_and_update());
        if now && !was_up {
            apps.ring();
        }
        was_up = now;
    }
}

/// Whether all apps that are stored are in force. The file may have as many as the store, beside `default`.
#[must_use]
pub(super) fn part(keeper: &Keeper) -> Component {
    let count = keeper.apps_count();
    let trouble = keeper.trouble();
    let detail = trouble
        .clone()
        .unwrap_or_else(|| format!("apps known: {count}"));
    Component::new("apps", detail)
        .state(PartState::Degraded, trouble)
        .figure("apps", count as u64, Some(2 * APPS_MAX as u64 + 1))
}
