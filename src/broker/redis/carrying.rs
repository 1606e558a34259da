//! Whether publications bring contexts of traces, until an instant.
//!
//! In: until when it is known that every node reads them. Out: yes or no, each time that a publication
//! is sent; a process that was paused meanwhile finds that the instant is over before anybody tells it
//! who came. Shared by the masters; any thread asks, and nobody waits. Bound: one number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// See the module.
#[derive(Debug)]
pub struct Carrying {
    born: Instant,
    /// Microseconds after that; 0: no contexts.
    until_us: AtomicU64,
}

impl Default for Carrying {
    /// Without contexts.
    fn default() -> Self {
        Self {
            born: Instant::now(),
            until_us: AtomicU64::new(0),
        }
    }
}

impl Carrying {
    /// Contexts are sent until then; `None`: not from now on.
    pub fn set(&self, until: Option<Instant>) {
        let since_born = |until: Instant| until.saturating_duration_since(self.born);
        let until_us = until.map_or(0, |until| us(since_born(until)));
        self.until_us.store(until_us, Ordering::Relaxed);
    }

    /// Whether that is so now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on_at(Instant::now())
    }

    fn is_on_at(&self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.born);
        us(passed) < self.until_us.load(Ordering::Relaxed)
    }
}

fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_sent_until_what_is_known_of_nodes_is_too_old() {
        let carrying = Carrying::default();
        let at = |seconds| carrying.born + Duration::from_secs(seconds);
        assert!(!carrying.is_on_at(at(0)));
        carrying.set(Some(at(5)));
        assert!(carrying.is_on_at(at(0)) && carrying.is_on_at(at(4)));
        // The process was paused, and nobody had told it yet.
        assert!(!carrying.is_on_at(at(5)));
        carrying.set(Some(at(60)));
        assert!(carrying.is_on_at(at(5)));
        carrying.set(None);
        assert!(!carrying.is_on_at(at(5)));
    }
}
