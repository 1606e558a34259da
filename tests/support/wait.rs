//! Waiting with a deadline: no test sleeps for a guess.

use std::time::{Duration, Instant};

/// Longest wait for anything that takes well under a second on an idle machine. Only a test that
/// fails waits so long, so it is more than a machine needs on which two builds run as well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` returns something.
///
/// # Panics
/// After [`PATIENCE`], naming `what` was waited for.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// Waits until `look` returns something, at most so long.
///
/// # Panics
/// After `patience`, naming `what` was waited for.
pub async fn until_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
