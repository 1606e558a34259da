//! A history that is written by hand, second by second.

use std::time::{Duration, Instant};

use super::growth::Verdict;
use super::measure::{Measure, Point, Range};
use super::{History, Recorder, Window};
use fanfare_protocol::error::ErrorCode;

const MIB: f64 = 1024.0 * 1024.0;

struct Rig {
    history: std::sync::Arc<History>,
    recorder: Recorder,
    begun_at: Instant,
    seconds: u64,
}

impl Rig {
    fn new() -> Self {
        let begun_at = Instant::now();
        let (history, recorder) = History::begin(begun_at);
        Self {
            history,
            recorder,
            begun_at,
            seconds: 0,
        }
    }

    /// A point of so many seconds.
    fn record(&mut self, seconds: u64, sessions: f64, bytes: f64) {
        let begun = self.seconds;
        self.seconds += seconds;
        let mut point = Point::empty(begun * 1_000, self.seconds * 1_000);
        let weight = seconds as f64;
        point.set(Measure::Sessions, Range::of(sessions, weight));
        point.set(Measure::MemoryBytes, Range::of(bytes, weight));
        point.set(Measure::Requests, Range::rate(2.0 * weight, weight));
        point.set_errors(ErrorCode::Unavailable, seconds);
        self.recorder.record(&point);
    }

    fn now(&self) -> Instant {
        self.begun_at + Duration::from_secs(self.seconds)
    }

    /// Of a window: its seconds, requests, errors, least and greatest number of sessions.
    fn told(&self, window: Window) -> (u64, u64, u64, [u64; 2]) {
        let all = self.history.summary(window, self.now()).unwrap().all;
        let whole = |value: f64| value.round() as u64;
        let sessions = all.range(Measure::Sessions);
        (
            whole(all.seconds()),
            whole(all.range(Measure::Requests).sum),
            all.errors(ErrorCode::Unavailable),
            [whole(sessions.min), whole(sessions.max)],
        )
    }
}

#[test]
fn nothing_is_told_before_the_first_second() {
    let rig = Rig::new();
    for window in Window::ALL {
        assert_eq!(rig.history.summary(window, rig.now()), None);
    }
    assert_eq!(rig.history.recent(Duration::from_secs(9), rig.now()), None);
    assert_eq!(rig.history.growth(10.0).verdict, Verdict::TooShort);
}

/// Each second is in each window once, also where its minute has just ended or not yet.
#[test]
fn every_window_counts_every_second_of_it_once() {
    let mut rig = Rig::new();
    for second in 1..=2_000_u64 {
        rig.record(1, second as f64, MIB);
        let near_an_end = second % 60 < 3 || second % 60 > 57;
        if !near_an_end && second % 97 != 0 {
            continue;
        }
        for window in [Window::Day, Window::Week] {
            let told = rig.told(window);
            assert_eq!(told, (second, 2 * second, second, [1, second]), "{second}");
        }
        let kept = second.min(900);
        let told = rig.told(Window::Quarter);
        let first = second + 1 - kept;
        assert_eq!(told, (kept, 2 * kept, kept, [first, second]), "{second}");
    }
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let mut rig = Rig::new();
    let week = Window::Week.length().as_secs();
    // Ten days, a minute at a time.
    for minute in 0..10 * 24 * 60 {
        rig.record(60, f64::from(minute), MIB);
    }
    for window in Window::ALL {
        let (seconds, requests, ..) = rig.told(window);
        let length = window.length().as_secs();
        assert!(
            seconds <= length && seconds + 2 * 900 > length,
            "{window:?}"
        );
        assert_eq!(requests, 2 * seconds, "{window:?}");
    }
    let (.., [least, _]) = rig.told(Window::Week);
    assert!(least >= (10 * 86_400 - week) / 60 - 1, "{least}");
}

#[test]
fn the_newest_second_and_its_age_are_told_and_recent_ones_stand_alone() {
    let mut rig = Rig::new();
    for second in 0..30 {
        rig.record(1, f64::from(second), MIB);
    }
    let later = rig.now() + Duration::from_millis(1_500);
    let summary = rig.history.summary(Window::Day, later).unwrap();
    assert_eq!(summary.age, Duration::from_millis(1_500));
    assert_eq!(summary.newest.range(Measure::Sessions).mean(), Some(29.0));
    let recent = rig.history.recent(Duration::from_secs(10), rig.now());
    let recent = recent.unwrap();
    assert_eq!(recent.seconds(), 10.0);
    assert_eq!(recent.range(Measure::Sessions).min, 20.0);
    // The process stood still, and nothing of that time is known.
    let hour_later = rig.now() + Duration::from_secs(3_600);
    assert_eq!(
        rig.history.recent(Duration::from_secs(10), hour_later),
        None
    );
    let stale = rig.history.summary(Window::Quarter, hour_later).unwrap();
    assert_eq!(stale.age, Duration::from_secs(3_600));
}

#[test]
fn memory_that_grows_fast_or_slowly_is_suspected_and_what_started_is_not() {
    let grown = |minutes: u32, bytes: &dyn Fn(f64) -> f64| {
        let mut rig = Rig::new();
        for minute in 0..minutes {
            rig.record(60, 100.0, bytes(f64::from(minute) / 60.0));
        }
        rig.history.growth(10.0).verdict
    };
    let fast = |hours: f64| (100.0 + 20.0 * hours) * MIB;
    assert_eq!(grown(60, &fast), Verdict::TooShort);
    assert_eq!(grown(120, &fast), Verdict::Suspected);
    let slow = |hours: f64| (100.0 + 20.0 * hours / 24.0) * MIB;
    assert_eq!(grown(120, &slow), Verdict::None);
    assert_eq!(grown(3 * 24 * 60, &slow), Verdict::Suspected);
    let fills = |hours: f64| (100.0 + 400.0 * hours.min(0.2)) * MIB;
    assert_eq!(grown(120, &fills), Verdict::None);
}
