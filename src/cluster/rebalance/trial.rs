//! Whether it helps to send sessions away: they go in batches, and each batch is judged before the next.
//! Pure, with time as a value.
//!
//! In: how many sessions should be told to go, and what became of the batch at hand. Out: how many may be
//! told. Behind a balancer that deals by a hash those who are sent away come back to the same node, and
//! would be sent away again for ever.
//!
//! ```text
//! quiet ── somebody is to go ──▶ a batch of 50 ── helped ──▶ one of 100 ── helped ──▶ … of 20 s
//!                                 ▲       │  ▲                   │                      │
//!        ten minutes later ── paused ◀────┘  └── did not help ───┴──────────────────────┘
//! ```
//!
//! What is asked is who came back *here*: the users who were told to go are known ([`Batch`]), and
//! a user who opens a session here again is counted. So neither growth nor those who leave for good
//! look like success or failure. Where too few of a batch can be known again, because they are
//! anonymous, this node's part of all sessions must have fallen instead: what grows or falls on all nodes
//! alike cancels out, but chance and those who end for good do not, so such batches stay small.
//!
//! A node that comes or goes ends the trust, and not the batch: nobody more is told before it is judged.

use std::time::{Duration, Instant};

use super::{Batch, Futile, Here};

/// How many are sent away before it is known that it helps.
pub(super) const SESSIONS: u64 = 50;
/// For so long it is waited, after the last of them has gone, for those who come back: clients come
/// back within seconds.
const LOOK: Duration = Duration::from_secs(15);
/// How long nobody is sent away where it did not help.
pub(super) const PAUSE: Duration = Duration::from_secs(600);
/// Where nobody was to go for so long, the next ones are a trial again.
const QUIET: Duration = Duration::from_secs(60);
/// The largest batch is what is told in so long at the pace of the settings. With 15 s for looking, and
/// some for going, that leaves about half of the pace.
const LARGEST_S: u64 = 20;
/// A batch that has at least [`SESSIONS`] is judged after so long, though it is not full.
const FILL: Duration = Duration::from_secs(30);
/// So many of a batch must be known for it to be judged by them. Of 20 that a balancer with two nodes
/// deals by chance, as many as 16 come back once in 170 times.
const KNOWN_MIN: u64 = 20;
/// Of so many who are judged before a batch is full, because nodes changed, a verdict says something.
const EARLY_MIN: u64 = KNOWN_MIN;

/// What a trial looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub(super) here: Here,
    /// The sessions of all nodes that take some, this one included.
    pub(super) all: u64,
    /// How many nodes these are.
    pub(super) nodes_count: u64,
}

/// How many may be told now, and whether it was found now that it does not help.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) tell: u64,
    /// These are the first of a batch.
    pub(super) begins: bool,
    pub(super) futile: Option<Futile>,
}

/// A batch that is not judged yet.
#[derive(Debug)]
struct Open {
    /// The sessions before it, here and on all nodes.
    here_before: u64,
    all_before: u64,
    size: u64,
    told: u64,
    began: Instant,
    /// When all who were told had gone.
    gone: Option<Instant>,
    /// The nodes changed: nobody is added to it.
    is_closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trial {
    batch: Option<Open>,
    /// How large the next batch may be.
    size: u64,
    largest: u64,
    paused_until: Option<Instant>,
    /// When somebody was to go last.
    wanted_at: Option<Instant>,
}

impl Trial {
    pub(super) fn new(sessions_per_s: u64) -> Self {
        Self {
            batch: None,
            size: SESSIONS,
            largest: (sessions_per_s * LARGEST_S).max(SESSIONS),
            paused_until: None,
            wanted_at: None,
        }
    }

    /// Other nodes take sessions now: the next batch is small again.
    pub(super) fn nodes_changed(&mut self) {
        self.size = SESSIONS;
        if let Some(open) = &mut self.batch {
            open.size = open.size.min(open.told.max(SESSIONS));
            open.is_closed = open.told >= EARLY_MIN;
        }
    }

    /// So many should be told now.
    pub(super) fn allow(&mut self, wanted: u64, around: &Around, now: Instant) -> Allowed {
        self.grow_old(wanted, now);
        if self.paused_until.is_some() {
            return Allowed::default();
        }
        let Around { here, all, .. } = *around;
        let Some(open) = &mut self.batch else {
            let told = wanted.min(self.size);
            if told == 0 {
                return Allowed::default();
            }
            self.batch = Some(Open {
                here_before: here.sessions,
                all_before: all,
                size: self.size,
                told,
                began: now,
                gone: None,
                is_closed: false,
            });
            return Allowed {
                tell: told,
                begins: true,
                futile: None,
            };
        };
        if !open.is_full(now) {
            let tell = wanted.min(open.size - open.told);
            open.told += tell;
            return Allowed {
                tell,
                ..Allowed::default()
            };
        }
        // An order is carried out a little later than it is given.
        open.gone = open.gone.filter(|_| here.told == 0);
        if here.told > 0 || now.duration_since(*open.gone.get_or_insert(now)) < LOOK {
            return Allowed::default();
        }
        let futile = open.verdict(around);
        self.batch = None;
        self.follow(futile, are_known(here.batch), now)
    }

    fn follow(&mut self, futile: Option<Futile>, are_known: bool, now: Instant) -> Allowed {
        if futile.is_none() {
            let larger = (self.size * 2).min(self.largest);
            self.size = if are_known { larger } else { SESSIONS };
            return Allowed::default();
        }
        if self.size > SESSIONS {
            self.size = SESSIONS;
            return Allowed::default();
        }
        self.paused_until = Some(now + PAUSE);
        Allowed {
            futile,
            ..Allowed::default()
        }
    }

    fn grow_old(&mut self, wanted: u64, now: Instant) {
        if self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
        }
        if wanted > 0 || self.wanted_at.is_none() {
            self.wanted_at = Some(now);
        }
        let is_quiet = self
            .wanted_at
            .is_some_and(|at| now.duration_since(at) >= QUIET);
        if is_quiet {
            self.size = SESSIONS;
            self.batch = self.batch.take().filter(|open| open.is_full(now));
        }
    }
}

impl Open {
    fn is_full(&self, now: Instant) -> bool {
        let has_waited = now.duration_since(self.began) >= FILL;
        self.is_closed || self.told >= self.size || (self.told >= SESSIONS && has_waited)
    }

    /// That it did not help, or nothing.
    fn verdict(&self, around: &Around) -> Option<Futile> {
        let Around {
            here,
            all,
            nodes_count: nodes,
        } = *around;
        let batch = here.batch;
        if batch.told == 0 {
            // Nobody here could be told.
            return None;
        }
        if are_known(batch) {
            // One of so many nodes comes back by chance; three fifths of the way from there to all of
            // them is too many.
            let is_futile = batch.returned * 5 * nodes >= batch.known * (3 * nodes + 2);
            return is_futile.then_some(Futile { batch, fell: None });
        }
        let [all, all_before, before, now] =
            [all, self.all_before, self.here_before, here.sessions].map(i128::from);
        let fell = before * all / all_before.max(1) - now;
        // Of those who go at random so many come back that with several nodes above their share
        // a batch brings little more than its part for each node: half of that is enough.
        let is_futile = fell * 2 * i128::from(nodes) < i128::from(batch.told);
        let fell = i64::try_from(fell).ok();
        is_futile.then_some(Futile { batch, fell })
    }
}

/// Whether enough of a batch can be known again.
fn are_known(batch: Batch) -> bool {
    batch.known >= KNOWN_MIN.min(batch.told)
}

#[cfg(test)]
mod tests;
