//! How publishers are held to the pace at which this node delivers.
//!
//! In: how many messages wait for each worker. Out: an answer to a publisher that goes out a little
//! later while a worker is behind; the broker has the publications already. A publisher that waits
//! for its answers, as most do, then goes as fast as its messages are delivered, and what waits
//! stays short: without this, eight publishers on one node saw half a second between answer and
//! delivery, or thousands of messages that went to catch-up. It acts once for each answer, however
//! many publications that is about. Bounds: [`HELD_MAX`], then the answer goes out all the same.

use std::time::Duration;

use crate::telemetry::metrics::Metrics;

/// Messages for one worker from which on publishers wait: so many are merged into one write, and
/// with 1,000 sessions on the topic they are some milliseconds of work.
const WAITING_MAX: u64 = 16;
/// How often a publisher that waits looks again.
const LOOK: Duration = Duration::from_millis(1);
/// The longest that an answer is held back.
pub const HELD_MAX: Duration = Duration::from_secs(1);

/// Waits until no worker is far behind. Cancel-safe.
pub async fn relieved(metrics: &Metrics) {
    if is_relieved(metrics) {
        return;
    }
    metrics.control.publish_held.add(1);
    let relieved = async {
        while !is_relieved(metrics) {
            tokio::time::sleep(LOOK).await;
        }
    };
    // A worker that stands still holds nobody up for longer.
    let _ = tokio::time::timeout(HELD_MAX, relieved).await;
}

fn is_relieved(metrics: &Metrics) -> bool {
    let mut workers = metrics.workers.iter();
    workers.all(|worker| worker.counters.queued.get() < WAITING_MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_is_held_back_while_a_worker_is_behind_and_not_for_ever() {
        let metrics = Metrics::new(2);
        let behind = &metrics.workers[1].counters.queued;
        behind.add(WAITING_MAX - 1);
        assert_eq!(relieved(&metrics).now_or_never(), Some(()));
        behind.add(1);
        let mut held = Box::pin(relieved(&metrics));
        assert_eq!((&mut held).now_or_never(), None);
        behind.sub(1);
        held.await;
        behind.add(1);
        relieved(&metrics).await;
        assert_eq!(behind.get(), WAITING_MAX, "the worker stands still");
        assert_eq!(metrics.control.publish_held.get(), 2);
    }
}
