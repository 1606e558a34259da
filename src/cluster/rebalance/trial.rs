//! Whether it helps to send sessions away: the first of them are a trial. Pure, with time as a value.
//!
//! In: how many sessions should be told to go, how many are here, how many nodes take sessions. Out:
//! how many may be told. Behind a balancer that deals by a hash those who are sent away come back to
//! the same node, and would be sent away again for ever.
//!
//! ```text
//! quiet ── somebody is to go ──▶ trying ── the sessions fell ──▶ trusted ── nobody told for a minute ──▶ quiet
//!                                   └────── they did not ──────▶ paused ──── ten minutes later ─────▶ quiet
//! ```
//!
//! Where the nodes change, what was seen says nothing any more: a trial begins anew. A pause stays.

use std::time::{Duration, Instant};

use super::Here;

/// How many are sent away before it is known that it helps.
pub(super) const SESSIONS: u64 = 50;
/// For so long it is waited, after the last of them has gone, for those who come back: clients come
/// back within seconds.
const LOOK: Duration = Duration::from_secs(15);
/// How long nobody is sent away where it did not help.
pub(super) const PAUSE: Duration = Duration::from_secs(600);
/// Where nobody was told for so long, the next ones are a trial again.
const QUIET: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trial(State);

#[derive(Debug, Default)]
enum State {
    #[default]
    Quiet,
    Trying {
        /// The sessions that were here before.
        before: u64,
        told: u64,
        last: Instant,
        /// When all who were told had gone.
        gone: Option<Instant>,
    },
    Trusted {
        last: Instant,
    },
    Paused {
        until: Instant,
    },
}

/// How many may be told now, and whether it was found now that it does not help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) tell: u64,
    /// By how many the sessions fell, where that is too few.
    pub(super) fell: Option<u64>,
}

impl Trial {
    /// Forgets what was seen: other nodes take sessions now.
    pub(super) fn forget(&mut self) {
        if !matches!(self.0, State::Paused { .. }) {
            self.0 = State::Quiet;
        }
    }

    /// So many should be told now, of the sessions that are `here`, while so many nodes take sessions.
    pub(super) fn allow(
        &mut self,
        wanted: u64,
        here: Here,
        nodes_count: u64,
        now: Instant,
    ) -> Allowed {
        self.grow_old(now);
        match &mut self.0 {
            State::Quiet if wanted == 0 => Allowed::default(),
            State::Quiet => {
                let told = wanted.min(SESSIONS);
                self.0 = State::Trying {
                    before: here.sessions,
                    told,
                    last: now,
                    gone: None,
                };
                tell(told)
            }
            State::Trying { told, last, .. } if *told < SESSIONS => {
                let more = wanted.min(SESSIONS - *told);
                *told += more;
                note(last, more, now);
                tell(more)
            }
            State::Trying { before, gone, .. } => {
                // An order is carried out a little later than it is given.
                *gone = gone.filter(|_| here.told == 0);
                if here.told > 0 || now.duration_since(*gone.get_or_insert(now)) < LOOK {
                    return Allowed::default();
                }
                let fell = before.saturating_sub(here.sessions);
                // Of those who go at random so many come back that with several nodes above their share
                // a trial brings little more than its part for each node: half of that is enough.
                let helped = fell * 2 * nodes_count >= SESSIONS;
                self.judge(helped, fell, wanted, now)
            }
            State::Trusted { last } => {
                note(last, wanted, now);
                tell(wanted)
            }
            State::Paused { .. } => Allowed::default(),
        }
    }

    fn judge(&mut self, helped: bool, fell: u64, wanted: u64, now: Instant) -> Allowed {
        if helped {
            self.0 = State::Trusted { last: now };
            return tell(wanted);
        }
        self.0 = State::Paused { until: now + PAUSE };
        Allowed {
            tell: 0,
            fell: Some(fell),
        }
    }

    fn grow_old(&mut self, now: Instant) {
        let is_over = match &self.0 {
            State::Trying { told, last, .. } if *told < SESSIONS => {
                now.duration_since(*last) >= QUIET
            }
            State::Trusted { last } => now.duration_since(*last) >= QUIET,
            State::Paused { until } => now >= *until,
            State::Quiet | State::Trying { .. } => false,
        };
        if is_over {
            self.0 = State::Quiet;
        }
    }
}

fn tell(tell: u64) -> Allowed {
    Allowed { tell, fell: None }
}

fn note(last: &mut Instant, told: u64, now: Instant) {
    if told > 0 {
        *last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn here(sessions: u64, told: u64) -> Here {
        Here { sessions, told }
    }

    /// A trial whose last session was told at `now`.
    fn tried(before: u64, now: Instant) -> Trial {
        let mut trial = Trial::default();
        let mut told = 0;
        for second in [2, 1, 0] {
            told += trial.allow(20, here(before, 0), 2, now - second * S).tell;
        }
        assert_eq!(told, SESSIONS);
        trial
    }

    #[test]
    fn nobody_more_than_the_trial_is_told_before_it_is_judged() {
        let now = Instant::now();
        let mut trial = tried(1_000, now);
        for second in 1..=7 {
            let allowed = trial.allow(20, here(1_000, 50), 2, now + second * S);
            assert_eq!(allowed, Allowed::default(), "{second}");
        }
        // They have gone; those who come back have 15 s for it.
        for second in 8..23 {
            let allowed = trial.allow(20, here(950, 0), 2, now + second * S);
            assert_eq!(allowed, Allowed::default(), "{second}");
        }
        let allowed = trial.allow(20, here(950, 0), 2, now + 23 * S);
        assert_eq!(allowed, tell(20));
    }

    #[test]
    fn it_helped_where_half_of_a_nodes_part_stayed_away() {
        // 50 ÷ (2 × nodes): 12.5 with two, 2.5 with ten.
        for (nodes_count, enough) in [(2, 13), (10, 3)] {
            for (fell, helps) in [(enough, true), (enough - 1, false)] {
                let now = Instant::now();
                let mut trial = tried(1_000, now);
                let after = here(1_000 - fell, 0);
                trial.allow(20, after, nodes_count, now + S);
                let allowed = trial.allow(20, after, nodes_count, now + 16 * S);
                let futile = Allowed {
                    tell: 0,
                    fell: Some(fell),
                };
                let expected = if helps { tell(20) } else { futile };
                assert_eq!(allowed, expected, "{nodes_count} {fell}");
            }
        }
    }

    #[test]
    fn a_pause_lasts_ten_minutes_whatever_nodes_do_and_then_there_is_one_more_trial() {
        let now = Instant::now();
        let mut trial = tried(1_000, now);
        trial.allow(20, here(1_000, 0), 2, now + S);
        let found = now + 16 * S;
        assert!(trial.allow(20, here(1_010, 0), 2, found).fell.is_some());
        for second in [1, 60, 599] {
            trial.forget();
            let allowed = trial.allow(20, here(1_000, 0), 2, found + second * S);
            assert_eq!(allowed, Allowed::default(), "{second}");
        }
        let told: u64 = (600..700)
            .map(|second| trial.allow(20, here(1_000, 0), 2, found + second * S))
            .map(|allowed| allowed.tell)
            .sum();
        assert_eq!(told, SESSIONS);
    }

    #[test]
    fn what_was_seen_is_forgotten_when_nodes_change_and_after_a_minute_without_orders() {
        let now = Instant::now();
        let mut trial = tried(1_000, now);
        trial.forget();
        assert_eq!(trial.allow(80, here(1_000, 0), 2, now + S), tell(SESSIONS));

        let mut trial = tried(1_000, now);
        trial.allow(20, here(900, 0), 2, now + S);
        assert_eq!(trial.allow(90, here(900, 0), 2, now + 16 * S), tell(90));
        assert_eq!(trial.allow(90, here(900, 0), 2, now + 75 * S), tell(90));
        let later = now + (75 + 60) * S;
        assert_eq!(trial.allow(90, here(900, 0), 2, later), tell(SESSIONS));
    }

    #[test]
    fn a_few_again_and_again_are_one_trial() {
        let now = Instant::now();
        let mut trial = Trial::default();
        let told: u64 = (0..200)
            .map(|second| {
                // Twelve are too many, go and come back within ten seconds.
                let wanted = if second % 10 == 0 { 12 } else { 0 };
                trial.allow(wanted, here(72, 0), 2, now + second * S).tell
            })
            .sum();
        assert_eq!(told, SESSIONS);
    }
}
