//! Whom the node lets in, beside the number of places: so many handshakes a second, and nobody
//! while memory is short.
//!
//! In: handshakes that would be let in, and what `node::memory` measures. Out: yes, or how long the
//! client should wait. Shared by all workers: one lock for a few additions, once a handshake.
//! Bounds: `admission.handshakes_per_s` and `…_burst`; at the bound 503 with `Retry-After`, counted
//! by reason. Those who are refused are told to come one behind the other at that pace, so that a
//! storm comes back as a queue and not as the next storm.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::RngExt as _;

use crate::config;

/// The longest wait that a client is told: it may find another node sooner.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// What a wait may be longer than told by the bucket, at random.
const JITTER: f64 = 0.5;
/// Between which numbers of seconds a client is told to wait while memory is short: it comes back
/// as sessions leave, which takes longer than a moment.
const MEMORY_WAIT_S: std::ops::RangeInclusive<u64> = 5..=15;

/// Why somebody is not let in, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// Too many handshakes.
    Rate(Duration),
    /// Too little memory.
    Memory(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Admission {
    bucket: Option<Mutex<Bucket>>,
    memory_is_short: AtomicBool,
}

impl Admission {
    /// Lets everybody in up to what is configured.
    #[must_use]
    pub fn new(config: &config::Admission, now: Instant) -> Arc<Self> {
        let bucket = |per_s| Mutex::new(Bucket::new(per_s, config.handshakes_burst, now));
        Arc::new(Self {
            bucket: config.handshakes_per_s.map(bucket),
            memory_is_short: AtomicBool::new(false),
        })
    }

    /// Says whether memory is short from now on.
    pub fn set_memory_short(&self, is_short: bool) {
        self.memory_is_short.store(is_short, Relaxed);
    }

    /// Whether memory is short, so that nobody is let in.
    #[must_use]
    pub fn memory_is_short(&self) -> bool {
        self.memory_is_short.load(Relaxed)
    }

    /// Asks for one handshake.
    ///
    /// # Errors
    /// [`NotNow`], with how long the client should wait.
    pub fn take(&self, now: Instant) -> Result<(), NotNow> {
        let mut rng = rand::rng();
        if self.memory_is_short() {
            let wait = Duration::from_secs(rng.random_range(MEMORY_WAIT_S));
            return Err(NotNow::Memory(wait));
        }
        let Some(bucket) = &self.bucket else {
            return Ok(());
        };
        let taken = bucket
            .lock()
            .expect("no holder of this lock panics")
            .take(now);
        taken.map_err(|wait| {
            let longer = 1.0 + rng.random_range(0.0..=JITTER);
            NotNow::Rate(wait.mul_f64(longer))
        })
    }
}

/// A token bucket, as the time at which it will be full again.
#[derive(Debug)]
struct Bucket {
    /// Between two handshakes in the long run.
    interval: Duration,
    /// How long it takes to fill.
    depth: Duration,
    full_at: Instant,
    /// When the last of those who were refused was told to come.
    promised: Instant,
}

impl Bucket {
    fn new(per_s: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / per_s;
        Self {
            interval,
            depth: interval * burst,
            full_at: now,
            promised: now,
        }
    }

    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.max(now) + self.interval;
        if full_at <= now + self.depth {
            self.full_at = full_at;
            return Ok(());
        }
        let promised = self.promised.max(now) + self.interval;
        self.promised = promised.min(now + WAIT_MAX);
        Err(self.promised - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_comes_in_at_once_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 5, start);
        let let_in =
            |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(now).is_ok()).count();
        assert_eq!(let_in(&mut bucket, start), 5);
        assert_eq!(let_in(&mut bucket, start), 0);
        assert_eq!(let_in(&mut bucket, start + S / 10), 1);
        assert_eq!(let_in(&mut bucket, start + S / 2), 4);
        assert_eq!(
            let_in(&mut bucket, start + 3_600 * S),
            5,
            "no more than the burst"
        );
    }

    #[test]
    fn in_the_long_run_the_rate_holds_whenever_they_come() {
        let start = Instant::now();
        let mut bucket = Bucket::new(100, 10, start);
        let mut let_in = 0;
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            let_in += (0..ms % 7).filter(|_| bucket.take(now).is_ok()).count();
        }
        assert!((1_000..=1_010).contains(&let_in), "{let_in}");
    }

    #[test]
    fn those_who_are_refused_are_told_to_come_one_behind_the_other() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 1, start);
        assert_eq!(bucket.take(start), Ok(()));
        let waits: Vec<_> = (0..3).map(|_| bucket.take(start).unwrap_err()).collect();
        assert_eq!(waits, [S / 10, S / 5, S * 3 / 10]);
        let later = start + S / 20;
        assert_eq!(bucket.take(later), Err(S * 35 / 100), "behind those before");
        for _ in 0..10_000 {
            assert!(bucket.take(later).unwrap_err() <= WAIT_MAX);
        }
    }

    #[test]
    fn nobody_comes_in_while_memory_is_short_and_that_takes_no_token() {
        let config = config::Admission {
            handshakes_per_s: Some(1),
            handshakes_burst: 1,
            memory_bytes_max: None,
        };
        let now = Instant::now();
        let admission = Admission::new(&config, now);
        admission.set_memory_short(true);
        for _ in 0..10 {
            let NotNow::Memory(wait) = admission.take(now).unwrap_err() else {
                panic!("another reason");
            };
            assert!(MEMORY_WAIT_S.contains(&wait.as_secs()));
        }
        admission.set_memory_short(false);
        assert_eq!(admission.take(now), Ok(()));
        let NotNow::Rate(wait) = admission.take(now).unwrap_err() else {
            panic!("another reason");
        };
        assert!((S..=S * 3 / 2).contains(&wait), "{wait:?}");
    }

    #[test]
    fn without_a_rate_everybody_comes_in() {
        let config = config::Admission {
            handshakes_per_s: None,
            handshakes_burst: 1,
            memory_bytes_max: None,
        };
        let now = Instant::now();
        let admission = Admission::new(&config, now);
        assert!((0..1_000).all(|_| admission.take(now).is_ok()));
    }
}
