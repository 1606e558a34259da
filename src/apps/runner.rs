//! Reads the stored apps for as long as the node runs: when it is rung, and about every 4 seconds.
//!
//! In: time, the bell of [`Apps`](super::Apps), the store. Out: readings into [`Keeper`], and what the log
//! says of a store that does not answer. Owner: the control runtime.
//! Bounds: one reading at a time; one that is not answered ends by the timeout of its link. Between two
//! lies [`REST`] at least, however often it is rung.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keeper::Keeper;
use super::store::StoreError;

/// For so long it is waited for a bell at the most. Nodes wait for different times, so that they do not
/// all read at once.
pub const READ_EVERY: Duration = Duration::from_secs(5);
/// The same before the first reading.
const FIRST_EVERY: Duration = Duration::from_millis(100);
/// The same while the store does not answer.
const AGAIN_EVERY: Duration = Duration::from_secs(1);
/// Between two readings that were rung for.
const REST: Duration = Duration::from_millis(50);
/// For so long a node is not ready because of it, at the most.
const FIRST_WITHIN: Duration = Duration::from_secs(3);

/// Reads for as long as the node runs.
pub async fn run(keeper: Arc<Keeper>) {
    let mut failing = Failing::default();
    let begun_at = Instant::now();
    loop {
        let read = keeper.read().await;
        let every = match &read {
            _ if !keeper.apps.are_read() => FIRST_EVERY,
            Ok(()) => READ_EVERY,
            Err(_) => AGAIN_EVERY,
        };
        failing.tell(read, &keeper);
        if keeper.is_awaited() && begun_at.elapsed() >= FIRST_WITHIN {
            keeper.wait_no_longer();
        }
        tokio::time::sleep(REST).await;
        let _ = tokio::time::timeout(spread(every), keeper.apps.rung()).await;
    }
}

/// Six to ten tenths of it.
fn spread(every: Duration) -> Duration {
    every.mul_f64(0.6 + 0.4 * rand::random::<f64>())
}

/// Whether the store does not answer, told once.
#[derive(Default)]
struct Failing {
    is_told: bool,
}

impl Failing {
    fn tell(&mut self, read: Result<(), StoreError>, keeper: &Keeper) {
        match read {
            Ok(()) if std::mem::take(&mut self.is_told) => {
                tracing::info!(event = "stored_apps_read", "stored apps can be read again");
            }
            Ok(()) => {}
            Err(error) => {
                // While the first reading is waited for the node is not ready, and says why.
                if !keeper.is_awaited() && !std::mem::replace(&mut self.is_told, true) {
                    let error = &error as &(dyn std::error::Error + 'static);
                    tracing::warn!(
                        event = "stored_apps_missed",
                        error,
                        "stored apps cannot be read; those that are known stay"
                    );
                }
            }
        }
    }
}
