//! Idempotency keys of one topic, and what is remembered for a time.
//!
//! In: keys with the position that each was given. Out: that position, as long as it is remembered.
//! Owned by the topic's state. Bounds: a key's life, and what all topics may take up
//! ([`super::room`]): then the oldest go first.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::room::KEY_BYTES;
use fanfare_protocol::ids::Position;

/// A position that is known up to a moment, that moment included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub(super) position: Position,
    pub(super) end_ms: u64,
}

impl Remembered {
    pub(super) fn new(position: Position, now_ms: u64, life_ms: u64) -> Self {
        Self {
            position,
            end_ms: now_ms.saturating_add(life_ms),
        }
    }

    pub(super) fn lives(&self, now_ms: u64) -> bool {
        now_ms <= self.end_ms
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct IdempotencyKeys {
    by_key: HashMap<Arc<str>, Remembered>,
    /// In the order of positions. A key that ended and was remembered anew is here twice.
    order: VecDeque<(Arc<str>, Position)>,
    bytes: usize,
}

impl IdempotencyKeys {
    /// The position that stands for this key, while it is remembered.
    pub(super) fn get(&self, key: &str, now_ms: u64) -> Option<Position> {
        let remembered = self.by_key.get(key)?;
        remembered.lives(now_ms).then_some(remembered.position)
    }

    pub(super) fn remember(&mut self, key: String, remembered: Remembered) {
        let key: Arc<str> = key.into();
        self.bytes += KEY_BYTES + key.len();
        self.order
            .push_back((Arc::clone(&key), remembered.position));
        self.by_key.insert(key, remembered);
    }

    /// Forgets the oldest; `false`: there is none.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let Some((key, position)) = self.order.pop_front() else {
            return false;
        };
        self.bytes -= KEY_BYTES + key.len();
        if self
            .by_key
            .get(&key)
            .is_some_and(|known| known.position == position)
        {
            self.by_key.remove(&key);
        }
        true
    }

    /// Frees those that have ended: they all live equally long, so they stand first.
    pub(super) fn sweep(&mut self, now_ms: u64) {
        let has_ended = |(key, position): &(Arc<str>, Position)| {
            let known = self.by_key.get(key);
            !known.is_some_and(|known| known.position == *position && known.lives(now_ms))
        };
        let ended = self.order.iter().take_while(|one| has_ended(one)).count();
        for _ in 0..ended {
            self.forget_oldest();
        }
        if self.order.is_empty() {
            *self = Self::default();
        }
    }

    /// The position of the oldest.
    pub(super) fn oldest(&self) -> Option<Position> {
        Some(self.order.front()?.1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// About how much memory they take up.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Position {
        Position { ms, seq: 0 }
    }

    #[test]
    fn the_oldest_keys_go_first_and_weigh_nothing_afterwards() {
        let mut keys = IdempotencyKeys::default();
        for n in 0..3 {
            keys.remember(format!("k{n}"), Remembered::new(at(n), n, 10));
        }
        assert!(keys.forget_oldest());
        assert_eq!((keys.get("k0", 5), keys.get("k1", 5)), (None, Some(at(1))));
        // One that ended and was published anew comes after the others.
        keys.remember("k1".to_owned(), Remembered::new(at(12), 12, 10));
        keys.sweep(13);
        assert_eq!(
            (keys.get("k1", 13), keys.get("k2", 13)),
            (Some(at(12)), None)
        );
        assert_eq!(keys.oldest(), Some(at(12)));
        assert!(keys.forget_oldest());
        assert!(!keys.forget_oldest());
        assert_eq!((keys.bytes(), keys.get("k1", 13)), (0, None));
    }
}
