//! Threads that check signatures which cost more than a worker may be held.
//!
//! In: a closure with its bytes, and whether it is for a stranger. Out: what it returns, or why not. Owner: the
//! node; the threads start with the first job and end with the pool. Bounds: [`THREADS_MAX`]; in each
//! [`Lane`] [`JOBS_MAX`] and [`BYTES_MAX`] of jobs that wait, each until its deadline. At a bound the job is
//! not taken.
//!
//! While jobs wait in both lanes each has half of the threads' time, whatever its jobs cost: strangers cannot
//! hold up those who are known, and those cannot keep everybody new out.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::tasks;

/// Most threads; half as many as cores, and at least one.
pub const THREADS_MAX: usize = 4;
/// Most jobs that wait in a lane. A stranger's is one token: about 0.1 s of ES256 on one thread, and 0.6 s of
/// RSA with 8,192 bits.
pub const JOBS_MAX: usize = 1_024;
/// Most bytes of their tokens, in a lane.
pub const BYTES_MAX: usize = 4 * 1024 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// For whom a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// A session that has a user.
    Known,
    /// Anybody.
    Stranger,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many wait as may, or the system has no threads.
    Full,
    /// The deadline has come.
    Late,
}

/// See the module.
#[derive(Default)]
pub struct Pool {
    shared: OnceLock<Option<Arc<Shared>>>,
}

#[derive(Default)]
struct Shared {
    lanes: Mutex<Lanes>,
    bell: Condvar,
}

#[derive(Default)]
struct Lanes {
    known: Queue,
    strangers: Queue,
    /// By how much more the known lane has had, while jobs waited in both.
    known_ahead: Duration,
    strangers_ahead: Duration,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(usize, Job)>,
    /// Of the jobs that wait.
    bytes: usize,
}

impl Pool {
    /// Runs `work` on one of the threads, if one has time for it before the deadline. Cancel-safe: what was
    /// not begun is not done.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        bytes: usize,
        until: tokio::time::Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let shared = self.shared.get_or_init(start).as_ref();
        let shared = shared.ok_or(Refused::Full)?;
        let (answer, answered) = oneshot::channel();
        let job = move || {
            // Where nobody waits any more, what would be said is of no use.
            if !answer.is_closed() {
                let _ = answer.send(work());
            }
        };
        if !shared.lanes().queue(lane).push(bytes, Box::new(job)) {
            return Err(Refused::Full);
        }
        shared.bell.notify_one();
        match tokio::time::timeout_at(until, answered).await {
            Ok(answer) => answer.map_err(|_| Refused::Full),
            Err(_) => Err(Refused::Late),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(Some(shared)) = self.shared.get() {
            shared.lanes().is_closed = true;
            shared.bell.notify_all();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Queue {
    /// False: it has no room.
    fn push(&mut self, bytes: usize, job: Job) -> bool {
        let has_room = self.jobs.len() < JOBS_MAX && self.bytes + bytes <= BYTES_MAX;
        if has_room {
            self.bytes += bytes;
            self.jobs.push_back((bytes, job));
        }
        has_room
    }

    fn pop(&mut self) -> Option<Job> {
        let (bytes, job) = self.jobs.pop_front()?;
        self.bytes -= bytes;
        Some(job)
    }
}

impl Lanes {
    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Known => &mut self.known,
            Lane::Stranger => &mut self.strangers,
        }
    }

    /// The next job: of the lane that has had less, if that has one.
    fn next(&mut self) -> Option<(Lane, Job)> {
        let order = match self.known_ahead > self.strangers_ahead {
            true => [Lane::Stranger, Lane::Known],
            false => [Lane::Known, Lane::Stranger],
        };
        let mut found = order.into_iter();
        found.find_map(|lane| Some((lane, self.queue(lane).pop()?)))
    }

    /// A job of this lane took so long. What a lane had while the other wanted nothing is not counted.
    fn count(&mut self, lane: Lane, took: Duration) {
        if self.known.jobs.is_empty() || self.strangers.jobs.is_empty() {
            (self.known_ahead, self.strangers_ahead) = (Duration::ZERO, Duration::ZERO);
            return;
        }
        match lane {
            Lane::Known => self.known_ahead += took,
            Lane::Stranger => self.strangers_ahead += took,
        }
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; `None`: the pool is dropped.
    fn wait(&self) -> Option<(Lane, Job)> {
        let mut lanes = self.lanes();
        loop {
            if lanes.is_closed {
                return None;
            }
            if let Some(next) = lanes.next() {
                return Some(next);
            }
            lanes = self
                .bell
                .wait(lanes)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// How many threads there are.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, THREADS_MAX)
}

/// Starts the threads; `None` where the system has none to give.
fn start() -> Option<Arc<Shared>> {
    let shared = Arc::<Shared>::default();
    for number in 0..threads() {
        let of_thread = Arc::clone(&shared);
        let started = tasks::thread(format!("checks-{number}"), move || work(&of_thread));
        if let Err(error) = started {
            tracing::error!(
                event = "checks_refused",
                error = &error as &(dyn std::error::Error + 'static),
                "the system has no thread for checks of tokens"
            );
            shared.lanes().is_closed = true;
            shared.bell.notify_all();
            return None;
        }
    }
    Some(shared)
}

/// Jobs, one after the other, until the pool is dropped. A job that panics ends the node by
/// [`tasks::thread`], because a check has no reason to.
fn work(shared: &Shared) {
    while let Some((lane, job)) = shared.wait() {
        let begun_at = Instant::now();
        job();
        shared.lanes().count(lane, begun_at.elapsed());
    }
}

#[cfg(test)]
mod tests;
