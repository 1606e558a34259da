//! One line where something goes wrong again and again: at its beginning, and at its end how often.
//!
//! In: [`Episode::begins`] for each time, from any thread. Out: whether this one begins an episode; and
//! [`Episode::ended`], for whoever began it, once nothing has happened for [`QUIET`]. Bounds: one
//! number.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// An episode has ended when nothing of it has happened for so long.
pub const QUIET: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Episode {
    /// How often in this episode; 0 outside of one.
    count: AtomicU64,
}

impl Episode {
    /// Counts one more, and says whether it is the first. Whoever gets `true` reports it, and
    /// awaits [`Self::ended`].
    #[must_use]
    pub fn begins(&self) -> bool {
        self.count.fetch_add(1, Relaxed) == 0
    }

    /// Waits for the end of the episode, and returns how often it happened. Cancelled, the episode
    /// has no end.
    pub async fn ended(&self) -> u64 {
        self.ended_after(QUIET).await
    }

    async fn ended_after(&self, quiet: Duration) -> u64 {
        loop {
            let seen = self.count.load(Relaxed);
            tokio::time::sleep(quiet).await;
            let ended = self.count.compare_exchange(seen, 0, Relaxed, Relaxed);
            if ended.is_ok() {
                return seen;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_episode_begins_once_and_ends_with_how_often() {
        let episode = Episode::default();
        assert!(episode.begins());
        // More of it comes while its end is waited for.
        let more = async { (0..3).filter(|_| episode.begins()).count() };
        let ended = episode.ended_after(Duration::from_millis(20));
        assert_eq!(tokio::join!(biased; ended, more), (4, 0));
        assert!(episode.begins());
    }
}
