//! The time of the in-process broker, in unix milliseconds: the machine's, or one that a test sets.
//!
//! In: the machine's clock. Out: the milliseconds of positions and the ends of what is kept. Owns
//! nothing; it may step backwards, which positions survive because they never go below the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the broker takes the time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The machine's clock.
    System,
    /// Unix milliseconds that somebody else sets, also backwards.
    Manual(Arc<AtomicU64>),
}

impl Clock {
    /// Unix milliseconds now. A clock before 1970 reads as 0.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            Self::Manual(now_ms) => now_ms.load(Ordering::Relaxed),
        }
    }
}
