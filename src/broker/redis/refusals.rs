//! In which words one master refuses, seen through all its links.
//!
//! In: each supervisor about its own link. Out: the gauges by word, in which a master counts once a
//! word, however many of its links hear it. Owner of the words, under a lock that is held for one
//! comparison. Bound: one word a link.

use std::sync::{Mutex, PoisonError};

use super::link::Purpose;
use crate::redis::refusal::Refusal;
use crate::telemetry::metrics::ControlCounters;

/// See the module.
#[derive(Debug, Default)]
pub struct Refusals {
    by_link: Mutex<[Option<&'static Refusal>; 4]>,
}

impl Refusals {
    /// The word in which this link is refused now, if it is.
    pub fn set(&self, of: Purpose, now: Option<&'static Refusal>, control: &ControlCounters) {
        let mut links = self.by_link.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *links;
        links[of as usize] = now;
        for word in before[of as usize].iter().filter(|_| before != *links) {
            if !links.contains(&Some(word)) {
                (word.gauge)(control).sub(1);
            }
        }
        for word in now.iter().filter(|word| !before.contains(&Some(**word))) {
            (word.gauge)(control).add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn a_master_counts_once_a_word_whichever_link_hears_it() {
        let control = &Metrics::new(0).control;
        let (full, loading) = (Refusal::of("OOM x"), Refusal::of("LOADING x"));
        let counts = || [control.refusing_oom.get(), control.refusing_loading.get()];
        let refusals = Refusals::default();
        for (purpose, word, expected) in [
            (Purpose::Urgent, full, [1, 0]),
            (Purpose::Bulk, full, [1, 0]),
            (Purpose::Bulk, loading, [1, 1]),
            (Purpose::Urgent, loading, [0, 1]),
            (Purpose::Urgent, None, [0, 1]),
            (Purpose::Bulk, loading, [0, 1]),
            (Purpose::Bulk, None, [0, 0]),
        ] {
            refusals.set(purpose, word, control);
            assert_eq!(counts(), expected);
        }
    }
}
