//! The link under test, whole or with one of its rules taken out.
//!
//! In: what the dispatcher gives to a link. Out: the link's steps, bent where a rule is missing. The
//! link itself knows nothing of this; what is missing here is left out around it.

use super::super::{Question, Sequencer, Step};
use crate::broker::{Entry, SincePage};
use crate::config::Retention;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// A rule that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// A `prev` that is not the last id is a gap at once; nobody is asked.
    Questions,
    /// An entry that came before is delivered again.
    Duplicates,
    /// Only the last id is remembered.
    Memory,
    /// What arrives while a question is open is dropped.
    Held,
    /// A break is not followed by a check.
    Breaks,
    /// A doubt while a question is open is forgotten.
    SecondDoubts,
    /// A gap is not told.
    Gaps,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Judge {
    link: Sequencer,
    retention: Retention,
    without: Option<Without>,
}

impl Judge {
    pub(super) fn new(last: Position, retention: Retention, without: Option<Without>) -> Self {
        Self {
            link: Sequencer::new(last, retention),
            retention,
            without,
        }
    }

    pub(super) fn last(&self) -> Position {
        self.link.last()
    }

    pub(super) fn arrived(&mut self, entry: Entry) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.without {
            Some(Without::Questions) if entry.prev != self.link.last() => {
                let from = self.link.last();
                steps.push(Step::Gap {
                    from,
                    to: entry.prev,
                    reason: GapReason::Lost,
                });
                self.link = Sequencer::new(entry.position, self.retention);
                steps.push(Step::Deliver(entry));
            }
            Some(Without::Held) if !self.link.is_live() => {}
            Some(Without::Duplicates) => {
                self.link.arrived(entry.clone(), &mut steps);
                if steps == [Step::Duplicate] {
                    steps = vec![Step::Deliver(entry)];
                }
            }
            _ => self.link.arrived(entry, &mut steps),
        }
        self.bend(steps)
    }

    pub(super) fn check(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        match self.without {
            Some(Without::Breaks) => {}
            Some(Without::SecondDoubts) if !self.link.is_live() => {}
            _ => self.link.check(&mut steps),
        }
        self.bend(steps)
    }

    pub(super) fn answered(&mut self, since: Position, page: SincePage) -> Vec<Step> {
        let mut steps = Vec::new();
        self.link.answered(since, page, &mut steps);
        self.bend(steps)
    }

    pub(super) fn newest(&mut self, entries: Vec<Entry>) -> Vec<Step> {
        let mut steps = Vec::new();
        self.link.newest(entries, &mut steps);
        self.bend(steps)
    }

    pub(super) fn unanswered(&mut self, question: Question) -> Vec<Step> {
        let mut steps = Vec::new();
        self.link.unanswered(question, &mut steps);
        steps
    }

    fn bend(&mut self, mut steps: Vec<Step>) -> Vec<Step> {
        match self.without {
            Some(Without::Gaps) => steps.retain(|s| !matches!(s, Step::Gap { .. })),
            Some(Without::Memory) if self.link.is_live() => {
                self.link = Sequencer::new(self.link.last(), self.retention);
            }
            _ => {}
        }
        steps
    }
}
