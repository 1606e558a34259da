//! In which words one master refuses, seen through all its connections.
//!
//! In: each supervisor about its own link, and the feed about its connection. Out: the gauges by
//! word, in which a master counts once a word, however many of its connections hear it. Owner of the
//! words, under a lock that is held for one comparison. Bound: one word a connection.

use std::sync::{Mutex, PoisonError};

use super::health::Line;
use crate::redis::refusal::Refusal;
use crate::telemetry::metrics::ControlCounters;

/// See the module.
#[derive(Debug, Default)]
pub struct Refusals {
    by_line: Mutex<[Option<&'static Refusal>; 7]>,
}

impl Refusals {
    /// The word in which this connection is refused now, if it is.
    #[must_use]
    pub fn of(&self, line: Line) -> Option<&'static Refusal> {
        self.by_line.lock().unwrap_or_else(PoisonError::into_inner)[line as usize]
    }

    /// It is refused in this word now, or in none.
    pub fn set(&self, of: Line, now: Option<&'static Refusal>, control: &ControlCounters) {
        let mut lines = self.by_line.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *lines;
        lines[of as usize] = now;
        for word in before[of as usize].iter().filter(|_| before != *lines) {
            if !lines.contains(&Some(word)) {
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
    fn a_master_counts_once_a_word_whichever_connection_hears_it() {
        let control = &Metrics::new(0).control;
        let (full, loading) = (Refusal::of("OOM x"), Refusal::of("LOADING x"));
        let counts = || [control.refusing_oom.get(), control.refusing_loading.get()];
        let refusals = Refusals::default();
        for (line, word, expected) in [
            (Line::Urgent, full, [1, 0]),
            (Line::Bulk, full, [1, 0]),
            (Line::Bulk, loading, [1, 1]),
            (Line::Urgent, loading, [0, 1]),
            (Line::Feed, loading, [0, 1]),
            (Line::Urgent, None, [0, 1]),
            (Line::Bulk, None, [0, 1]),
            (Line::Feed, None, [0, 0]),
        ] {
            refusals.set(line, word, control);
            assert_eq!(refusals.of(line), word);
            assert_eq!(counts(), expected);
        }
    }
}
