//! How a session gets from an old position to the live stream: pages, paced by its own socket.
//!
//! In: the session says from where it begins, and brings each page that the recent window does not
//! have. Out: frames in its outbox, and in the same turn the switch back to live deliveries once
//! the pages have reached what this worker has seen. No publication falls between a page and the
//! live stream, because a topic's last position and a member's mode change on one thread. Bound:
//! one page a session on its way, and only while its outbox has room for it.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::broker::SincePage;
use fanfare_protocol::event::{Event, GapReason};
use fanfare_protocol::form::WireForm;
use fanfare_protocol::ids::{Position, Priority, SessionId, Topic};

use super::hub::{Mode, Reference, SessionKey};
use super::outgoing::{self, Outgoing};
use super::{State, Worker, encode, recent};

/// Most entries of one page.
pub const PAGE_ENTRIES_MAX: usize = 100;

/// A page that a session is to read from the broker, handed back with the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Of which topic.
    pub topic: Topic,
    /// After which position.
    pub at: Position,
    /// It may reach no further back than a session may that has no right to read history.
    pub is_limited: bool,
    /// How far this worker had come when it was asked for.
    seen: Position,
    number: u32,
}

/// A page that was read from the broker, ready for any number of sessions.
#[derive(Debug)]
pub struct ReadPage {
    /// Why something before it is gone.
    pub gap: Option<GapReason>,
    /// The position after which it begins.
    pub start: Position,
    messages: Vec<Arc<Outgoing>>,
}

impl ReadPage {
    /// Wraps what the broker answered, as far as its frames have no more bytes than this in either
    /// form, the first apart: what it cuts off is read with the next page. Only topics with history
    /// are read in pages of messages.
    #[must_use]
    pub fn new(topic: &Topic, page: SincePage, bytes_max: usize) -> Self {
        let entries = page.entries.into_iter();
        let messages = entries.map(|entry| Outgoing::new(topic.clone(), entry, true));
        Self {
            gap: page.gap,
            start: page.start,
            messages: fitting(messages, bytes_max).collect(),
        }
    }
}

/// A session as the reader of one topic.
pub(super) struct Reader {
    id: SessionId,
    form: WireForm,
    pub(super) has_history: bool,
    pub(super) reference: Reference,
    pub(super) last: Position,
    pub(super) mode: Mode,
}

impl Worker {
    /// The most bytes that a page should have: a quarter of an outbox.
    #[must_use]
    pub fn page_bytes_max(&self) -> usize {
        self.bound.bytes_max / 4
    }

    /// Lets live deliveries through from here on. Returns the position after which they begin,
    /// or `None` when the session does not belong to the topic (any more).
    pub fn begin_live(&self, key: SessionKey, topic: &Topic) -> Option<Position> {
        let state = &mut *self.state.borrow_mut();
        let reader = state.reader(key, topic)?;
        state.hub.member_mut(reader.reference).mode = Mode::Push { after: reader.last };
        state.leads.forget(key, reader.reference.topic);
        Some(reader.last)
    }

    /// Lets through what comes after `at`: live deliveries if the topic has come no further on this
    /// worker, a catch-up otherwise. Returns where it begins: `at`, or on a topic without history,
    /// where nobody can catch up, the topic's last position if that is higher. Where a failover has
    /// made `at` void since the broker gave it, what follows begins before that, behind a gap.
    pub fn begin_after(&self, key: SessionKey, topic: &Topic, at: Position) -> Position {
        let state = &mut *self.state.borrow_mut();
        let Some(reader) = state.reader(key, topic) else {
            return at;
        };
        let void_above = match reader.mode {
            Mode::Starting { void_above } => void_above.filter(|above| *above < at),
            _ => None,
        };
        let from = void_above.unwrap_or(at);
        let mode = &mut state.hub.member_mut(reader.reference).mode;
        let mut begins = at;
        if reader.has_history && from < reader.last {
            *mode = Mode::pull(from, Priority::default());
        } else {
            begins = at.max(reader.last);
            let after = if void_above.is_some() {
                reader.last
            } else {
                begins
            };
            *mode = Mode::Push { after };
            if after <= reader.last {
                state.leads.forget(key, reader.reference.topic);
            }
        }
        if void_above.is_some() {
            self.tell_gap(
                state,
                key,
                &reader,
                topic,
                (from, None),
                GapReason::Failover,
            );
        }
        if let Some(entry) = state.sessions.get_mut(key) {
            entry.catch_up();
        }
        begins
    }

    /// Goes on with the catch-ups of a session as far as its outbox has room: with pages from the
    /// recent window at once, otherwise with the page that the session should read now. `None`
    /// while one is on its way, and when there is nothing to be read.
    pub fn catch_up(&self, key: SessionKey, now_ms: u64) -> Option<Pull> {
        let state = &mut *self.state.borrow_mut();
        loop {
            let reference = self.next_pull(state, key)?;
            let topic = state.hub.get(reference.topic)?.name.clone();
            let reader = state.reader(key, &topic)?;
            let Mode::Pull { at, urgency, .. } = reader.mode else {
                return None;
            };
            // How old something is, is judged by the broker.
            let is_limited = state.hub.member_mut(reference).is_limited;
            let page = if is_limited {
                Vec::new()
            } else {
                self.recent_page(state, reference, at)
            };
            let counters = &self.metrics.counters;
            if !page.is_empty() {
                counters.recent_hits.add_owned(1);
                self.take(state, key, &reader, at, &page, now_ms);
                continue;
            }
            counters.recent_misses.add_owned(1);
            let entry = state.sessions.get_mut(key)?;
            entry.pulls = entry.pulls.wrapping_add(1);
            let number = entry.pulls;
            state.hub.member_mut(reference).mode = Mode::Pull {
                at,
                asked: Some(number),
                urgency,
            };
            return Some(Pull {
                topic,
                at,
                is_limited,
                seen: reader.last,
                number,
            });
        }
    }

    /// The membership whose page comes next: the most urgent one that has room, in turns.
    fn next_pull(&self, state: &mut State, key: SessionKey) -> Option<Reference> {
        let entry = state.sessions.get_mut(key)?;
        if !entry.catching_up {
            return None;
        }
        let count = entry.references.len();
        let mut next: Option<(usize, Priority)> = None;
        let mut is_needed = false;
        for step in 0..count {
            let place = (entry.next_pull + step) % count;
            match state.hub.member_mut(entry.references[place]).mode {
                Mode::Pull { asked: Some(_), .. } => return None,
                Mode::Pull { urgency, .. } => {
                    is_needed = true;
                    if next.is_none_or(|(_, most)| most < urgency)
                        && entry.outbox.has_room(urgency, self.bound)
                    {
                        next = Some((place, urgency));
                    }
                }
                _ => {}
            }
        }
        entry.catching_up = is_needed;
        let (place, _) = next?;
        entry.next_pull = place + 1;
        Some(entry.references[place])
    }

    fn recent_page(&self, state: &State, reference: Reference, at: Position) -> Vec<Arc<Outgoing>> {
        let recent = state.hub.get(reference.topic).into_iter();
        let entries = recent.flat_map(|topic| recent::after(topic, at));
        let page = fitting(entries.cloned(), self.page_bytes_max());
        page.take(PAGE_ENTRIES_MAX).collect()
    }

    /// Lets a page be asked for again, after it could not be read or brought nothing.
    pub fn pull_again(&self, key: SessionKey, pull: &Pull) {
        let state = &mut *self.state.borrow_mut();
        if let Some((reader, at, urgency)) = state.awaiting(key, pull) {
            state.hub.member_mut(reader.reference).mode = Mode::pull(at, urgency);
            if let Some(entry) = state.sessions.get_mut(key) {
                entry.catch_up();
            }
        }
    }

    /// Queues the page that was asked for, tells what is gone before it, and goes live when the
    /// pages have reached what this worker has seen. A page that nobody waits for any more is
    /// dropped. Returns false when the page brought the session no further although it has not
    /// caught up: the history is behind the feed. The next page is then asked for only after
    /// [`Self::pull_again`], which the caller calls a little later.
    pub fn page(&self, key: SessionKey, pull: &Pull, page: &ReadPage, now_ms: u64) -> bool {
        let state = &mut *self.state.borrow_mut();
        let Some((reader, at, _)) = state.awaiting(key, pull) else {
            return true;
        };
        if page.gap == Some(GapReason::Failover)
            && let Some(base) = state.leads.base(key, reader.reference.topic, at)
        {
            self.go_back(state, key, &reader, &pull.topic, base);
            return true;
        }
        if let Some(reason) = page.gap {
            let bounds = reason.bounds(at, page.start);
            self.tell_gap(state, key, &reader, &pull.topic, bounds, reason);
        }
        let is_further = page.start != at || !page.messages.is_empty();
        if is_further || page.start >= reader.last {
            state.hub.member_mut(reader.reference).is_limited &= !pull.is_limited;
            let reached = page.messages.last().map_or(page.start, |m| m.position);
            if reached > pull.seen {
                state.leads.note(key, reader.reference.topic, pull.seen);
            }
            self.take(state, key, &reader, page.start, &page.messages, now_ms);
            return true;
        }
        false
    }

    /// Queues messages that follow `start`, and notes how far the session is then.
    fn take(
        &self,
        state: &mut State,
        key: SessionKey,
        reader: &Reader,
        start: Position,
        messages: &[Arc<Outgoing>],
        now_ms: u64,
    ) {
        let Some(entry) = state.sessions.get_mut(key) else {
            return;
        };
        for message in visible(messages, reader.id, now_ms) {
            let (topic, message) = (reader.reference.topic, Arc::clone(message));
            self.count(&message, 1, |counters| &counters.replayed);
            entry.outbox.push_message(topic, message, &mut state.spares);
        }
        let reached = messages.last().map_or(start, |m| m.position);
        // Not "the page was empty": a delivery may have passed this session by while the page was
        // on its way.
        let mode = &mut state.hub.member_mut(reader.reference).mode;
        *mode = match *mode {
            Mode::Pull { urgency, .. } if reached < reader.last => Mode::pull(reached, urgency),
            _ => Mode::Push { after: reached },
        };
    }

    pub(super) fn tell_gap(
        &self,
        state: &mut State,
        key: SessionKey,
        reader: &Reader,
        topic: &Topic,
        bounds: (Position, Option<Position>),
        reason: GapReason,
    ) {
        let gap = outgoing::gap(topic, bounds, reason, None);
        if let Some(entry) = state.sessions.get_mut(key) {
            let frame = encode::frame(reader.form, &Event::Gap(gap));
            let topic = reader.reference.topic;
            entry.outbox.push_notice(topic, frame, &mut state.spares);
            self.metrics.counters.gaps_told.add_owned(1);
        }
    }
}

impl State {
    pub(super) fn reader(&mut self, key: SessionKey, topic: &Topic) -> Option<Reader> {
        let entry = self.sessions.get(key)?;
        let topic_key = self.hub.find(topic)?;
        let topic = self.hub.get(topic_key)?;
        let (has_history, last) = (topic.has_history, topic.last.unwrap_or_default());
        let reference = *entry.references.iter().find(|r| r.topic == topic_key)?;
        Some(Reader {
            id: entry.id,
            form: entry.form,
            has_history,
            reference,
            last,
            mode: self.hub.member_mut(reference).mode,
        })
    }

    /// The reader that waits for this page, and for no other.
    fn awaiting(&mut self, key: SessionKey, pull: &Pull) -> Option<(Reader, Position, Priority)> {
        let reader = self.reader(key, &pull.topic)?;
        match reader.mode {
            Mode::Pull { at, asked, urgency } if asked == Some(pull.number) => {
                Some((reader, at, urgency))
            }
            _ => None,
        }
    }
}

/// What fits so many bytes in either wire form: the first in any case.
fn fitting(
    messages: impl Iterator<Item = Arc<Outgoing>>,
    bytes_max: usize,
) -> impl Iterator<Item = Arc<Outgoing>> {
    let mut bytes = 0_usize;
    messages.take_while(move |message| {
        let is_first = bytes == 0;
        bytes = bytes.saturating_add(message.longest());
        is_first || bytes <= bytes_max
    })
}

/// The messages of a page that a reader is shown: not those past their own end, not the reader's
/// own, and of the rest not those for which a newer one of the same conflation key stands. Only
/// what is shown stands for something.
fn visible(
    page: &[Arc<Outgoing>],
    reader: SessionId,
    now_ms: u64,
) -> impl Iterator<Item = &Arc<Outgoing>> {
    let mut stands = FxHashSet::default();
    let mut shown: Vec<_> = page
        .iter()
        .rev()
        .filter(|message| !message.has_ended(now_ms) && message.exclude() != Some(reader))
        .filter(|message| {
            message
                .conflation_key()
                .is_none_or(|key| stands.insert(key))
        })
        .collect();
    shown.reverse();
    shown.into_iter()
}
