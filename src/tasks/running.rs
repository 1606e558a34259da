//! Time that passes while the process runs.
//!
//! In: the looks of the judge of turns ([`super::turns`]), some a second. Out: how long a piece of work
//! took ([`Stopwatch`]), without the time in which the process was stopped or its machine paused: of
//! that nobody who waited for the node can say that it worked slowly. Owner: the judge alone writes.
//! Bound: three numbers, which are read without a lock.
//!
//! Of what lies between two looks at most [`LOOK_MAX`] counts, also of what lies behind the last one: so
//! it does not matter whether the judge or the work goes on first.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

/// Most that passes between two looks.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(1);

/// That of this process.
pub(super) static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::new(Instant::now()));

/// See the module.
#[derive(Debug)]
pub(super) struct Clock {
    origin: Instant,
    /// Odd while the others are written.
    version: AtomicU64,
    /// When the judge looked last, since the origin in microseconds; 0: nobody looks.
    looked_us: AtomicU64,
    /// How long the process stood still, up to then.
    stood_us: AtomicU64,
}

impl Clock {
    pub(super) fn new(origin: Instant) -> Self {
        Self {
            origin,
            version: AtomicU64::new(0),
            looked_us: AtomicU64::new(0),
            stood_us: AtomicU64::new(0),
        }
    }

    fn us(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.origin)).max(1)
    }

    /// The judge looks. Returns what has passed since it last did. Of the judge alone.
    pub(super) fn look(&self, now: Instant) -> Duration {
        let now_us = self.us(now);
        let (looked_us, stood_us) = self.read();
        let since_us = match looked_us {
            0 => 0,
            looked_us => now_us.saturating_sub(looked_us),
        };
        let passed_us = since_us.min(micros(LOOK_MAX));
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.looked_us.store(now_us, Ordering::Relaxed);
        let stood_us = stood_us + (since_us - passed_us);
        self.stood_us.store(stood_us, Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
        Duration::from_micros(passed_us)
    }

    /// When the judge looked last, and how long the process had stood still by then.
    fn read(&self) -> (u64, u64) {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let looked_us = self.looked_us.load(Ordering::Relaxed);
            let stood_us = self.stood_us.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version {
                return (looked_us, stood_us);
            }
            std::hint::spin_loop();
        }
    }

    /// How long the process had stood still when the judge looked last.
    pub(super) fn stood_up_to_look(&self) -> Duration {
        Duration::from_micros(self.read().1)
    }

    /// How long the process stood still, up to now.
    fn stood(&self, now: Instant) -> Duration {
        let (looked_us, stood_us) = self.read();
        let since_us = match looked_us {
            0 => 0,
            looked_us => self.us(now).saturating_sub(looked_us),
        };
        Duration::from_micros(stood_us + since_us.saturating_sub(micros(LOOK_MAX)))
    }
}

/// Measures how long something takes while the process runs.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    begun_at: Instant,
    stood: Duration,
}

impl Stopwatch {
    /// It begins.
    #[must_use]
    pub fn begin() -> Self {
        Self::begin_by(&CLOCK, Instant::now())
    }

    /// It began at this instant, a moment ago.
    #[must_use]
    pub fn begun(at: Instant) -> Self {
        Self::begin_by(&CLOCK, at)
    }

    /// How long it takes up to now.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.took_by(&CLOCK, Instant::now())
    }

    fn begin_by(clock: &Clock, now: Instant) -> Self {
        Self {
            begun_at: now,
            stood: clock.stood(now),
        }
    }

    fn took_by(&self, clock: &Clock, now: Instant) -> Duration {
        let stood = clock.stood(now).saturating_sub(self.stood);
        now.saturating_duration_since(self.begun_at)
            .saturating_sub(stood)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Looks four times a second for so many seconds.
    fn look(clock: &Clock, now: &mut Instant, seconds: u32) {
        for _ in 0..4 * seconds {
            *now += 250 * MS;
            clock.look(*now);
        }
    }

    #[test]
    fn what_stood_still_did_not_take_long_whoever_goes_on_first() {
        let mut now = Instant::now();
        let clock = Clock::new(now);
        look(&clock, &mut now, 2);
        let watch = Stopwatch::begin_by(&clock, now);
        look(&clock, &mut now, 3);
        assert_eq!(watch.took_by(&clock, now), 3_000 * MS);
        // A minute in which nothing ran; the work goes on before the judge has looked.
        now += 60_000 * MS;
        assert_eq!(watch.took_by(&clock, now), 4_000 * MS);
        assert_eq!(clock.stood_up_to_look(), Duration::ZERO);
        clock.look(now);
        assert_eq!(clock.stood_up_to_look(), 59_000 * MS);
        assert_eq!(watch.took_by(&clock, now), 4_000 * MS);
        look(&clock, &mut now, 31);
        assert_eq!(watch.took_by(&clock, now), 35_000 * MS, "it is slow itself");
        // What begins afterwards has nothing of it.
        let later = Stopwatch::begin_by(&clock, now);
        look(&clock, &mut now, 1);
        assert_eq!(later.took_by(&clock, now), 1_000 * MS);
    }

    #[test]
    fn where_nobody_looks_all_time_counts() {
        let now = Instant::now();
        let clock = Clock::new(now);
        let watch = Stopwatch::begin_by(&clock, now);
        let later = now + 90_000 * MS;
        assert_eq!(watch.took_by(&clock, later), 90_000 * MS);
    }
}
