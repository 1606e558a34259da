//! The only place that starts tasks and threads: each has a name, and is missed when it ends. Those
//! that everything waits for are missed when they hang, too ([`turns`]).
//!
//! A process without one of its parts serves nobody and says nothing of it, so the end of a vital
//! part is the end of the process ([`failed`]), with exit code 70 and a reason in the log:
//!
//! | started by | a panic | an end |
//! |---|---|---|
//! | [`vital`], [`vital_local`], [`vital_thread`] | ends the process | ends the process, unless it is leaving |
//! | [`spawn`], [`thread`] | ends the process | is in order |
//! | [`spawn_alone`], [`spawn_local`] | ends the task: a connection, a session | is in order |
//!
//! Lines that a task logs name it by a span, where that is enabled: at `debug`, for the target
//! `fanfare::tasks`. What runs on a worker has none, because a session would be larger by it.
//!
//! What takes long because a request is long is done by [`heavy`], so that nobody else of the
//! runtime waits for it.
//!
//! Nothing else in the crate spawns. [`plant`] lets tests of whole nodes make a part panic or hang.

use std::any::Any;
use std::backtrace::Backtrace;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::Either;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

pub mod running;
pub mod turns;

/// A part has ended without which the process is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub part: String,
    /// Why: what its panic said, or that it ended.
    pub reason: String,
    /// It did not end by itself.
    is_panic: bool,
}

/// What ends because another part has panicked may be told before the panic itself: for so long a
/// panic takes the place of an end.
const CAUSE_PATIENCE: Duration = Duration::from_millis(200);

/// Finding the names of a backtrace takes milliseconds, during which this thread does nothing else.
const TRACE_REST: Duration = Duration::from_millis(100);
/// For how long the end of the process waits for a panic that is being told.
const TRACE_PATIENCE: Duration = Duration::from_secs(5);

/// Work on so many bytes is heavy: a few tenths of a millisecond, which is what it costs to let
/// another thread go on with everything else.
pub const HEAVY_FROM: usize = 64 * 1_024;

/// Room for heavy work: half of the cores, so that it never has all of them.
static HEAVY: LazyLock<Semaphore> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(cores.div_ceil(2))
});

/// The first failure of this process.
static FAILED: LazyLock<watch::Sender<Option<Failure>>> = LazyLock::new(watch::Sender::default);

/// What is to go wrong in a part, for tests of whole nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It keeps its thread from everything else for so long.
    Hang(Duration),
}

/// The part in which something is to go wrong, what, and how long after its start.
static PLANTED: OnceLock<(String, Fault, Duration)> = OnceLock::new();
/// How many panics are being told.
static REPORTING: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// Waits for the first failure. Cancel-safe.
pub async fn failed() -> Failure {
    let mut failed = FAILED.subscribe();
    // The sender is never dropped.
    let _ = failed.wait_for(Option::is_some).await;
    let is_cause = |failure: &Option<Failure>| failure.as_ref().is_some_and(|f| f.is_panic);
    let known = tokio::time::timeout(CAUSE_PATIENCE, failed.wait_for(is_cause));
    let is_known = known.await.is_ok();
    let mut reporting = REPORTING.subscribe();
    let is_reporting = *reporting.borrow() > 0;
    if !is_known && is_reporting {
        // It is told with its backtrace first, and known behind that.
        let told = reporting.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(TRACE_PATIENCE, told).await;
        let _ = tokio::time::timeout(CAUSE_PATIENCE, failed.wait_for(is_cause)).await;
    }
    let failure = failed.borrow().clone();
    failure.expect("it was waited for")
}

/// Makes something go wrong in a part so long after its start. The first call counts.
pub fn plant(part: String, fault: Fault, after: Duration) {
    let _ = PLANTED.set((part, fault, after));
}

/// Lets the log tell every panic as one line, in its own form.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        REPORTING.send_modify(|count| *count += 1);
        let thread = std::thread::current();
        let at = panic.location().map(ToString::to_string);
        let backtrace = may_trace().then(Backtrace::force_capture);
        tracing::error!(
            event = "panic_reported",
            thread = thread.name(),
            at,
            text = text(panic.payload()),
            backtrace = backtrace.as_ref().map(tracing::field::display),
            "a panic"
        );
        REPORTING.send_modify(|count| *count -= 1);
    }));
}

/// Whether a panic is told with its backtrace: not within [`TRACE_REST`] of another one that was.
fn may_trace() -> bool {
    static TRACED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut traced = TRACED.lock().unwrap_or_else(PoisonError::into_inner);
    let may = traced.is_none_or(|at| at.elapsed() >= TRACE_REST);
    if may {
        *traced = Some(Instant::now());
    }
    may
}

/// Starts a task that runs as long as the process.
pub fn vital<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let named = in_its_span(name, future);
    tokio::spawn(guarded(name, named).map(move |ended| fail(name, ended)))
}

/// The same on the current worker's local set.
pub fn vital_local<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(guarded(name, future).map(move |ended| fail(name, ended)))
}

/// Starts a task that may end by itself.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let report = move |ended: Result<(), String>| {
        if ended.is_err() {
            fail(name, ended);
        }
    };
    tokio::spawn(guarded(name, in_its_span(name, future)).map(report))
}

/// Starts a task of which nothing else depends: a panic ends it alone.
pub fn spawn_alone<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let named = in_its_span(name, future);
    tokio::spawn(guarded(name, named).map(move |ended| contained(name, ended)))
}

/// The same on the current worker's local set.
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(guarded(name, future).map(move |ended| contained(name, ended)))
}

/// Starts a named thread that may end by itself.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub fn thread<F>(name: String, run: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    let part = name.clone();
    std::thread::Builder::new().name(name).spawn(move || {
        if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(run)) {
            fail(&part, Err(text(&*panic)));
        }
    })
}

/// Starts a named thread whose panic ends itself alone and is told; the process goes on without it.
///
/// # Errors
/// As [`thread`].
pub fn contained_thread<F>(
    name: &'static str,
    run: F,
) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    thread(name.to_owned(), move || {
        let ended = std::panic::catch_unwind(AssertUnwindSafe(run));
        contained(name, ended.map_err(|panic| text(&*panic)));
    })
}

/// Starts a named thread that runs as long as the process.
///
/// # Errors
/// As [`thread`].
pub fn vital_thread<F>(name: String, run: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    let part = name.clone();
    thread(name, move || {
        run();
        fail(&part, Ok(()));
    })
}

/// Does work that grows with so many bytes. Where they are many ([`HEAVY_FROM`]) another thread goes
/// on meanwhile with all else of this runtime, at most half as many works as there are cores are done
/// at once, and the others wait for their turn. A runtime of one thread only has nobody to go on with
/// it. Cancel-safe: what was not begun is not done.
pub async fn heavy<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes < HEAVY_FROM {
        return work();
    }
    let _turn = HEAVY.acquire().await.expect("nobody closes this semaphore");
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// Waits for threads to end.
pub async fn joined(threads: Vec<std::thread::JoinHandle<()>>) {
    let all = tokio::task::spawn_blocking(move || {
        for thread in threads {
            // A panic of one is known.
            let _ = thread.join();
        }
    });
    let _ = all.await;
}

/// What a thread runs, with the fault that may be planted in it. Tasks have that by themselves.
pub fn planted<F: Future>(name: &str, future: F) -> impl Future<Output = F::Output> {
    let planted = PLANTED.get().filter(|(part, ..)| part == name);
    match planted {
        None => Either::Left(future),
        // Boxed, so that nobody else has room for it.
        Some((_, fault, after)) => Either::Right(Box::pin(failing(*fault, *after, future))),
    }
}

async fn failing<F: Future>(fault: Fault, after: Duration, future: F) -> F::Output {
    let mut future = pin!(future);
    tokio::select! {
        output = &mut future => return output,
        () = tokio::time::sleep(after) => match fault {
            Fault::Panic => panic!("planted"),
            Fault::Hang(lasts) => std::thread::sleep(lasts),
        },
    }
    future.await
}

/// Ends the process, because a part has ended or panicked (`Err`: with these words). What ends while
/// the process is leaving is not looked at any more.
pub fn fail(part: &str, ended: Result<(), String>) {
    let failure = Failure {
        part: part.to_owned(),
        is_panic: ended.is_err(),
        reason: ended.err().unwrap_or_else(|| "it ended".to_owned()),
    };
    FAILED.send_if_modified(|known| {
        let is_news = match known {
            None => true,
            Some(known) => failure.is_panic && !known.is_panic,
        };
        if is_news {
            *known = Some(failure);
        }
        is_news
    });
}

fn contained(name: &'static str, ended: Result<(), String>) {
    if let Err(text) = ended {
        tracing::error!(
            event = "task_panicked",
            task = name,
            text,
            "a task panicked; the others go on"
        );
    }
}

/// Entered at each poll, which is why it is there for those who look for something only.
fn in_its_span<F: Future>(name: &'static str, future: F) -> impl Future<Output = F::Output> {
    future.instrument(tracing::debug_span!("task", task = name))
}

/// By combinators: an async block that awaits what it was given holds it twice, and a task's
/// future is what an idle session is made of.
fn guarded<F: Future<Output = ()>>(
    name: &'static str,
    future: F,
) -> impl Future<Output = Result<(), String>> {
    let guarded = AssertUnwindSafe(planted(name, future)).catch_unwind();
    guarded.map(|result| result.map_err(|panic| text(&*panic)))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_of_a_task_alone_ends_nothing_else() {
        spawn_alone("doomed", async { panic!("on purpose") })
            .await
            .unwrap();
        assert_eq!(*FAILED.borrow(), None);
        let thread = contained_thread("doomed", || panic!("on purpose"));
        thread.unwrap().join().unwrap();
        assert_eq!(*FAILED.borrow(), None);
        let (sender, receiver) = tokio::sync::oneshot::channel();
        spawn("survivor", async move { sender.send(7).unwrap() });
        assert_eq!(receiver.await, Ok(7));
    }

    /// Ends when a task of the same runtime, begun before, has run.
    async fn wait_for_another_task(bytes: usize) -> bool {
        let (sender, receiver) = std::sync::mpsc::channel();
        tokio::spawn(async move { sender.send(()).unwrap() });
        let patience = Duration::from_secs(if bytes < HEAVY_FROM { 0 } else { 60 });
        heavy(bytes, move || receiver.recv_timeout(patience).is_ok()).await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_of_the_runtime_go_on_during_heavy_work() {
        let waiting = tokio::spawn(wait_for_another_task(HEAVY_FROM));
        assert!(waiting.await.unwrap());
        let waiting = tokio::spawn(wait_for_another_task(HEAVY_FROM - 1));
        assert!(!waiting.await.unwrap(), "it is not worth another thread");
    }

    #[tokio::test]
    async fn heavy_work_is_done_in_place_where_there_is_one_thread() {
        let here = std::thread::current().id();
        let there = heavy(HEAVY_FROM, || std::thread::current().id()).await;
        assert_eq!(here, there);
    }
}
