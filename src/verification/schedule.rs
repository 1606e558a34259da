//! When a set of keys is fetched, and what whoever misses a key is told.
//!
//! In: time, questions, and how each fetch ended. Out: when the next one is due, and an [`Answer`] to each
//! question. Pure: it has no clock and asks nobody.
//!
//! ```text
//!   due, or a question more than ASK_EVERY after the last fetch ──▶ running ──▶ taken | failed
//! ```
//!
//! One fetch a minute follows from questions, however many there are, so that whoever invents names of keys
//! makes no requests; one that fails is made again after seconds, once, because a failure is no answer. A missing key is not there only where a fetch was begun after it was first asked for
//! and was taken without it: else a stranger's question would make each new key a minute of refusals.
//! Before the first set was taken nobody at all is let in, so it is tried after seconds then,
//! by the schedule itself and not by questions.

use std::time::{Duration, Instant};

use super::fetch::TIMEOUT;

/// Questions lead to one fetch in so long.
pub const ASK_EVERY: Duration = Duration::from_secs(60);
/// How long after its failure the first fetch is made again.
pub const FIRST_RETRY: Duration = Duration::from_secs(1);
/// How long after its failure a fetch of a set that was read before is made again, once.
pub const AGAIN: Duration = Duration::from_secs(5);
/// Whoever waited until so short before the end of a fetch has waited for all of it.
const END: Duration = Duration::from_secs(1);
/// How often a set is fetched where its `max-age` says nothing.
pub const EVERY: Duration = Duration::from_secs(600);
/// The longest `max-age` that is obeyed: so long a key works that was taken out of the set.
pub const EVERY_MAX: Duration = Duration::from_secs(3_600);

/// What is told to whoever misses a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A fetch runs or begins: wait for its end.
    Wait,
    /// The set is newer than the first question, and has no such key.
    NotThere,
    /// Nobody knows: it is asked for again in so long.
    Later(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    begun: Option<Instant>,
    is_running: bool,
    failures: u32,
    taken: Option<Instant>,
    due: Instant,
}

impl Schedule {
    /// A set that is due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            begun: None,
            is_running: false,
            failures: 0,
            taken: None,
            due: now,
        }
    }

    /// When it is fetched next.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// A key is missing, which was asked for at `first` first of all.
    pub fn ask(&mut self, now: Instant, first: Instant) -> Answer {
        if self.is_running {
            return Answer::Wait;
        }
        match self.known(now, first) {
            Answer::Later(wait) if wait.is_zero() => {
                self.due = now;
                Answer::Wait
            }
            known => known,
        }
    }

    /// The same without leading to a fetch: where none may be made, or one has just ended.
    #[must_use]
    pub fn known(&self, now: Instant, first: Instant) -> Answer {
        let Some(begun) = self.begun else {
            return Answer::Later(Duration::ZERO);
        };
        if self.is_running {
            return Answer::Later(self.after_running(begun, now));
        }
        if self.failures == 0 && begun >= first {
            return Answer::NotThere;
        }
        let next = self.due.min(begun + ASK_EVERY);
        Answer::Later(next.saturating_duration_since(now))
    }

    /// When somebody comes again for whom the running fetch took too long: when it has ended. One that hangs
    /// till its end fails, so after that it is when its failure makes the next one due.
    fn after_running(&self, begun: Instant, now: Instant) -> Duration {
        let left = (begun + TIMEOUT).saturating_duration_since(now);
        match left > END {
            true => left,
            false => left + self.wait_after(self.failures.saturating_add(1)),
        }
    }

    /// How long the next fetch waits after so many failures. The first failure of a set that was read is tried
    /// again soon, because whoever has a key that was published meanwhile waits for it.
    fn wait_after(&self, failures: u32) -> Duration {
        let (first, most, doubled) = match (self.taken, failures) {
            (None, _) => (FIRST_RETRY, ASK_EVERY, failures - 1),
            (Some(_), 1) => return AGAIN,
            (Some(_), _) => (ASK_EVERY, EVERY, failures - 2),
        };
        (first * 2_u32.pow(doubled.min(8))).min(most)
    }

    /// A fetch begins.
    pub fn begin(&mut self, now: Instant) {
        self.begun = Some(now);
        self.is_running = true;
    }

    /// It has ended well; the set says how long it is good.
    pub fn taken(&mut self, now: Instant, max_age: Option<Duration>) {
        self.is_running = false;
        self.failures = 0;
        self.taken = Some(now);
        self.due = now + max_age.unwrap_or(EVERY).clamp(ASK_EVERY, EVERY_MAX);
    }

    /// It has failed. The next one comes after [`AGAIN`], then after [`ASK_EVERY`] and each time twice as long
    /// as the last, up to [`EVERY`], and a random part (`share`, 0 to 1, of a quarter) less than that, so that
    /// nodes do not come together. Before the first set was taken it begins at [`FIRST_RETRY`] and ends at
    /// [`ASK_EVERY`].
    pub fn failed(&mut self, now: Instant, share: f64) {
        self.is_running = false;
        self.failures = self.failures.saturating_add(1);
        let wait = self.wait_after(self.failures);
        let least = match (self.taken, self.failures) {
            (None, _) | (Some(_), 1) => Duration::ZERO,
            (Some(_), _) => ASK_EVERY,
        };
        self.due = now + (wait - wait.mul_f64(share.clamp(0.0, 1.0) / 4.0)).max(least);
    }

    /// Whether the last fetch failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn questions_lead_to_one_fetch_a_minute() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        assert_eq!(schedule.due(), now, "it is due at once");
        assert_eq!(schedule.ask(now, now), Answer::Wait);
        schedule.begin(now);
        assert_eq!(schedule.ask(now + S, now), Answer::Wait);
        schedule.taken(now + S, None);
        assert_eq!(schedule.due(), now + S + EVERY);
        for second in 1..60 {
            let at = now + S * second;
            // Asked for before that fetch, and after it.
            assert_eq!(schedule.ask(at, now), Answer::NotThere);
            let later = Answer::Later(S * (60 - second));
            assert_eq!(schedule.ask(at, now + S), later);
            assert_eq!(schedule.due(), now + S + EVERY, "no question moved it");
        }
        assert_eq!(schedule.ask(now + ASK_EVERY, now + S), Answer::Wait);
        assert_eq!(schedule.due(), now + ASK_EVERY);
    }

    #[test]
    fn after_a_failure_nobody_knows_and_the_next_one_waits_longer() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.begin(now);
        schedule.taken(now, None);
        for wait in [5, 60, 120, 240, 480, 600, 600] {
            schedule.begin(now);
            schedule.failed(now, 0.0);
            assert!(schedule.is_failing());
            assert_eq!(schedule.due(), now + S * wait);
            let later = Answer::Later(S * (wait.min(60) - 1));
            assert_eq!(schedule.ask(now + S, now), later);
            now = schedule.due();
        }
        schedule.begin(now);
        schedule.failed(now, 1.0);
        assert_eq!(schedule.due(), now + S * 450, "a quarter less at most");
        schedule.begin(now);
        schedule.taken(now, None);
        assert!(!schedule.is_failing());
        schedule.begin(now);
        schedule.failed(now, 1.0);
        assert_eq!(schedule.due(), now + AGAIN * 3 / 4, "once, and sooner");
        schedule.begin(now);
        schedule.failed(now, 1.0);
        assert_eq!(
            schedule.due(),
            now + ASK_EVERY,
            "then never more than one a minute"
        );
    }

    /// Whoever had waited for all of a fetch that hung was told to come again at once, for a second refusal.
    #[test]
    fn who_waited_for_a_fetch_in_vain_comes_again_when_it_has_ended_or_the_next_one_has() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.begin(now);
        assert_eq!(schedule.known(now + S, now), Answer::Later(S * 4));
        let hung = now + TIMEOUT;
        assert_eq!(schedule.known(hung, now), Answer::Later(FIRST_RETRY));
        schedule.taken(hung, None);
        let later = hung + EVERY;
        schedule.begin(later);
        assert_eq!(schedule.known(later + S, later), Answer::Later(S * 4));
        let hung = later + TIMEOUT;
        assert_eq!(schedule.known(hung, later), Answer::Later(AGAIN));
        schedule.failed(hung, 0.0);
        let again = schedule.due();
        schedule.begin(again);
        let hung = again + TIMEOUT;
        assert_eq!(schedule.known(hung, again), Answer::Later(ASK_EVERY));
    }

    #[test]
    fn max_age_is_obeyed_within_bounds() {
        let now = Instant::now();
        let due = |max_age| {
            let mut schedule = Schedule::new(now);
            schedule.begin(now);
            schedule.taken(now, max_age);
            schedule.due() - now
        };
        assert_eq!(due(None), EVERY);
        assert_eq!(due(Some(S * 300)), S * 300);
        assert_eq!(due(Some(Duration::ZERO)), ASK_EVERY);
        assert_eq!(due(Some(S * 86_400 * 365)), EVERY_MAX);
    }

    #[test]
    fn the_first_set_is_tried_for_after_seconds_and_no_question_hurries_it() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            schedule.begin(now);
            schedule.failed(now, 0.0);
            assert_eq!(schedule.due(), now + S * wait);
            assert_eq!(schedule.ask(now, now), Answer::Later(S * wait));
            assert_eq!(schedule.due(), now + S * wait, "no question moved it");
            now = schedule.due();
        }
        schedule.begin(now);
        schedule.failed(now, 1.0);
        assert_eq!(schedule.due(), now + S * 45, "a quarter less at most");
    }
}
