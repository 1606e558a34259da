//! What is wished for, as a level: the latest wish per key, not a list of edges.
//!
//! Used twice on the way from a session to the broker: the workers tell the dispatcher which
//! topics have local sessions, and the dispatcher tells the broker's feed which topics this node
//! wants to hear. In: [`Interest::want`] and [`Interest::unwant`], from any thread. Out: whoever
//! waits in [`Interest::changed`] takes all wishes that changed at once. Bound: one entry per key
//! that was wished for or against since the last look.

use std::hash::Hash;
use std::sync::Mutex;

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::protocol::ids::Topic;

/// The shared level. A lock is held for the length of one map operation, never across an await.
#[derive(Debug)]
pub struct Interest<K = Topic> {
    changed: Mutex<FxHashMap<K, bool>>,
    wake: Notify,
}

impl<K> Default for Interest<K> {
    fn default() -> Self {
        Self {
            changed: Mutex::default(),
            wake: Notify::new(),
        }
    }
}

impl<K: Eq + Hash> Interest<K> {
    /// Wishes to hear of the key. A wish for what is granted already is confirmed anew.
    pub fn want(&self, key: K) {
        self.set(key, true);
    }

    /// Wishes to hear of the key no more. Nothing confirms it.
    pub fn unwant(&self, key: K) {
        self.set(key, false);
    }

    /// Waits for wishes and takes them. Cancel-safe: a dropped future takes nothing.
    pub async fn changed(&self) -> FxHashMap<K, bool> {
        loop {
            let wishes = self.take();
            if !wishes.is_empty() {
                return wishes;
            }
            self.wake.notified().await;
        }
    }

    /// Takes the wishes that changed, if any.
    pub fn take(&self) -> FxHashMap<K, bool> {
        std::mem::take(&mut *self.lock())
    }

    fn set(&self, key: K, wanted: bool) {
        self.lock().insert(key, wanted);
        self.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FxHashMap<K, bool>> {
        // A panic between lock and unlock is impossible here: no code of others runs inside.
        self.changed.lock().expect("no holder of this lock panics")
    }
}
