//! What is known of one partition, and when its turn is.
//!
//! In: rings, what a pass saw or a count found, the time. Out: whether it is due, how urgent it is, how
//! much of a fetch it takes. Owner: [`super::Rota`]. Bound: a few numbers.

use std::time::Duration;

use tokio::time::Instant;

use super::{POLL, POLL_OFTEN, UNRUNG_FOR, WHOLE};
use crate::broker::queue::FETCH_OF_STREAM_MAX;
use crate::broker::queue::bells::Ring;

/// Of what else a partition has, one entry of so many counts when it is looked at for what is critical:
/// a fetch brings some of each priority. With a higher number a pass has more partitions and what is
/// critical is sooner gone, but each partition is looked at more often, which Redis pays.
const LOWER_COUNTED: u64 = 4;

/// Why a partition is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// It was rung for, was taken, or has more.
    Work,
    /// Something becomes due.
    Later,
    /// It is time again.
    Poll,
}

/// How soon its turn comes, the soonest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Something critical has come where nothing critical was left: one more call, and it is gone.
    Fresh,
    /// Something critical was left there.
    Critical,
    /// Something came, or became due, of which nobody knows how urgent it is.
    Unknown,
    /// What waits there is not critical, as far as is known.
    Rest,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) token: u64,
    pub(super) due: Instant,
    pub(super) cause: Cause,
    /// In a pass now.
    pub(super) is_busy: bool,
    /// The token that the last pass began with.
    pub(super) begun: u64,
    /// What rang for it while it was.
    pub(super) rung: Option<Ring>,
    /// The most urgent that rang for it since it was looked at last.
    pub(super) clue: Ring,
    /// When something becomes due there next.
    pub(super) later: Option<Instant>,
    /// In a row.
    pub(super) failures_count: u32,
    /// The last of them was for what Redis says of this partition.
    pub(super) is_ill: bool,
    /// When entries came last without a bell.
    pub(super) unrung: Option<Instant>,
    /// Nothing waited, now or later, when it was looked at last.
    pub(super) is_bare: bool,
    /// When it was last more than glanced at.
    pub(super) fetched: Option<Instant>,
    /// The last pass of which it was the first.
    pub(super) led: u64,
    /// So many due entries were left when it was looked at last.
    pub(super) left: u64,
    /// So many of them a fetch brings at most.
    pub(super) brings: u64,
    /// So many of them were critical.
    pub(super) critical: u64,
}

impl Slot {
    pub(super) fn new(token: u64, now: Instant) -> Self {
        Self {
            token,
            due: now,
            cause: Cause::Work,
            is_busy: false,
            begun: token,
            rung: None,
            clue: Ring::Unsaid,
            later: None,
            failures_count: 0,
            is_ill: false,
            unrung: None,
            is_bare: false,
            fetched: None,
            led: 0,
            left: 0,
            brings: 0,
            critical: 0,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_busy && self.due <= now
    }

    /// When its turn is among those that are due: the least comes first.
    pub(super) fn turn(&self, now: Instant, is_general: bool) -> (Urgency, Instant) {
        match is_general {
            true => (Urgency::Rest, self.due),
            false => (self.urgency(now), self.due),
        }
    }

    /// It failed, and again after that.
    pub(super) fn stands_still(&self) -> bool {
        self.failures_count > 1
    }

    pub(super) fn urgency(&self, now: Instant) -> Urgency {
        let has_come = self.later.is_some_and(|later| later <= now);
        match self.clue {
            // Most likely it does so again: what can be moved comes first.
            _ if self.is_ill && self.stands_still() => Urgency::Rest,
            _ if self.critical > 0 => Urgency::Critical,
            Ring::Critical => Urgency::Fresh,
            Ring::Unsaid => Urgency::Unknown,
            Ring::Lower if has_come => Urgency::Unknown,
            Ring::Lower => Urgency::Rest,
        }
    }

    /// How many entries of a fetch are for it, by what is known.
    pub(super) fn weight(&self, now: Instant) -> u64 {
        let weight = match self.urgency(now) {
            Urgency::Rest => self.brings,
            Urgency::Fresh | Urgency::Critical | Urgency::Unknown => {
                let critical = self.critical.clamp(1, FETCH_OF_STREAM_MAX as u64);
                critical + self.brings.saturating_sub(critical) / LOWER_COUNTED
            }
        };
        weight.max(1)
    }

    /// Whether it is enough to see that nothing waits there.
    pub(super) fn is_glance(&self, now: Instant) -> bool {
        let is_old = self.fetched.is_none_or(|fetched| fetched + WHOLE <= now);
        self.is_bare && self.cause == Cause::Poll && !is_old
    }

    pub(super) fn look_at(&mut self, due: Instant, cause: Cause) {
        (self.due, self.cause) = (due, cause);
    }

    /// What failed is tried within a [`POLL`] and not at once: bells also ring when Redis is back.
    pub(super) fn ring(&mut self, ring: Ring, now: Instant) {
        if self.is_busy {
            self.rung = self.rung.max(Some(ring));
            return;
        }
        self.keep(Some(ring));
        // It came after what is refused, and may have another way.
        self.is_ill &= ring != Ring::Critical;
        if self.failures_count == 0 {
            self.look_at(self.due.min(now), Cause::Work);
        } else {
            self.due = self.due.min(now + POLL);
        }
    }

    /// It has not been looked at since that rang.
    pub(super) fn keep(&mut self, rung: Option<Ring>) {
        self.clue = self.clue.max(rung.unwrap_or_default());
    }

    pub(super) fn looked(
        &mut self,
        left: u64,
        rung: Option<Ring>,
        next_due: Option<Duration>,
        now: Instant,
    ) {
        self.left = left;
        self.brings = self.brings.min(left);
        self.critical = self.critical.min(left);
        self.clue = rung.unwrap_or_default();
        self.later = next_due.map(|wait| now + wait);
        if left > 0 || rung.is_some() {
            return self.look_at(now, Cause::Work);
        }
        let is_unrung = self.unrung.is_some_and(|at| now < at + UNRUNG_FOR);
        let poll = if is_unrung { POLL_OFTEN } else { POLL };
        match next_due {
            Some(next) if next < poll => self.look_at(now + next, Cause::Later),
            _ => self.look_at(now + poll, Cause::Poll),
        }
    }
}
