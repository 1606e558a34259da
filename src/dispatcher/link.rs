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
//! Ids that were delivered are remembered because feed and answers come over different
//! connections: an entry that a page brought often arrives once more on the feed.

use std::collections::VecDeque;

use crate::broker::{Entry, SincePage};
use crate::config::Retention;
use crate::protocol::event::GapReason;
use crate::protocol::ids::Position;

/// Delivered ids that are remembered. A feed that is further behind its stream than this is
/// judged by a question instead of by memory.
pub const RECENT_MAX: usize = 1_024;
/// Entries held while a question is open.
pub const HELD_MAX: usize = 1_024;
/// Bytes of bodies held while a question is open.
pub const HELD_BYTES_MAX: usize = 1024 * 1024;

/// What the dispatcher must do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Hand the entry on. Its `prev` is what this node delivered before it.
    Deliver(Entry),
    /// Tell that what lies between is gone. `to` is `None` after a failover.
    Gap {
        /// The last position before it.
        from: Position,
        /// The last position in it.
        to: Option<Position>,
        /// Why.
        reason: GapReason,
    },
    /// Ask the broker for what came after this position.
    Ask(Position),
    /// The same, but after a moment: on a topic without history the answer says that something
    /// was published that may still be on its way.
    AskLater(Position),
    /// Read the newest entries, newest first, at most [`RECENT_MAX`].
    AskNewest,
    /// An entry that had been delivered already was dropped.
    Duplicate,
    /// What was held was thrown away at its bound.
    Overflow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Live,
    Checking,
    /// Topics without history: asked a second time, with this newest id seen the first time.
    Confirming(Position),
    Rewinding,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    phase: Phase,
    last: Position,
    recent: VecDeque<Position>,
    held: VecDeque<Entry>,
    held_bytes: usize,
    overflowed: bool,
    retention: Retention,
}

impl Link {
    /// A live link that begins after `last`.
    #[must_use]
    pub fn new(last: Position, retention: Retention) -> Self {
        Self {
            phase: Phase::Live,
            last,
            recent: VecDeque::from([last]),
            held: VecDeque::new(),
            held_bytes: 0,
            overflowed: false,
            retention,
        }
    }

    /// The last position that was delivered.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// Whether no question is open.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Judges an entry from the feed.
    pub fn arrived(&mut self, entry: Entry, steps: &mut Vec<Step>) {
        if self.phase != Phase::Live {
            self.hold(entry, steps);
        } else if entry.prev == self.last && entry.position != self.last {
            self.deliver(entry, steps);
        } else if self.is_known(entry.position) {
            steps.push(Step::Duplicate);
        } else {
            self.hold(entry, steps);
            self.check(steps);
        }
    }

    /// Doubts the link: after a break of the feed, or because the sweep found another last id.
    pub fn check(&mut self, steps: &mut Vec<Step>) {
        if self.phase == Phase::Live {
            self.phase = Phase::Checking;
            steps.push(Step::Ask(self.last));
        }
    }

    /// The question that is open, to be asked again after the broker did not answer.
    #[must_use]
    pub fn question(&self) -> Option<Step> {
        match self.phase {
            Phase::Live => None,
            Phase::Checking | Phase::Confirming(_) => Some(Step::Ask(self.last)),
            Phase::Rewinding => Some(Step::AskNewest),
        }
    }

    /// The broker's answer to [`Step::Ask`]. `now_ms` is this node's wall clock; it only
    /// decides whether `last` is older than a topic's last id is remembered.
    pub fn answered(&mut self, page: SincePage, now_ms: u64, steps: &mut Vec<Step>) {
        if !matches!(self.phase, Phase::Checking | Phase::Confirming(_)) {
            return;
        }
        match page.gap {
            Some(GapReason::Failover) if self.retention.entries_max > 0 => {
                self.phase = Phase::Rewinding;
                steps.push(Step::AskNewest);
            }
            Some(GapReason::Failover) => self.start_below(page.last, steps),
            Some(_) if self.retention.entries_max == 0 => self.without_history(page.last, steps),
            gap => {
                let forgotten = page.start == Position::ZERO
                    && now_ms.saturating_sub(self.last.ms) > self.retention.last_life_ms();
                if gap.is_some() && page.start != self.last {
                    if !forgotten {
                        self.tell_gap(page.start, GapReason::Retention, steps);
                    }
                    self.last = page.start;
                }
                self.take_page(page, steps);
            }
        }
    }

    /// The broker's answer to [`Step::AskNewest`], newest first.
    pub fn newest(&mut self, entries: Vec<Entry>, steps: &mut Vec<Step>) {
        if self.phase != Phase::Rewinding {
            return;
        }
        let known = entries.iter().position(|e| self.is_known(e.position));
        let new = &entries[..known.unwrap_or(entries.len())];
        let base = match (known, new.last()) {
            (Some(at), _) => entries[at].position,
            (None, Some(oldest)) => oldest.prev,
            (None, None) => Position::ZERO,
        };
        steps.push(Step::Gap {
            from: base,
            to: None,
            reason: GapReason::Failover,
        });
        self.recent.retain(|p| *p <= base);
        self.remember(base);
        self.last = base;
        for entry in new.iter().rev() {
            self.deliver(entry.clone(), steps);
        }
        self.settle(steps);
    }

    fn take_page(&mut self, page: SincePage, steps: &mut Vec<Step>) {
        let entries = page.entries.len();
        for entry in page.entries {
            self.deliver(entry, steps);
        }
        if entries > 0 && self.last < page.last {
            steps.push(Step::Ask(self.last));
        } else {
            self.settle(steps);
        }
    }

    /// Something after `last` was published on a topic that keeps nothing. What is held says
    /// exactly what is missing; with nothing held it may still be on its way, so the question
    /// is asked once more before a loss is told.
    fn without_history(&mut self, newest: Position, steps: &mut Vec<Step>) {
        let arrived = self.held.iter().find(|e| e.position > self.last);
        if let Some(first) = arrived {
            let before = first.prev;
            if before > self.last {
                self.tell_gap(before, GapReason::Lost, steps);
            }
            self.last = before.max(self.last);
            self.settle(steps);
        } else if matches!(self.phase, Phase::Confirming(seen) if seen == newest) {
            self.tell_gap(newest, GapReason::Lost, steps);
            self.last = newest;
            self.remember(newest);
            self.settle(steps);
        } else {
            self.phase = Phase::Confirming(newest);
            steps.push(Step::AskLater(self.last));
        }
    }

    /// A topic without history whose newest id is below what was delivered: writes were lost.
    fn start_below(&mut self, newest: Position, steps: &mut Vec<Step>) {
        let base = self.held.front().map_or(newest, |e| e.prev);
        steps.push(Step::Gap {
            from: base,
            to: None,
            reason: GapReason::Failover,
        });
        self.recent.clear();
        self.remember(base);
        self.last = base;
        self.settle(steps);
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
        if std::mem::take(&mut self.overflowed) {
            self.check(steps);
        }
    }

    fn hold(&mut self, entry: Entry, steps: &mut Vec<Step>) {
        self.held_bytes += entry.body.bytes_count();
        self.held.push_back(entry);
        if self.held.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX {
            self.held = VecDeque::new();
            self.held_bytes = 0;
            self.overflowed = true;
            steps.push(Step::Overflow);
        }
    }

    fn deliver(&mut self, mut entry: Entry, steps: &mut Vec<Step>) {
        // Within a page an entry's own `prev` may have been trimmed; the workers compare with
        // what this node delivered before.
        entry.prev = self.last;
        self.last = entry.position;
        self.remember(entry.position);
        steps.push(Step::Deliver(entry));
    }

    fn tell_gap(&mut self, to: Position, reason: GapReason, steps: &mut Vec<Step>) {
        steps.push(Step::Gap {
            from: self.last,
            to: Some(to),
            reason,
        });
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
