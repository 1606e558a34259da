//! What a session on a perfect network would notice of a link's steps.
//!
//! In: what was published, what reached the node, and the steps that the link took. Out: the first
//! step that breaks a promise. Promised is: one order without duplicates, every `prev` continuing
//! what was delivered or told; with history everything that is retained; gaps only over what is
//! gone and was not delivered. A failover gap makes everything above its `from` void: it may come
//! anew, and what does not come has been told.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Entry;
use crate::broker::model::Stream;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// See the module.
#[derive(Debug)]
pub(super) struct Checker {
    has_history: bool,
    failovers: bool,
    /// Everything that was ever published, with the moment.
    published: BTreeMap<Position, u64>,
    /// What came on the feed before the node stood above it.
    reached: BTreeSet<Position>,
    delivered: BTreeSet<Position>,
    /// What was delivered and is not void by a failover is in `delivered`; this has all.
    ever_delivered: BTreeSet<Position>,
    /// Told as gone.
    told: Vec<(Position, Position)>,
    start: Position,
    stands: Position,
    /// When a gap was last told, and when a failover.
    told_at: u64,
    failed_over_at: u64,
}

type Verdict = Result<(), String>;

fn must(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Checker {
    pub(super) fn new(start: Position, has_history: bool, failovers: bool) -> Self {
        Self {
            has_history,
            failovers,
            published: BTreeMap::new(),
            reached: BTreeSet::new(),
            delivered: BTreeSet::new(),
            ever_delivered: BTreeSet::new(),
            told: Vec::new(),
            start,
            stands: start,
            told_at: 0,
            failed_over_at: 0,
        }
    }

    /// It stood there before the link began: nobody is owed it.
    pub(super) fn began_after(&mut self, position: Position) {
        self.published.insert(position, 0);
        self.delivered.insert(position);
        self.ever_delivered.insert(position);
    }

    pub(super) fn published(&mut self, position: Position, moment: u64) -> Verdict {
        let before = self.published.insert(position, moment);
        must(before.is_none(), || {
            format!("{position} was given a second time")
        })
    }

    /// Whether an entry has, or had, this id.
    pub(super) fn knows(&self, position: Position) -> bool {
        self.published.contains_key(&position)
    }

    /// It came on the feed. What comes when the node stands above it already, and was lost by the
    /// broker, looks like an entry that is older than the link's memory.
    pub(super) fn reached(&mut self, position: Position) {
        if position > self.stands {
            self.reached.insert(position);
        }
    }

    /// What was held was thrown away, and with it the only sign of what the broker loses.
    pub(super) fn overflowed(&mut self) {
        self.reached.clear();
    }

    pub(super) fn deliver(&mut self, entry: &Entry, stream: &Stream) -> Verdict {
        let position = entry.position;
        let stands = self.stands;
        must(entry.prev == stands, || {
            format!("{position} says it follows {}, not {stands}", entry.prev)
        })?;
        must(position > stands, || format!("{position} after {stands}"))?;
        must(self.published.contains_key(&position), || {
            format!("{position} was never published")
        })?;
        must(!self.is_told(position), || {
            format!("{position} had been told as gone")
        })?;
        let survived = stream.retained().iter().any(|e| e.position == position);
        let again = !self.ever_delivered.insert(position) && survived;
        must(self.delivered.insert(position) && !again, || {
            format!("{position} came twice")
        })?;
        let timeline = stream.ids();
        let passed = timeline.binary_search(&position).unwrap_or(0);
        self.nothing_silent(&timeline[..passed], stream)?;
        if !self.failovers {
            let between = self.undelivered(stands, position).find(|p| *p < position);
            must(between.is_none(), || {
                format!("{between:?} was passed by between {stands} and {position}")
            })?;
        }
        self.stands = position;
        Ok(())
    }

    pub(super) fn gap(
        &mut self,
        from: Position,
        to: Position,
        reason: GapReason,
        stream: &Stream,
        moment: u64,
    ) -> Verdict {
        let told = format!("the gap {reason:?} from {from} to {to}");
        if reason == GapReason::Failover {
            must(self.failovers, || format!("{told} without a failover"))?;
            must(from <= to, || format!("{told} ends before it begins"))?;
            let survived = stream.retained().iter().rev().map(|e| e.position);
            let mut common = survived.filter(|p| self.ever_delivered.contains(p));
            let common = common.find(|p| *p >= self.start).unwrap_or_default();
            must(!self.has_history || from >= common, || {
                format!("{told} begins below {common}, which was delivered and is still there")
            })?;
            self.delivered = self.delivered.range(..=from).copied().collect();
            self.told.retain(|(_, end)| *end <= from);
            self.failed_over_at = moment;
        } else {
            let stands = self.stands;
            must(from == stands, || format!("{told} told at {stands}"))?;
            must(to > from, || format!("{told} is empty"))?;
            let right = if self.has_history {
                GapReason::Retention
            } else {
                GapReason::Lost
            };
            must(reason == right, || format!("{told} has another reason"))?;
            must(self.undelivered(from, to).next().is_some(), || {
                format!("{told} holds nothing that was not delivered")
            })?;
            let mut kept = stream.retained().iter().map(|e| e.position);
            let kept = kept.find(|p| from < *p && *p <= to);
            // The answer may be one of before a failover.
            let judged = self.has_history && !self.failovers;
            must(!judged || kept.is_none(), || {
                format!("{told} holds {kept:?}, which is retained")
            })?;
        }
        self.told_at = moment;
        self.told.push((from, to));
        self.stands = to;
        Ok(())
    }

    /// Everything is through and was checked: whatever is missing now is missing for good.
    pub(super) fn at_rest(&self, stream: &Stream) -> Verdict {
        self.nothing_silent(stream.ids(), stream)?;
        // What came and was lost by the broker was made void by a failover gap told since then.
        let mut came = self.reached.iter();
        let dropped = came.find(|p| {
            self.is_silent(**p)
                && self.published[p] > self.failed_over_at
                && !self.is_excused(**p, stream)
        });
        must(dropped.is_none(), || {
            format!("{dropped:?} came and was dropped in silence")
        })?;
        let newest = stream.last().unwrap_or_default();
        must(self.stands == newest, || {
            format!("stands at {} and not at the newest {newest}", self.stands)
        })
    }

    fn nothing_silent(&self, ids: &[Position], stream: &Stream) -> Verdict {
        let mut ids = ids.iter();
        let missing = ids.find(|p| self.is_silent(**p) && !self.is_excused(**p, stream));
        must(missing.is_none(), || {
            format!("{missing:?} is missing in silence")
        })
    }

    /// What is retained is delivered or told, id by id. But a new timeline may begin below what
    /// was delivered, and where nothing of that is retained no answer shows it: then a gap that
    /// was told since stands for what was missed.
    fn is_excused(&self, position: Position, stream: &Stream) -> bool {
        let is_retained = stream.retained().iter().any(|e| e.position == position);
        self.failovers && !is_retained && self.published[&position] < self.told_at
    }

    fn is_silent(&self, position: Position) -> bool {
        !self.delivered.contains(&position) && !self.is_told(position)
    }

    fn undelivered(&self, from: Position, to: Position) -> impl Iterator<Item = Position> {
        use std::ops::Bound::{Excluded, Included};
        let between = self.published.range((Excluded(from), Included(to)));
        between
            .map(|(p, _)| *p)
            .filter(|p| !self.delivered.contains(p))
    }

    fn is_told(&self, position: Position) -> bool {
        let mut told = self.told.iter();
        told.any(|(from, to)| *from < position && position <= *to)
    }
}
