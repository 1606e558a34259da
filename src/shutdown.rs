//! Life and death of the process: the phases it goes through, and the only place that spawns.
//!
//! In: `node` moves the [`Lifecycle`]; everybody may watch it. Out: [`spawn`], [`spawn_local`]
//! and [`thread`] start what runs, name it, and report a panic as an error with that name
//! instead of letting it vanish. Nothing else in the crate spawns.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the process stands. It only moves forward.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Lifecycle {
    /// Parts are being built; nothing is accepted.
    Starting,
    /// Serving.
    Ready,
    /// Leaving: not ready, new handshakes are refused, sessions are told to go.
    Draining,
    /// The last replies are flushed and the last sessions closed.
    Closing,
    /// Everything has ended.
    Stopped,
}

/// The one writer of the lifecycle.
pub type LifecycleSender = watch::Sender<Lifecycle>;
/// Watches the lifecycle.
pub type LifecycleReceiver = watch::Receiver<Lifecycle>;

/// Starts a task on the current runtime. A panic inside is logged with the task's name.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(guarded(name, future))
}

/// Starts a task on the current worker's local set. A panic inside is logged with its name.
pub fn spawn_local<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(guarded(name, future))
}

/// Starts a named thread.
///
/// # Errors
/// What the operating system says when it has no thread to give.
pub fn thread<F>(name: String, run: F) -> std::io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new().name(name).spawn(run)
}

/// Waits for threads to end. A panic of one was reported by the task or hook that saw it.
pub async fn joined(threads: Vec<std::thread::JoinHandle<()>>) {
    let all = tokio::task::spawn_blocking(move || {
        for thread in threads {
            let _ = thread.join();
        }
    });
    let _ = all.await;
}

/// By combinators: an async block that awaits what it was given holds it twice, and a task's
/// future is what an idle session is made of.
fn guarded<F: Future<Output = ()>>(name: &'static str, future: F) -> impl Future<Output = ()> {
    let guarded = AssertUnwindSafe(future).catch_unwind();
    guarded.map(move |result| {
        if let Err(panic) = result {
            report(name, &*panic);
        }
    })
}

fn report(name: &'static str, panic: &(dyn Any + Send)) {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    tracing::error!(
        event = "task_panicked",
        task = name,
        text,
        "a task panicked"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_task_and_nothing_else() {
        spawn("doomed", async { panic!("on purpose") })
            .await
            .unwrap();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        spawn("survivor", async move { sender.send(7).unwrap() });
        assert_eq!(receiver.await, Ok(7));
    }
}
