//! Reads the stored apps for as long as the node runs: every 5 seconds whether anything has changed, and
//! once a minute all of them.
//!
//! In: time, the store. Out: readings into [`Keeper`], and what the log says of a store that does not
//! answer. Owner: the control runtime. Bounds: one reading at a time; one that is not answered ends by
//! the timeout of its link.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::keeper::Keeper;

/// How often it is looked whether anything has changed.
pub const READ_EVERY: Duration = Duration::from_secs(5);
/// The same before the first reading.
const FIRST_EVERY: Duration = Duration::from_millis(100);
/// For so long a node is not ready because of it, at the most.
const FIRST_WITHIN: Duration = Duration::from_secs(3);
/// How often all are read though nothing has changed: another program may have written them.
pub const WHOLE_EVERY: Duration = Duration::from_secs(60);

/// Reads for as long as the node runs.
pub async fn run(keeper: Arc<Keeper>) {
    let mut looks = tokio::time::interval(READ_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut is_failing, begun_at) = (false, Instant::now());
    loop {
        looks.tick().await;
        match keeper.read(WHOLE_EVERY).await {
            Ok(()) if is_failing => {
                is_failing = false;
                tracing::info!(event = "stored_apps_read", "stored apps can be read again");
            }
            Ok(()) => {}
            Err(error) => {
                // While the first reading is waited for the node is not ready, and says why.
                if !keeper.is_awaited() && !std::mem::replace(&mut is_failing, true) {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(
                        event = "stored_apps_missed",
                        error,
                        "stored apps cannot be read; those that are known stay"
                    );
                }
            }
        }
        if keeper.is_awaited() {
            looks.reset_after(FIRST_EVERY);
            if begun_at.elapsed() >= FIRST_WITHIN {
                keeper.wait_no_longer();
            }
        }
    }
}
