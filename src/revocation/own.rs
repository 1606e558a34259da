//! What this node had stored and has not read back: until somebody has read an entry, only the store has it,
//! and a failover in that moment loses it though the call was answered.
//!
//! In: entries that the store has taken; readings that have come to their end. Out: those that the store
//! lacks though the reading was begun later: they are added again. Pure. Bound: [`OWN_MAX`] entries. At the
//! bound: the oldest is forgotten; whoever read it writes it back as any other.

use std::collections::VecDeque;
use std::time::Instant;

use super::adding::Asked;

/// The most that is remembered: a second of the largest calls.
pub const OWN_MAX: usize = 10_000;

#[derive(Debug)]
struct Stored {
    asked: Asked,
    at: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Own {
    stored: VecDeque<Stored>,
}

impl Own {
    /// The store has taken these just now, all of them before this second.
    pub fn add(&mut self, names: &[Box<str>], issued_before: u64, at: Instant) {
        for name in names {
            if self.stored.len() == OWN_MAX {
                self.stored.pop_front();
            }
            let asked = Asked {
                name: name.clone(),
                issued_before: Some(issued_before),
                until_ms: None,
            };
            self.stored.push_back(Stored { asked, at });
        }
    }

    /// A reading that was begun then has come to its end; `has` says whether it brought an entry, or one
    /// before. Returns what the store lacks. What is lacking stays, until it was read.
    pub fn read(&mut self, begun_at: Instant, has: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        self.stored.retain(|stored| !has(&stored.asked));
        let lacking = self.stored.iter().filter(|stored| stored.at < begun_at);
        lacking.map(|stored| stored.asked.clone()).collect()
    }

    /// Whether everything was read back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn names(range: std::ops::Range<usize>) -> Vec<Box<str>> {
        range
            .map(|number| format!("u default {number}").into())
            .collect()
    }

    #[test]
    fn what_a_later_reading_does_not_bring_is_lacking_until_one_does() {
        let start = Instant::now();
        let later = start + Duration::from_millis(1);
        let mut own = Own::default();
        own.add(&names(0..2), 7, start);
        let none = |_: &Asked| false;
        assert!(own.read(start, none).is_empty(), "it was begun before");
        let first = |asked: &Asked| &*asked.name == "u default 0";
        let lacking = own.read(later, first);
        assert_eq!(lacking.len(), 1);
        assert_eq!(
            (&*lacking[0].name, lacking[0].issued_before),
            ("u default 1", Some(7))
        );
        assert_eq!(own.read(later, none).len(), 1, "it was not read yet");
        assert!(own.read(later, |_| true).is_empty() && own.is_empty());
    }

    #[test]
    fn the_oldest_is_forgotten_at_the_bound() {
        let (start, mut own) = (Instant::now(), Own::default());
        own.add(&names(0..OWN_MAX + 5), 7, start);
        let lacking = own.read(start + Duration::from_millis(1), |_| false);
        assert_eq!(lacking.len(), OWN_MAX);
        assert_eq!(&*lacking[0].name, "u default 5");
    }
}
