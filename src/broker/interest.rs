//! What this node wants to hear, as a level: the latest wish per topic, not a list of edges.
//!
//! In: the dispatcher, when a first session joins a topic and when the last one left. Out: the
//! broker's feed, which takes all wishes that changed at once, subscribes or unsubscribes in
//! batches, and confirms with `FeedEvent::Subscribed`. Bound: one entry per topic that was wished
//! for or against since the feed last looked.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::Notify;

use crate::protocol::ids::Topic;

/// The shared level. A lock is held for the length of one map operation, never across an await.
#[derive(Debug, Default)]
pub struct Interest {
    changed: Mutex<HashMap<Topic, bool>>,
    wake: Notify,
}

impl Interest {
    /// Wishes to hear the topic. A wish for a topic that is subscribed already is confirmed anew.
    pub fn want(&self, topic: Topic) {
        self.set(topic, true);
    }

    /// Wishes to hear the topic no more. Nothing confirms it.
    pub fn unwant(&self, topic: Topic) {
        self.set(topic, false);
    }

    /// Waits for wishes and takes them. Cancel-safe: a dropped future takes nothing.
    pub async fn changed(&self) -> HashMap<Topic, bool> {
        loop {
            let wishes = self.take();
            if !wishes.is_empty() {
                return wishes;
            }
            self.wake.notified().await;
        }
    }

    /// Takes the wishes that changed, if any.
    pub fn take(&self) -> HashMap<Topic, bool> {
        std::mem::take(&mut *self.lock())
    }

    fn set(&self, topic: Topic, wanted: bool) {
        self.lock().insert(topic, wanted);
        self.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Topic, bool>> {
        // A panic between lock and unlock is impossible here: no code of others runs inside.
        self.changed.lock().expect("no holder of this lock panics")
    }
}
