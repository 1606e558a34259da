//! Desired subscriptions: one current value per key. Only the latest wish counts.
//!
//! Used twice on the way from a session to the broker: the workers tell the dispatcher which
//! topics have local sessions, and the dispatcher tells the broker's feed which topics this node
//! wants to hear. In: [`Interest::want`] and [`Interest::unwant`], from any thread. Out: whoever
//! waits in [`Interest::changed`] takes all wishes that changed at once. Bound: one entry per key
//! that was wished for or against since the last look. Wishes are numbered, so that what confirms
//! one of them is not taken for the confirmation of a later one.

use std::hash::Hash;
use std::sync::Mutex;

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use fanfare_protocol::ids::Topic;

/// Which wish: they are numbered from 1 in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WishNumber(pub u64);

#[derive(Debug)]
struct Wishes<K> {
    changed: FxHashMap<K, Option<WishNumber>>,
    newest: WishNumber,
}

/// The shared level. A lock is held for the length of one map operation, never across an await.
#[derive(Debug)]
pub struct Interest<K = Topic> {
    wishes: Mutex<Wishes<K>>,
    wake: Notify,
}

impl<K> Default for Interest<K> {
    fn default() -> Self {
        Self {
            wishes: Mutex::new(Wishes {
                changed: FxHashMap::default(),
                newest: WishNumber(0),
            }),
            wake: Notify::new(),
        }
    }
}

impl<K: Eq + Hash> Interest<K> {
    /// Wishes to hear of the key, and returns by which number this wish will be confirmed. A wish
    /// for what is granted already is confirmed anew.
    pub fn want(&self, key: K) -> WishNumber {
        let number = {
            let mut wishes = self.lock();
            let number = WishNumber(wishes.newest.0 + 1);
            wishes.newest = number;
            wishes.changed.insert(key, Some(number));
            number
        };
        self.wake.notify_one();
        number
    }

    /// Passes a wish on, or that there is none any more, under the number that it has elsewhere.
    pub fn set(&self, key: K, wish: Option<WishNumber>) {
        self.lock().changed.insert(key, wish);
        self.wake.notify_one();
    }

    /// Wishes to hear of the key no more. Nothing confirms it.
    pub fn unwant(&self, key: K) {
        self.set(key, None);
    }

    /// Waits for wishes and takes them: the number of the newest wish for a key, or that it is
    /// wished for no more. Cancel-safe: a dropped future takes nothing.
    pub async fn changed(&self) -> FxHashMap<K, Option<WishNumber>> {
        loop {
            let wishes = self.take();
            if !wishes.is_empty() {
                return wishes;
            }
            self.wake.notified().await;
        }
    }

    /// Takes the wishes that changed, if any.
    pub fn take(&self) -> FxHashMap<K, Option<WishNumber>> {
        std::mem::take(&mut self.lock().changed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Wishes<K>> {
        // A panic between lock and unlock is impossible here: no code of others runs inside.
        self.wishes.lock().expect("no holder of this lock panics")
    }
}
