//! How long a signal leaves its collector alone after a request that was not taken.
//!
//! In: failures and successes of one signal. Out: the wait before its next request, whether that has the
//! same items or others. Owner: a courier. Bounds: pauses of its own are [`PAUSE_MIN`] to [`PAUSE_MAX`]
//! where the failure may pass, and up to [`REST_MAX`] where the collector refuses; each is twice the one
//! before, and drawn from its upper half, so that many nodes do not come at once. What the collector asks
//! for is kept to up to [`WISH_MAX`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::answer::Failure;

/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest one before what may pass is tried again.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The longest one after a refusal.
const REST_MAX: Duration = Duration::from_secs(60);
/// The longest one that a collector can ask for.
const WISH_MAX: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The next pause, where the last request failed.
    pause: Option<Duration>,
    /// When the next request may go out.
    until: Option<Instant>,
}

impl Patience {
    /// A request was taken.
    pub(super) fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }

    /// One was not. Returns when the next one may go out.
    pub(super) fn failed(&self, failure: &Failure) -> Instant {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let most = match failure.is_passing {
            true => PAUSE_MAX,
            false => REST_MAX,
        };
        let pause = state.pause.unwrap_or(PAUSE_MIN).min(most);
        state.pause = Some(pause * 2);
        let until = Instant::now() + wait(failure.after, drawn(pause));
        state.until = Some(until);
        until
    }

    /// Waits until the next request may go out, or the node ends.
    pub(super) async fn kept(&self, stop: &mut watch::Receiver<bool>) {
        let until = self.0.lock().unwrap_or_else(PoisonError::into_inner).until;
        if let Some(until) = until {
            tokio::select! {
                biased;
                // The sender lives as long as the node.
                _ = stop.wait_for(|stops| *stops) => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

fn drawn(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.0))
}

/// As long as the collector says, but neither at once nor for ever; and not all nodes at its end.
fn wait(told: Option<Duration>, own: Duration) -> Duration {
    told.map_or(own, |told| told.min(WISH_MAX) + own)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn failure(is_passing: bool, after: Option<u64>) -> Failure {
        Failure {
            is_passing,
            after: after.map(Duration::from_secs),
            ..Failure::lasting("why".to_owned())
        }
    }

    #[test]
    fn what_a_collector_says_makes_nobody_hurry_and_nobody_wait_for_ever() {
        let own = Duration::from_secs(1);
        let waits = |told: Option<u64>| wait(told.map(Duration::from_secs), own);
        assert_eq!(waits(None), own);
        assert_eq!(waits(Some(0)), own);
        assert_eq!(waits(Some(7)), Duration::from_secs(8));
        assert_eq!(waits(Some(u64::MAX)), WISH_MAX + own);
    }

    #[tokio::test]
    async fn pauses_grow_to_their_bound_and_a_success_ends_them() {
        let (_stop, mut stops) = watch::channel(false);
        for (is_passing, most) in [(true, PAUSE_MAX), (false, REST_MAX)] {
            let patience = Patience::default();
            let mut pause = PAUSE_MIN;
            for _ in 0..10 {
                let before = Instant::now();
                let until = patience.failed(&failure(is_passing, None));
                assert!(until >= before + pause / 2, "{pause:?}");
                assert!(until <= Instant::now() + pause, "{pause:?}");
                pause = (pause * 2).min(most);
            }
            assert_eq!(pause, most);
            patience.succeeded();
            let kept = patience.kept(&mut stops);
            assert_eq!(timeout(PAUSE_MIN, kept).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn the_end_of_the_node_ends_a_wait() {
        let (stop, mut stops) = watch::channel(false);
        let patience = Patience::default();
        patience.failed(&failure(true, Some(300)));
        stop.send_replace(true);
        let kept = patience.kept(&mut stops);
        assert_eq!(timeout(WISH_MAX / 10, kept).await, Ok(()));
    }
}
