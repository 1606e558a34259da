//! How many lines of one event a second are written, and how many were not.
//!
//! In: the event and the level of each line ([`Limits::admits`]). Out: whether it is written; once a
//! second, how many of which event were not ([`Limits::ended`]). Each event is counted at each level
//! by itself, so neither another event nor a flood of debug lines of the same name keeps an error from
//! being written. Owner: the log of the process. Bounds: [`LINES_PER_SECOND`] lines of an event a
//! second; [`NAMES_MAX`] events at once. An event for which there is no place is not limited here, and
//! what waits of it is held by the queue ([`super::lines`]).

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use tracing::Level;

use super::fields::cut;

/// Most lines of one event in a second.
pub const LINES_PER_SECOND: u32 = 100;
/// Most events that are counted at the same time; several times as many as there are.
const NAMES_MAX: usize = 1_024;
/// Bytes by which a name is known.
const NAME_BYTES_MAX: usize = 64;
/// For how long lines are counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Limits {
    events: Mutex<FxHashMap<(Box<str>, Level), Window>>,
    /// Told when the first line of an event is not written.
    began: Condvar,
}

/// The lines of one event in one second.
#[derive(Debug)]
struct Window {
    begun_at: Instant,
    written: u32,
    suppressed: u64,
}

/// Lines that were not written.
#[derive(Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Of which event.
    pub event: Box<str>,
    /// At which level.
    pub level: Level,
    /// How many.
    pub count: u64,
}

impl Limits {
    /// Counts a line. `false`: it is one too many, and is not written.
    pub fn admits(&self, event: &str, level: Level, now: Instant) -> bool {
        let event = cut(event, NAME_BYTES_MAX);
        let mut events = self.lock();
        let is_over = |window: &Window| now.saturating_duration_since(window.begun_at) >= WINDOW;
        if events.len() >= NAMES_MAX {
            events.retain(|_, window| window.suppressed > 0 || !is_over(window));
        }
        let has_place = events.len() < NAMES_MAX;
        let key = (event.into(), level);
        let Some(window) = (match has_place {
            true => Some(events.entry(key).or_insert_with(|| Window::new(now))),
            false => events.get_mut(&key),
        }) else {
            return true;
        };
        // A second of which something is still to be told goes on until then.
        if window.suppressed == 0 && is_over(window) {
            *window = Window::new(now);
        }
        if window.written < LINES_PER_SECOND {
            window.written += 1;
            return true;
        }
        window.suppressed += 1;
        self.began.notify_one();
        false
    }

    /// Waits until a line was not written and that was not told.
    pub fn wait(&self) {
        let mut events = self.lock();
        while events.values().all(|window| window.suppressed == 0) {
            let began = self.began.wait(events);
            events = began.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What was not written in the seconds that are over. Then each of these events begins anew.
    pub fn ended(&self, now: Instant) -> Vec<Suppressed> {
        self.take(
            |window| now.saturating_duration_since(window.begun_at) >= WINDOW,
            now,
        )
    }

    /// What was not written until now.
    pub fn all(&self, now: Instant) -> Vec<Suppressed> {
        self.take(|_| true, now)
    }

    fn take(&self, is_due: impl Fn(&Window) -> bool, now: Instant) -> Vec<Suppressed> {
        let mut events = self.lock();
        let due = events
            .iter_mut()
            .filter(|(_, w)| w.suppressed > 0 && is_due(w));
        let told = due.map(|((event, level), window)| Suppressed {
            event: event.clone(),
            level: *level,
            count: std::mem::replace(window, Window::new(now)).suppressed,
        });
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<(Box<str>, Level), Window>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Window {
    fn new(begun_at: Instant) -> Self {
        Self {
            begun_at,
            written: 0,
            suppressed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = LINES_PER_SECOND as u64;

    fn written(limits: &Limits, (event, level): (&str, Level), count: u64, now: Instant) -> u64 {
        (0..count)
            .map(|_| u64::from(limits.admits(event, level, now)))
            .sum()
    }

    fn told(event: &str, level: Level, count: u64) -> Vec<Suppressed> {
        let event = event.into();
        vec![Suppressed {
            event,
            level,
            count,
        }]
    }

    #[test]
    fn more_than_a_hundred_lines_of_an_event_are_told_by_their_number() {
        let (limits, now) = (Limits::default(), Instant::now());
        let flood = ("handshake_refused", Level::DEBUG);
        assert_eq!(written(&limits, flood, 10_000, now), MOST);
        assert_eq!(limits.ended(now), [], "the second is not over");
        limits.wait();
        let now = now + WINDOW;
        assert_eq!(limits.ended(now), told(flood.0, flood.1, 10_000 - MOST));
        assert_eq!(limits.ended(now + WINDOW), []);
        assert_eq!(written(&limits, flood, 101, now), MOST, "it has begun anew");
        assert_eq!(limits.all(now), told(flood.0, flood.1, 1), "at the end");
    }

    #[test]
    fn a_hundred_in_each_second_are_all_written() {
        let (limits, begun) = (Limits::default(), Instant::now());
        for second in 0..5 {
            let event = ("session_closed", Level::INFO);
            let now = begun + WINDOW * second;
            assert_eq!(written(&limits, event, MOST, now), MOST);
        }
        assert_eq!(limits.all(begun + WINDOW * 9), []);
    }

    #[test]
    fn a_flood_keeps_no_other_event_and_no_error_from_being_written() {
        let (limits, now) = (Limits::default(), Instant::now());
        written(&limits, ("session_closed", Level::DEBUG), 1_000, now);
        for other in [
            ("session_closed", Level::ERROR),
            ("panic_reported", Level::ERROR),
            ("token_refused", Level::DEBUG),
        ] {
            assert_eq!(written(&limits, other, 5, now), 5, "{other:?}");
        }
    }

    #[test]
    fn names_have_a_bound_and_those_of_seconds_that_are_over_make_room() {
        let (limits, now) = (Limits::default(), Instant::now());
        for number in 0..2 * NAMES_MAX {
            assert!(limits.admits(&format!("{number}"), Level::INFO, now));
        }
        assert_eq!(limits.lock().len(), NAMES_MAX);
        let last = (&*"a".repeat(1_000), Level::INFO);
        assert_eq!(written(&limits, last, 101, now), 101, "not limited");
        let known = ("7", Level::INFO);
        assert_eq!(written(&limits, known, 200, now), MOST - 1);
        assert_eq!(written(&limits, last, 200, now + WINDOW), MOST);
        let mut left: Vec<_> = limits.lock().keys().map(|(name, _)| name.len()).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [1, NAME_BYTES_MAX],
            "of the known one something is to be told"
        );
    }
}
