//! Whether an authorizer is asked at all: one that fails again and again gets a rest.
//!
//! In: the outcome of each enquiry, and time. Out: a [`Pass`] for an enquiry, or how long none is asked. Pure:
//! the clock and the share of chance are values. Owner: one [`super::Authorizer`]. Bound: a few numbers.
//!
//! ```text
//!            8 failures in a row, or more than half of the last 20
//!   closed ──────────────────────────────────────────────────────▶ open ◀──────┐
//!      ▲                                      1 s, doubling to 30 s │           │ it fails
//!      └───────────── it is answered ◀────── half open: one enquiry ──────────┘
//! ```

use std::time::{Duration, Instant};

/// So many failures in a row open it.
pub const IN_A_ROW_MAX: u32 = 8;
/// It looks at so many outcomes; more failures than half of them open it.
pub const WINDOW: u32 = 20;
/// How long it is open at first, and at last.
pub const REST: Duration = Duration::from_secs(1);
/// See [`REST`].
pub const REST_MAX: Duration = Duration::from_secs(30);

/// How long a client waits that comes while the one enquiry is asked.
const TRIAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// An enquiry that may be asked. Its outcome belongs to the state in which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    generation: u64,
}

/// What an outcome has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is asked for so long. True: until now it was asked.
    Opened(Duration, bool),
    /// It is asked again.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// The last outcomes, a bit each; 1 is a failure.
    outcomes: u32,
    outcomes_count: u32,
    in_a_row: u32,
    /// How often it has opened since it was closed.
    opened: u32,
    generation: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            outcomes: 0,
            outcomes_count: 0,
            in_a_row: 0,
            opened: 0,
            generation: 0,
        }
    }
}

impl Breaker {
    /// Whether an enquiry may be asked now.
    ///
    /// # Errors
    /// When to try again.
    pub fn check(&self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until } if until <= now => Ok(()),
            State::Open { until } => Err(until - now),
            State::HalfOpen => Err(TRIAL),
        }
    }

    /// Whether it is anything but closed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    /// An enquiry is asked now. Where the breaker was open, it is the one by which it is tried.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn begin(&mut self, now: Instant) -> Result<Pass, Duration> {
        self.check(now)?;
        if self.is_open() {
            self.turn(State::HalfOpen);
        }
        Ok(Pass {
            generation: self.generation,
        })
    }

    /// What became of an enquiry. `share` (0 to 1, at random) makes a rest up to a quarter shorter, so that
    /// nodes do not come back at once.
    pub fn end(&mut self, pass: Pass, is_answered: bool, now: Instant, share: f64) -> Option<Turn> {
        if pass.generation != self.generation {
            return None;
        }
        match (self.state, is_answered) {
            (State::HalfOpen, true) => {
                *self = Self {
                    generation: self.generation + 1,
                    ..Self::default()
                };
                return Some(Turn::Closed);
            }
            (State::HalfOpen, false) => {}
            _ => {
                self.count(is_answered);
                if !self.fails() {
                    return None;
                }
            }
        }
        let was_closed = self.opened == 0;
        let rest = REST * 2_u32.saturating_pow(self.opened.min(5));
        let rest = rest.min(REST_MAX);
        let rest = rest - rest.mul_f64(share.clamp(0.0, 1.0) / 4.0);
        self.opened = self.opened.saturating_add(1);
        self.turn(State::Open { until: now + rest });
        Some(Turn::Opened(rest, was_closed))
    }

    /// Nobody waits for the answer any more: it says nothing. The next one may try.
    pub fn give_up(&mut self, pass: Pass, now: Instant) {
        if pass.generation == self.generation && self.state == State::HalfOpen {
            self.turn(State::Open { until: now });
        }
    }

    fn count(&mut self, is_answered: bool) {
        self.in_a_row = match is_answered {
            true => 0,
            false => self.in_a_row + 1,
        };
        self.outcomes = (self.outcomes << 1 | u32::from(!is_answered)) & ((1 << WINDOW) - 1);
        self.outcomes_count = (self.outcomes_count + 1).min(WINDOW);
    }

    fn fails(&self) -> bool {
        let is_whole = self.outcomes_count == WINDOW;
        self.in_a_row >= IN_A_ROW_MAX || (is_whole && self.outcomes.count_ones() > WINDOW / 2)
    }

    fn turn(&mut self, to: State) {
        self.state = to;
        self.generation += 1;
        (self.outcomes, self.outcomes_count, self.in_a_row) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn ask(breaker: &mut Breaker, now: Instant, is_answered: bool) -> Option<Turn> {
        let pass = breaker.begin(now).expect("it may be asked");
        breaker.end(pass, is_answered, now, 0.0)
    }

    #[test]
    fn eight_failures_in_a_row_open_it_and_one_answer_between_them_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..7 {
            assert_eq!(ask(&mut breaker, now, false), None);
        }
        assert_eq!(ask(&mut breaker, now, true), None);
        for _ in 0..7 {
            assert_eq!(ask(&mut breaker, now, false), None);
        }
        assert_eq!(ask(&mut breaker, now, false), Some(Turn::Opened(S, true)));
        assert_eq!(breaker.begin(now), Err(S));
        assert_eq!(breaker.check(now + S / 2), Err(S / 2));
    }

    #[test]
    fn more_than_half_of_twenty_open_it_and_half_does_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(ask(&mut breaker, now, false), None);
            assert_eq!(ask(&mut breaker, now, true), None);
        }
        // Of the last twenty eleven have failed with the second of these.
        assert_eq!(ask(&mut breaker, now, false), None);
        assert_eq!(ask(&mut breaker, now, false), Some(Turn::Opened(S, true)));
    }

    #[test]
    fn it_is_tried_by_one_enquiry_and_rests_twice_as_long_each_time() {
        let mut now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..7 {
            ask(&mut breaker, now, false);
        }
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            let rest = S * seconds;
            assert_eq!(
                ask(&mut breaker, now, false),
                Some(Turn::Opened(rest, seconds == 1))
            );
            assert!(breaker.check(now + rest - S / 10).is_err());
            now += rest;
        }
        let pass = breaker.begin(now).unwrap();
        assert_eq!(breaker.begin(now), Err(TRIAL), "one at a time");
        assert_eq!(breaker.end(pass, true, now, 0.0), Some(Turn::Closed));
        assert!(!breaker.is_open() && breaker.begin(now).is_ok());
        for _ in 0..7 {
            ask(&mut breaker, now, false);
        }
        let again = ask(&mut breaker, now, false);
        assert_eq!(again, Some(Turn::Opened(S, true)), "it begins anew");
    }

    #[test]
    fn who_asked_before_it_opened_changes_nothing_and_a_try_that_is_given_up_is_the_nexts() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let early = breaker.begin(now).unwrap();
        for _ in 0..8 {
            ask(&mut breaker, now, false);
        }
        assert_eq!(breaker.end(early, true, now, 0.0), None);
        assert_eq!(breaker.check(now), Err(S), "an old answer closes nothing");
        let tried = breaker.begin(now + S).unwrap();
        breaker.give_up(tried, now + S);
        assert!(breaker.begin(now + S).is_ok());
        assert_eq!(breaker.end(tried, true, now, 0.0), None);
    }

    #[test]
    fn chance_makes_a_rest_a_quarter_shorter_at_most() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..7 {
            ask(&mut breaker, now, false);
        }
        let pass = breaker.begin(now).unwrap();
        let turn = breaker.end(pass, false, now, 1.0);
        assert_eq!(turn, Some(Turn::Opened(S * 3 / 4, true)));
    }
}
