//! Which slots a master of a cluster has, as its feed sees it, and a tag whose slot is one of them.
//!
//! In: the topology, by whoever follows it. Out: whether a channel's slot is here; the tag, which
//! stays while its slot does; and that there was a new topology, to the feed alone: with one that
//! looks the same to it, too, a slot may have been away. Owner: the master; a lock is held for one
//! comparison or one replacement. Bounds: the ranges of one master; [`TAGS_MAX`] tags are tried.

use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

use tokio::sync::Notify;

use super::topology::slot_of;

/// So many numbers have each slot, some 64 of them.
const TAGS_MAX: u32 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Owned {
    held: RwLock<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    slots: Vec<RangeInclusive<u16>>,
    tag: Option<u32>,
}

impl Owned {
    /// These slots at first.
    #[must_use]
    pub fn new(slots: &[RangeInclusive<u16>]) -> Self {
        let owned = Self {
            held: RwLock::default(),
            changed: Notify::new(),
        };
        owned.replace(slots);
        owned
    }

    /// These and no others from now on.
    pub fn set(&self, slots: &[RangeInclusive<u16>]) {
        self.replace(slots);
        self.changed.notify_one();
    }

    fn replace(&self, slots: &[RangeInclusive<u16>]) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        held.slots.clear();
        held.slots.extend_from_slice(slots);
        if held.tag.is_none_or(|tag| !held.has(&tag.to_string())) {
            held.tag = (0..TAGS_MAX).find(|tag| held.has(&tag.to_string()));
        }
    }

    /// Whether the slot of this channel is one of them.
    #[must_use]
    pub fn has(&self, channel: &str) -> bool {
        self.read().has(channel)
    }

    /// A number that as a tag has one of these slots; `None` without slots.
    #[must_use]
    pub fn tag(&self) -> Option<u32> {
        self.read().tag
    }

    /// Waits for the next [`Self::set`].
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn has(&self, channel: &str) -> bool {
        let slot = slot_of(channel);
        self.slots
            .iter()
            .any(|range| (usize::from(*range.start())..=usize::from(*range.end())).contains(&slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_where_its_slot_is() {
        let owned = Owned::new(&[]);
        let channel = "ff:{160}{default:room}";
        let slot = u16::try_from(slot_of(channel)).unwrap();
        assert!(!owned.has(channel));
        owned.set(&[0..=slot]);
        assert!(owned.has(channel));
        owned.set(&[0..=slot - 1, slot + 1..=16_383]);
        assert!(!owned.has(channel));
    }

    #[test]
    fn the_tag_stays_while_its_slot_does_and_there_is_one_for_every_slot() {
        let owned = Owned::new(&[0..=16_383]);
        let first = owned.tag().unwrap();
        let slot = u16::try_from(slot_of(&format!("{{{first}}}:a"))).unwrap();
        owned.set(&[slot..=slot]);
        assert_eq!(owned.tag(), Some(first));
        for only in [0, 1, 8_191, 16_383, slot ^ 1] {
            owned.set(&[only..=only]);
            let tag = owned.tag().unwrap();
            assert_eq!(slot_of(&format!("a:{{{tag}}}:b")), usize::from(only));
        }
        owned.set(&[]);
        assert_eq!(owned.tag(), None);
    }
}
