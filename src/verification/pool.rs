//! Threads that check signatures which cost more than a worker may be held.
//!
//! In: a closure with its bytes. Out: what it returns, or nothing where the pool is full. Owner: the
//! node; the threads start with the first job and end with the pool. Bounds: [`THREADS_MAX`],
//! [`JOBS_MAX`] and [`BYTES_MAX`] of jobs that wait. At a bound the job is not taken.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::oneshot;

use crate::tasks;

/// Most threads; half as many as cores, and at least one.
pub const THREADS_MAX: usize = 4;
/// Most jobs that wait: about 0.1 s of ES256 on one thread, and 0.6 s of RSA with 8,192 bits.
pub const JOBS_MAX: usize = 1_024;
/// Most bytes of their tokens.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Default)]
pub struct Pool {
    jobs: OnceLock<Option<SyncSender<Job>>>,
    bytes: Arc<AtomicUsize>,
}

/// The bytes of a job, until it is done or dropped.
struct Bytes(Arc<AtomicUsize>, usize);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

impl Pool {
    /// Runs `work` on one of the threads; `None` where there is no room. Cancel-safe.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let taken = self.bytes.fetch_add(bytes, Relaxed);
        let held = Bytes(Arc::clone(&self.bytes), bytes);
        if taken + bytes > BYTES_MAX {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Where nobody waits any more, what would be said is of no use.
            let done = (!answer.is_closed()).then(work);
            drop(held);
            if let Some(done) = done {
                let _ = answer.send(done);
            }
        };
        let jobs = self.jobs.get_or_init(start).as_ref()?;
        jobs.try_send(Box::new(job)).ok()?;
        answered.await.ok()
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

/// How many threads there are.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, THREADS_MAX)
}

/// Starts the threads; `None` where the system has none to give.
fn start() -> Option<SyncSender<Job>> {
    let (sender, receiver) = sync_channel(JOBS_MAX);
    let receiver = Arc::new(Mutex::new(receiver));
    for number in 0..threads() {
        let jobs = Arc::clone(&receiver);
        let started = tasks::thread(format!("checks-{number}"), move || work(&jobs));
        if let Err(error) = started {
            tracing::error!(
                event = "checks_refused",
                error = &error as &(dyn std::error::Error + 'static),
                "the system has no thread for checks of tokens"
            );
            return None;
        }
    }
    Some(sender)
}

/// Jobs, one after the other, until the pool is dropped. A job that panics ends the node by
/// [`tasks::thread`], because a check has no reason to.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let next = {
            let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
            jobs.recv()
        };
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn what_has_no_room_is_not_taken_and_room_comes_back() {
        let pool = Pool::default();
        assert_eq!(pool.run(1, || 5).await, Some(5));
        assert_eq!(pool.run(BYTES_MAX + 1, || 5).await, None);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let (begins, begun) = mpsc::channel::<()>();
        let blocking = || {
            let (held, begins) = (Arc::clone(&held), begins.clone());
            Box::pin(pool.run(1, move || {
                let _ = begins.send(());
                let held = held.lock().unwrap_or_else(PoisonError::into_inner);
                held.recv_timeout(Duration::from_secs(60)).is_ok()
            }))
        };
        // First every thread is held, then as many wait as may.
        let mut blocked = futures_util::future::join_all((0..threads()).map(|_| blocking()));
        let waits = tokio::time::timeout(Duration::from_millis(50), &mut blocked).await;
        assert!(waits.is_err(), "the threads are held");
        for _ in 0..threads() {
            begun.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        let mut waiting = futures_util::future::join_all((0..JOBS_MAX).map(|_| blocking()));
        let waits = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
        assert!(waits.is_err(), "the threads are held");
        assert_eq!(pool.run(1, || 5).await, None, "as many as may wait do");
        for _ in 0..threads() + JOBS_MAX {
            release.send(()).unwrap();
        }
        let answers = [blocked.await, waiting.await].concat();
        assert!(answers.iter().all(|answer| *answer == Some(true)));
        assert_eq!(pool.run(1, || 5).await, Some(5));
    }

    #[tokio::test]
    async fn a_job_that_nobody_waits_for_gives_its_bytes_back() {
        let pool = Pool::default();
        drop(pool.run(9, || 5));
        let cut = tokio::time::timeout(Duration::ZERO, pool.run(9, || 5)).await;
        assert!(cut.is_err() || cut == Ok(Some(5)));
        assert_eq!(pool.run(1, || 6).await, Some(6));
        fanfare_testkit::wait::until_equal(0, async || pool.bytes.load(Relaxed)).await;
    }
}
