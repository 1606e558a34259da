//! Idempotency keys of the queue, and the entries that they were given.
//!
//! In: digests of keys with the name of an entry. Out: that name, as long as it is remembered. Owned by
//! the queues. Bounds: a key's life, and the memory of the queues together: where there is none left
//! those that end first make room for entries ([`super::queues`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A key beside its digest and the entry's name, which stand in two maps.
const ONCE_BYTES: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Once {
    by_digest: HashMap<Arc<str>, Remembered>,
    /// Those that end first stand first.
    ends: BTreeSet<(u64, Arc<str>)>,
}

/// The entry of a key, up to a moment, that moment included.
#[derive(Debug)]
struct Remembered {
    entry: String,
    end_ms: u64,
}

impl Once {
    /// About how much memory a key takes up.
    pub(super) const KEY_BYTES: usize = ONCE_BYTES;

    /// The entry that stands for this key, while it is remembered.
    pub(super) fn get(&self, digest: &str, now_ms: u64) -> Option<&str> {
        let remembered = self.by_digest.get(digest)?;
        (now_ms <= remembered.end_ms).then_some(&remembered.entry)
    }

    /// Remembers an entry for so long.
    pub(super) fn remember(&mut self, digest: String, entry: String, now_ms: u64, life_ms: u64) {
        let (digest, end_ms) = (Arc::from(digest), now_ms.saturating_add(life_ms));
        let remembered = Remembered { entry, end_ms };
        let before = self.by_digest.insert(Arc::clone(&digest), remembered);
        if let Some(before) = before {
            self.ends.remove(&(before.end_ms, Arc::clone(&digest)));
        }
        self.ends.insert((end_ms, digest));
    }

    /// Frees those that have ended, so many at most; returns whether there may be more.
    pub(super) fn sweep(&mut self, now_ms: u64, count_max: usize) -> bool {
        for _ in 0..count_max {
            let Some((end_ms, _)) = self.ends.first() else {
                *self = Self::default();
                return false;
            };
            if now_ms <= *end_ms {
                return false;
            }
            if let Some((_, digest)) = self.ends.pop_first() {
                self.by_digest.remove(&digest);
            }
        }
        true
    }

    /// Forgets the one that ends first; `false`: there is none.
    pub(super) fn forget_first(&mut self) -> bool {
        let first = self.ends.pop_first();
        first.is_some_and(|(_, digest)| self.by_digest.remove(&digest).is_some())
    }

    /// About how much memory all of them take up.
    pub(super) fn bytes(&self) -> usize {
        self.by_digest.len() * ONCE_BYTES
    }
}
