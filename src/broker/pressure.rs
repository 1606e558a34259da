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

/// The longest that an answer is held back.
pub const HELD_MAX: Duration = Duration::from_secs(1);

/// Waits until every worker has been seen not to be behind. Cancel-safe.
pub async fn relieved(metrics: &Metrics) {
    if !metrics.workers.iter().any(|worker| worker.is_behind()) {
        return;
    }
    metrics.control.publish_held.add(1);
    let relieved = async {
        for worker in &metrics.workers {
            worker.relieved().await;
        }
    };
    // A worker that stands still holds nobody up for longer.
    let _ = tokio::time::timeout(HELD_MAX, relieved).await;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::telemetry::metrics::BEHIND_FROM;

    #[tokio::test]
    async fn an_answer_is_held_back_while_a_worker_is_behind_and_not_for_ever() {
        let metrics = Metrics::new(2);
        let worker = &metrics.workers[1];
        let queued = &worker.counters.queued;
        queued.add(BEHIND_FROM - 1);
        assert_eq!(relieved(&metrics).now_or_never(), Some(()));
        queued.add(2);
        let mut held = Box::pin(relieved(&metrics));
        assert_eq!((&mut held).now_or_never(), None);
        worker.done(1, 0);
        assert_eq!((&mut held).now_or_never(), None, "it is behind as before");
        worker.done(1, 0);
        assert_eq!((&mut held).now_or_never(), Some(()), "at once, by no timer");
        queued.add(1);
        relieved(&metrics).await;
        assert!(worker.is_behind(), "the worker stands still");
        assert_eq!(metrics.control.publish_held.get(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn relief_on_another_thread_is_heard_however_the_two_meet() {
        let metrics = Arc::new(Metrics::new(1));
        for _ in 0..5_000 {
            metrics.workers[0].counters.queued.add(BEHIND_FROM);
            let working = Arc::clone(&metrics);
            let work = tokio::spawn(async move { working.workers[0].done(BEHIND_FROM, 0) });
            let relieved = metrics.workers[0].relieved();
            let heard = tokio::time::timeout(Duration::from_secs(30), relieved).await;
            heard.expect("the worker is not behind, and whoever waits is told");
            work.await.unwrap();
        }
    }
}
