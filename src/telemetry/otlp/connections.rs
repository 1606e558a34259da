//! The tasks of a client's connections, which end with it.
//!
//! In: what hyper wants to have run. Out: it runs until it ends, or until the client is given up. Owner: the
//! client, which keeps [`End`]. Bound: none here; the client is made anew where there are too many.
//!
//! A connection that writes to somebody who does not read would wait for ever: hyper ends its task, and so
//! its socket, only between two messages, also where nobody waits for the answer any more.

use std::future::Future;
use std::sync::{Arc, Weak};

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;

/// Runs tasks for hyper.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    end: watch::Receiver<()>,
    tasks: Weak<()>,
}

/// Dropping it ends all tasks, and so closes their sockets.
#[derive(Debug)]
pub(super) struct End {
    _end: watch::Sender<()>,
    tasks: Arc<()>,
}

impl Connections {
    /// No tasks yet, and their end.
    pub(super) fn new() -> (Self, End) {
        let (end, ends) = watch::channel(());
        let tasks = Arc::new(());
        let connections = Self {
            end: ends,
            tasks: Arc::downgrade(&tasks),
        };
        (connections, End { _end: end, tasks })
    }
}

impl End {
    /// How many tasks there are.
    pub(super) fn tasks(&self) -> usize {
        Arc::strong_count(&self.tasks) - 1
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Connections {
    fn execute(&self, task: F) {
        // Without it the client is given up.
        let Some(counted) = self.tasks.upgrade() else {
            return;
        };
        let mut end = self.end.clone();
        TokioExecutor::new().execute(async move {
            let _counted = counted;
            tokio::select! {
                // Nothing is ever sent: it is the end of the sender that is waited for.
                _ = end.changed() => {}
                () = task => {}
            }
        });
    }
}
