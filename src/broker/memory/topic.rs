//! One topic as the in-process broker keeps it: entries, last id, cursor, keys and members.
//!
//! In: calls of the broker, under its lock, with the time as an argument. Out: answers that are
//! the same as those of the Redis scripts, case by case. Owner of the topic's retained entries.
//! Bounds: entries by [`Retention`]; idempotency keys by their life; members by the sessions of
//! the node; all topics together by [`super::room`]. What is over its life is as if it were not
//! there, and [`TopicState::sweep`] frees it.

use std::collections::VecDeque;
use std::ops::Range;

use super::idempotency::{IdempotencyKeys, Remembered};
use super::presence::Members;
use super::room::{ENTRY_BYTES, Forgotten, MEMBER_BYTES, TOPIC_BYTES, Turn};
use crate::broker::ids::position_after;
use crate::broker::{Acked, Body, Entry, HistoryPage, HistoryQuery, InboxSummary};
use crate::broker::{OVERLAP_MS, Page, SincePage};
use crate::config::Retention;
use fanfare_protocol::event::GapReason;
use fanfare_protocol::ids::Position;

/// Pending messages of an inbox are counted up to here. Part of the wire contract.
const PENDING_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TopicState {
    /// The node wants to hear this topic.
    pub(super) wanted: bool,
    /// Who is here; only on presence topics.
    pub(super) members: Members,
    last: Option<Remembered>,
    /// Set on inboxes only, where every new id must lie above it.
    cursor: Option<Remembered>,
    keys: IdempotencyKeys,
    /// Oldest first, each position above the one before.
    entries: VecDeque<Retained>,
    entries_bytes: usize,
    /// Its place in the order of forgetting.
    pub(super) turn: Option<Turn>,
    /// Up to when the entries live together, as a stream that nobody appends to ends as a whole.
    entries_end_ms: u64,
}

/// An entry and what it counts for in the bytes of a page.
#[derive(Debug)]
struct Retained {
    entry: Entry,
    bytes: usize,
}

/// What an acknowledgement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AckOutcome {
    /// What the caller is told.
    pub(super) acked: Acked,
    /// The cursor is another than before.
    pub(super) moved: bool,
}

/// How long a topic of which nothing was known remembers where it began.
const BEGINNING_MS: u64 = 3_600_000;

impl TopicState {
    /// A topic of which nothing is known, after all up to `floor` may have been forgotten.
    pub(super) fn beginning(floor: Option<Position>, now_ms: u64) -> Self {
        Self {
            last: floor.map(|floor| Remembered::new(floor, now_ms, BEGINNING_MS)),
            ..Self::default()
        }
    }

    /// About how much memory it takes up, without its name.
    pub(super) fn weight(&self) -> usize {
        let members = usize::try_from(self.members.count()).unwrap_or(usize::MAX);
        TOPIC_BYTES + self.entries_bytes + self.keys.bytes() + members * MEMBER_BYTES
    }

    /// Somebody needs it as long as its sessions are here.
    pub(super) fn is_in_use(&self) -> bool {
        self.wanted || !self.members.is_empty()
    }

    /// Whether there is something to forget.
    pub(super) fn keeps(&self) -> bool {
        !self.entries.is_empty() || !self.keys.is_empty()
    }

    /// Forgets its oldest entry or key; returns which it was.
    pub(super) fn forget_oldest(&mut self) -> Option<Forgotten> {
        let entry = self.entries.front().map(|oldest| oldest.entry.position);
        let key = self.keys.oldest();
        if entry.is_none_or(|entry| key.is_some_and(|key| key < entry)) {
            return self.keys.forget_oldest().then_some(Forgotten::Key);
        }
        self.drop_oldest(1);
        Some(Forgotten::Entry)
    }

    /// The highest position that it ever gave, as far as it is known.
    pub(super) fn highest(&self) -> Option<Position> {
        let newest = self.entries.back().map(|newest| newest.entry.position);
        self.last.map(|last| last.position).max(newest)
    }

    fn drop_oldest(&mut self, count: usize) {
        let dropped = self.entries.drain(..count);
        let bytes: usize = dropped.map(|retained| ENTRY_BYTES + retained.bytes).sum();
        self.entries_bytes -= bytes;
    }

    fn drop_entries(&mut self) {
        self.entries = VecDeque::new();
        self.entries_bytes = 0;
    }

    /// The position that stands for this idempotency key, while it is remembered.
    pub(super) fn duplicate_of(&self, key: &str, now_ms: u64) -> Option<Position> {
        self.keys.get(key, now_ms)
    }

    /// Remembers that this key was published at `position`.
    pub(super) fn remember_key(
        &mut self,
        key: String,
        position: Position,
        now_ms: u64,
        life_ms: u64,
    ) {
        let remembered = Remembered::new(position, now_ms, life_ms);
        self.keys.remember(key, remembered);
    }

    /// Gives the body its place, keeps it as the topic's retention says, and returns the entry.
    pub(super) fn append(&mut self, body: Body, retention: Retention, now_ms: u64) -> Entry {
        let prev = self.last(now_ms).unwrap_or_default();
        let position = self.next_position(prev, now_ms);
        let entry = Entry {
            position,
            prev,
            body,
        };
        self.retain(&entry, retention, now_ms);
        // By the position: the clock may be behind that. The cursor lives as long.
        let last = Remembered::new(position, position.ms, retention.last_life_ms());
        self.last = Some(last);
        if let Some(cursor) = self.cursor.as_mut().filter(|cursor| cursor.lives(now_ms)) {
            cursor.end_ms = last.end_ms;
        }
        entry
    }

    /// A new id, in a later millisecond than the cursor.
    fn next_position(&self, last: Position, now_ms: u64) -> Position {
        let random = rand::random();
        let next = position_after(last, now_ms, random);
        match self.live_cursor(now_ms) {
            Some(cursor) if next.ms <= cursor.ms => Position {
                ms: cursor.ms + 1,
                seq: random.into(),
            },
            _ => next,
        }
    }

    fn retain(&mut self, entry: &Entry, retention: Retention, now_ms: u64) {
        // Without history an old stream must not look complete, nor may one that ended.
        if retention.entries_max == 0 || now_ms > self.entries_end_ms {
            self.drop_entries();
        }
        if retention.entries_max == 0 {
            return;
        }
        let bytes = entry.body.bytes_count();
        self.entries_bytes += ENTRY_BYTES + bytes;
        self.entries.push_back(Retained {
            bytes,
            entry: entry.clone(),
        });
        let over_count = self
            .entries
            .len()
            .saturating_sub(retention.entries_max as usize);
        let over_age = self.index_of(|position| position < floor(retention, now_ms));
        self.drop_oldest(over_count.max(over_age));
        // By the clock: a position that is ahead of it makes no entry live for longer.
        self.entries_end_ms = now_ms.saturating_add(retention.age_ms);
    }

    /// The newest position, while it is remembered or retained.
    pub(super) fn last(&self, now_ms: u64) -> Option<Position> {
        let remembered = self.last.filter(|last| last.lives(now_ms));
        remembered.map(|last| last.position).or_else(|| {
            let newest = self.entries.back()?;
            (now_ms <= self.entries_end_ms).then_some(newest.entry.position)
        })
    }

    /// The last id and the cursor, which lives as long, begin another life, from the position on where
    /// the clock is behind that. What lives longer is left as it is.
    fn renew(&mut self, retention: Retention, now_ms: u64) {
        let from_ms = self.last(now_ms).map_or(now_ms, |last| now_ms.max(last.ms));
        let end_ms = from_ms.saturating_add(retention.last_life_ms());
        let both = [self.last.as_mut(), self.cursor.as_mut()];
        for remembered in both.into_iter().flatten() {
            if remembered.lives(now_ms) {
                remembered.end_ms = remembered.end_ms.max(end_ms);
            }
        }
    }

    /// The newest position, which is remembered for another life from now on.
    pub(super) fn renew_last(&mut self, retention: Retention, now_ms: u64) -> Option<Position> {
        self.renew(retention, now_ms);
        self.last(now_ms)
    }

    /// What came after `since`, and whether that is all.
    pub(super) fn since(
        &self,
        since: Position,
        retention: Retention,
        page: Page,
        now_ms: u64,
    ) -> SincePage {
        let is_young = now_ms.saturating_sub(since.ms) < retention.last_life_ms();
        let known_last = self.last(now_ms);
        let last = known_last.unwrap_or_default();
        let is_ahead = since > last;
        let nothing_after = |gap, start| SincePage {
            gap,
            start,
            last,
            entries: Vec::new(),
        };
        if since == last {
            return nothing_after(None, last);
        }
        let window = self.window(retention, now_ms);
        let Some(oldest) = self.entries.range(window.clone()).next() else {
            let is_lost = is_ahead && (is_young || known_last.is_some());
            let gap = if is_lost {
                GapReason::Failover
            } else {
                GapReason::Retention
            };
            return nothing_after(Some(gap), last);
        };
        let (oldest_prev, oldest) = (oldest.entry.prev, oldest.entry.position);
        let is_there = since >= oldest && self.holds(since);
        let (gap, start, from) = if since == oldest_prev || is_there {
            let behind = self.index_of(|position| position <= since);
            (None, since, behind.max(window.start))
        } else if oldest_prev > since || !(is_young || is_ahead) {
            (Some(GapReason::Retention), oldest_prev, window.start)
        } else {
            // Nobody knows how far back the two timelines part.
            let from_ms = since.min(last).ms.saturating_sub(OVERLAP_MS);
            let from = self.index_of(|position| position.ms < from_ms);
            let mut first = self.entries.range(from.max(window.start)..window.end);
            let start = first.next().map_or(last, |first| first.entry.prev);
            return nothing_after(Some(GapReason::Failover), start);
        };
        let entries = cut(self.entries.range(from..window.end), page);
        SincePage {
            gap,
            start,
            last,
            entries,
        }
    }

    /// A page of what is retained between two positions, both excluded.
    pub(super) fn history(&self, query: &HistoryQuery, now_ms: u64) -> HistoryPage {
        let window = self.window(query.retention, now_ms);
        let begin = query.since.map_or(window.start, |since| {
            self.index_of(|position| position <= since)
                .max(window.start)
        });
        let end = query.until.map_or(window.end, |until| {
            self.index_of(|position| position < until).min(window.end)
        });
        let range = self.entries.range(begin..end.max(begin));
        let count = range.len();
        let page = Page {
            entries_max: query.limit,
            bytes_max: query.bytes_max,
        };
        let entries = if query.reverse {
            cut(range.rev(), page)
        } else {
            cut(range, page)
        };
        HistoryPage {
            more: entries.len() < count,
            entries,
        }
    }

    /// Cursor, newest position, and how much waits above the cursor.
    pub(super) fn inbox(&self, retention: Retention, now_ms: u64) -> InboxSummary {
        let cursor = self.live_cursor(now_ms);
        let window = self.window(retention, now_ms);
        let acknowledged = self.index_of(|position| position <= cursor.unwrap_or_default());
        let pending = window.end.saturating_sub(acknowledged.max(window.start));
        InboxSummary {
            cursor,
            last: self.last(now_ms).unwrap_or_default(),
            pending: pending.min(PENDING_MAX) as u64,
        }
    }

    /// Moves the cursor forward. It and the last id live on from here, moved or not.
    pub(super) fn ack(
        &mut self,
        position: Position,
        retention: Retention,
        now_ms: u64,
    ) -> AckOutcome {
        let last = self.last(now_ms).unwrap_or_default();
        if position > last {
            return AckOutcome {
                acked: Acked::AboveNewest,
                moved: false,
            };
        }
        let living = self.cursor.filter(|cursor| cursor.lives(now_ms));
        let before = living.map_or(Position::ZERO, |cursor| cursor.position);
        let cursor = before.max(position);
        if cursor > before {
            self.cursor = Some(Remembered {
                position: cursor,
                end_ms: living.map_or(now_ms, |cursor| cursor.end_ms),
            });
        }
        self.renew(retention, now_ms);
        AckOutcome {
            acked: Acked::Cursor(cursor),
            moved: cursor > before,
        }
    }

    /// Frees what is over its life. `false`: nothing is left, the topic may be forgotten.
    pub(super) fn sweep(&mut self, now_ms: u64) -> bool {
        self.keys.sweep(now_ms);
        if now_ms > self.entries_end_ms {
            self.drop_entries();
        }
        self.last = self.last.filter(|last| last.lives(now_ms));
        self.cursor = self.cursor.filter(|cursor| cursor.lives(now_ms));
        self.wanted
            || self.last.is_some()
            || self.cursor.is_some()
            || !self.entries.is_empty()
            || !self.keys.is_empty()
            || !self.members.is_empty()
    }

    fn live_cursor(&self, now_ms: u64) -> Option<Position> {
        let cursor = self.cursor.filter(|cursor| cursor.lives(now_ms))?;
        Some(cursor.position)
    }

    /// The entries that are within age.
    fn window(&self, retention: Retention, now_ms: u64) -> Range<usize> {
        if now_ms > self.entries_end_ms {
            return 0..0;
        }
        self.index_of(|position| position < floor(retention, now_ms))..self.entries.len()
    }

    /// How many entries, from the oldest on, `precedes` holds for.
    fn index_of(&self, precedes: impl Fn(Position) -> bool) -> usize {
        self.entries
            .partition_point(|retained| precedes(retained.entry.position))
    }

    fn holds(&self, position: Position) -> bool {
        self.entries
            .binary_search_by_key(&position, |retained| retained.entry.position)
            .is_ok()
    }
}

/// The lowest position that is within age.
fn floor(retention: Retention, now_ms: u64) -> Position {
    Position {
        ms: now_ms.saturating_sub(retention.age_ms),
        seq: 0,
    }
}

/// The entries that fit the page: at least one, if there is one and the page allows any.
fn cut<'a>(entries: impl Iterator<Item = &'a Retained>, page: Page) -> Vec<Entry> {
    let mut bytes = 0_usize;
    entries
        .take(page.entries_max as usize)
        .take_while(|retained| {
            let first = bytes == 0;
            bytes = bytes.saturating_add(retained.bytes);
            first || bytes <= page.bytes_max
        })
        .map(|retained| retained.entry.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::publication::PresenceChange;
    use fanfare_protocol::event::Member;
    use fanfare_protocol::ids::{NodeId, Owner, SessionId};

    const AGE_MS: u64 = 1_000;
    const KEEP: Retention = Retention {
        entries_max: 10,
        age_ms: AGE_MS,
    };

    fn body() -> Body {
        let node = NodeId::new("node-a").expect("a valid name");
        Body::Presence(Arc::new(PresenceChange {
            joined: true,
            member: Member {
                user: None,
                session: SessionId(1),
                info: None,
            },
            owner: Owner {
                node,
                incarnation: 1,
            },
            count: 1,
        }))
    }

    #[test]
    fn a_sweep_frees_each_part_at_its_own_end() {
        let mut state = TopicState::default();
        let position = state.append(body(), KEEP, 5_000).position;
        state.remember_key("k".into(), position, 5_000, 2 * AGE_MS);
        assert!(state.ack(position, KEEP, 5_000).moved);

        assert!(state.sweep(5_000 + AGE_MS));
        assert_eq!(state.entries.len(), 1);
        assert!(state.sweep(5_000 + AGE_MS + 1));
        assert_eq!(state.entries.capacity(), 0);
        assert!(!state.keys.is_empty());
        assert!(state.sweep(5_000 + 2 * AGE_MS + 1));
        assert!(state.keys.is_empty());
        assert!(state.last.is_some() && state.cursor.is_some());
        assert!(!state.sweep(5_000 + KEEP.last_life_ms() + 1));
        assert!(state.last.is_none() && state.cursor.is_none());
    }

    #[test]
    fn an_entry_that_outlives_the_last_id_still_stands_for_it() {
        let mut state = TopicState::default();
        let position = state.append(body(), KEEP, 5_000).position;
        state.last = None;
        assert!(state.sweep(5_000 + AGE_MS));
        assert_eq!(state.renew_last(KEEP, 5_000 + AGE_MS), Some(position));
        assert_eq!(state.append(body(), KEEP, 5_000 + AGE_MS).prev, position);
    }
}
