//! The way of items to an exporter, which may be slow, hang or be absent.
//!
//! In: items of any thread. Out: the exporter takes them, in order. Owner: one gate for each signal.
//! Bound: [`ITEMS_MAX`] items wait; what comes then is dropped and counted, and the sender never waits.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::counter::Counter;

/// Items that wait for the exporter.
pub const ITEMS_MAX: usize = 2_048;

/// Where items are handed in.
#[derive(Debug)]
pub struct Gate<T> {
    sender: mpsc::Sender<T>,
    dropped: Arc<Counter>,
}

impl<T> Clone for Gate<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            dropped: Arc::clone(&self.dropped),
        }
    }
}

impl<T> Gate<T> {
    /// A gate, and where its items come out; what it must drop is counted there.
    #[must_use]
    pub fn new(dropped: Arc<Counter>) -> (Self, mpsc::Receiver<T>) {
        Self::with_room(ITEMS_MAX, dropped)
    }

    /// The same with room for so many items, at most [`ITEMS_MAX`].
    #[must_use]
    pub fn with_room(items_max: usize, dropped: Arc<Counter>) -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel(items_max.clamp(1, ITEMS_MAX));
        (Self { sender, dropped }, receiver)
    }

    /// Hands in an item, or drops and counts it where too many wait or nobody takes them.
    pub fn send(&self, item: T) {
        self.send_with(|| item);
    }

    /// The same, where an item is made only if there is room for it.
    pub fn send_with(&self, make: impl FnOnce() -> T) {
        match self.sender.try_reserve() {
            Ok(room) => room.send(make()),
            Err(_) => self.dropped.add(1),
        }
    }

    /// Counts items that found no room before they came here.
    pub fn dropped(&self, count: u64) {
        self.dropped.add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let dropped = Arc::new(Counter::default());
        let (gate, mut receiver) = Gate::new(Arc::clone(&dropped));
        for item in 0..ITEMS_MAX + 3 {
            gate.send(item);
        }
        assert_eq!((dropped.get(), receiver.try_recv()), (3, Ok(0)));
        gate.send(0);
        assert_eq!(dropped.get(), 3);
        drop(receiver);
        gate.send(0);
        assert_eq!(dropped.get(), 4, "nobody takes it");
    }
}
