//! The link of one topic: what this node has delivered, and how each arrival is judged.
//!
//! In: entries from the feed, and the broker's answers to the questions that this machine asks.
//! Out: [`Step`]s in order: deliver, tell a gap, ask. Pure: no clock, no I/O. Owned by the
//! dispatcher, one a topic. Bounds: [`RECENT_MAX`] remembered ids; [`HELD_MAX`] entries or
//! [`HELD_BYTES_MAX`] bytes held while a question is open. At the bound the held entries are thrown
//! away and the stream is read instead.
//!
//! ```text
//!            prev = last                    anything doubtful, a break, the sweep
//!   Live ──────────────▶ deliver     Live ─────────────────────────────────────▶ Checking
//!   Live ── id known ──▶ duplicate   Checking: hold what arrives, ask since(last)
//!   Checking ── recovered ─▶ deliver the pages, then what was held above them ─▶ Live
//!   Checking ── retention ─▶ gap, then the same
//!   Checking ── failover ──▶ Rewinding: read the newest of the stream, find the newest id that
//!                            was delivered, gap from there, deliver what is new ─▶ Live
//! ```
//! A link begins as `Joining`: it holds what arrives until the topic's newest id is known, where it
//! goes live.
//!
//! Ids that were delivered are remembered because feed and answers come over different
//! connections: an entry that a page brought often arrives once more on the feed.
//!
//! An entry that was held before a question was asked had been published by then. When the answer
//! stands below it, the broker has lost it: a failover, though all that was delivered is still there.

use std::collections::VecDeque;

use crate::broker::{Entry, SincePage};
use crate::config::Retention;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// Delivered ids that are remembered. A feed that is further behind its stream than this is
/// judged by a question instead of by memory.
pub const RECENT_MAX: usize = 1_024;
/// Entries held while a question is open.
pub const HELD_MAX: usize = 1_024;
/// Bytes of bodies held while a question is open.
pub const HELD_BYTES_MAX: usize = 1024 * 1024;

/// A question to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What came after this position?
    Since(Position),
    /// Which are the newest entries, newest first, at most [`RECENT_MAX`]?
    Newest,
}

/// What the dispatcher must do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Hand the entry on. Its `prev` is where this node stood before it.
    Deliver(Entry),
    /// Tell that what lies between is gone. This node stands at `to` afterwards.
    Gap {
        /// The last position before it. After a failover everything above it is void, and ids
        /// may start anew below what was delivered.
        from: Position,
        /// The last position in it.
        to: Position,
        /// Why.
        reason: GapReason,
    },
    /// Ask the broker.
    Ask(Question),
    /// The same, but after a moment: the broker did not answer, or it answered on a topic without
    /// history that something was published that may still be on its way.
    AskLater(Question),
    /// An entry that had been delivered already was dropped.
    Duplicate,
    /// What was held was thrown away at its bound.
    Overflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not begun: the newest id is being read.
    Joining,
    Live,
    Checking,
    /// Topics without history: asked a second time, with this newest id seen the first time.
    Confirming(Position),
    /// With the newest id that the broker knew when it told the failover.
    Rewinding(Position),
}

/// See the module.
#[derive(Debug)]
pub struct Sequencer {
    phase: Phase,
    last: Position,
    recent: VecDeque<Position>,
    held: VecDeque<Entry>,
    held_bytes: usize,
    /// How many of the held had arrived when the open question was asked.
    held_when_asked: usize,
    /// Doubted once more while a question was open: its answer may be older than the doubt.
    doubted_again: bool,
    retention: Retention,
}

impl Sequencer {
    /// A live link that begins after `last`.
    #[must_use]
    pub fn new(last: Position, retention: Retention) -> Self {
        Self {
            phase: Phase::Live,
            last,
            recent: VecDeque::from([last]),
            held: VecDeque::new(),
            held_bytes: 0,
            held_when_asked: 0,
            doubted_again: false,
            retention,
        }
    }

    /// A link whose beginning is not known yet. What arrives is held until [`Self::begin`].
    #[must_use]
    pub fn joining(retention: Retention) -> Self {
        Self {
            phase: Phase::Joining,
            recent: VecDeque::new(),
            ..Self::new(Position::ZERO, retention)
        }
    }

    /// The topic is kept like this from now on.
    pub fn keep(&mut self, retention: Retention) {
        self.retention = retention;
    }

    /// Begins after `last`. What is held above it follows; what was thrown away, or doubted
    /// meanwhile, is asked for.
    pub fn begin(&mut self, last: Position, steps: &mut Vec<Step>) {
        self.last = last;
        self.remember(last);
        self.held.retain(|entry| entry.position > last);
        self.settle(steps);
    }

    /// Where this node stands: the last position that was delivered, or the end of a gap.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Whether it has begun and wants to know nothing.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether it has not begun.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        self.phase == Phase::Joining
    }

    /// Whether it waits for an answer about what may be missing.
    #[must_use]
    pub fn is_repairing(&self) -> bool {
        !self.is_live() && !self.is_joining()
    }

    /// Judges an entry from the feed.
    pub fn arrived(&mut self, entry: Entry, steps: &mut Vec<Step>) {
        match self.phase {
            Phase::Live if entry.prev == self.last => self.deliver(entry, steps),
            Phase::Live if self.is_known(entry.position) => steps.push(Step::Duplicate),
            Phase::Live => {
                self.hold(entry, steps);
                self.check(steps);
            }
            Phase::Confirming(newest) if entry.position > self.last => {
                // It says what is missing before it: no need to wait for the second answer.
                self.hold(entry, steps);
                self.without_history(newest, steps);
            }
            _ => self.hold(entry, steps),
        }
    }

    /// Doubts the link: after a break of the feed, or because the sweep found another last id.
    pub fn check(&mut self, steps: &mut Vec<Step>) {
        if self.phase == Phase::Live {
            self.ask(Phase::Checking, steps);
        } else {
            self.doubted_again = true;
        }
    }

    /// The broker did not answer: asks again a little later.
    pub fn unanswered(&mut self, question: Question, steps: &mut Vec<Step>) {
        if self.open_question() == Some(question) {
            self.held_when_asked = self.held.len();
            steps.push(Step::AskLater(question));
        }
    }

    /// The broker's answer to [`Question::Since`]. One to another question than the open one is
    /// dropped.
    pub fn answered(&mut self, since: Position, page: SincePage, steps: &mut Vec<Step>) {
        if self.open_question() != Some(Question::Since(since)) {
            return;
        }
        let lost = self.forget_lost(&page);
        if lost && page.gap != Some(GapReason::Failover) {
            self.fail_over(self.last, steps);
        }
        let has_history = self.has_history();
        match page.gap {
            Some(GapReason::Failover) if has_history => {
                self.ask(Phase::Rewinding(page.last), steps);
            }
            Some(GapReason::Failover) => self.start_below(page.last, steps),
            Some(_) if !has_history => self.without_history(page.last, steps),
            gap => {
                // A page that begins below `last` follows a topic that was idle for so long that
                // the broker forgot where it stood: nothing lies between.
                if gap.is_some() && page.start > self.last {
                    self.skip_to(page.start, GapReason::Retention, steps);
                }
                self.take_page(page, steps);
            }
        }
    }

    /// The broker's answer to [`Question::Newest`].
    pub fn newest(&mut self, mut entries: Vec<Entry>, steps: &mut Vec<Step>) {
        let Phase::Rewinding(newest) = self.phase else {
            return;
        };
        let newest = entries.first().map_or(newest, |e| e.position);
        // What is older than the memory was delivered, or published before this node listened.
        let oldest = self.recent.iter().min().copied().unwrap_or_default();
        let is_old = |e: &Entry| e.position < oldest || self.is_known(e.position);
        let old = entries.iter().position(is_old);
        let base = match (old, entries.last()) {
            (Some(at), _) => entries[at].position,
            (None, Some(oldest)) => oldest.prev,
            (None, None) => newest,
        };
        self.fail_over(base, steps);
        entries.truncate(old.unwrap_or(entries.len()));
        for entry in entries.into_iter().rev() {
            self.deliver(entry, steps);
        }
        self.settle(steps);
    }

    fn ask(&mut self, phase: Phase, steps: &mut Vec<Step>) {
        self.phase = phase;
        self.held_when_asked = self.held.len();
        if let Some(question) = self.open_question() {
            steps.push(match phase {
                Phase::Confirming(_) => Step::AskLater(question),
                _ => Step::Ask(question),
            });
        }
    }

    /// What it wants to know. `last` does not move while a question is open, so that each has one
    /// of its own.
    #[must_use]
    pub fn open_question(&self) -> Option<Question> {
        match self.phase {
            Phase::Joining | Phase::Live => None,
            Phase::Checking | Phase::Confirming(_) => Some(Question::Since(self.last)),
            Phase::Rewinding(_) => Some(Question::Newest),
        }
    }

    fn take_page(&mut self, page: SincePage, steps: &mut Vec<Step>) {
        let entries = page.entries.len();
        for entry in page.entries {
            self.deliver(entry, steps);
        }
        if entries > 0 && self.last < page.last {
            self.ask(Phase::Checking, steps);
        } else {
            self.settle(steps);
        }
    }

    /// Something after `last` was published on a topic that keeps nothing. What is held says
    /// exactly what is missing; with nothing held it may still be on its way, so the question
    /// is asked once more before a loss is told.
    fn without_history(&mut self, newest: Position, steps: &mut Vec<Step>) {
        let last = self.last;
        if let Some(first) = self.held.iter_mut().find(|e| e.position > last) {
            let (prev, idle_ms) = (first.prev, first.position.ms.saturating_sub(last.ms));
            if prev > last {
                self.skip_to(prev, GapReason::Lost, steps);
            } else if prev == Position::ZERO && idle_ms > self.retention.last_life_ms() {
                // The broker forgot where the idle topic stood; nothing lies between.
                first.prev = last;
            } else if prev < last {
                self.fail_over(prev, steps);
            }
            self.settle(steps);
        } else if newest < last {
            self.settle(steps);
        } else if self.phase == Phase::Confirming(newest) {
            self.skip_to(newest, GapReason::Lost, steps);
            self.settle(steps);
        } else {
            self.ask(Phase::Confirming(newest), steps);
        }
    }

    /// A topic without history whose newest id is below what was delivered: writes were lost.
    /// What is held and leads up to the newest id came after that.
    fn start_below(&mut self, newest: Position, steps: &mut Vec<Step>) {
        let mut base = newest;
        while !self.is_known(base)
            && let Some(entry) = self.held.iter().find(|e| e.position == base)
        {
            base = entry.prev;
        }
        self.fail_over(base, steps);
        self.settle(steps);
    }

    /// Drops what is held although the broker has lost it: what was held before the question was
    /// asked and lies above the answer's newest id, and what the page should have and has not.
    /// Returns whether there was any.
    fn forget_lost(&mut self, page: &SincePage) -> bool {
        let before = self.held.len();
        let asked_with = std::mem::take(&mut self.held_when_asked);
        let covered = self.has_history().then(|| {
            let end = page.entries.last().map_or(page.start, |e| e.position);
            (page.start.max(self.last), end)
        });
        let mut at = 0;
        self.held.retain(|entry| {
            at += 1;
            let position = entry.position;
            let passed_over = covered.is_some_and(|(start, end)| {
                start < position
                    && position <= end
                    && !page.entries.iter().any(|e| e.position == position)
            });
            !passed_over && (at > asked_with || position <= page.last)
        });
        self.held_bytes = self.held.iter().map(|e| e.body.bytes_count()).sum();
        self.held.len() < before
    }

    /// Writes were lost. What stands from `base` on is new; below it everything that was not
    /// delivered is gone.
    fn fail_over(&mut self, base: Position, steps: &mut Vec<Step>) {
        self.recent.retain(|p| *p <= base);
        let from = self.recent.iter().max().copied().unwrap_or_default();
        steps.push(Step::Gap {
            from,
            to: base,
            reason: GapReason::Failover,
        });
        self.remember(base);
        self.last = base;
    }

    /// Nothing is doubtful any more: goes on with what was held above `last`.
    fn settle(&mut self, steps: &mut Vec<Step>) {
        self.phase = Phase::Live;
        self.held_bytes = 0;
        for entry in std::mem::take(&mut self.held) {
            if self.phase == Phase::Live && entry.position <= self.last {
                steps.push(Step::Duplicate);
            } else {
                self.arrived(entry, steps);
            }
        }
        if std::mem::take(&mut self.doubted_again) {
            self.check(steps);
        }
    }

    fn hold(&mut self, entry: Entry, steps: &mut Vec<Step>) {
        self.held_bytes += entry.body.bytes_count();
        self.held.push_back(entry);
        if self.held.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX {
            self.held = VecDeque::new();
            self.held_bytes = 0;
            self.held_when_asked = 0;
            self.doubted_again = true;
            steps.push(Step::Overflow);
        }
    }

    fn has_history(&self) -> bool {
        self.retention.entries_max > 0
    }

    fn deliver(&mut self, mut entry: Entry, steps: &mut Vec<Step>) {
        // Within a page an entry's own `prev` may have been trimmed; the workers compare with
        // where this node stood before.
        entry.prev = self.last;
        self.last = entry.position;
        self.remember(entry.position);
        steps.push(Step::Deliver(entry));
    }

    fn skip_to(&mut self, to: Position, reason: GapReason, steps: &mut Vec<Step>) {
        let from = std::mem::replace(&mut self.last, to);
        self.remember(to);
        steps.push(Step::Gap { from, to, reason });
    }

    /// Newest first: an entry that comes twice mostly came a moment ago.
    fn is_known(&self, position: Position) -> bool {
        self.recent.iter().rev().any(|p| *p == position)
    }

    fn remember(&mut self, position: Position) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(position);
    }
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
