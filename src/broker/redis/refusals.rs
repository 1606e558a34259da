//! In which words one master refuses, seen through all its connections.
//!
//! In: each supervisor about its own link, and the feed about its connection; of calls, the word in
//! which a script was broken off. Out: the gauges by word, in which a master counts once a word,
//! however many of its connections hear it. Nobody asks again whether a script would pass now: so its
//! word counts for [`BROKEN_FOR`] after the last one. Owner of the words, under a lock that is held for
//! one comparison. Bound: one word a connection, and one of scripts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::health::Line;
use crate::redis::refusal::Refusal;
use crate::telemetry::metrics::{ControlCounters, Metrics};

/// How long it counts that a script was broken off.
const BROKEN_FOR: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Refusals {
    words: Mutex<Words>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Words {
    by_line: [Option<&'static Refusal>; 7],
    /// Of the last script that was broken off, and when.
    broken: Option<(&'static Refusal, Instant)>,
}

impl Words {
    fn has(&self, word: &'static Refusal) -> bool {
        let broken = self.broken.map(|(word, _)| word);
        self.by_line.contains(&Some(word)) || broken == Some(word)
    }

    fn all(&self) -> impl Iterator<Item = &'static Refusal> {
        let broken = self.broken.map(|(word, _)| word);
        self.by_line.into_iter().chain([broken]).flatten()
    }

    /// Without what is over.
    fn at(self, now: Instant) -> Self {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < BROKEN_FOR;
        Self {
            broken: self.broken.filter(|(_, at)| is_fresh(*at)),
            ..self
        }
    }
}

impl Refusals {
    /// None yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            words: Mutex::default(),
            metrics,
        }
    }

    /// The word in which this connection is refused now, if it is.
    #[must_use]
    pub fn of(&self, line: Line) -> Option<&'static Refusal> {
        self.lock().by_line[line as usize]
    }

    /// It is refused in this word now, or in none.
    pub fn set(&self, of: Line, now: Option<&'static Refusal>, control: &ControlCounters) {
        self.change(Instant::now(), control, |words| {
            words.by_line[of as usize] = now;
        });
    }

    /// A script was broken off in this word. Returns whether that is news.
    pub fn broke(&self, word: &'static Refusal) -> bool {
        self.broke_at(word, Instant::now())
    }

    fn broke_at(&self, word: &'static Refusal, now: Instant) -> bool {
        let before = self.change(now, &self.metrics.control, |words| {
            words.broken = Some((word, now));
        });
        before.at(now).broken.map(|(word, _)| word) != Some(word)
    }

    /// Changes the words, and the gauges with them. Returns what was there before.
    fn change(
        &self,
        now: Instant,
        control: &ControlCounters,
        change: impl FnOnce(&mut Words),
    ) -> Words {
        let mut words = self.lock();
        let before = *words;
        *words = before.at(now);
        change(&mut words);
        if *words != before {
            count(&before, &words, control);
        }
        before
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Refusals {
    /// A master that is used no more refuses nothing.
    fn drop(&mut self) {
        count(&self.lock(), &Words::default(), &self.metrics.control);
    }
}

/// Each word that is gone counts no more, and each that is new does.
fn count(before: &Words, now: &Words, control: &ControlCounters) {
    let mut counted = Vec::new();
    for word in before.all().chain(now.all()) {
        if counted.contains(&word) {
            continue;
        }
        counted.push(word);
        match (before.has(word), now.has(word)) {
            (true, false) => {
                (word.gauge)(control).sub(1);
            }
            (false, true) => (word.gauge)(control).add(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_counts_once_a_word_whichever_connection_hears_it() {
        let metrics = Arc::new(Metrics::new(0));
        let control = &metrics.control;
        let (full, loading) = (Refusal::of("OOM x"), Refusal::of("LOADING x"));
        let counts = || [control.refusing_oom.get(), control.refusing_loading.get()];
        let refusals = Refusals::new(Arc::clone(&metrics));
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

    #[test]
    fn a_script_that_was_broken_off_counts_for_a_minute_after_the_last() {
        let metrics = Arc::new(Metrics::new(0));
        let control = &metrics.control;
        let count = || control.refusing_noperm.get();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let probed = |refusals: &Refusals, seconds| {
            refusals.change(after(seconds), control, |words| {
                words.by_line[Line::Urgent as usize] = None;
            });
        };
        let word = Refusal::of("NOPERM x").expect("a row");
        let refusals = Refusals::new(Arc::clone(&metrics));
        assert!(refusals.broke_at(word, begin));
        assert!(!refusals.broke_at(word, after(50)));
        probed(&refusals, 109);
        assert_eq!(count(), 1);
        probed(&refusals, 110);
        assert_eq!(count(), 0);
        assert!(refusals.broke_at(word, after(111)));
        refusals.set(Line::Feed, Some(word), control);
        assert_eq!(count(), 1);
        drop(refusals);
        assert_eq!(count(), 0);
    }
}
