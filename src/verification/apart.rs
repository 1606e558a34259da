//! A reading of files that may hang, away from the runtime.
//!
//! In: what reads. Out: what it returns. A file may lie on a volume that hangs, and a task of the runtime that
//! reads it would hang with it, where no deadline ends it. So a thread of its own reads. Owner: who needs it.
//! Bound: one thread. At the bound: one that hangs is waited for, and none begins beside it.

use tokio::sync::{Mutex, oneshot};

use crate::tasks;

/// See the module.
#[derive(Debug)]
pub struct Apart<T> {
    /// The reading that runs.
    held: Mutex<Option<oneshot::Receiver<T>>>,
}

impl<T> Default for Apart<T> {
    fn default() -> Self {
        Self {
            held: Mutex::default(),
        }
    }
}

impl<T: Send + 'static> Apart<T> {
    /// What `read` returns, or a reading that was begun before and still runs. Not bounded in time. Cancel-safe:
    /// the reading goes on.
    ///
    /// # Errors
    /// The system has no thread, or the reading broke off.
    pub async fn read(&self, read: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let mut held = self.held.lock().await;
        // What has ended meanwhile was read too long ago.
        let running = held.take_if(|one| match one.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => false,
            Ok(_) | Err(oneshot::error::TryRecvError::Closed) => true,
        });
        drop(running);
        let reading = match &mut *held {
            Some(reading) => reading,
            none => {
                let (answer, answered) = oneshot::channel();
                // No thread of the runtime: one that hangs would keep the node from ending.
                let begun = tasks::contained_thread("certificates", move || {
                    let _ = answer.send(read());
                });
                begun.map_err(|error| format!("the system has no thread to read it: {error}"))?;
                none.insert(answered)
            }
        };
        let answered = reading.await;
        *held = None;
        answered.map_err(|_| "the reading broke off".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn one_that_hangs_is_waited_for_and_none_begins_beside_it() {
        let apart = Apart::default();
        let (go_on, hangs) = std::sync::mpsc::channel::<()>();
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let first = apart.read(move || {
            count.fetch_add(1, Relaxed);
            let _ = hangs.recv();
            1
        });
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, first).await.is_err());
        for _ in 0..3 {
            let count = Arc::clone(&begun);
            let next = apart.read(move || {
                count.fetch_add(1, Relaxed);
                2
            });
            assert!(tokio::time::timeout(soon, next).await.is_err());
        }
        assert_eq!(begun.load(Relaxed), 1, "no other began");
        let waits = apart.read(|| 3);
        let release = async {
            tokio::time::sleep(soon).await;
            go_on.send(()).unwrap();
        };
        let (read, ()) = tokio::join!(waits, release);
        assert_eq!(read, Ok(1), "the one that hung");
        assert_eq!(apart.read(|| 4).await, Ok(4));
    }
}
