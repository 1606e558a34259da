//! Tests that load a whole machine take turns.
//!
//! Tests of one binary run side by side. Those of three nodes under load, of many hundred sockets,
//! and those that measure would disturb each other, so that each begins with [`heavy`]. Binaries
//! follow each other anyway.

use tokio::sync::{Mutex, MutexGuard};

static HEAVY: Mutex<()> = Mutex::const_new(());

/// Waits until no other heavy test runs. The turn lasts as long as what is returned.
#[must_use = "the turn lasts as long as this"]
pub async fn heavy() -> MutexGuard<'static, ()> {
    HEAVY.lock().await
}
