//! How the node did in the last seven days, a second, a minute and a quarter of an hour at a time.
//!
//! In: a [`Point`] a second, by the one [`Recorder`]. Out: what a window was like ([`Summary`]), the
//! last seconds ([`History::recent`]) and whether memory grows ([`Growth`]), for any number of readers at
//! once: they take no lock and wait for nobody ([`ring`]). What is half written is never read. Owner of
//! nothing but numbers. Bounds: [`SECONDS_MAX`], [`MINUTES_MAX`] and [`QUARTERS_MAX`] points, together
//! below [`BYTES_MAX`], taken when the node starts. Time is that of the process since the history began,
//! which no clock turns back. A restart forgets it.

use std::sync::Arc;
use std::time::{Duration, Instant};

pub mod growth;
pub mod measure;
pub mod reading;
mod ring;

use growth::{Growth, Level, Span, Verdict};
use measure::{Measure, Point, WORDS};
use ring::Ring;

/// A quarter of an hour by seconds.
pub const SECONDS_MAX: usize = 900;
/// A day by minutes.
pub const MINUTES_MAX: usize = 1_440;
/// Seven days by quarters of an hour.
pub const QUARTERS_MAX: usize = 672;
/// Most memory of all of it.
pub const BYTES_MAX: usize = 4 << 20;

const _: () = assert!(
    Ring::<WORDS>::bytes(SECONDS_MAX + MINUTES_MAX + QUARTERS_MAX) < BYTES_MAX,
    "a point has too many measures"
);

const MINUTE_MS: u64 = 60_000;
const QUARTER_MS: u64 = 15 * MINUTE_MS;

/// Growth that a node shows soon: of the last six hours, by minutes.
const HOURLY: Span = Span {
    unit_s: 3_600.0,
    unit: "an hour",
    levels_min: 60,
};
const HOURLY_MINUTES: u64 = 360;
/// Growth that is slow: of the last three days, by quarters of an hour.
const DAILY: Span = Span {
    unit_s: 86_400.0,
    unit: "a day",
    levels_min: 96,
};
const DAILY_QUARTERS: u64 = 288;

/// How far back is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// A quarter of an hour.
    Quarter,
    /// A day.
    Day,
    /// Seven days.
    Week,
}

impl Window {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Quarter, Self::Day, Self::Week];

    /// As it is asked for.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Quarter => "15m",
            Self::Day => "24h",
            Self::Week => "7d",
        }
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> Duration {
        let minutes = match self {
            Self::Quarter => 15,
            Self::Day => 24 * 60,
            Self::Week => 7 * 24 * 60,
        };
        Duration::from_secs(60 * minutes)
    }
}

/// See the module.
#[derive(Debug)]
pub struct History {
    begun_at: Instant,
    seconds: Ring<WORDS>,
    minutes: Ring<WORDS>,
    quarters: Ring<WORDS>,
}

/// What a window was like.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// All of it.
    pub all: Point,
    /// Its newest second.
    pub newest: Point,
    /// How long ago that ended.
    pub age: Duration,
}

impl History {
    /// An empty one that begins now, and who writes it.
    #[must_use]
    pub fn begin(begun_at: Instant) -> (Arc<Self>, Recorder) {
        let history = Arc::new(Self {
            begun_at,
            seconds: Ring::new(SECONDS_MAX),
            minutes: Ring::new(MINUTES_MAX),
            quarters: Ring::new(QUARTERS_MAX),
        });
        let recorder = Recorder {
            history: Arc::clone(&history),
            minute: None,
            quarter: None,
        };
        (history, recorder)
    }

    /// An instant as the times of points are.
    #[must_use]
    pub fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.begun_at);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// What the window before this instant was like; `None` before the first second.
    #[must_use]
    pub fn summary(&self, window: Window, now: Instant) -> Option<Summary> {
        let now_ms = self.ms(now);
        let length_ms = u64::try_from(window.length().as_millis()).unwrap_or(u64::MAX);
        let from_ms = now_ms.saturating_sub(length_ms);
        // The coarser first: what ends meanwhile is in the finer too.
        let mut quarters = points(&self.quarters).peekable();
        let mut minutes = points(&self.minutes).peekable();
        let mut seconds = points(&self.seconds);
        let newest = seconds.next()?;
        let mut all = newest.clone();
        let ended_ms = |newest: Option<&Point>| newest.map_or(0, |point| point.ended_ms);
        let (minute_ms, quarter_ms) = (ended_ms(minutes.peek()), ended_ms(quarters.peek()));
        // Of what is coarser the newest point says from where on the finer are needed.
        match window {
            Window::Quarter => add_all(&mut all, seconds, from_ms),
            Window::Day => {
                add_all(&mut all, seconds, minute_ms);
                add_all(&mut all, minutes, from_ms);
            }
            Window::Week => {
                add_all(&mut all, seconds, minute_ms);
                add_all(&mut all, minutes, quarter_ms);
                add_all(&mut all, quarters, from_ms);
            }
        }
        let age_ms = now_ms.saturating_sub(newest.ended_ms);
        Some(Summary {
            all,
            newest,
            age: Duration::from_millis(age_ms),
        })
    }

    /// The last so many seconds, as far as they were recorded; `None` where none of them was.
    #[must_use]
    pub fn recent(&self, length: Duration, now: Instant) -> Option<Point> {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let from_ms = self.ms(now).saturating_sub(length_ms);
        let mut points = points(&self.seconds).take_while(|point| point.ended_ms > from_ms);
        let mut all = points.next()?;
        points.for_each(|point| all.add(&point));
        Some(all)
    }

    /// Whether memory grows by more than this a part of it in an hour, or in a day.
    #[must_use]
    pub fn growth(&self, percent_max: f64) -> Growth {
        let of = |ring, count, span| Growth::judge(&levels(ring, count), span, percent_max);
        let daily = of(&self.quarters, DAILY_QUARTERS, DAILY);
        match daily.verdict {
            Verdict::Suspected => daily,
            _ => of(&self.minutes, HOURLY_MINUTES, HOURLY),
        }
    }
}

/// The points of a ring that were there when it was asked for, the newest first.
fn points(ring: &Ring<WORDS>) -> impl Iterator<Item = Point> {
    let numbers = (0..ring.written()).rev();
    numbers.map_while(|number| Some(Point::read(&ring.row(number)?)))
}

/// Adds what lies before, as far as it begins at this time or later. The newest comes first.
fn add_all(all: &mut Point, points: impl Iterator<Item = Point>, from_ms: u64) {
    for point in points.take_while(|point| point.begun_ms >= from_ms) {
        if point.ended_ms <= all.begun_ms {
            all.add(&point);
        }
    }
}

/// The levels of the newest points, the oldest first.
fn levels(ring: &Ring<WORDS>, count: u64) -> Vec<Level> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let settled = points(ring)
        .take(count)
        .take_while(|point| point.begun_ms >= QUARTER_MS);
    let level = |point: Point| {
        let mean = |measure| point.range(measure).mean();
        let some = |measure| mean(measure).unwrap_or(0.0);
        let held = some(Measure::CacheBytes) + some(Measure::WaitingBytes);
        Some(Level {
            seconds: point.ended_ms as f64 / 1_000.0,
            bytes: mean(Measure::MemoryBytes)? - held,
            sessions: mean(Measure::Sessions)?,
            subscriptions: some(Measure::Subscriptions),
            topics: some(Measure::Topics),
        })
    };
    let mut levels: Vec<_> = settled.filter_map(level).collect();
    levels.reverse();
    levels
}

/// The one that writes a history.
#[derive(Debug)]
pub struct Recorder {
    history: Arc<History>,
    /// The minute and the quarter that have not ended.
    minute: Option<Point>,
    quarter: Option<Point>,
}

impl Recorder {
    /// Adds the next second. It begins where the one before has ended.
    pub fn record(&mut self, point: &Point) {
        self.history.seconds.push(&point.words());
        if let Some(ended) = sum_up(&mut self.minute, point, MINUTE_MS) {
            self.history.minutes.push(&ended.words());
        }
        if let Some(ended) = sum_up(&mut self.quarter, point, QUARTER_MS) {
            self.history.quarters.push(&ended.words());
        }
    }
}

/// Adds a point to those of its minute or quarter. Where it is the first of another one, the one
/// before has ended.
fn sum_up(open: &mut Option<Point>, point: &Point, length_ms: u64) -> Option<Point> {
    let place = |point: &Point| point.ended_ms.saturating_sub(1) / length_ms;
    match open {
        Some(sum) if place(sum) == place(point) => {
            sum.add(point);
            None
        }
        _ => open.replace(point.clone()),
    }
}

#[cfg(test)]
mod tests;
