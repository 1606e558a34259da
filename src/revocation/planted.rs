//! Faults of revocation that tests of whole nodes plant in them, to see that their checks find what is broken.
//!
//! In: what `node::planted` read from the environment, with `--dev` alone. Out: whether doorbells are heard
//! at the moment, and whether is read though none rings. Owner: the process. Bound: one value.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static PLANTED: OnceLock<Planted> = OnceLock::new();

/// What is planted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Planted {
    /// For so long no doorbell of others is heard, then each for as long, and so on, by the wall clock.
    pub deaf: Option<Duration>,
    /// Only a doorbell makes it read.
    pub never_polls: bool,
}

/// Plants it, once in the life of the process.
pub fn plant(planted: Planted) {
    let _ = PLANTED.set(planted);
}

/// Whether a doorbell that rings now is lost.
pub(super) fn is_deaf() -> bool {
    let deaf = PLANTED.get().and_then(|planted| planted.deaf);
    deaf.is_some_and(|deaf| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_ms = now.unwrap_or_default().as_millis();
        now_ms / deaf.as_millis().max(1) % 2 == 1
    })
}

/// Whether is read though nothing rings.
pub(super) fn polls() -> bool {
    !PLANTED.get().is_some_and(|planted| planted.never_polls)
}
