//! Which slots a master of a cluster has, as its feed sees it.
//!
//! In: the layout, by whoever follows it. Out: whether a channel's slot is here. Owner: the pair;
//! a lock is held for one comparison or one replacement. Bound: the ranges of one master.

use std::ops::RangeInclusive;
use std::sync::{PoisonError, RwLock};

use super::layout::slot_of;

/// See the module. Nothing at first.
#[derive(Debug, Default)]
pub struct Owned {
    slots: RwLock<Vec<RangeInclusive<u16>>>,
}

impl Owned {
    /// These and no others from now on.
    pub fn set(&self, slots: &[RangeInclusive<u16>]) {
        let mut held = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        held.clear();
        held.extend_from_slice(slots);
    }

    /// Whether the slot of this channel is one of them.
    #[must_use]
    pub fn has(&self, channel: &str) -> bool {
        let slot = slot_of(channel);
        let held = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        held.iter()
            .any(|range| (usize::from(*range.start())..=usize::from(*range.end())).contains(&slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_where_its_slot_is() {
        let owned = Owned::default();
        let channel = "ff:{default:room}";
        let slot = u16::try_from(slot_of(channel)).unwrap();
        assert!(!owned.has(channel));
        owned.set(&[0..=slot]);
        assert!(owned.has(channel));
        owned.set(&[0..=slot - 1, slot + 1..=16_383]);
        assert!(!owned.has(channel));
    }
}
